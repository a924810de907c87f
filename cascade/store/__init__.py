"""Keep what was bought and what was decided, in SQLite or PostgreSQL. Knows no model.

Nothing counts before it is durable: every method that writes has committed when it returns.
"""

from __future__ import annotations

from types import TracebackType

from cascade.store.attempts import AttemptStore
from cascade.store.audits import AuditRecord, AuditStore
from cascade.store.database import Database, open_database
from cascade.store.decisions import DecisionRecord, DecisionStore, Said
from cascade.store.labels import Label, LabelKey, LabelStore, Spent, task_digest
from cascade.store.schema import create
from cascade.store.states import FlagStore, MonitorStore

__all__ = [
    "AttemptStore",
    "AuditRecord",
    "AuditStore",
    "DecisionRecord",
    "DecisionStore",
    "FlagStore",
    "Label",
    "LabelKey",
    "LabelStore",
    "MonitorStore",
    "Said",
    "Spent",
    "Store",
    "open_store",
    "task_digest",
]


class Store:
    """Everything that outlives a process. Blocking, and safe to share between threads."""

    def __init__(self, database: Database) -> None:
        self.labels = LabelStore(database)
        self.decisions = DecisionStore(database)
        self.audits = AuditStore(database)
        self.attempts = AttemptStore(database)
        self.monitors = MonitorStore(database)
        self.flags = FlagStore(database)
        self._database = database

    def close(self) -> None:
        """Let go of every connection."""
        self._database.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def open_store(url: str, *, wait_seconds: float = 30.0) -> Store:
    """Open a store, and make its file, folders and tables where they are missing.

    Parameters
    ----------
    url : ``sqlite:///data/cascade.db`` or ``postgresql+psycopg://user@host/name``.
    wait_seconds : how long to wait for a lock or a connection before giving up.

    Raises
    ------
    UsageError
        Not such a URL.
    MissingExtra
        PostgreSQL without its driver.
    StoreError
        No connection, no permission, a full disk, or a newer Cascade's store.
    """
    database = open_database(url, wait_seconds)
    try:
        create(database)
    except BaseException:
        database.close()
        raise
    return Store(database)
