"""Counters, gauges and histograms that cost a request nearly nothing; Prometheus reads them.

``prometheus_client`` takes a lock for every increment, ten times a request. These are written by
the event loop's thread alone, so they need none; the client still writes the page.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from typing import Generic, TypeVar

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector


class Tally:
    """A number: of a counter, which only grows, or of a gauge."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0.0

    def inc(self, by: float = 1.0) -> None:
        """Add."""
        self.value += by

    def dec(self, by: float = 1.0) -> None:
        """Take away; gauges only."""
        self.value -= by

    def set(self, value: float) -> None:
        """Put in its place; gauges only."""
        self.value = value


class Histogram:
    """How many values fell at or below each bound, and their sum.

    >>> seconds = Histogram((0.1, 1.0))
    >>> for value in (0.05, 0.1, 0.5, 7.0):
    ...     seconds.observe(value)
    >>> seconds.buckets, seconds.total
    ([('0.1', 2.0), ('1.0', 3.0), ('+Inf', 4.0)], 7.65)
    """

    __slots__ = ("_bounds", "_counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.total = 0.0
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)

    def observe(self, value: float) -> None:
        """Take one value in."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self.total += value

    @property
    def buckets(self) -> list[tuple[str, float]]:
        """(bound, values up to it), growing."""
        found, below = [], 0
        for bound, count in zip([*map(str, self._bounds), "+Inf"], self._counts, strict=True):
            below += count
            found.append((bound, float(below)))
        return found


Child = TypeVar("Child", Tally, Histogram)


class Family(Collector, Generic[Child]):
    """A metric's children by their label values."""

    def __init__(self, name: str, about: str, labels: tuple[str, ...]) -> None:
        self.name = name
        self.about = about
        self.labels = labels
        self._children: dict[tuple[str, ...], Child] = {}

    def of(self, *values: str) -> Child:
        """The child with these label values, in the order of ``labels``."""
        child = self._children.get(values)
        if child is None:
            child = self._children[values] = self._new()
        return child

    def _new(self) -> Child:
        raise NotImplementedError

    def _sorted(self) -> list[tuple[tuple[str, ...], Child]]:
        return sorted(self._children.items(), key=lambda item: item[0])


class Numbers(Family[Tally]):
    """Counters, whose names end in ``_total``, or gauges.

    kind : what Prometheus is told that they are.
    """

    def __init__(
        self,
        kind: type[CounterMetricFamily] | type[GaugeMetricFamily],
        name: str,
        about: str,
        labels: tuple[str, ...],
    ) -> None:
        super().__init__(name, about, labels)
        self._kind = kind

    def _new(self) -> Tally:
        return Tally()

    def collect(self) -> Iterable[Metric]:
        """For Prometheus."""
        family = self._kind(self.name, self.about, labels=self.labels)
        for values, child in self._sorted():
            family.add_metric(values, child.value)
        yield family


class Histograms(Family[Histogram]):
    """Histograms with the same bounds."""

    def __init__(
        self, name: str, about: str, labels: tuple[str, ...], bounds: tuple[float, ...]
    ) -> None:
        super().__init__(name, about, labels)
        self._bounds = bounds

    def _new(self) -> Histogram:
        return Histogram(self._bounds)

    def collect(self) -> Iterable[Metric]:
        """For Prometheus."""
        family = HistogramMetricFamily(self.name, self.about, labels=self.labels)
        for values, child in self._sorted():
            family.add_metric(values, child.buckets, child.total)
        yield family
