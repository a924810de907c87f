"""What a gateway must remember over a restart: monitors and switches, by task.

Knows no monitor's inside and no switch's meaning.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import msgspec
from sqlalchemy import delete, select

from cascade.store.database import Database
from cascade.store.schema import flags, monitors


class MonitorStore:
    """One JSON state a task."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def save(self, task: str, state: dict[str, Any]) -> None:
        """Replace the task's state."""
        written = msgspec.json.encode(state).decode()
        insert = self._database.insert(monitors).values(task=task, state=written)
        with self._database.writing() as connection:
            connection.execute(
                insert.on_conflict_do_update(index_elements=["task"], set_={"state": written})
            )

    def load(self, task: str) -> dict[str, Any] | None:
        """The task's state; None before the first one, which is not the same as an empty one."""
        query = select(monitors.c.state).where(monitors.c.task == task)
        with self._database.reading() as connection:
            written = connection.scalar(query)
        return None if written is None else msgspec.json.decode(written, type=dict[str, Any])


class FlagStore:
    """Small named values by task: an operator's off switch, a monitor's demotion."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def set(self, task: str, name: str, value: str) -> None:
        """Raise a flag, or change its value."""
        insert = self._database.insert(flags).values(task=task, name=name, value=value)
        with self._database.writing() as connection:
            connection.execute(
                insert.on_conflict_do_update(index_elements=["task", "name"], set_={"value": value})
            )

    def clear(self, task: str, name: str) -> None:
        """Take a flag down; one that is not up is no error."""
        gone = delete(flags).where(flags.c.task == task, flags.c.name == name)
        with self._database.writing() as connection:
            connection.execute(gone)

    def all(self) -> dict[str, dict[str, str]]:
        """Every flag that is up: task, then name, then value."""
        up: dict[str, dict[str, str]] = defaultdict(dict)
        with self._database.reading() as connection:
            for row in connection.execute(select(flags)):
                up[row.task][row.name] = row.value
        return dict(up)
