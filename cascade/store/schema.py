"""The tables and their version. Knows columns; knows nobody who reads or writes them."""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    Column,
    Connection,
    Dialect,
    Double,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    delete,
    select,
    text,
)
from sqlalchemy.schema import CreateIndex, CreateTable
from sqlalchemy.types import TypeDecorator

from cascade.errors import StoreError
from cascade.store.database import Database

SCHEMA_VERSION = 2
"""Raise it by one whenever a table changes, and give ``UPGRADES`` the statements that bring a store
of the version before up to it. A newer store is refused, so programs go first, stores second."""

UPGRADES = {1: ("ALTER TABLE cascade_decisions ADD COLUMN trail TEXT",)}
"""From each earlier version to the next one, in SQL that both databases understand."""

ONE_AT_A_TIME = 0x0CA5CADE
"""PostgreSQL advisory lock: two first starts at once must not both create the tables."""


class CleanText(TypeDecorator[str]):
    """Text that any database takes.

    A NUL or half a surrogate pair is refused by a driver, and one such request would take the
    whole batch of its neighbours with it.

    >>> CleanText().process_bind_param("a" + chr(0) + chr(0xD800), None)
    'a\ufffd?'
    """

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect | None) -> str | None:
        """Replace what cannot be stored."""
        if value is None:
            return None
        text = str(value)
        if text.isascii() and "\x00" not in text:  # nearly all are, and there are many a request
            return text
        return text.encode("utf-8", "replace").decode().replace("\x00", "\ufffd")


metadata = MetaData()

schema = Table("cascade_schema", metadata, Column("version", Integer, primary_key=True))

labels = Table(
    "cascade_labels",
    metadata,
    Column("task_digest", Text),
    Column("teacher", CleanText),
    Column("text_sha256", Text),
    Column("answer", CleanText),  # null: the teacher's completion was unreadable
    Column("scores", Text, nullable=False),  # JSON list, in the task's label order
    Column("prompt_tokens", Integer, nullable=False),
    Column("cached_tokens", Integer, nullable=False),
    Column("output_tokens", Integer, nullable=False),
    Column("seconds", Double, nullable=False),
    Column("dollars", Double, nullable=False),
    Column("bought_at", Double, nullable=False),
    PrimaryKeyConstraint("task_digest", "teacher", "text_sha256"),
)

decisions = Table(
    "cascade_decisions",
    metadata,
    Column("id", CleanText, primary_key=True),
    Column("at", Double, nullable=False),
    Column("task", CleanText, nullable=False),
    Column("tenant", CleanText, nullable=False),
    Column("reason", Text, nullable=False),
    Column("tier", CleanText),  # null: nobody answered
    Column("model", CleanText),
    Column("proxy_version", CleanText),
    Column("label", CleanText),
    Column("confidence", Double),
    Column("prompt_tokens", Integer, nullable=False),
    Column("cached_tokens", Integer, nullable=False),
    Column("output_tokens", Integer, nullable=False),
    Column("seconds", Double, nullable=False),
    Column("overhead_seconds", Double, nullable=False),
    Column("dollars", Double, nullable=False),
    Column("text", CleanText),  # only by opt-in
    Column("trail", Text),  # JSON list: what each tier said; null where nobody kept it
    Index("cascade_decisions_by_time", "at"),
    Index("cascade_decisions_by_task", "task", "at"),
)

audits = Table(
    "cascade_audits",
    metadata,
    Column("decision_id", CleanText, primary_key=True),
    Column("at", Double, nullable=False),
    Column("task", CleanText, nullable=False),
    Column("proxy_version", CleanText),
    Column("tier", CleanText, nullable=False),
    Column("answer", CleanText, nullable=False),
    Column("propensity", Double, nullable=False),
    Column("text", CleanText),  # only by opt-in
    Column("teacher_answer", CleanText),  # null while pending, and when it was unreadable
    Column("settled_at", Double),  # null: pending
    Index("cascade_audits_by_task", "task", "at"),
)

monitors = Table(
    "cascade_monitors",
    metadata,
    Column("task", CleanText, primary_key=True),
    Column("state", Text, nullable=False),  # JSON
)

attempts = Table(
    "cascade_attempts",
    metadata,
    Column("task", CleanText),
    Column("place", Integer),  # from 0, in the order of opening
    Column("digest", Text, nullable=False),
    PrimaryKeyConstraint("task", "place"),
    UniqueConstraint("task", "digest"),
)

flags = Table(
    "cascade_flags",
    metadata,
    Column("task", CleanText),
    Column("name", Text),
    Column("value", CleanText, nullable=False),
    PrimaryKeyConstraint("task", "name"),
)


def create(database: Database) -> None:
    """Make whatever is missing; several processes may do so at the same time.

    Raises
    ------
    StoreError
        A newer Cascade made this store, or the database refused.
    """
    with database.writing() as connection:
        if database.dialect == "postgresql":
            connection.execute(text(f"SELECT pg_advisory_xact_lock({ONE_AT_A_TIME})"))
        connection.execute(CreateTable(schema, if_not_exists=True))
        connection.execute(
            database.insert(schema).values(version=SCHEMA_VERSION).on_conflict_do_nothing()
        )
        _refuse_newer(max(connection.scalars(select(schema.c.version))))
        _upgrade(connection)
        for table in metadata.sorted_tables:
            connection.execute(CreateTable(table, if_not_exists=True))
            for index in sorted(table.indexes, key=lambda one: str(one.name)):
                connection.execute(CreateIndex(index, if_not_exists=True))


def _upgrade(connection: Connection) -> None:
    """Step by step from the version that the store had; nothing where it is new."""
    older = schema.c.version < SCHEMA_VERSION
    for found in list(connection.scalars(select(schema.c.version).where(older))):
        for version in range(found, SCHEMA_VERSION):
            for statement in UPGRADES[version]:
                connection.execute(text(statement))
    connection.execute(delete(schema).where(older))


def _refuse_newer(found: int) -> None:
    if found > SCHEMA_VERSION:
        raise StoreError(
            f"this store has schema {found} and this Cascade knows only {SCHEMA_VERSION}: "
            "pip install --upgrade cascade-router"
        )
