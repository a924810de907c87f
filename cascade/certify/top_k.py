"""Certify how far down a proxy's ranking the teacher must look for its own top k.

Knows ranks, grades and chances; nothing of texts, models or which row is worth grading next.

The claim: with probability at least 1 - delta, at least a share ``target`` of the teacher's k best
rows are among the rows that it graded, and hence returned: a row of the top k is among the k best
of any rows that contain it. Nothing is assumed of the data or of the proxy. The teacher's grades
are fixed; equal grades are ordered by random numbers that the seed fixes beforehand; a row that
the teacher cannot grade comes last.

Why it is valid. Let K be the teacher's true top k, a fixed set that nobody knows, and
M = floor((1 - target) k) the rows of it that may be missed. The null of prefix g, fixed at the
freeze, is "more than M rows of K lie outside prefix g". Let f* of those outside be graded so far,
in whatever way. Under the null at least r* = M + 1 - f* rows of K are ungraded outside, so one of
the N ungraded rows there, drawn uniformly, gives Z* = N [it is in K] with mean at least r*. For
every bet, fixed before the draw, that keeps the wealth positive, W* *= 1 + bet (r* - Z*) is a
nonnegative supermartingale (sampling without replacement: Waudby-Smith & Ramdas 2020, arXiv
2006.04347), and it ever reaches 1/delta with probability at most delta (Ville 1939).

K is unknown, so a row counts as one of K while it is among the k best rows *graded so far*: every
row of K always counts, and others may too (``standings``). Hence f >= f*, r = M + 1 - f <= r* and
Z >= Z*: every factor 1 + bet (r - Z) that we use is at most the one of W*, and our wealth never
exceeds it. A bet that keeps ours positive keeps W* positive, since the least factor,
1 + bet (r - N), only grows with r. So the whole delta serves, whatever the grades turn out to be:
none of it is spent on the values that the k-th best grade might take.

The prefixes are certified in order, the longest first, so the first true null must be crossed
first (fixed-sequence testing, arXiv 2110.01052). A draw counts only at prefixes that leave out no
more than the rows it was drawn from; among the rows that they leave out it is uniform.

All rows of a band (``standings``) have one predicted chance.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from itertools import pairwise

import msgspec
import numpy as np

from cascade.certify.bounds import leading
from cascade.certify.claim import Claim, Conditional, Guarantee, Rung, Seed
from cascade.certify.frozen_table import FrozenTable
from cascade.certify.standings import Counts, Floats, Graded, Standings
from cascade.errors import CertificateError

SAFEST = 0.95  # share of the largest bet that keeps the wealth positive
DOUBTS = (0.5, 1.0, 1.5)  # the predicted number outside may be off: one gambler for each factor


class TopKPlan(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is frozen before the first draw.

    guarantee : share of the teacher's ``k`` best of ``rows`` rows to find.
    rungs, sizes : (G,) prefixes and how many rows each holds; the longest first.
    chances : (G,) predicted P(in the top k) of a row of each band. Only steers the bets.
    freeze : ``freeze_digest`` of the order, with ``sizes`` for cuts.
    seed : of the draws and of the order of equal grades.
    """

    guarantee: Guarantee
    k: int
    rows: int
    rungs: list[Rung]
    sizes: list[int]
    chances: list[float]
    freeze: str
    seed: Seed

    @property
    def may_miss(self) -> int:
        """M: rows of the top k that may be missed."""
        # rounded: (1 - 0.9) * 10 is 0.9999999999999998 in floating point
        return math.floor(round(self.guarantee.risk * self.k, 6))

    def check(self) -> None:
        """Raise ``CertificateError`` where no audit can have begun with this plan."""
        lengths = {len(self.rungs), len(self.sizes), len(self.chances)}
        edges = [self.rows, *self.sizes, self.k - 1]
        growing = any(low >= high for high, low in pairwise(edges))
        if len(lengths) != 1 or self.k < 1 or growing:
            raise CertificateError("the plan of the evidence is no path of shrinking prefixes")
        if not all(map(math.isfinite, self.chances)):
            raise CertificateError("the plan of the evidence has no finite chances")


class TopKEvidence(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="top_k"):
    """Everything needed to win the certificate again, offline.

    grades : in the order of buying. log_wealths : (G,) the largest that each rung reached.
    """

    plan: TopKPlan
    grades: list[Graded]
    log_wealths: list[float]

    def replay(self) -> TopKLedger:
        """Run the audit again, grade by grade.

        Raises
        ------
        CertificateError : the plan is no path, or a draw is not the one that the seed gives.
        """
        self.plan.check()
        ledger, lottery = TopKLedger(self.plan), Lottery(self.plan.seed)
        rows: set[int] = set()
        for graded in self.grades:
            places = 0 <= graded.rank < self.plan.rows and 0 <= graded.row < self.plan.rows
            if not places or graded.rank in ledger.standings.ranks or graded.row in rows:
                raise CertificateError(f"row {graded.row} is graded twice or not in the table")
            if graded.rung is not None and lottery.draw(ledger, graded.rung) != graded.rank:
                raise CertificateError(f"row {graded.row} is not the one that the seed draws")
            rows.add(graded.row)
            ledger.record(graded)
        return ledger

    @property
    def frozen_table(self) -> FrozenTable:
        """What can be compared with the table; every row has a rank."""
        plan, places = self.plan, [(graded.row, graded.rank) for graded in self.grades]
        return FrozenTable(plan.freeze, plan.rows, plan.sizes, places, outside=[])


