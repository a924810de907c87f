"""Answers that the teacher is asked to check. Knows their propensities; judges no policy.

An audit is opened before its teacher is asked and settled after. One whose teacher call failed
stays pending: it must never pass for an agreement.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import Select, select, update

from cascade.errors import StoreError
from cascade.store.database import Database
from cascade.store.schema import audits


@dataclass(frozen=True, slots=True)
class AuditRecord:
    """One answer below the teacher that is being checked.

    decision_id : the decision it checks; at most one audit a decision.
    at, settled_at : Unix seconds; ``settled_at`` is None while the audit is pending.
    tier, answer : who answered below the teacher, and what.
    propensity : the chance with which this answer was chosen for an audit, in (0, 1].
    teacher_answer : None while pending, and when the teacher's completion was unreadable.
    text : what was asked; None unless the operator opted in.
    """

    decision_id: str
    at: float
    task: str
    tier: str
    answer: str
    propensity: float
    proxy_version: str | None = None
    text: str | None = None
    teacher_answer: str | None = None
    settled_at: float | None = None

    @property
    def wrong(self) -> bool | None:
        """Whether the teacher disagreed; None while pending.

        >>> AuditRecord("d", 0.0, "t", "proxy", "yes", 0.01).wrong
        >>> AuditRecord("d", 0.0, "t", "proxy", "yes", 0.01, settled_at=1.0).wrong
        True
        """
        return None if self.settled_at is None else self.answer != self.teacher_answer


class AuditStore:
    """Audits, pending and settled."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def open(self, audit: AuditRecord) -> None:
        """Keep a pending audit; opening it again changes nothing."""
        with self._database.writing() as connection:
            insert = self._database.insert(audits)
            connection.execute(insert.values(asdict(audit)).on_conflict_do_nothing())

    def settle(self, decision_id: str, teacher_answer: str | None, at: float) -> bool:
        """Write down what the teacher said; ``None`` for unreadable, which counts as wrong.

        Returns
        -------
        bool
            Whether this call settled it. False when it was settled before: of two gateways that
            share a store, only one may feed its monitor.

        Raises
        ------
        StoreError
            No such audit was opened.
        """
        this = audits.c.decision_id == decision_id
        settling = update(audits).where(this, audits.c.settled_at.is_(None))
        with self._database.writing() as connection:
            done = connection.execute(settling.values(teacher_answer=teacher_answer, settled_at=at))
            known = connection.scalar(select(audits.c.task).where(this))
        if known is None:
            raise StoreError(f"audit {decision_id} was never opened: open it before settling it")
        return done.rowcount == 1

    def pending(self, task: str, limit: int) -> list[AuditRecord]:
        """The oldest audits whose teacher has not answered yet."""
        query = select(audits).where(audits.c.task == task, audits.c.settled_at.is_(None))
        return self._read(query.order_by(audits.c.at, audits.c.decision_id).limit(limit))

    def settled(self, task: str, limit: int) -> list[AuditRecord]:
        """The audits that were settled last, newest first."""
        query = select(audits).where(audits.c.task == task, audits.c.settled_at.is_not(None))
        newest = audits.c.settled_at.desc(), audits.c.decision_id
        return self._read(query.order_by(*newest).limit(limit))

    def _read(self, query: Select[Any]) -> list[AuditRecord]:
        with self._database.reading() as connection:
            return [AuditRecord(**row._mapping) for row in connection.execute(query)]
