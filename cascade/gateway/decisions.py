"""Write decisions behind the caller's back. Knows a queue and a writer; knows no database.

An answer never waits for its record: a full queue loses the record, counts it and says so.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence

from cascade.errors import StoreError
from cascade.gateway.observe import Metrics
from cascade.store import DecisionRecord

logger = logging.getLogger(__name__)

CAPACITY = 20_000
"""Records: about 20 MB, a minute of a busy gateway without its database."""

BATCH = 500
RETRY_SECONDS = 1.0
GATHER_SECONDS = 0.02
"""A record waits for others: a transaction of one costs the CPU time of thirty. It is also what a
killed process may lose."""

Write = Callable[[Sequence[DecisionRecord]], None]
"""Durable on return; blocking; raises StoreError and keeps nothing."""


class Outbox:
    """Records on their way to the store."""

    def __init__(self, write: Write, metrics: Metrics, capacity: int = CAPACITY) -> None:
        self._write = write
        self._capacity = capacity
        self._dropped = metrics.dropped.of("decision")
        self._pending: deque[DecisionRecord] = deque()
        self._filled = asyncio.Event()
        self._writing = asyncio.Lock()
        self._losing = False

    def put(self, record: DecisionRecord) -> None:
        """Queue a record; returns at once."""
        if len(self._pending) >= self._capacity:
            self._lose(1)
            return
        self._pending.append(record)
        self._filled.set()

    async def run(self) -> None:
        """Write for ever; a store that fails is asked again and again, with the same records."""
        while True:
            await self._filled.wait()
            await asyncio.sleep(GATHER_SECONDS)
            self._filled.clear()
            while self._pending:
                if not await self._write_batch():
                    await asyncio.sleep(RETRY_SECONDS)

    async def drain(self, seconds: float) -> None:
        """Write what is left; what the store refuses until ``seconds`` are over is lost."""
        deadline = asyncio.get_running_loop().time() + seconds
        while self._pending and asyncio.get_running_loop().time() < deadline:
            if not await self._write_batch():
                await asyncio.sleep(min(RETRY_SECONDS, seconds / 10))
        if self._pending:
            self._lose(len(self._pending))
            self._pending.clear()

    async def _write_batch(self) -> bool:
        """Write the oldest records; they leave the queue only when they are durable."""
        async with self._writing:
            batch = [self._pending[i] for i in range(min(BATCH, len(self._pending)))]
            try:
                await asyncio.to_thread(self._write, batch)
            except StoreError as exc:
                logger.warning("decisions are not written: %s", exc)
                return False
            for _ in batch:
                self._pending.popleft()
        self._losing = False
        return True

    def _lose(self, records: int) -> None:
        self._dropped.inc(records)
        if not self._losing:  # once an outage, not once a record
            logger.error("the store does not keep up: decisions are lost (cascade_dropped_total)")
        self._losing = True
