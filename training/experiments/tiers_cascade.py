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
    Rung,
    Said,
    audit_joint,
)
from cascade.certify.joint_audit import TEACHER, best_prospect
from cascade.distill.path import Costs, build_path
from cascade.types import SKIP

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

RUNGS = 80


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
    promised : both confidences on the training rows; out of fold, where a model could have learned
        these rows by heart.
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
        """Policies laid by what the tiers promise on the training rows; by what the proxy promises
        on all others, if it is alone: its answers are paid already."""
        proxy, small = self.promised
        rungs = build_path(
            proxy if with_small else np.delete(self.proxy_trust, self.rows),
            small if with_small else None,
            Costs(self.small_price, 1.0),
            target=self.open_target(target),
            rungs=RUNGS,
            careful=0.0,
        )
        return [Rung(rung.thresholds, 1 - rung.shares["large"]) for rung in rungs]

    def audit(
        self, guarantee: Guarantee, rng: np.random.Generator, *, with_small: bool = True
    ) -> JointAudit:
        """Frozen, before its first draw."""
        return JointAudit(
            self.proxy_trust,
            self.path(guarantee.target, with_small=with_small),
            guarantee,
            promised=self.promised,
            prices=JointPrices(self.small_price),
            rng=rng,
            known=self.rows.tolist(),
        )

    def predicted_costs(self, guarantee: Guarantee, *, with_small: bool = True) -> Floats:
        """(m,) cost of each training row, with its share of the audit, where the audit's own
        look-ahead would begin; 1 where it would not."""
        audit = self.audit(guarantee, np.random.default_rng(0), with_small=with_small)
        prospect = best_prospect(audit.ledger, audit.prices)
        if prospect is None:
            return np.ones(len(self.rows))
        spent = self._spent(audit.ledger.zones.rungs[prospect.rung])
        saved = (prospect.net + audit.ledger.budget) / len(self)
        return np.asarray(spent - spent.mean() + 1 - saved)

    def _spent(self, rung: Rung) -> Floats:
        """(m,) cost of each training row under a policy."""
        proxy, small = self.promised
        by_proxy = proxy >= rung.thresholds["proxy"]
        asked = ~by_proxy & (proxy >= rung.thresholds.get(SKIP, 0)) & ("small" in rung.thresholds)
        by_small = asked & (small >= rung.thresholds.get("small", 0))
        return 1.0 - (by_proxy | by_small) + self.small_price * asked

    def cost(self, bill: Bill) -> float:
        """Per record."""
        return (bill.teacher + self.small_price * bill.small) / len(self)


def certified(
    cascade: Cascade, guarantee: Guarantee, rng: np.random.Generator, *, with_small: bool = True
) -> Bill:
    """Lay a path, audit it with the small tier's answers bought lazily, count the cost."""
    audit = cascade.audit(guarantee, rng, with_small=with_small)
    result = audit_joint(
        audit,
        cascade.proxy,
        lambda rows: Said(cascade.small[rows], cascade.small_trust[rows]),
        lambda row: int(cascade.teacher[row]),
        label_budget=len(cascade),
        table_digest="0" * 64,
    )
    escalated = np.setdiff1d(np.flatnonzero(result.answers == TEACHER), cascade.rows)
    right = (result.answers == TEACHER) | (result.answers == cascade.teacher)
    rungs = [rung.thresholds for rung in audit.ledger.zones.rungs]
    return Bill(
        agreement=float(right.mean()),
        teacher=len(cascade.rows) + len(result.labels) + len(escalated),
        small=result.small_asked + with_small * len(cascade.rows),
        three_tiers=any("small" in rung and rung["proxy"] <= 1 for rung in rungs),
    )
