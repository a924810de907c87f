"""How long each tier takes just now. Knows seconds; no request and no policy."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Mapping

KEPT = 128
"""Answers of a tier that are remembered: a load that changes is noticed within so many."""

SHARE = 0.9
"""A budget is planned with the time within which nine of ten answers came."""


class Latencies:
    """The last answers' times of every tier.

    >>> latencies = Latencies()
    >>> for seconds in (0.1,) * 9 + (2.0,):
    ...     latencies.add("small", seconds)
    >>> latencies.expected()
    {'small': 0.1}
    """

    def __init__(self) -> None:
        self._seconds: dict[str, deque[float]] = defaultdict(lambda: deque(maxlen=KEPT))

    def add(self, tier: str, seconds: float) -> None:
        """A tier has answered."""
        self._seconds[tier].append(seconds)

    def expected(self) -> Mapping[str, float]:
        """Seconds by tier; a tier that was never asked is absent."""
        return {tier: _quantile(list(kept)) for tier, kept in self._seconds.items()}


def _quantile(seconds: list[float]) -> float:
    return sorted(seconds)[max(round(SHARE * len(seconds)) - 1, 0)]
