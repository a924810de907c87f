"""Doubles for programs that use Cascade: tiers that say what they are told to say."""

from __future__ import annotations

from collections.abc import Mapping

from cascade import reasons
from cascade.types import Abstention, Answer, Query, Reply, Usage


class FakeTier:
    """A tier with fixed answers; it abstains as ``tier_unavailable`` for a text it was not told.

    >>> import asyncio
    >>> tier = FakeTier("proxy", {"easy": ("yes", 0.99)})
    >>> asyncio.run(tier.answer([Query.from_text("easy")]))[0].text
    'yes'
    """

    def __init__(
        self, name: str, answers: Mapping[str, tuple[str, float]], usage: Usage | None = None
    ) -> None:
        self.name = name
        self.asked: list[str] = []
        self._answers = answers
        self._usage = usage or Usage()

    async def answer(self, queries: list[Query]) -> list[Reply]:
        """What was promised for each text, in order."""
        self.asked += [query.text or "" for query in queries]
        return [self._reply(query.text or "") for query in queries]

    def _reply(self, text: str) -> Reply:
        if text not in self._answers:
            return Abstention(self.name, reasons.TIER_UNAVAILABLE, self._usage)
        label, confidence = self._answers[text]
        return Answer(self.name, label, confidence, self._usage)
