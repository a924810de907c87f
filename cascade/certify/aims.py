"""What a filter promises of its positive rows: precision, or recall. Knows the two nulls.

The unlabelled rows are frozen in an order, likeliest positive first. A *precision* rung accepts a
prefix A unseen, a *recall* rung rejects a suffix R unseen; every row that was labelled before the
freeze (the pilot, the teacher zone) or is labelled afterwards answers by its label. T: the
positive rows known at the freeze, wherever they lie.

**Precision** at least P. The final answer holds the unlabelled rows of A, T and what was found
since. If A held at most B = floor((1 - P) (|A| + T)) negative rows at the freeze, then after f of
them were found and removed the answer has at least |A| - f + T rows and at most B - f false ones:
a share of at most B / (|A| + T) <= 1 - P. Null of a rung: "A held at least B + 1 negative rows".

**Recall** at least R. If the rejected suffix held FN positive rows at the freeze and the rest of
the table T + TP, then without what was found later the recall is (T + TP) / (T + TP + FN); found
positives join the answer, so it only rises. It is at least R iff FN <= rho (T + TP) with
rho = (1 - R) / R. TP is unknown where rows were accepted unseen. Estimating it apart would cost a
part of delta; but the null "FN - rho TP >= rho T" is linear in the labels, so that *one* wealth
tests it: a positive row found outside R is help, one inside is harm.

**Which nulls are fixed at the freeze.** All of them: A, R, the labels and T are. B is a known
number. rho (T + TP) is unknown, but no draw changes it: the null compares two counts of the frozen
table, not of what is left of it. Therefore rungs are certified in a fixed order, each at the whole
delta (fixed-sequence testing, arXiv 2110.01052). Nulls that follow the labels would need weights
that sum to one: positives that are found *after* the freeze would raise B ("labels turn bad rungs
good"), and which rung is the first bad one would depend on the draws.

**Rows that the teacher cannot read** may be positive or not; nobody knows. Let U be all of them.
For a precision they count as negative, and are in no answer. A recall null counts those of R as
positive and no others: FN is the positive *or unreadable* rows of R at the freeze, fixed as before,
and a draw of one is harm inside R and no help outside. Let V be any part of U that somebody might
call positive. If the bought rows of U are in the answer, then beside the T + TP positive rows and
those of V that it holds, at most FN rows that are positive or in V are missed: the recall is at
least R whatever V is. So under a recall alone they join the answer. Where a precision is promised
too they cannot, and that recall is one of the answer and these rows together; of the answer by
itself (take V to be empty) it counts the positive rows that can be read.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

from cascade.certify.claim import Claim, Conditional, Guarantee, Rung
from cascade.certify.weighted import Floats, Ints

Bools = NDArray[np.bool_]

METHOD = "fixed-sequence betting on weighted draws without replacement (Shekhar et al.; Ville)"


@dataclass(frozen=True)
class Found:
    """What the draws since the freeze found, a number for each cell, (C,)."""

    positive: Ints
    negative: Ints
    unreadable: Ints

    @property
    def labels(self) -> int:
        """How many rows were drawn."""
        return int((self.positive + self.negative + self.unreadable).sum())


@dataclass(frozen=True)
class Frozen:
    """The table at the freeze.

    sizes : (C,) unlabelled rows of each cell, likeliest positive first.
    stops : (G,) where each rung ends: the cells before it are accepted (precision), or it and the
        cells after it are rejected (recall).
    known : rows labelled before. positive : those of them that are positive, T.
    """

    sizes: Ints
    stops: Ints
    known: int
    positive: int

    @property
    def rows(self) -> int:
        """Of the whole table."""
        return int(self.sizes.sum()) + self.known

    @property
    def before(self) -> Bools:
        """(G, C) cells before each rung's stop."""
        return np.asarray(np.arange(len(self.sizes)) < self.stops[:, None])


