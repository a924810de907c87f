"""Open a database and explain its failures. Knows URLs and transactions; knows no table."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, Table, create_engine, event, make_url
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from cascade.errors import MissingExtra, StoreError, UsageError

Insert = sqlite.Insert | postgresql.Insert

FORMS = "write sqlite:///data/cascade.db or postgresql+psycopg://user@host/name"

NEXT_STEPS = (
    ("disk is full", "the disk is full: free some space and run it again"),
    ("no space left", "the server's disk is full: free some space there and run it again"),
    ("disk i/o error", "the disk refused a write: is it full, or gone? then run it again"),
    ("is locked", "another process holds a lock: wait for it or stop it, then run it again"),
    ("lock timeout", "another session holds a lock: wait for it or end it, then run it again"),
    ("not a database", "this file is something else: name another path in the store URL"),
    ("malformed", "the file is damaged: restore a copy of it, or name another path"),
    ("unable to open", "no file can be opened there: check the path and its permissions"),
    ("readonly", "the file cannot be written: check its permissions"),
    ("connection", "no connection: is the server running, and is the store URL right?"),
)
"""What a driver says (in lower case) and what its reader should do."""


class Database:
    """SQLite (WAL, synchronous=FULL) or PostgreSQL: what is committed survives a crash.

    Safe to share between threads. Every failure leaves as ``StoreError`` with the next step.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        # SQLite has one writer at a time and lets the others poll without a queue: under load one
        # of this process's own threads would starve until it gave up
        self._turn = threading.Lock() if self.dialect == "sqlite" else nullcontext()

    @property
    def dialect(self) -> str:
        """``sqlite`` or ``postgresql``."""
        return self._engine.dialect.name

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Look, and change nothing; whoever writes meanwhile is not waited for.

        Raises
        ------
        StoreError
            The database refused.
        """
        try:
            with self._engine.begin() as connection:
                yield connection
        except SQLAlchemyError as exc:
            raise StoreError(f"store {self._engine.url}: {next_step(exc)}") from exc

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """Commit on leaving, roll back on an exception.

        Raises
        ------
        StoreError
            The database refused; nothing of this transaction was kept.
        """
        with self._turn, self.reading() as connection:
            yield connection

    def insert(self, table: Table) -> Insert:
        """An insert that knows ``on_conflict_do_nothing`` and ``on_conflict_do_update``."""
        if self.dialect == "sqlite":
            return sqlite.insert(table)
        return postgresql.insert(table)

    def close(self) -> None:
        """Let go of every connection."""
        self._engine.dispose()


def open_database(url: str, wait_seconds: float) -> Database:
    """Prepare an engine; the first transaction connects.

    Parameters
    ----------
    url : ``sqlite:///path`` (missing folders are made) or ``postgresql+psycopg://...``.
    wait_seconds : how long to wait for a lock or a connection before giving up.

    Raises
    ------
    UsageError
        Not such a URL.
    MissingExtra
        PostgreSQL without its driver.
    StoreError
        The folder of a SQLite file cannot be made.
    """
    parsed = read_url(url)
    if parsed.get_backend_name() == "sqlite":
        return Database(_sqlite_engine(parsed, wait_seconds))
    return Database(_postgres_engine(parsed, wait_seconds))


def next_step(error: Exception) -> str:
    """One sentence for a driver's error.

    >>> next_step(Exception("(sqlite3.OperationalError) database or disk is full"))
    'the disk is full: free some space and run it again'
    >>> next_step(Exception("something new"))
    'something new'
    """
    said = str(getattr(error, "orig", None) or error)
    steps = (step for needle, step in NEXT_STEPS if needle in said.lower())
    return next(steps, said.partition("\n")[0])


def read_url(url: str) -> URL:
    """The URL with the one driver that each kind of database has here. Opens and makes nothing.

    Raises
    ------
    UsageError
        Not such a URL, or a database that would not outlive the process.
    """
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError) as exc:
        # the URL is not repeated: it may hold a password where nothing can hide it
        raise UsageError(f"the store is not a database URL: {FORMS}") from exc
    drivers = {"sqlite": "sqlite", "postgresql": "postgresql+psycopg"}
    backend = parsed.get_backend_name()
    if backend not in drivers:
        raise UsageError(f"a store cannot be kept in {backend!r}: {FORMS}")
    if backend == "sqlite" and _in_memory(parsed):
        raise UsageError(f"labels in {url!r} would be lost, so a store is a file: {FORMS}")
    return parsed.set(drivername=drivers[backend])


def _in_memory(url: URL) -> bool:
    path = url.database or ":memory:"
    return path == ":memory:" or path.startswith("file:")


def _sqlite_engine(url: URL, wait_seconds: float) -> Engine:
    try:
        Path(url.database or "").parent.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise StoreError(f"store {url}: its folder cannot be made ({exc.strerror})") from exc
    engine = create_engine(url, connect_args={"timeout": wait_seconds}, pool_timeout=wait_seconds)
    event.listen(engine, "connect", _make_durable)
    return engine


def _make_durable(connection: sqlite3.Connection, _record: Any) -> None:
    """WAL lets readers go on beside a writer; FULL syncs the log before a commit returns."""
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")


def _postgres_engine(url: URL, wait_seconds: float) -> Engine:
    try:
        engine = create_engine(
            url,
            connect_args={"connect_timeout": max(2, round(wait_seconds))},
            pool_timeout=wait_seconds,
            pool_pre_ping=True,
        )
    except ImportError as exc:
        raise MissingExtra("a PostgreSQL store", "postgres") from exc

    def wait_for_locks(connection: DBAPIConnection, _record: Any) -> None:
        # not a start-up option: connection poolers refuse those
        connection.cursor().execute(f"SET lock_timeout = {round(wait_seconds * 1000)}")
        connection.commit()

    event.listen(engine, "connect", wait_for_locks)
    return engine
