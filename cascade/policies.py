"""Decide the next move from the trail. Pure: knows nothing of HTTP, models or time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from cascade import reasons
from cascade.types import (
    SKIP,
    Abstention,
    Accept,
    Answer,
    Ask,
    GiveUp,
    Move,
    Policy,
    Query,
    Trail,
    least_confidence,
    tiers_of,
)


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

    Where the cheapest tier is so unsure that a second one would hardly be sure enough either, the
    second is skipped: it would cost its price and the teacher's. An abstention below the teacher
    goes straight to the teacher too: whatever made the query unusual for one tier was not in the
    certified sample of the next.

    Parameters
    ----------
    thresholds : least confidence at which each tier below the teacher may answer, cheapest first;
        ``tier:label`` holds another one for that answer; ``SKIP`` the least confidence of the
        cheapest tier at which the next is asked. Exactly what a certificate certified.
    teacher : the last tier; its answer is always accepted.

    >>> ladder = Ladder({"proxy": 0.9, "small": 0.8, SKIP: 0.3}, teacher="large")
    >>> unsure, lost = Answer("proxy", "yes", 0.5), Answer("proxy", "yes", 0.1)
    >>> [ladder.decide(Query.from_text("?"), (said,)) for said in (unsure, lost)]
    [Ask(tier='small'), Ask(tier='large')]
    """

    thresholds: Mapping[str, float]
    teacher: str

    def decide(self, query: Query, trail: Trail) -> Move:
        """Look only at the last reply: everything before it was already found not enough."""
        if not trail:
            return Ask(self._order[0])
        last = trail[-1]
        if isinstance(last, Abstention):
            return self._after_abstention(last)
        if last.tier == self.teacher:
            return Accept(last, self._why_escalated(trail))
        if last.confidence >= least_confidence(self.thresholds, last.tier, last.text):
            return Accept(last, reasons.CERTIFIED)
        return Ask(self._above(last))

    @property
    def _order(self) -> list[str]:
        return [*tiers_of(self.thresholds), self.teacher]

    def _after_abstention(self, last: Abstention) -> Move:
        if last.tier == self.teacher:
            return GiveUp(last.reason, last.detail)
        return Ask(self.teacher)

    def _above(self, last: Answer) -> str:
        order = self._order
        place = order.index(last.tier)
        if place == 0 and last.confidence < self.thresholds.get(SKIP, 0.0):
            return self.teacher
        return order[place + 1]

    @staticmethod
    def _why_escalated(trail: Trail) -> str:
        for reply in trail:
            if isinstance(reply, Abstention):
                return reply.reason
        return reasons.BELOW_THRESHOLD


@dataclass(frozen=True)
class Hurried:
    """Another policy for a caller who cannot wait: no tier in between that would make it too late.

    A tier in between may turn out not sure enough, and then its time was spent before the teacher's
    begins. So it is asked only where both fit. The answer comes from the teacher instead, which a
    certificate counts as right. The first tier is always asked: it takes no time.

    Parameters
    ----------
    teacher : asked where there is no time; it may be late, but nobody else is good enough.
    seconds : the budget, of all tiers together.
    expected : seconds by tier, as learned; a tier that is absent takes none.

    >>> ladder = Ladder({"proxy": 0.9, "small": 0.8}, teacher="large")
    >>> hurried = Hurried(ladder, "large", 1.0, {"small": 2.0})
    >>> hurried.decide(Query.from_text("?"), (Answer("proxy", "yes", 0.5),))
    Ask(tier='large')
    """

    policy: Policy
    teacher: str
    seconds: float
    expected: Mapping[str, float]

    def decide(self, query: Query, trail: Trail) -> Move:
        """The other policy's move, if there is time for it."""
        move = self.policy.decide(query, trail)
        if self._too_late(move, trail):
            return Ask(self.teacher)
        if isinstance(move, Accept) and move.answer.tier == self.teacher:
            before = trail[:-1]
            if self._too_late(self.policy.decide(query, before), before):
                return Accept(move.answer, reasons.SLO)
        return move

    def _too_late(self, move: Move, trail: Trail) -> bool:
        if not trail or not isinstance(move, Ask) or move.tier == self.teacher:
            return False
        spent = sum(reply.usage.seconds for reply in trail)
        ahead = self.expected.get(move.tier, 0.0) + self.expected.get(self.teacher, 0.0)
        return spent + ahead > self.seconds
