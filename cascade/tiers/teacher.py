"""The tier whose answers are right by definition. Knows no model."""

from __future__ import annotations

from dataclasses import replace

from cascade.types import Answer, Query, Reply, Tier


class Teacher:
    """Any tier as the teacher: P(the teacher would say the same) is 1. Keeps the tier's name.

    >>> import asyncio
    >>> from cascade.testing import FakeTier
    >>> teacher = Teacher(FakeTier("large", {"good": ("yes", 0.7)}))
    >>> asyncio.run(teacher.answer([Query.from_text("good")]))[0].confidence
    1.0
    """

    def __init__(self, tier: Tier) -> None:
        self.name = tier.name
        self._tier = tier

    async def answer(self, queries: list[Query]) -> list[Reply]:
        """The tier's replies; its abstentions stay abstentions."""
        replies = await self._tier.answer(queries)
        return [_certain(reply) for reply in replies]


def _certain(reply: Reply) -> Reply:
    return replace(reply, confidence=1.0) if isinstance(reply, Answer) else reply
