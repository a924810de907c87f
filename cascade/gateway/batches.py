"""Ask a tier in batches: whatever arrived while it was busy goes into its next call.

No timer: an idle tier is asked at once, a busy one gets as much as has gathered. So a lone request
waits for nobody, and a crowd costs one call instead of many threads.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass

from cascade.types import Query, Reply, Tier

MOST_QUERIES = 16
"""On a CPU a text costs the same in any batch (proxy.py), and all wait for the largest to end."""


@dataclass(frozen=True)
class Order:
    """Queries of one caller, and where the caller waits for the replies."""

    queries: list[Query]
    replies: asyncio.Future[list[Reply]]


class Batched:
    """A tier with the same answers, asked once at a time.

    >>> from cascade.testing import FakeTier
    >>> tier = Batched(FakeTier("proxy", {"easy": ("yes", 0.99)}))
    >>> asyncio.run(tier.answer([Query.from_text("easy")]))[0].text
    'yes'
    """

    def __init__(self, tier: Tier, most: int = MOST_QUERIES) -> None:
        self.name = tier.name
        self._tier = tier
        self._most = most
        self._orders: deque[Order] = deque()
        self._worker: asyncio.Task[None] | None = None

    async def answer(self, queries: list[Query]) -> list[Reply]:
        """The tier's replies, in order. A caller who leaves takes nobody else along."""
        order = Order(queries, asyncio.get_running_loop().create_future())
        self._orders.append(order)
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._work())
        return await order.replies

    async def _work(self) -> None:
        while self._orders:
            await self._serve(self._next())

    def _next(self) -> list[Order]:
        """The oldest orders that fit together; at least one, however large."""
        batch = [self._orders.popleft()]
        size = len(batch[0].queries)
        while self._orders and size + len(self._orders[0].queries) <= self._most:
            batch.append(self._orders.popleft())
            size += len(batch[-1].queries)
        return batch

    async def _serve(self, batch: list[Order]) -> None:
        batch = [order for order in batch if not order.replies.done()]
        queries = [query for order in batch for query in order.queries]
        try:
            replies = await self._tier.answer(queries) if queries else []
        except Exception as exc:  # every caller learns of it; the worker goes on
            for order in batch:
                _fail(order, exc)
            return
        rest = iter(replies)
        for order in batch:
            own = [next(rest) for _ in order.queries]
            if not order.replies.done():
                order.replies.set_result(own)


def _fail(order: Order, error: Exception) -> None:
    if not order.replies.done():
        order.replies.set_exception(error)
