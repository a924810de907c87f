"""How every task and tier stands at the moment of a scrape. Knows lanes; counts nothing itself.

A gauge that is written when something changes goes on telling the old story when the writer is
gone: these are read from the lanes whenever Prometheus asks, and cost a request nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from cascade.gateway.lanes import Lanes


class Standing(Collector):
    """Register it with a ``CollectorRegistry``.

    Parameters
    ----------
    tiers : which LLM tiers answered when they were last asked; read at every scrape.
    """

    def __init__(self, lanes: Lanes, tiers: Callable[[], Mapping[str, bool]]) -> None:
        self._lanes = lanes
        self._tiers = tiers

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """Four families of gauges."""
        in_use = _gauge("in_use", "1: certified tiers answer. 0: teacher only", "task", "reason")
        target = _gauge("target", "Agreement that the certificate promises", "task")
        delta = _gauge("delta", "Chance that the certificate is wrong", "task")
        up = _gauge("tier_up", "Whether the tier answered when it was last asked", "tier")
        for task in self._lanes.names():
            lane = self._lanes.get(task)
            if lane is None:  # removed this moment
                continue
            in_use.add_metric([task, lane.reason], 0.0 if lane.reason else 1.0)
            if lane.certificate is not None:
                target.add_metric([task], lane.certificate.target)
                delta.add_metric([task], lane.certificate.delta)
        for tier, answers in self._tiers().items():
            up.add_metric([tier], float(answers))
        return in_use, target, delta, up


def _gauge(name: str, help: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"cascade_{name}", help, labels=labels)
