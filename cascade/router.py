"""The one loop: ask, append, stop. Knows tiers and a policy; knows no HTTP and no model."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cascade.types import Accept, Ask, Decision, GiveUp, Policy, Query, Reply, Tier, Trail


@dataclass(frozen=True)
class Router:
    """Route queries through tiers as a policy says.

    >>> from cascade.policies import Ladder
    >>> from cascade.testing import FakeTier
    >>> proxy = FakeTier("proxy", {"easy": ("yes", 0.99), "hard": ("yes", 0.6)})
    >>> large = FakeTier("large", {"hard": ("no", 1.0)})
    >>> router = Router({"proxy": proxy, "large": large}, Ladder({"proxy": 0.9}, teacher="large"))
    >>> queries = [Query.from_text("easy"), Query.from_text("hard")]
    >>> [decision.answer.tier for decision in asyncio.run(router.route_many(queries))]
    ['proxy', 'large']
    """

    tiers: Mapping[str, Tier]
    policy: Policy

    async def route(self, query: Query) -> Decision:
        """Decide one query."""
        (decision,) = await self.route_many([query])
        return decision

    async def route_many(self, queries: Sequence[Query]) -> list[Decision]:
        """Decide many queries: a tier is asked once a round, for all queries that need it."""
        queries = list(queries)
        trails: list[Trail] = [() for _ in queries]
        decisions: dict[int, Decision] = {}
        while len(decisions) < len(queries):
            asks: dict[str, list[int]] = defaultdict(list)
            for i, query in enumerate(queries):
                if i in decisions:
                    continue
                move = self.policy.decide(query, trails[i])
                if isinstance(move, Ask):
                    asks[move.tier].append(i)
                else:
                    decisions[i] = _decision(query, trails[i], move)
            for i, reply in await self._ask(asks, queries):
                trails[i] = (*trails[i], reply)
        return [decisions[i] for i in range(len(queries))]

    async def _ask(
        self, asks: Mapping[str, list[int]], queries: Sequence[Query]
    ) -> list[tuple[int, Reply]]:
        """Every tier's replies, all tiers at the same time."""
        replies = await asyncio.gather(
            *(self.tiers[tier].answer([queries[i] for i in rows]) for tier, rows in asks.items())
        )
        rows = [i for group in asks.values() for i in group]
        return list(zip(rows, (reply for group in replies for reply in group), strict=True))


def _decision(query: Query, trail: Trail, move: Accept | GiveUp) -> Decision:
    if isinstance(move, Accept):
        return Decision(query, move.answer, trail, move.reason)
    return Decision(query, None, trail, move.reason, move.detail)
