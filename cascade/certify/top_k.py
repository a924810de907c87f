"""Certify how far down a proxy's ranking the teacher must look for its own top k (ALGORITHMS D).

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

K is unknown, so a row counts as one of K while it is among the k best rows *graded so far*. The
k-th best of them, gamma, only rises towards the true one, so every row of K always counts, and
others may too. Hence f >= f*, r = M + 1 - f <= r* and Z >= Z*: every factor 1 + bet (r - Z) that
we use is at most the one of W*, and our wealth never exceeds it. A bet that keeps ours positive
keeps W* positive, since the least factor, 1 + bet (r - N), only grows with r. So the whole delta
serves, whatever the grades turn out to be: none of it is spent on the values that gamma might take.

The prefixes are certified in order, the longest first, so the first true null must be crossed
first (fixed-sequence testing, arXiv 2110.01052). A draw counts only at prefixes that leave out no
more than the rows it was drawn from; among the rows that they leave out it is uniform.

Rows outside prefix g lie in the *bands* 0 .. g: band b are the rows of prefix b - 1 (at first of
the whole table) that prefix b leaves out. All rows of a band have one predicted chance.
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from itertools import pairwise
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from cascade.certify.claim import Claim, Conditional, Guarantee, Rung
from cascade.errors import CertificateError

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]

SAFEST = 0.95  # share of the largest bet that keeps the wealth positive
DOUBTS = (0.5, 1.0, 1.5)  # the predicted number outside may be off: one gambler for each factor
UNGRADED = -math.inf
"""Where the teacher gave no readable grade: the row is in nobody's top k."""


