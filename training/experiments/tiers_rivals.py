"""What three tiers compare with: BARGAIN on one tier, and a guarantee of its own for each tier."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from tables_rivals import bargain
from tiers_cascade import Bill, Cascade, Floats, Integers

from cascade.certify import Guarantee, TableAudit, TableResult, audit_table

PILOT = 60  # labels with which the bare small tier's two answers get a score


class Answers(NamedTuple):
    """What ``tables_rivals.bargain`` looks at. It asks only whether an answer is the teacher's, so
    every answer is 1, and so is the label where they agree."""

    answers: Integers
    confidence: Floats
    labels: Integers


class Tier(NamedTuple):
    """One tier as BARGAIN gets it.

    answers, confidence : (n,). known : rows that the teacher labelled before.
    asked : answers of the small tier that were bought for all this.
    """

    answers: Integers
    confidence: Floats
    known: Integers
    asked: int


def bargain_on_proxy(cascade: Cascade, guarantee: Guarantee, rng: np.random.Generator) -> Bill:
    """The trained proxy's answers, by its calibrated confidence."""
    tier = Tier(cascade.proxy, cascade.proxy_trust, cascade.rows, asked=0)
    return bargain_on(tier, cascade.teacher, guarantee, rng)


def bargain_on_small(cascade: Cascade, guarantee: Guarantee, rng: np.random.Generator) -> Bill:
    """The small tier asked about every row; its score is our own, learned from the same labels."""
    tier = Tier(cascade.small, cascade.small_trust, cascade.rows, asked=len(cascade))
    return bargain_on(tier, cascade.teacher, guarantee, rng)


def bargain_on_bare_small(
    said: Integers, teacher: Integers, guarantee: Guarantee, rng: np.random.Generator
) -> Bill:
    """The small tier's bare answers, with no proxy; how often each of the two is right is estimated
    on a pilot. said, teacher : (n,) 0 or 1."""
    pilot = rng.choice(len(said), PILOT, replace=False)
    right = said[pilot] == teacher[pilot]
    rates = [
        (right[said[pilot] == label].sum() + 1) / ((said[pilot] == label).sum() + 2)
        for label in (0, 1)
    ]
    tier = Tier(said, np.array(rates)[said], pilot, asked=len(said))
    return bargain_on(tier, teacher, guarantee, rng)


def bargain_on(
    tier: Tier, teacher: Integers, guarantee: Guarantee, rng: np.random.Generator
) -> Bill:
    """BARGAIN on the rows without a label, at the agreement that they need for all to reach the
    target."""
    n = len(teacher)
    rest = np.setdiff1d(np.arange(n), tier.known)
    right = (tier.answers == teacher)[rest].astype(np.int64)
    view = Answers(np.ones_like(right), tier.confidence[rest], right)
    needed = Guarantee(1 - guarantee.risk * n / len(rest), guarantee.delta)
    found = bargain(view, needed, int(rng.integers(2**31)))
    return Bill(
        agreement=1 - (1 - found.agreement) * len(rest) / n,
        teacher=len(tier.known) + round((1 - found.avoided) * len(rest)),
        small=tier.asked,
    )


def per_tier(cascade: Cascade, guarantee: Guarantee, rng: np.random.Generator) -> Bill:
    """A table audit for each tier, with half of delta and of the wrong rows allowed.

    The second asks the small tier about every row that the first passed on: its own order needs all
    their confidences.
    """
    half = Guarantee(1 - guarantee.risk / 2, guarantee.delta / 2)
    known = cascade.rows.tolist()
    first = _audit(cascade.proxy != cascade.teacher, cascade.proxy_trust, half, known, rng)
    done = [*known, *first.answered.tolist(), *first.labels]
    second = _audit(cascade.small != cascade.teacher, cascade.small_trust, half, done, rng)
    wrong = (cascade.proxy != cascade.teacher)[first.answered].sum()
    wrong += (cascade.small != cascade.teacher)[second.answered].sum()
    n = len(cascade)
    return Bill(
        agreement=1 - float(wrong) / n,
        teacher=n - len(first.answered) - len(second.answered),
        small=len(known) + n - len(done),
        three_tiers=True,
    )


def _audit(
    wrong: np.ndarray,
    trust: Floats,
    guarantee: Guarantee,
    known: list[int],
    rng: np.random.Generator,
) -> TableResult:
    audit = TableAudit(trust, guarantee, rng=rng, known=known)
    return audit_table(audit, lambda row: bool(wrong[row]), len(trust), "0" * 64)
