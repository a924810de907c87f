"""How often a task was put to the test. Knows digests; nothing of what came of an audit."""

from __future__ import annotations

from sqlalchemy import func, select

from cascade.store.database import Database
from cascade.store.schema import attempts


class AttemptStore:
    """The audits that were opened for each task, in their order."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def open(self, task: str, digest: str) -> int:
        """Count an audit before its first label is bought; opening it again changes nothing.

        Parameters
        ----------
        digest : of everything that its outcome hangs on, so that an audit that is resumed is the
            same one.

        Returns
        -------
        int
            How many others of the task were opened before it.
        """
        mine = attempts.c.task == task, attempts.c.digest == digest
        count = select(func.count()).where(attempts.c.task == task)
        while True:
            with self._database.writing() as connection:
                place = connection.scalar(select(attempts.c.place).where(*mine))
                if place is not None:
                    return int(place)
                # of two processes that want the same place one gets it; the other looks again
                row = {"task": task, "digest": digest, "place": connection.scalar(count)}
                insert = self._database.insert(attempts).values(row)
                connection.execute(insert.on_conflict_do_nothing())
