"""Which rung of a certified path may answer now? Tighten, step back, leave it to the teacher.

Knows a monitor's evidence and counts of requests; no clock, no store, no thresholds. State is plain
data: ``msgspec.json.encode(watch)`` and back loses nothing.

The rungs up to the certified one were all certified, in their order and with one delta (fixed
sequence, Learn then Test), so an earlier one may answer instead at any time. Back up there is no
way but a new certificate: whatever raised the risk is not over because a while was quiet. Each
audit that is opened makes the next certificate harder, whatever came of it: the j-th one after the
first has delta 6 / (pi j)^2, so that however often a policy falls, fails to return and returns, all
certificates of the task together are wrong with probability at most 2 delta (union bound).
"""

from __future__ import annotations

import math

import msgspec

from cascade.certify.certificate import Certificate
from cascade.certify.claim import Guarantee, Rung
from cascade.certify.every_label import EveryLabelEvidence
from cascade.certify.monitor import HarmMonitor
from cascade.certify.stream import StreamEvidence
from cascade.certify.suspicion import Suspicion
from cascade.errors import CertificateError

SETTLING_REQUESTS = 500
"""An alarm so soon after a step back says that the step did not help; and no rung is tightened
twice within so many requests."""


class Step(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The policy became more careful.

    request : how many requests of this version came before. rung : None is the teacher.
    alarm : made by an alarm; else by evidence that only grows towards one.
    """

    request: int
    rung: int | None
    alarm: bool
    reason: str


class Watch(msgspec.Struct, forbid_unknown_fields=True):
    """One version of a policy under observation.

    Parameters
    ----------
    version : of the policy; evidence against one says nothing about another.
    monitor : of all requests that this version decided, on whatever rung.
    rung : the one to serve, counted from the most careful; at first the certified one.
    delta : of the task's first certificate.
    falls : how often policies of this task have been left to the teacher.

    >>> watch = Watch("7", HarmMonitor(Guarantee(0.9, 0.05), 0.1, 0.02), rung=3, delta=0.05)
    >>> while watch.rung is not None:
    ...     watch.skip(4)
    ...     _ = watch.record(wrong=True, propensity=0.1, rung=watch.rung)
    >>> [step.rung for step in watch.steps], watch.falls
    ([2, 1, None], 1)
    """

    version: str
    monitor: HarmMonitor
    rung: int | None
    delta: float
    falls: int = 0
    steps: list[Step] = msgspec.field(default_factory=list)
    novelty: Suspicion = msgspec.field(
        default_factory=lambda: Suspicion(rise=0.05, bar=12.0, memory=10_000)
    )

    @property
    def fallen(self) -> bool:
        """Everything is left to the teacher."""
        return self.rung is None

    @property
    def why(self) -> str:
        """What the last step was made for; empty before the first."""
        return self.steps[-1].reason if self.steps else ""

    def propose(self, p_wrong: float) -> float:
        """Propensity with which to audit an answer that is predicted wrong so often."""
        return self.monitor.propose(p_wrong, closer=self.novelty.roused)

    def notice(self, novel: bool) -> None:
        """Whether a request was unlike what the policy knows. Only ever a reason to look closer."""
        self.novelty.see(novel)

    def skip(self, requests: int = 1) -> None:
        """Requests without an audit, or answered by the teacher."""
        self.monitor.skip(requests)

    def record(self, wrong: bool, propensity: float, rung: int) -> Step | None:
        """An audited request, in the order of requests; the step that it makes necessary.

        rung : the one that answered it. What an abandoned rung did wrong just before the step is
            evidence all the same, but no news about the rung that serves now.
        """
        self.monitor.record(wrong, propensity)
        if not wrong or self.rung is None or rung != self.rung:
            return None  # a right answer never raises the evidence
        if self.monitor.alarming:
            return self._step_back(self.rung)
        if self.monitor.soon and self.rung > 0 and not self._settling:
            return self._step(self.rung - 1, "evidence of harm grows: one rung more careful")
        return None

    @property
    def _settling(self) -> bool:
        return bool(self.steps) and self._lately(self.steps[-1])

    def _step_back(self, rung: int) -> Step:
        again = any(step.alarm and self._lately(step) for step in self.steps)
        if rung > 0 and not again:
            return self._step(rung - 1, "the monitor alarmed: back to the rung before", alarm=True)
        self.falls += 1
        where = "again" if again else "on the most careful rung"
        reason = f"the monitor alarmed {where}: the teacher answers until a new certificate"
        return self._step(None, reason, alarm=True)

    def _step(self, rung: int | None, reason: str, *, alarm: bool = False) -> Step:
        self.rung = rung
        self.steps.append(Step(self.monitor.requests, rung, alarm, reason))
        return self.steps[-1]

    def _lately(self, step: Step) -> bool:
        return 0 <= self.monitor.requests - step.request <= SETTLING_REQUESTS


def reopened(guarantee: Guarantee, earlier: int) -> Guarantee:
    """What the next certificate of a task must claim after so many earlier audits, or falls.

    >>> [round(reopened(Guarantee(0.9, 0.05), earlier).delta, 4) for earlier in range(4)]
    [0.05, 0.0304, 0.0076, 0.0034]
    """
    if earlier == 0:
        return guarantee
    return Guarantee(guarantee.target, guarantee.delta * 6 / (math.pi * earlier) ** 2)


def certified_rungs(certificate: Certificate) -> list[Rung]:
    """Every policy that a stream's certificate certifies: the most careful first, its own last.

    Raises
    ------
    CertificateError : it is not a stream's; a table has no requests to come.
    """
    evidence = certificate.evidence
    if isinstance(evidence, EveryLabelEvidence):
        return evidence.replay().certified_rungs()
    if not isinstance(evidence, StreamEvidence):
        raise CertificateError("only a stream's certificate has rungs to step back to")
    thresholds = [rung.thresholds for rung in evidence.rungs]
    return evidence.rungs[: thresholds.index(certificate.thresholds) + 1]