class TopKLedger:
    """Every prefix's wealth against "it leaves out too many of the top k". Chooses nothing."""

    def __init__(self, plan: TopKPlan) -> None:
        self.plan = plan
        self.sizes: Counts = np.asarray(plan.sizes, dtype=np.int64)
        self.chances = np.asarray(plan.chances)
        # from the seed, so that who is in the top k is fixed before the first draw
        ties = np.random.Generator(np.random.PCG64([plan.seed, 0])).random(plan.rows)
        self.standings = Standings(plan.k, self.sizes, ties)
        self.log_wealth = np.zeros((len(self.sizes), len(DOUBTS)))
        self.highest = np.zeros(len(self.sizes))

    @property
    def null_left(self) -> Counts:
        """(G,) r: rows of the top k that the null says are ungraded outside, at least."""
        return self.plan.may_miss + 1 - self.standings.found

    @property
    def scale(self) -> float:
        """By how much the predicted chances were too low so far.

        Judged by the rows outside the longest prefix that is graded: before that, gamma is too low.
        """
        standings = self.standings
        if not len(self.sizes) or standings.unranked[-1]:
            return 1.0
        rung = int(np.argmax(standings.unranked == 0))
        expected = float(standings.graded[: rung + 1] @ self.chances[: rung + 1])
        return float(np.clip((standings.found[rung] + 2) / (expected + 2), 0.4, 2.5))

    @property
    def expected(self) -> Floats:
        """(G,) rows of the top k predicted to be ungraded outside each prefix."""
        return np.asarray(self.scale * np.cumsum(self.standings.left * self.chances))

    @property
    def now(self) -> Floats:
        """(G,) log wealth of each prefix: the mean over its gamblers, which is an e-value too."""
        top = self.log_wealth.max(axis=1, keepdims=True)
        return np.asarray(top[:, 0] + np.log(np.exp(self.log_wealth - top).mean(axis=1)))

    @property
    def passed(self) -> int:
        """How many prefixes are certified, from the longest downward."""
        return leading((self.highest >= self.plan.guarantee.log_bar) & (self.null_left > 0))

    @property
    def done(self) -> bool:
        """A prefix is certified, and the teacher has graded all of it."""
        best = self.passed - 1
        return best >= 0 and not self.standings.unranked[best]

    def bets(self) -> Floats:
        """(G, gamblers) Kelly's bet if the ungraded rows hold as many of the top k as expected."""
        null = self.null_left[:, None].astype(np.float64)
        others = np.maximum(self.standings.hidden[:, None] - null, 1.0)
        kelly = (null - self.expected[:, None] * DOUBTS) / (np.maximum(null, 1.0) * others)
        return np.asarray(np.clip(kelly, 0.0, SAFEST / others))

    def record(self, graded: Graded) -> None:
        """Take in a grade; a drawn one is settled at every prefix that it speaks of."""
        if graded.rung is None:
            self.standings.seat(graded)
        else:
            self._settle(graded, slice(self.standings.band(graded.rank), graded.rung + 1))

    def _settle(self, graded: Graded, rungs: slice) -> None:
        # all three of the moment before the grade
        bets, null, hidden = self.bets(), self.null_left, self.standings.hidden
        counts = self.standings.seat(graded)
        gain = np.where(null > 0, null - hidden * counts, 0.0)
        self.log_wealth[rungs] += np.log1p(bets[rungs] * gain[rungs, None])
        self.highest = np.maximum(self.highest, self.now)

    def claim(self) -> Claim:
        """What the grades so far prove. Raises ``CertificateError`` where they prove nothing."""
        best = self.passed - 1
        if best < 0:
            raise CertificateError(
                f"no prefix was shown to hold {self.plan.guarantee.target:.3f} of the top "
                f"{self.plan.k}: buy more grades, improve the proxy or lower the target"
            )
        if not self.done:
            open_rows = self.standings.unranked[best]
            raise CertificateError(
                f"{open_rows} rows of the certified prefix are not graded: grade them"
            )
        missed = self.standings.most_missed(best, self.plan.may_miss)
        hidden = int(self.standings.hidden[best])
        return Claim(
            guarantee=self.plan.guarantee,
            rung=self.plan.rungs[best],
            n=self.plan.rows,
            labels=len(self.standings.places),
            bound=1 - missed / self.plan.k,
            conditional=Conditional(
                estimate=max(1 - float(self.expected[best]) / max(hidden, 1), 0.0),
                bound=max(1 - missed / max(hidden, 1), 0.0),
                rows=hidden,
            ),
            method="fixed-sequence betting without replacement (Waudby-Smith & Ramdas; Ville)",
            metric=f"recall@{self.plan.k}",
        )


class Lottery:
    """Uniform draws of the ungraded rows outside a prefix; the same for the same seed."""

    def __init__(self, seed: int) -> None:
        self._rng = np.random.Generator(np.random.PCG64([seed, 1]))

    def draw(self, ledger: TopKLedger, rung: int, waiting: Collection[int] = ()) -> int:
        """A rank outside prefix ``rung`` that is neither graded nor ``waiting`` for its grade.

        Raises
        ------
        CertificateError : there is no such prefix, or no such row.
        """
        if not 0 <= rung < len(ledger.sizes):
            raise CertificateError(f"there is no prefix {rung} to draw outside of")
        low, rows = int(ledger.sizes[rung]), ledger.plan.rows
        if ledger.standings.hidden[rung] <= sum(rank >= low for rank in waiting):
            raise CertificateError(f"there is nothing to draw outside prefix {rung}")
        rank = low + int(self._rng.random() * (rows - low))
        while rank in ledger.standings.ranks or rank in waiting:  # stays uniform on the rest
            rank = low + int(self._rng.random() * (rows - low))
        return rank
