"""What each tenant has spent today. Knows dollars, names and midnight UTC; no key and no HTTP.

A tenant's name is all of the log's tenant before the first slash: what a caller adds below it in
``x-tenant-id`` spends the same money.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from cascade.errors import StoreError

logger = logging.getLogger(__name__)

DAY_SECONDS = 86_400

LOOK_SECONDS = 10.0
"""How old what other gateways of the same store have spent may be."""

LATE_SECONDS = 60.0
"""A record that another gateway writes later than this is counted here only after a restart."""

BELOW = "/"
"""Between a tenant's name and what its caller says in ``x-tenant-id``."""

ReadSpent = Callable[[float, float], Mapping[str, float]]
"""The dollars of every tenant with decisions at Unix seconds [since, until); may block."""


@dataclass(slots=True)
class Day:
    """One UTC day's dollars by tenant.

    ends_at : the next midnight, in Unix seconds. dollars : what counts.
    settled : the store's sum of what was decided before ``settled_until`` (Unix seconds), old
        enough not to be read again.
    """

    ends_at: float
    settled_until: float
    dollars: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    settled: dict[str, float] = field(default_factory=lambda: defaultdict(float))


class Spending:
    """Dollars of some tenants since midnight UTC, over all gateways that share a store.

    The own ones count at once; what others write is read every ``LOOK_SECONDS``. Of the own count
    and the store's the larger one holds, so a record counts once on either way.

    Parameters
    ----------
    read : of the store. clock : Unix seconds.
    """

    def __init__(self, read: ReadSpent, clock: Callable[[], float] = time.time) -> None:
        self._read = read
        self._clock = clock
        self._names: frozenset[str] = frozenset()
        self._day = _day_of(clock())

    def follow(self, names: Iterable[str]) -> None:
        """Count for these tenants, and for no others. Blocks: reads what they have spent today.

        Raises
        ------
        StoreError
            That cannot be read: a limit would start from nothing.
        """
        self._names = frozenset(names)  # callers may make up others without end: not counted
        before, day = self._today(), _day_of(self._clock())
        _merge(day, self._look(day))
        _merge(day, {name: before.dollars[name] for name in self._names & before.dollars.keys()})
        self._day = day

    def today(self, name: str) -> float:
        """Dollars of one tenant; 0.0 for one that has asked nothing."""
        return self._today().dollars.get(name, 0.0)

    def add(self, tenant: str, dollars: float) -> None:
        """Count an answer. tenant : as in the log, with or without something below the name."""
        name = tenant.partition(BELOW)[0]
        if name in self._names:
            self._today().dollars[name] += dollars

    @property
    def seconds_left(self) -> float:
        """Until the day is over."""
        return self._today().ends_at - self._clock()

    async def run(self, pause_seconds: float = LOOK_SECONDS) -> None:
        """Follow the store for ever; while it fails, the own count goes on."""
        while True:
            await asyncio.sleep(pause_seconds)
            await self.refresh()

    async def refresh(self) -> None:
        """Take in what others have written."""
        day = self._today()
        try:
            _merge(day, await asyncio.to_thread(self._look, day))
        except StoreError as exc:
            logger.warning("what other gateways have spent is not known: %s", exc)

    def _today(self) -> Day:
        now = self._clock()
        if now >= self._day.ends_at:
            # a new one: the old one may be in the hands of a thread that reads the store
            self._day = _day_of(now)
        return self._day

    def _look(self, day: Day) -> Mapping[str, float]:
        """The store's sum of a day, of which only the last minute is read again and again."""
        if not self._names:
            return {}
        settled_until = max(day.settled_until, self._clock() - LATE_SECONDS)
        self._fold(self._read(day.settled_until, settled_until), day.settled)
        day.settled_until = settled_until
        found = day.settled.copy()
        self._fold(self._read(settled_until, day.ends_at), found)
        return found

    def _fold(self, spent: Mapping[str, float], into: dict[str, float]) -> None:
        for tenant, dollars in spent.items():
            name = tenant.partition(BELOW)[0]
            if name in self._names:
                into[name] += dollars


def _day_of(at: float) -> Day:
    midnight = at - at % DAY_SECONDS
    return Day(midnight + DAY_SECONDS, settled_until=midnight)


def _merge(day: Day, found: Mapping[str, float]) -> None:
    for name, dollars in found.items():
        day.dollars[name] = max(day.dollars[name], dollars)
