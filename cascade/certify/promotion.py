"""May this policy serve? The promotion rule. Knows figures, not models.

A certificate alone is not enough: a useless proxy that answers few rows can hold one, because the
teacher's rows count as agreeing. So the policy must also save money, and be better than an answer
that never reads its input.

Which constant answer? One that always gives the teacher's commonest label to a *random* row; its
agreement is that label's share of a uniform sample. Not its share among the rows the policy chose
to answer: a spam filter that answers only the surely harmless agrees no more often than "harmless"
there, and is still useful, because it chose the rows. A policy that learnt nothing chooses at
random and cannot beat the share of the whole.

A certificate by label that holds two labels or more needs no such comparison. An answer that never
reads its input agrees on a label's requests as often as the teacher gives that label to any: it
cannot agree on more than half of them for two labels.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from cascade.certify.certificate import Certificate, require, verify
from cascade.certify.every_label import label_thresholds
from cascade.errors import CertificateError


@dataclass(frozen=True)
class Economics:
    """What the policy is expected to save, all in dollars.

    volume : requests over which labels must pay for themselves.
    teacher, below : cost of a teacher call, and of the tiers below it, a request.
    labels : teacher answers bought for training and for the audit.
    audit_rate : mean share of the requests answered below that is audited.
    """

    volume: int
    teacher: float
    below: float
    labels: int
    audit_rate: float

    def net(self, share: float) -> float:
        """Saving if ``share`` of the requests never reaches the teacher.

        >>> Economics(1000, 0.01, 0.001, 100, 0.05).net(0.5)
        2.75
        """
        avoided = share * (1 - self.audit_rate) * self.teacher
        return round(self.volume * (avoided - self.below) - self.labels * self.teacher, 9)


@dataclass(frozen=True)
class Sample:
    """What the teacher said, beside what the policy said.

    classes : (C,) the task's labels.
    teacher : (C,) how often the teacher gave each, in a uniform sample of requests.
    confusion : (C, C) draws answered below the teacher: teacher's label (row), policy's (column).
    """

    classes: tuple[str, ...]
    teacher: NDArray[np.int64]
    confusion: NDArray[np.int64]

    @property
    def constant(self) -> float:
        """Agreement of the best answer that never reads its input."""
        return float(self.teacher.max() / max(self.teacher.sum(), 1))

    def missed(self, least_rows: int) -> tuple[str, ...]:
        """Classes answered below at least ``least_rows`` times and never once rightly."""
        seen, right = self.confusion.sum(axis=1), self.confusion.diagonal()
        return tuple(
            name
            for name, rows, hits in zip(self.classes, seen, right, strict=True)
            if rows >= least_rows and hits == 0
        )


@dataclass(frozen=True)
class Rule:
    """How strict promotion is.

    margin : by how much the conditional agreement's lower bound must beat the constant answer.
    least_rows : rows of a class before "never right" is evidence; 5 misses in a row have a chance
        of 3% if half of them are right.
    may_miss : classes that the recipe allows to be always missed.
    """

    margin: float = 0.02
    least_rows: int = 5
    may_miss: frozenset[str] = field(default_factory=frozenset)


STANDARD = Rule()


@dataclass(frozen=True)
class Condition:
    """One condition: its name, whether it is met, and the figures in a sentence."""

    name: str
    met: bool
    reason: str


@dataclass(frozen=True)
class Verdict:
    """The conditions of the rule, in its order; without a certificate only the first."""

    conditions: tuple[Condition, ...]

    @property
    def promote(self) -> bool:
        """Whether every condition is met."""
        return all(condition.met for condition in self.conditions)

    @property
    def reasons(self) -> list[str]:
        """Why not: a sentence for each condition that is not met."""
        return [condition.reason for condition in self.conditions if not condition.met]


def promotion_verdict(
    certificate: Certificate | None,
    valid_for: str,
    economics: Economics,
    sample: Sample,
    rule: Rule = STANDARD,
) -> Verdict:
    """Judge a policy. With a certificate every condition is judged, so that the report is complete.

    Parameters
    ----------
    certificate : None where no rung passed.
    valid_for : the use it is promoted for: ``stream`` or ``table:<sha256>``.
    """
    holds = _holds(certificate, valid_for)
    if certificate is None:
        return Verdict((holds,))
    return Verdict(
        (
            holds,
            _saves(certificate, economics),
            _beats_constant(certificate, sample, rule),
            _misses_no_class(sample, rule),
        )
    )


def _holds(certificate: Certificate | None, valid_for: str) -> Condition:
    name = "certificate"
    if certificate is None:
        return Condition(name, False, "no certificate: no rung of the path passed the audit")
    try:
        require(certificate, valid_for)
        verify(certificate)
    except CertificateError as error:
        return Condition(name, False, str(error))
    sure = 1 - certificate.delta
    return Condition(
        name, True, f"{certificate.metric} >= {certificate.bound:.3f}, {sure:.1%} sure"
    )


def _saves(certificate: Certificate, economics: Economics) -> Condition:
    net = economics.net(certificate.share)
    reason = (
        f"predicted net saving {net:.2f} dollars over {economics.volume} requests, "
        f"{certificate.share:.1%} of them answered below the teacher"
    )
    return Condition("saving", net > 0, reason)


def _beats_constant(certificate: Certificate, sample: Sample, rule: Rule) -> Condition:
    name = "better than a constant"
    labels = label_thresholds(certificate.thresholds)
    if len(labels) > 1 and certificate.target > 0.5:
        reason = (
            f"each of {len(labels)} labels agrees >= {certificate.target:.3f}: no constant does"
        )
        return Condition(name, True, reason)
    below, least = certificate.conditional.bound, sample.constant + rule.margin
    reason = (
        f"conditional agreement >= {below:.3f}; the constant answer's {sample.constant:.3f} "
        f"plus a margin of {rule.margin:.3f} is {least:.3f}"
    )
    return Condition(name, below > least, reason)


def _misses_no_class(sample: Sample, rule: Rule) -> Condition:
    missed = [name for name in sample.missed(rule.least_rows) if name not in rule.may_miss]
    reason = "no class is always missed"
    if missed:
        reason = (
            f"wherever the teacher says {' or '.join(missed)}, the policy says something else; "
            "`allow_missed` in the recipe would permit it"
        )
    return Condition("classes", not missed, reason)
