"""Look at a few rows before a filter is frozen, most of them where positives may be.

Knows one score a row; nothing of audits. What it forecasts orders and bets, it guarantees nothing.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cascade.certify.filter_audit import KnownRow
from cascade.certify.pilot import fit_platt
from cascade.certify.weighted import Floats, Ints


def pilot_draws(ranks: Ints, labels: int, rng: np.random.Generator) -> tuple[Ints, Floats]:
    """Rows to label first, drawn at random without replacement.

    A quarter of the chance is uniform; the rest gives every octave of ranks from the top the same,
    since nobody knows yet whether a hundredth or a half of the rows is positive.

    Parameters
    ----------
    ranks : (n,) see ``ranks_of``.

    Returns
    -------
    rows : (labels,) in the order of drawing; fewer where the table is smaller.
    propensities : (labels,) chance of each at its draw, given the earlier ones.
    """
    rows = len(ranks)
    octaves = 1 / (1.0 + ranks)
    weights = 0.25 / rows + 0.75 * octaves / octaves.sum()
    # largest log-weight plus Gumbel noise first: draws one by one, without replacement
    drawn = np.argsort(-(np.log(weights) + rng.gumbel(size=rows)))[:labels]
    before = np.concatenate([[0.0], np.cumsum(weights[drawn])[:-1]])
    return drawn, weights[drawn] / (1 - before)


def ranks_of(scores: Floats, rng: np.random.Generator) -> Ints:
    """(n,) rank of each row, 0 the largest score; ties in random order."""
    ranks = np.empty(len(scores), dtype=np.int64)
    ranks[np.lexsort((rng.random(len(scores)), -scores))] = np.arange(len(scores))
    return ranks


def forecast(scores: Floats, ranks: Ints, rows: Ints, positive: NDArray[np.bool_]) -> Floats:
    """P(positive) of every row, from the labels of some.

    The mean of two logistic curves, in the score's logit and in its rank's: scores may mean
    nothing but their order, and ranks cannot know a cliff.

    Parameters
    ----------
    scores, ranks : (n,). rows, positive : (m,) the labelled ones and their labels, maybe none.
    """
    places = 1 - (ranks + 0.5) / len(ranks)
    if not len(rows):
        return places
    curves = [fit_platt(one[rows], positive)(one) for one in (scores, places)]
    return np.asarray((curves[0] + curves[1]) / 2)


@dataclass(frozen=True)
class Ranked:
    """The table before the freeze. scores : (n,). ranks : (n,) see ``ranks_of``."""

    scores: Floats
    ranks: Ints

    @classmethod
    def of(cls, scores: Floats, rng: np.random.Generator) -> Ranked:
        """Rank a table."""
        return cls(scores, ranks_of(scores, rng))

    def forecast(self, known: Sequence[KnownRow]) -> Floats:
        """(n,) P(positive), from what is known."""
        read = [row for row in known if row.positive is not None]
        rows = np.array([row.row for row in read], dtype=np.int64)
        positive = np.array([row.positive for row in read], dtype=np.bool_)
        return forecast(self.scores, self.ranks, rows, positive)

    def unlabelled(self, known: Sequence[KnownRow]) -> tuple[Ints, Floats]:
        """(m,) the other rows, likeliest first, and (m,) their forecast."""
        p_positive = self.forecast(known)
        free = np.setdiff1d(np.arange(len(self.ranks)), [row.row for row in known])
        order = free[np.argsort(-p_positive[free], kind="stable")]
        return order, p_positive[order]


def pilot(
    ranked: Ranked, labels: int, rng: np.random.Generator
) -> Generator[list[int], list[bool | None], list[KnownRow]]:
    """Label a few random rows; never all of them, so that one is left to freeze."""
    rows, propensities = pilot_draws(ranked.ranks, min(labels, len(ranked.ranks) - 1), rng)
    answers = yield rows.tolist()
    return [
        KnownRow(row, positive, propensity)
        for row, positive, propensity in zip(
            rows.tolist(), answers, propensities.tolist(), strict=True
        )
    ]
