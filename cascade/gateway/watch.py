"""One champion under observation: its monitor, fed in the order of the requests. Pure.

The teacher answers audits in any order and late; the monitor must see them in the order in which
their requests came, so an open audit holds back everything after it.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from cascade.certify import HarmMonitor


@dataclass
class Audit:
    """One audited request. ``wrong`` is None until the teacher has spoken."""

    propensity: float
    wrong: bool | None = None
    skips_after: int = 0


class Watch:
    """The audits of one version of a task's proxy.

    >>> from cascade.certify import Guarantee
    >>> watch = Watch(HarmMonitor(Guarantee(0.9, 0.05), rate=0.1, floor=0.02))
    >>> audit = watch.open(propensity=0.1)
    >>> watch.skip()
    >>> watch.monitor.requests
    0
    >>> watch.settle(audit, wrong=False)
    >>> watch.monitor.requests
    2
    """

    def __init__(self, monitor: HarmMonitor) -> None:
        self.monitor = monitor
        self._open: deque[Audit] = deque()
        self._weight = 0.0
        self._wrong_weight = 0.0

    def skip(self) -> None:
        """A request that is not audited, or that the teacher answered."""
        if self._open:
            self._open[-1].skips_after += 1
        else:
            self.monitor.skip()

    def open(self, propensity: float) -> Audit:
        """An audit begins."""
        audit = Audit(propensity)
        self._open.append(audit)
        return audit

    def settle(self, audit: Audit, *, wrong: bool) -> None:
        """The teacher has spoken; everything that this audit held back goes to the monitor."""
        audit.wrong = wrong
        self._weight += 1 / audit.propensity
        self._wrong_weight += wrong / audit.propensity
        while self._open and self._open[0].wrong is not None:
            done = self._open.popleft()
            self.monitor.record(wrong=bool(done.wrong), propensity=done.propensity)
            self.monitor.skip(done.skips_after)

    @property
    def conditional_agreement(self) -> float | None:
        """Share of the answers below the teacher that it agrees with (Hajek's estimate).

        None before the first audit; counts from the start of this process.
        """
        return 1 - self._wrong_weight / self._weight if self._weight else None

    @property
    def agreement_lower_bound(self) -> float:
        """Of the agreement over all requests, valid at any time."""
        return 1 - self.monitor.interval(self.monitor.guarantee.delta).high
