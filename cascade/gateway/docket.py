"""The audits of one champion that await the teacher, heard in the order of the requests. Pure.

The teacher answers audits in any order and late; the watch must see them in the order in which
their requests came, so an open audit holds back everything after it.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from cascade.certify import Step, Watch


@dataclass
class Audit:
    """One audited request, answered by ``rung``. ``wrong`` is None until the teacher has spoken."""

    propensity: float
    rung: int
    wrong: bool | None = None
    skips_after: int = 0


class Docket:
    """Open audits before a watch.

    >>> from cascade.certify import Guarantee, HarmMonitor
    >>> monitor = HarmMonitor(Guarantee(0.9, 0.05), rate=0.1, floor=0.02)
    >>> docket = Docket(Watch("1", monitor, rung=0, delta=0.05))
    >>> audit = docket.open(propensity=0.1, rung=0)
    >>> docket.skip()
    >>> monitor.requests
    0
    >>> docket.settle(audit, wrong=False)
    []
    >>> monitor.requests
    2
    """

    def __init__(self, watch: Watch) -> None:
        self.watch = watch
        self._open: deque[Audit] = deque()
        self._weight = 0.0
        self._wrong_weight = 0.0

    def skip(self) -> None:
        """A request that is not audited, or that the teacher answered."""
        if self._open:
            self._open[-1].skips_after += 1
        else:
            self.watch.skip()

    def open(self, propensity: float, rung: int) -> Audit:
        """An audit begins, of an answer that this rung gave."""
        audit = Audit(propensity, rung)
        self._open.append(audit)
        return audit

    def settle(self, audit: Audit, *, wrong: bool) -> list[Step]:
        """The teacher has spoken; everything that this audit held back goes to the watch.

        Returns
        -------
        The steps that became necessary, in their order; none as a rule.
        """
        audit.wrong = wrong
        self._weight += 1 / audit.propensity
        self._wrong_weight += wrong / audit.propensity
        steps = []
        while self._open and self._open[0].wrong is not None:
            done = self._open.popleft()
            steps.append(self.watch.record(bool(done.wrong), done.propensity, done.rung))
            self.watch.skip(done.skips_after)
        return [step for step in steps if step is not None]

    @property
    def conditional_agreement(self) -> float | None:
        """Share of the answers below the teacher that it agrees with (Hajek's estimate).

        None before the first audit; counts from the start of this process.
        """
        return 1 - self._wrong_weight / self._weight if self._weight else None

    @property
    def agreement_lower_bound(self) -> float:
        """Of the agreement over all requests, valid at any time."""
        monitor = self.watch.monitor
        return 1 - monitor.interval(monitor.guarantee.delta).high
