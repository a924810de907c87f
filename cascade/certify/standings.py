"""The teacher's order of the rows that it has graded so far, and where the proxy had put them.

Knows grades, ranks and prefixes; nothing of wealth, bets or which row is worth grading next.

Rows outside prefix g lie in the *bands* 0 .. g: band b are the rows of prefix b - 1 (at first of
the whole table) that prefix b leaves out.

A row counts as one of the teacher's top k while it is among the k best rows *graded so far*. The
k-th best of them, gamma, only rises towards the true one: every row of the true top k that is
graded always counts, and others may too.
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]

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


class Place(NamedTuple):
    """A graded row's place in the teacher's order: grade, then the row's random number."""

    grade: float
    tie: float
    band: int
    row: int


class Standings:
    """Who leads, and how many of the leaders the proxy had put outside each prefix.

    Parameters
    ----------
    k : how many rows lead.
    sizes : (G,) rows of each prefix, the longest first.
    ties : (n,) random numbers by which equal grades are ordered, fixed before the first grade.
    """

    def __init__(self, k: int, sizes: Counts, ties: Floats) -> None:
        self.k = k
        self.sizes = sizes
        self.ties = ties
        self.places: list[Place] = []  # of every graded row, worst first
        self.ranks: set[int] = set()  # of every graded row
        self.graded = np.zeros(len(sizes), dtype=np.int64)  # (G,) of each band
        self.found = np.zeros(len(sizes), dtype=np.int64)  # (G,) counting, outside each prefix
        self.unranked = sizes.copy()  # (G,) ungraded rows inside each prefix
        self._outside: list[list[Place]] = [[] for _ in sizes]  # of each band, worst first
        self._banded: Counts = -np.diff(sizes, prepend=len(ties))  # (G,) rows of each band

    @property
    def left(self) -> Counts:
        """(G,) ungraded rows of each band."""
        return self._banded - self.graded

    @property
    def hidden(self) -> Counts:
        """(G,) ungraded rows outside each prefix."""
        return np.cumsum(self.left, dtype=np.int64)

    @property
    def gamma(self) -> Place:
        """The k-th best of the graded rows: what a row must reach to count."""
        if len(self.places) < self.k:
            return Place(UNGRADED, -1.0, 0, 0)
        return self.places[-self.k]

    def band(self, rank: int) -> int:
        """The band of a rank, which is the first prefix that it is outside of; G inside all."""
        return int((self.sizes > rank).sum())

    def seat(self, graded: Graded) -> bool:
        """Take in a grade. Whether its row counts as one of the top k now."""
        grade = UNGRADED if graded.grade is None else graded.grade
        band = self.band(graded.rank)
        place = Place(grade, float(self.ties[graded.row]), band, graded.row)
        insort(self.places, place)
        self.ranks.add(graded.rank)
        self.unranked -= graded.rank < self.sizes
        if band < len(self.sizes):
            insort(self._outside[band], place)
            self.graded[band] += 1
        gamma = self.gamma
        counting = [len(places) - bisect_left(places, gamma) for places in self._outside]
        self.found = np.cumsum(counting, dtype=np.int64)
        return place >= gamma

    def top(self) -> list[Place]:
        """The best k of the graded rows, the best first."""
        return self.places[: -self.k - 1 : -1]

    def most_missed(self, rung: int, may_miss: int) -> int:
        """Rows of the top k that are ungraded, at most, if ``may_miss`` lie outside the prefix.

        If j are, the other k - j are the best k - j of all graded rows; those of them outside the
        prefix and the j are together at most ``may_miss``. The largest such j.
        """
        outside = np.cumsum([0, *(place.band <= rung for place in self.top())])
        missed = np.arange(may_miss + 1)
        possible = missed + outside[self.k - missed] <= may_miss
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
