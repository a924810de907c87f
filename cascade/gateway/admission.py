"""Who may wait for a tier, and who is sent away at once. Knows time; knows no endpoint, no model.

A tier has so many places. When all are taken the next requests queue, first come first served, as
long as their turn is expected within ``wait_seconds``; others are told when to come back. Without
such a bound an overloaded gateway answers everybody too late, which is nobody.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque

from cascade.gateway.refusals import Refusal

MOST_WAITING = 10_000
"""Requests, for one tier, before it has said how long it takes."""

MEMORY = 0.1
"""Weight of the newest request in the mean time that a place is held."""


class Gate:
    """The places of one tier. Belongs to one event loop.

    >>> async def two_at_once() -> int:
    ...     gate = Gate(places=2, wait_seconds=1.0)
    ...     async with gate.place(), gate.place():
    ...         return gate.free
    >>> asyncio.run(two_at_once())
    0

    Parameters
    ----------
    places : requests that the tier takes at the same time.
    wait_seconds : for the turn of a request that has to queue.
    """

    def __init__(self, places: int, wait_seconds: float) -> None:
        self.free = places
        self._places = places
        self._wait_seconds = wait_seconds
        self._held_seconds = 0.0  # mean, of late; 0 before the first request has ended
        self._waiting: deque[asyncio.Future[None]] = deque()

    def place(self) -> Place:
        """``async with gate.place()``: inside, one place is the caller's.

        Raises
        ------
        Refusal
            429 with ``retry-after``: on entering, when the queue is too long.
        """
        return Place(self)

    @property
    def expected_wait_seconds(self) -> float:
        """Until the turn of a request that comes now."""
        return (len(self._waiting) + 1) * self._held_seconds / self._places

    async def queue(self) -> None:
        """Wait until a place that was taken is ours; raises as ``place``."""
        expected = self.expected_wait_seconds
        if expected > self._wait_seconds or len(self._waiting) >= MOST_WAITING:
            raise _come_back(expected)
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():  # it was our turn in the same moment
                self.leave()
            elif turn in self._waiting:  # unless ``leave`` has passed over it already
                self._waiting.remove(turn)
            raise

    def leave(self) -> None:
        """Let the next one in."""
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self.free += 1

    def learn(self, seconds: float) -> None:
        """A place was held for so long."""
        known = self._held_seconds or seconds
        self._held_seconds = known + MEMORY * (seconds - known)


class Place:
    """One request's place at a gate."""

    __slots__ = ("_gate", "_since")

    def __init__(self, gate: Gate) -> None:
        self._gate = gate

    async def __aenter__(self) -> None:
        gate = self._gate
        if gate.free:
            gate.free -= 1
        else:
            await gate.queue()
        self._since = time.perf_counter()

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None or not issubclass(kind, (asyncio.CancelledError, GeneratorExit)):
            self._gate.learn(time.perf_counter() - self._since)  # who left says nothing
        self._gate.leave()


def _come_back(seconds: float) -> Refusal:
    message = f"the queue is too long: your turn would come in {seconds:.0f} s; ask again later"
    return Refusal(
        429, "overloaded", message, headers={"retry-after": str(math.ceil(seconds) or 1)}
    )