class Graded(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One bought grade.

    row : index in the table. rank : its place in the proxy's frozen order, 0 the best.
    rung : the prefix outside of which it was drawn; None where it was graded without a draw.
    grade : the teacher's; None where it could not be read.
    """

    row: int
    rank: int
    rung: int | None
    grade: float | None


class TopKPlan(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is frozen before the first draw.

    guarantee : share of the teacher's ``k`` best of ``rows`` rows to find.
    rungs, sizes : (G,) prefixes and how many rows each holds; the longest first.
    chances : (G,) predicted P(in the top k) of a row of each band. Only steers the bets.
    seed : of the draws and of the order of equal grades.
    """

    guarantee: Guarantee
    k: int
    rows: int
    rungs: list[Rung]
    sizes: list[int]
    chances: list[float]
    seed: int

    @property
    def may_miss(self) -> int:
        """M: rows of the top k that may be missed."""
        # rounded: (1 - 0.9) * 10 is 0.9999999999999998 in floating point
        return math.floor(round(self.guarantee.risk * self.k, 6))

    def check(self) -> None:
        """Raise ``CertificateError`` where this is no path of shrinking prefixes."""
        lengths = {len(self.rungs), len(self.sizes), len(self.chances)}
        edges = [self.rows, *self.sizes, self.k - 1]
        growing = any(low >= high for high, low in pairwise(edges))
        if len(lengths) != 1 or self.k < 1 or growing:
            raise CertificateError("the plan of the evidence is no path of shrinking prefixes")


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
            if not places or graded.rank in ledger.ranks or graded.row in rows:
                raise CertificateError(f"row {graded.row} is graded twice or not in the table")
            if graded.rung is not None and lottery.draw(ledger, graded.rung) != graded.rank:
                raise CertificateError(f"row {graded.row} is not the one that the seed draws")
            rows.add(graded.row)
            ledger.record(graded)
        return ledger


class Place(NamedTuple):
    """A graded row's place in the teacher's order: grade, then the seed's random number."""

    grade: float
    tie: float
    band: int
    row: int


class TopKLedger:
    """Every prefix's wealth, and the teacher's order of the rows graded so far. Chooses nothing."""

    def __init__(self, plan: TopKPlan) -> None:
        self.plan = plan
        self.sizes: Counts = np.asarray(plan.sizes, dtype=np.int64)
        self.chances = np.asarray(plan.chances)
        self.banded: Counts = -np.diff(self.sizes, prepend=plan.rows)  # (G,) rows of each band
        self.graded = np.zeros(len(self.sizes), dtype=np.int64)  # (G,) of each band
        self.found = np.zeros(len(self.sizes), dtype=np.int64)  # (G,) outside each prefix
        self.unranked = self.sizes.copy()  # (G,) ungraded rows inside each prefix
        self.log_wealth = np.zeros((len(self.sizes), len(DOUBTS)))
        self.highest = np.zeros(len(self.sizes))
        self.places: list[Place] = []  # of every graded row, worst first
        self.ranks: set[int] = set()
        self._outside: list[list[Place]] = [[] for _ in plan.sizes]  # of each band, worst first
        # from the seed, so that who is in the top k is fixed before the first draw
        self._ties = np.random.Generator(np.random.PCG64([plan.seed, 0])).random(plan.rows)

    @property
    def left(self) -> Counts:
        """(G,) ungraded rows of each band."""
        return self.banded - self.graded

    @property
    def null_left(self) -> Counts:
        """(G,) r: rows of the top k that the null says are ungraded outside, at least."""
        return self.plan.may_miss + 1 - self.found

    @property
    def hidden(self) -> Counts:
        """(G,) N: ungraded rows outside each prefix."""
        return np.cumsum(self.left, dtype=np.int64)

    @property
    def scale(self) -> float:
        """By how much the predicted chances were too low so far.

        Judged by the rows outside the longest prefix that is graded: before that, gamma is too low.
        """
        if not len(self.sizes) or self.unranked[-1]:
            return 1.0
        rung = int(np.argmax(self.unranked == 0))
        expected = float(self.graded[: rung + 1] @ self.chances[: rung + 1])
        return float(np.clip((self.found[rung] + 2) / (expected + 2), 0.4, 2.5))

    @property
    def expected(self) -> Floats:
        """(G,) rows of the top k predicted to be ungraded outside each prefix."""
        return np.asarray(self.scale * np.cumsum(self.left * self.chances))

    @property
    def now(self) -> Floats:
        """(G,) log wealth of each prefix: the mean over its gamblers, which is an e-value too."""
        top = self.log_wealth.max(axis=1, keepdims=True)
        return np.asarray(top[:, 0] + np.log(np.exp(self.log_wealth - top).mean(axis=1)))

    @property
    def passed(self) -> int:
        """How many prefixes are certified, from the longest downward."""
        crossed = (self.highest >= self.plan.guarantee.log_bar) & (self.null_left > 0)
        return int(np.argmin(crossed)) if not crossed.all() else len(self.sizes)

    def bets(self, null_left: Counts) -> Floats:
        """(G, gamblers) Kelly's bet if the ungraded rows hold as many of the top k as expected."""
        null = null_left[:, None].astype(np.float64)
        others = np.maximum(self.hidden[:, None] - null, 1.0)
        kelly = (null - self.expected[:, None] * DOUBTS) / (np.maximum(null, 1.0) * others)
        return np.asarray(np.clip(kelly, 0.0, SAFEST / others))

    def record(self, graded: Graded) -> None:
        """Take in a grade: the order of the rows seen, and what a draw says of each prefix."""
        band = int((self.sizes > graded.rank).sum())  # the number of bands: inside every prefix
        if graded.rung is None:
            self._seat(graded, band)
        else:
            self._settle(graded, band, slice(band, graded.rung + 1))
        self.unranked -= graded.rank < self.sizes

    def _settle(self, graded: Graded, band: int, rungs: slice) -> None:
        """What a draw says of the prefixes that it counts at."""
        null = self.null_left
        bets, null = self.bets(null)[rungs], null[rungs]  # of the moment before the grade
        hidden = self.hidden[rungs]
        counts = self._seat(graded, band) >= self._gamma
        gain = np.where(null > 0, null - hidden * counts, 0.0)
        self.log_wealth[rungs] += np.log1p(bets * gain[:, None])
        self.highest = np.maximum(self.highest, self.now)

    def claim(self) -> Claim:
        """What the grades so far prove. Raises ``CertificateError`` where they prove nothing."""
        best = self.passed - 1
        if best < 0:
            raise CertificateError(
                f"no prefix was shown to hold {self.plan.guarantee.target:.3f} of the top "
                f"{self.plan.k}: buy more grades, improve the proxy or lower the target"
            )
        if self.unranked[best]:
            raise CertificateError(
                f"{self.unranked[best]} rows of the certified prefix are not graded: grade them"
            )
        missed = self.most_missed(best)
        hidden = int(self.hidden[best])
        return Claim(
            guarantee=self.plan.guarantee,
            rung=self.plan.rungs[best],
            n=self.plan.rows,
            labels=len(self.places),
            bound=1 - missed / self.plan.k,
            conditional=Conditional(
                estimate=max(1 - float(self.expected[best]) / max(hidden, 1), 0.0),
                bound=max(1 - missed / max(hidden, 1), 0.0),
                rows=hidden,
            ),
            method="fixed-sequence betting without replacement (Waudby-Smith & Ramdas; Ville)",
            metric=f"recall@{self.plan.k}",
        )

    def most_missed(self, rung: int) -> int:
        """Rows of the top k that are still ungraded, at most, if the rung's null is false.

        If j are, the other k - j are the best k - j of all graded rows; those of them outside the
        prefix and the j are together at most M. The largest such j.
        """
        best_first = self.places[: -self.plan.k - 1 : -1]
        outside = np.cumsum([0, *(place.band <= rung for place in best_first)])
        missed = np.arange(self.plan.may_miss + 1)
        possible = missed + outside[self.plan.k - missed] <= self.plan.may_miss
        return int(missed[possible].max())

    def stand_ins(self) -> list[tuple[float, float]]:
        """What the ungraded rows may look like: grades seen in their band, and rows each is for."""
        pairs = zip(self._outside, self.left.tolist(), strict=True)
        return [
            (place.grade, left / len(places))
            for places, left in pairs
            for place in places
            if place.grade > UNGRADED
        ]

    @property
    def _gamma(self) -> Place:
        """The k-th best of the graded rows: what a row of the top k must reach."""
        if len(self.places) < self.plan.k:
            return Place(UNGRADED, -1.0, 0, 0)
        return self.places[-self.plan.k]

    def _seat(self, graded: Graded, band: int) -> Place:
        grade = UNGRADED if graded.grade is None else graded.grade
        place = Place(grade, float(self._ties[graded.row]), band, graded.row)
        insort(self.places, place)
        self.ranks.add(graded.rank)
        if band < len(self.sizes):
            insort(self._outside[band], place)
            self.graded[band] += 1
        gamma = self._gamma
        counting = [len(places) - bisect_left(places, gamma) for places in self._outside]
        self.found = np.cumsum(counting, dtype=np.int64)
        return place


class Lottery:
    """Uniform draws of the ungraded rows outside a prefix; the same for the same seed."""

    def __init__(self, seed: int) -> None:
        self._rng = np.random.Generator(np.random.PCG64([seed, 1]))

    def draw(self, ledger: TopKLedger, rung: int) -> int:
        """A rank outside prefix ``rung`` that is not graded yet.

        Raises
        ------
        CertificateError : there is no such prefix, or no such row.
        """
        if not 0 <= rung < len(ledger.sizes) or not ledger.hidden[rung]:
            raise CertificateError(f"there is nothing to draw outside prefix {rung}")
        low, rows = int(ledger.sizes[rung]), ledger.plan.rows
        rank = low + int(self._rng.random() * (rows - low))
        while rank in ledger.ranks:  # rejection keeps it uniform on the rest
            rank = low + int(self._rng.random() * (rows - low))
        return rank
