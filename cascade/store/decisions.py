"""What the gateway decided, one record a request. Knows no HTTP; texts come only by opt-in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from sqlalchemy import select

from cascade.store.database import Database
from cascade.store.schema import decisions


@dataclass(frozen=True, slots=True)
class DecisionRecord:
    """One request and its fate.

    at : Unix seconds.
    tier, model, label, confidence : None when nobody answered.
    seconds : from request to answer; ``overhead_seconds`` is the part no tier is to blame for.
    dollars, tokens : of every tier that was asked, together.
    text : what was asked; None unless the operator opted in.
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


class DecisionStore:
    """The log of decisions; made for one background writer that appends in batches."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def append(self, records: Sequence[DecisionRecord]) -> None:
        """Keep a batch, all or nothing; one that was half sent may be sent again."""
        if not records:
            return
        rows = [asdict(record) for record in records]
        with self._database.writing() as connection:
            connection.execute(self._database.insert(decisions).on_conflict_do_nothing(), rows)

    def get(self, id: str) -> DecisionRecord | None:
        """One decision, if it is known."""
        query = select(decisions).where(decisions.c.id == id)
        with self._database.reading() as connection:
            row = connection.execute(query).one_or_none()
        return DecisionRecord(**row._mapping) if row else None

    def recent(
        self, limit: int, task: str | None = None, *, tenant: str | None = None
    ) -> list[DecisionRecord]:
        """The newest decisions first, at most ``limit``; of one task or tenant where given."""
        query = select(decisions).order_by(decisions.c.at.desc(), decisions.c.id).limit(limit)
        if task is not None:
            query = query.where(decisions.c.task == task)
        if tenant is not None:
            query = query.where(decisions.c.tenant == tenant)
        with self._database.reading() as connection:
            return [DecisionRecord(**row._mapping) for row in connection.execute(query)]
