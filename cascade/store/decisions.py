"""What the gateway decided, one record a request. Knows no HTTP; texts come only by opt-in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, Row, func, or_, select

from cascade.store.database import Database
from cascade.store.schema import CleanText, decisions


class Said(msgspec.Struct, frozen=True, omit_defaults=True):
    """What one tier said on the way to a decision.

    label, confidence : None when it abstained; then ``reason`` says why.
    needed : the least confidence at which this answer might stand; None where any might.
    worth_next : the least confidence at which a second tier below the teacher is asked; None
        where there is no such limit.
    """

    tier: str
    seconds: float
    dollars: float
    label: str | None = None
    confidence: float | None = None
    reason: str | None = None
    needed: float | None = None
    worth_next: float | None = None


class DecisionRecord(msgspec.Struct, frozen=True):
    """One request and its fate.

    at : Unix seconds.
    tier, model, label, confidence : None when nobody answered.
    seconds : from request to answer; ``overhead_seconds`` is the part no tier is to blame for.
    dollars, tokens : of every tier that was asked, together.
    text : what was asked; None unless the operator opted in.
    trail : what each tier said, in the order they were asked; empty where nothing was decided.
    """

    id: str
    at: float
    task: str
    reason: str
    tenant: str = ""
    tier: str | None = None
    model: str | None = None
    proxy_version: str | None = None
    label: str | None = None
    confidence: float | None = None
    prompt_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    seconds: float = 0.0
    overhead_seconds: float = 0.0
    dollars: float = 0.0
    text: str | None = None
    trail: tuple[Said, ...] = ()


class DecisionStore:
    """The log of decisions; made for one background writer that appends in batches."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def append(self, records: Sequence[DecisionRecord]) -> None:
        """Keep a batch, all or nothing; one that was half sent may be sent again."""
        if not records:
            return
        rows = list(map(_row, records))
        with self._database.writing() as connection:
            connection.execute(self._database.insert(decisions).on_conflict_do_nothing(), rows)

    def get(self, id: str) -> DecisionRecord | None:
        """One decision, if it is known."""
        query = select(decisions).where(decisions.c.id == id)
        with self._database.reading() as connection:
            row = connection.execute(query).one_or_none()
        return _record(row) if row else None

    def recent(
        self, limit: int, task: str | None = None, *, tenant: str | None = None
    ) -> list[DecisionRecord]:
        """The newest decisions first, at most ``limit``; of one task or tenant where given.

        tenant : with everything below it, ``tenant/...``.
        """
        query = select(decisions).order_by(decisions.c.at.desc(), decisions.c.id).limit(limit)
        if task is not None:
            query = query.where(decisions.c.task == task)
        if tenant is not None:
            query = query.where(_of_tenant(tenant))
        with self._database.reading() as connection:
            return [_record(row) for row in connection.execute(query)]

    def spent(self, since: float, until: float) -> dict[str, float]:
        """Dollars by tenant of the decisions at Unix seconds [since, until)."""
        theirs = decisions.c.at >= since, decisions.c.at < until
        query = select(decisions.c.tenant, func.sum(decisions.c.dollars)).where(*theirs)
        with self._database.reading() as connection:
            found = connection.execute(query.group_by(decisions.c.tenant))
            return {tenant: float(dollars) for tenant, dollars in found}


def _row(record: DecisionRecord) -> dict[str, Any]:
    row = msgspec.structs.asdict(record)
    row["trail"] = msgspec.json.encode(record.trail).decode() if record.trail else None
    return row


def _record(row: Row[Any]) -> DecisionRecord:
    fields = dict(row._mapping)
    trail = msgspec.json.decode(fields.pop("trail") or "[]", type=tuple[Said, ...])
    return DecisionRecord(**fields, trail=trail)


def _of_tenant(tenant: str) -> ColumnElement[bool]:
    """Not LIKE: SQLite's does not tell upper case from lower, and these are different tenants."""
    below = f"{tenant}/"
    beginning = func.substr(decisions.c.tenant, 1, len(below), type_=CleanText)
    return or_(decisions.c.tenant == tenant, beginning == below)
