"""Two tiers and a teacher on one table: certify how far the two may answer, count what it cost.

Knows what every tier says of every row and how sure it is; knows no text and no training.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cascade.certify import (
    Confidences,
    Guarantee,
    JointAudit,
    JointPrices,
    JointResult,
    Rung,
    Said,
    audit_joint,
)
from cascade.certify.joint_audit import TEACHER
from cascade.distill.path import LIKELY, Costs, build_path
from cascade.types import SKIP

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

RUNGS = 40


@dataclass(frozen=True)
class Bill:
    """What a method came to.

    agreement : share of all final answers that are the teacher's. teacher, small : answers paid
    for, those for training included. three_tiers : whether its path asks the small tier and lets
    the proxy answer, too.
    """

    agreement: float
    teacher: int
    small: int
    three_tiers: bool = False


@dataclass(frozen=True)
class Cascade:
    """A table, and two tiers that were trained on some of its rows. Methods pay for what they read.

    rows : (m,) that the teacher labelled for training.
    teacher : (n,) its label of every row.
    proxy, proxy_trust : (n,) label of the first tier, and P(the teacher agrees). Paid already.
    small, small_trust : (n,) the same of the second. Reading a row of them costs an answer.
    promised : both confidences on the training rows, out of fold.
    small_price : of an answer; the teacher's costs 1.
    """

    rows: Integers
    teacher: Integers
    proxy: Integers
    proxy_trust: Floats
    small: Integers
    small_trust: Floats
    promised: Confidences
    small_price: float

    def __len__(self) -> int:
        return len(self.teacher)

    def open_target(self, target: float) -> float:
        """The agreement that the rows without a label need, so that all rows reach ``target``."""
        return 1 - (1 - target) * len(self) / (len(self) - len(self.rows))

    def path(self, target: float, *, with_small: bool = True) -> list[Rung]:
        """Policies laid by what the tiers promise on the training rows."""
        rungs = build_path(
            self.promised.proxy,
            self.promised.small if with_small else None,
            Costs(self.small_price, 1.0),
            target=self.open_target(target),
            rungs=RUNGS,
        )
        return [Rung(rung.thresholds, 1 - rung.shares["large"]) for rung in rungs]

    def predicted_costs(self, target: float, *, with_small: bool = True) -> Floats:
        """(m,) cost of each training row under the cheapest policy that is likely to hold."""
        risk = LIKELY * (1 - self.open_target(target))
        forecasts = [self._forecast(rung) for rung in self.path(target, with_small=with_small)]
        likely = [costs for wrong, costs in forecasts if wrong <= risk]
        return min(likely, key=np.mean, default=np.ones(len(self.rows)))

    def _forecast(self, rung: Rung) -> tuple[float, Floats]:
        """Share of wrong answers, and the cost of each training row, (m,)."""
        proxy, small = self.promised
        by_proxy = proxy >= rung.thresholds["proxy"]
        asked = ~by_proxy & (proxy >= rung.thresholds.get(SKIP, 0)) & ("small" in rung.thresholds)
        by_small = asked & (small >= rung.thresholds.get("small", 0))
        wrong = np.mean((1 - proxy) * by_proxy + (1 - small) * by_small)
        return float(wrong), 1.0 - (by_proxy | by_small) + self.small_price * asked

    def cost(self, bill: Bill) -> float:
        """Per record."""
        return (bill.teacher + self.small_price * bill.small) / len(self)


def certified(
    cascade: Cascade, guarantee: Guarantee, rng: np.random.Generator, *, with_small: bool = True
) -> Bill:
    """Lay a path, audit it with the small tier's answers bought lazily, count the cost."""
    path = cascade.path(guarantee.target, with_small=with_small)
    result = _audit(cascade, path, guarantee, rng)
    escalated = np.setdiff1d(np.flatnonzero(result.answers == TEACHER), cascade.rows)
    right = (result.answers == TEACHER) | (result.answers == cascade.teacher)
    return Bill(
        agreement=float(right.mean()),
        teacher=len(cascade.rows) + len(result.labels) + len(escalated),
        small=result.small_asked + with_small * len(cascade.rows),
        three_tiers="small" in path[-1].thresholds and path[-1].thresholds["proxy"] <= 1,
    )


def _audit(
    cascade: Cascade, path: list[Rung], guarantee: Guarantee, rng: np.random.Generator
) -> JointResult:
    audit = JointAudit(
        cascade.proxy_trust,
        path,
        guarantee,
        promised=cascade.promised,
        prices=JointPrices(cascade.small_price),
        rng=rng,
        known=cascade.rows.tolist(),
    )
    return audit_joint(
        audit,
        cascade.proxy,
        lambda rows: Said(cascade.small[rows], cascade.small_trust[rows]),
        lambda row: int(cascade.teacher[row]),
        label_budget=len(cascade),
        table_digest="0" * 64,
    )
