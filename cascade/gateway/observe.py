"""What Prometheus sees: counters and clocks. Decides nothing.

The registry is the gateway's own, so that two gateways can live in one process.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from typing import TypeVar

import msgspec
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from cascade.gateway.latencies import Latencies
from cascade.gateway.tallies import Histogram, Histograms, Numbers, Tally
from cascade.types import Abstention, Decision, Query, Reply, Tier, Usage

FAST = (0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5)
SLOW = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
Some = TypeVar("Some", Numbers, Histograms)

ANY_REPLICA = ""
"""The replicas of an endpoint are its own affair; an empty label is none to Prometheus."""


class Metrics:
    """Every metric of the gateway, by its name without ``cascade_``."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = self._counter("requests", "Answers", "task", "tier", "reason")
        self.errors = self._counter("errors", "Error answers", "status", "code")
        self.request_seconds = self._histogram(
            "request_seconds", "Arrival to whole answer", SLOW, "task"
        )
        self.overhead_seconds = self._histogram(
            "overhead_seconds", "Time of an answer spent outside the tiers", FAST, "task"
        )
        self.tier_seconds = self._histogram("tier_seconds", "Time inside a tier", SLOW, "tier")
        self.first_token_seconds = self._histogram(
            "time_to_first_token_seconds", "Streams: arrival to first event", SLOW, *REPLICA
        )
        self.inter_token_seconds = self._histogram(
            "inter_token_seconds", "Streams: between two arrivals of events", FAST, *REPLICA
        )
        self.audits = self._counter("audit", "Answers checked with the teacher", "task", "agreed")
        self.agreement_lower_bound = self._gauge(
            "agreement_lower_bound", "Over all requests, valid at any time", "task"
        )
        self.conditional_agreement = self._gauge(
            "conditional_agreement", "Among answers below the teacher, estimated", "task"
        )
        self.evidence_of_harm = self._gauge(
            "evidence_of_harm", "1 without news; at 1/delta the champion steps back", "task"
        )
        self.served_rung = self._gauge(
            "served_rung", "Of the certified rungs, from the most careful; 0: the teacher", "task"
        )
        self.dollars = self._counter("dollars", "Spent", "task", "tier")
        self.saved_dollars = self._counter(
            "saved_dollars", "Teacher's mean price less the own, for answers below it", "task"
        )
        self.prompt_tokens = self._counter("prompt_tokens", "Prompt tokens", "cached")
        self.inflight = self._gauge("inflight", "Queries inside a tier", *REPLICA)
        self.config_reloads = self._counter(
            "config_reloads", "Changed configurations: applied or refused", "result"
        )
        self.dropped = self._counter("dropped", "Records lost to a full queue", "what")
        for what in ("decision", "audit"):  # Prometheus sees no increase in what was never 0
            self.dropped.of(what)
        for result in ("applied", "refused"):
            self.config_reloads.of(result)
        self.latencies = Latencies()
        self._teacher_price: dict[str, Mean] = defaultdict(Mean)

    def page(self) -> bytes:
        """The text that ``/metrics`` answers."""
        return generate_latest(self.registry)

    def count_decision(self, task: str, decision: Decision, teacher: str) -> None:
        """An answer or a failure of a typed task, and what every tier on its way cost."""
        tier = decision.answer.tier if decision.answer else ""
        self.requests.of(task, tier, decision.reason).inc()
        for reply in decision.trail:
            self.count_spending(task, reply.tier, reply.usage)
            if reply.tier == teacher and not isinstance(reply, Abstention):
                self._teacher_price[task].add(reply.usage.dollars)
        if decision.answer and tier != teacher:
            saved = self._teacher_price[task].value - decision.usage.dollars
            self.saved_dollars.of(task).inc(max(saved, 0.0))

    def count_spending(self, task: str, tier: str, usage: Usage) -> None:
        """Dollars and prompt tokens of one reply."""
        self.dollars.of(task, tier).inc(usage.dollars)
        if usage.cached_tokens:
            self.prompt_tokens.of("true").inc(usage.cached_tokens)
        self.prompt_tokens.of("false").inc(usage.prompt_tokens - usage.cached_tokens)

    def inside(self, tier: str, queries: int = 1) -> Inside:
        """Time and count what is inside a tier, in a ``with``."""
        return Inside(self.inflight.of(tier, ANY_REPLICA), self.tier_seconds.of(tier), queries)

    def rhythm(self, tier: str, started: float) -> Rhythm:
        """Of one stream that was asked for at ``started``, of ``time.perf_counter``."""
        return Rhythm(
            self.first_token_seconds.of(tier, ANY_REPLICA),
            self.inter_token_seconds.of(tier, ANY_REPLICA),
            started,
        )

    def _counter(self, name: str, about: str, *labels: str) -> Numbers:
        return self._registered(Numbers(CounterMetricFamily, f"cascade_{name}", about, labels))

    def _gauge(self, name: str, about: str, *labels: str) -> Numbers:
        return self._registered(Numbers(GaugeMetricFamily, f"cascade_{name}", about, labels))

    def _histogram(
        self, name: str, about: str, bounds: tuple[float, ...], *labels: str
    ) -> Histograms:
        return self._registered(Histograms(f"cascade_{name}", about, labels, bounds))

    def _registered(self, family: Some) -> Some:
        self.registry.register(family)
        return family


REPLICA = ("tier", "replica")


class Inside:
    """Queries inside a tier, while the ``with`` lasts."""

    __slots__ = ("_inflight", "_queries", "_seconds", "_started")

    def __init__(self, inflight: Tally, seconds: Histogram, queries: int) -> None:
        self._inflight = inflight
        self._seconds = seconds
        self._queries = queries

    def __enter__(self) -> None:
        self._inflight.inc(self._queries)
        self._started = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self._inflight.dec(self._queries)
        self._seconds.observe(time.perf_counter() - self._started)


class Rhythm:
    """When the pieces of a stream arrive: the first one, and the time between two."""

    def __init__(self, first: Histogram, between: Histogram, started: float) -> None:
        self._clock = first
        self._between = between
        self._last = started

    def beat(self) -> None:
        """A piece has arrived."""
        now = time.perf_counter()
        self._clock.observe(now - self._last)
        self._last, self._clock = now, self._between


class Mean:
    """A running mean; 0 before the first value."""

    def __init__(self) -> None:
        self.value = 0.0
        self._n = 0

    def add(self, value: float) -> None:
        """Take one more value in."""
        self._n += 1
        self.value += (value - self.value) / self._n


class Observed:
    """A tier that is watched: the same answers, and everybody knows how long they took."""

    def __init__(self, tier: Tier, metrics: Metrics) -> None:
        self.name = tier.name
        self._tier = tier
        self._metrics = metrics

    async def answer(self, queries: list[Query]) -> list[Reply]:
        """What the watched tier answers; where it did not say how long, with the time it took."""
        started = time.perf_counter()
        with self._metrics.inside(self.name, len(queries)):
            replies = await self._tier.answer(queries)
        seconds = time.perf_counter() - started
        self._metrics.latencies.add(self.name, seconds)
        return [_clocked(reply, seconds) for reply in replies]


def _clocked(reply: Reply, seconds: float) -> Reply:
    if reply.usage.seconds:
        return reply
    return replace(reply, usage=msgspec.structs.replace(reply.usage, seconds=seconds))


def observed(tiers: Mapping[str, Tier], metrics: Metrics) -> dict[str, Tier]:
    """Every tier, watched."""
    return {name: Observed(tier, metrics) for name, tier in tiers.items()}