class Precision(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="precision"):
    """At least ``guarantee.target`` of the rows in the answer are positive."""

    guarantee: Guarantee

    def zone(self, frozen: Frozen) -> Bools:
        """(G, C) cells that each rung answers unseen: the accepted ones."""
        return frozen.before

    def values(self, frozen: Frozen) -> Floats:
        """(G, C) harm of a negative row."""
        return frozen.before.astype(np.float64)

    def owed(self, frozen: Frozen) -> Floats:
        """(G,) B + 1: negative rows that each null says were accepted, at least."""
        return self.allowed(frozen) + 1.0

    def allowed(self, frozen: Frozen) -> Floats:
        """(G,) B: negative rows that the accepted cells may hold."""
        answer = frozen.before @ frozen.sizes + frozen.positive
        # rounded: (1 - 0.9) * 1000 is 99.99999999999997 in floating point
        return np.asarray(np.floor(np.round(self.guarantee.risk * answer, 6)))

    def event(self, positive: bool | None) -> bool | None:
        """What the wealth is about: a negative row."""
        return None if positive is None else not positive

    def p_event(self, p_positive: Floats) -> Floats:
        """(C,) forecast share of negative rows."""
        return 1 - p_positive

    def tenable(self, frozen: Frozen, found: Found) -> Bools:
        """(G,) rungs that the labels have not refuted already."""
        return self._spare(frozen, found) >= 0

    def claim(self, frozen: Frozen, found: Found, best: int, rung: Rung, p_left: Floats) -> Claim:
        """What certifying rung ``best`` proves. p_left : (C,) forecast share of positive rows."""
        zone = frozen.before[best]
        spare = float(self._spare(frozen, found)[best])
        open_rows = (frozen.sizes - found.positive - found.negative - found.unreadable) * zone
        unseen = int(open_rows.sum())
        answer = unseen + frozen.positive + int(found.positive.sum())
        return Claim(
            guarantee=self.guarantee,
            rung=rung,
            n=frozen.rows,
            labels=frozen.known + found.labels,
            bound=1 - spare / max(answer, 1),
            conditional=Conditional(
                estimate=float(open_rows @ p_left) / max(unseen, 1),
                bound=max(1 - spare / max(unseen, 1), 0.0),
                rows=unseen,
            ),
            method=METHOD,
            metric="precision",
        )

    def _spare(self, frozen: Frozen, found: Found) -> Floats:
        lost = frozen.before @ (found.negative + found.unreadable)
        return np.asarray(self.allowed(frozen) - lost)


class Recall(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="recall"):
    """At least ``guarantee.target`` of the positive rows are in the answer."""

    guarantee: Guarantee

    @property
    def rho(self) -> float:
        """Positive rows that may be missed for each one that is not: (1 - R) / R."""
        return self.guarantee.risk / self.guarantee.target

    def zone(self, frozen: Frozen) -> Bools:
        """(G, C) cells that each rung answers unseen: the rejected ones."""
        return ~frozen.before

    def values(self, frozen: Frozen) -> Floats:
        """(G, C) harm of a positive row that is rejected, help of one that is not."""
        return np.where(frozen.before, -self.rho, 1.0)

    def owed(self, frozen: Frozen) -> Floats:
        """(G,) rho T: by how much each null says that missed rows outweigh the other unknown."""
        return np.full(len(frozen.stops), self.rho * frozen.positive)

    def event(self, positive: bool | None) -> bool | None:
        """What the wealth is about: a positive row."""
        return positive

    def p_event(self, p_positive: Floats) -> Floats:
        """(C,) forecast share of positive rows."""
        return p_positive

    def tenable(self, frozen: Frozen, found: Found) -> Bools:
        """(G,) rungs that the labels have not refuted already."""
        missed = ~frozen.before @ (found.positive + found.unreadable)
        return np.asarray(missed <= self.rho * self._most_kept(frozen, found))

    def claim(self, frozen: Frozen, found: Found, best: int, rung: Rung, p_left: Floats) -> Claim:
        """What certifying rung ``best`` proves. p_left : (C,) forecast share of positive rows.

        With K >= T + TP kept and f found among the rejected, FN <= rho (T + TP) gives a recall of
        (T + TP + f) / (T + TP + FN) >= R (1 + f / K).
        """
        zone = ~frozen.before[best]
        kept = float(self._most_kept(frozen, found)[best])
        saved = int(found.positive[zone].sum())
        gone = saved + int(found.unreadable[zone].sum())
        open_rows = (frozen.sizes - found.positive - found.negative - found.unreadable) * zone
        unseen = int(open_rows.sum())
        missed = math.floor(round(self.rho * kept, 6)) - gone
        return Claim(
            guarantee=self.guarantee,
            rung=rung,
            n=frozen.rows,
            labels=frozen.known + found.labels,
            bound=min(self.guarantee.target * (1 + saved / max(kept, 1.0)), 1.0),
            conditional=Conditional(
                estimate=1 - float(open_rows @ p_left) / max(unseen, 1),
                bound=max(1 - missed / max(unseen, 1), 0.0),
                rows=unseen,
            ),
            method=METHOD,
            metric="recall",
        )

    def _most_kept(self, frozen: Frozen, found: Found) -> Floats:
        """(G,) most positive rows that can lie outside the rejected ones."""
        possible = frozen.sizes - found.negative - found.unreadable
        return np.asarray(frozen.before @ possible + frozen.positive, dtype=np.float64)


Aim = Precision | Recall
"""One promise. Two of them share the labels; their deltas add up."""
