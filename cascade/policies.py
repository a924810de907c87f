"""Decide the next move from the trail. Pure: knows nothing of HTTP, models or time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from cascade import reasons
from cascade.types import Abstention, Accept, Answer, Ask, GiveUp, Move, Query, Trail


@dataclass(frozen=True)
class Straight:
    """Ask one tier and take what it says: a forced tier, or a task without a champion.

    >>> Straight("large", reasons.FORCED).decide(Query.from_text("?"), ())
    Ask(tier='large')
    """

    tier: str
    reason: str

    def decide(self, query: Query, trail: Trail) -> Move:
        """Ask, then accept; give up when the tier abstained."""
        if not trail:
            return Ask(self.tier)
        last = trail[-1]
        if isinstance(last, Abstention):
            return GiveUp(last.reason, last.detail)
        return Accept(last, self.reason)


@dataclass(frozen=True)
class Ladder:
    """Cheapest tier first; accept an answer that is confident enough, else climb.

    An abstention below the teacher goes straight to the teacher: whatever made the query unusual
    for one tier was not in the certified sample of the next.

    Parameters
    ----------
    thresholds : least confidence at which each tier below the teacher may answer, cheapest first.
    teacher : the last tier; its answer is always accepted.
    """

    thresholds: Mapping[str, float]
    teacher: str

    def decide(self, query: Query, trail: Trail) -> Move:
        """Look only at the last reply: everything before it was already found not enough."""
        if not trail:
            return Ask([*self.thresholds, self.teacher][0])
        last = trail[-1]
        if isinstance(last, Abstention):
            return self._after_abstention(last)
        if last.tier == self.teacher:
            return Accept(last, self._why_escalated(trail))
        if last.confidence >= self.thresholds[last.tier]:
            return Accept(last, reasons.CERTIFIED)
        return Ask(self._above(last))

    def _after_abstention(self, last: Abstention) -> Move:
        if last.tier == self.teacher:
            return GiveUp(last.reason, last.detail)
        return Ask(self.teacher)

    def _above(self, last: Answer) -> str:
        order = [*self.thresholds, self.teacher]
        return order[order.index(last.tier) + 1]

    @staticmethod
    def _why_escalated(trail: Trail) -> str:
        for reply in trail:
            if isinstance(reply, Abstention):
                return reply.reason
        return reasons.BELOW_THRESHOLD
