"""Look at a few rows before the freeze: which to label, and what their labels say of the scores.

Knows one score a row; nothing of audits. Its answers order and bet, they guarantee nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

EDGE = 1e-6  # scores of exactly 0 and 1 have no logit
STEPS = 30  # of Newton's method, damped: converges in about 8
SHRINKAGE = 0.1  # of a slope: what keeps separable labels from looking certain
SHRINKAGE_OF_TWO = 0.04  # where two curves are averaged
LEAST, MOST = 12, 250  # pilot labels
FIRST = 45  # of them; then a look whether more could be of any use
PESSIMISM = np.e  # the pessimist thinks the odds of being wrong so many times as large


def pilot_size(rows: int) -> int:
    """Labels worth buying before the freeze: they cost their number, and spare ever less of more.

    >>> pilot_size(1_000), pilot_size(25_000)
    (32, 158)
    """
    return int(np.clip(round(rows**0.5), LEAST, MOST))


def pilot_rows(scores: Floats, labels: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Rows to label first: half uniform, half spread evenly over the ranks of ``scores``, (n,).

    The result, sorted, may be a few shorter than ``labels``: a row can be picked by both halves.
    """
    rows = len(scores)
    uniform = rng.choice(rows, min(labels // 2, rows), replace=False)
    ranks = np.linspace(0, rows - 1, min(labels - labels // 2, rows)).astype(np.int64)
    return np.union1d(uniform, np.argsort(scores, kind="stable")[ranks])


def wrong_at_worst(p_agree: Floats) -> float:
    """Share of wrong answers that a pessimist expects where (n,) P(agree) is forecast.

    >>> round(wrong_at_worst(np.array([0.99, 0.9])), 3)
    0.129
    """
    odds = PESSIMISM * (1 - p_agree) / np.maximum(p_agree, EDGE)
    return float(np.mean(odds / (1 + odds)))


@dataclass(frozen=True)
class Platt:
    """P(label is positive | score): logistic in the score's logit [1]_.

    .. [1] Platt (1999), Probabilistic outputs for support vector machines.
    """

    intercept: float
    slope: float

    def __call__(self, scores: Floats) -> Floats:
        """Calibrated P(positive), the shape of ``scores``."""
        margin = self.intercept + self.slope * _logit(scores)
        return np.asarray(0.5 * (1 + np.tanh(margin / 2)))  # a sigmoid that cannot overflow


def fit_platt(scores: Floats, positive: NDArray[np.bool_], shrinkage: float = SHRINKAGE) -> Platt:
    """Penalised maximum likelihood by damped Newton steps; a few labels cannot make it certain.

    shrinkage : inverse prior variance of the slope, in standard deviations of the logits.

    >>> platt = fit_platt(np.array([0.1, 0.2, 0.8, 0.9] * 5), np.array([0, 0, 1, 1] * 5, bool))
    >>> platt(np.array([0.1, 0.9])).round(2).tolist()
    [0.01, 0.99]
    """
    raw = _logit(scores)
    centre, spread = raw.mean(), max(raw.std(), EDGE)
    design = np.column_stack([np.ones(len(raw)), (raw - centre) / spread])
    weights = np.zeros(2)
    penalty = np.array([0.01, shrinkage])
    for _ in range(STEPS):
        chance = 0.5 * (1 + np.tanh(design @ weights / 2))
        slope = design.T @ (chance - positive) + penalty * weights
        curve = design.T @ (design * (chance * (1 - chance))[:, None]) + np.diag(penalty)
        step = np.linalg.solve(curve, slope)
        weights = weights - step * min(1.0, 2 / max(np.abs(step).max(), EDGE))
    return Platt(float(weights[0] - weights[1] * centre / spread), float(weights[1] / spread))


def _logit(scores: Floats) -> Floats:
    safe = np.clip(scores, EDGE, 1 - EDGE)
    return np.asarray(np.log(safe) - np.log1p(-safe))


def calibrate(scores: Floats, rows: NDArray[np.int64], positive: NDArray[np.bool_]) -> Floats:
    """(n,) P(label is positive): the mean of two logistic curves.

    One in the score's logit, one in its rank's. Scores may mean nothing but their order, and ranks
    cannot know a cliff. The mean hedges, so that each curve needs less shrinkage (tables_made.py).
    """
    curves = [
        fit_platt(one[rows], positive, SHRINKAGE_OF_TWO)(one) for one in (scores, places(scores))
    ]
    return np.asarray((curves[0] + curves[1]) / 2)


def places(scores: Floats) -> Floats:
    """(n,) rank in (0, 1), equal scores sharing their mean rank.

    >>> places(np.array([0.2, 0.9, 0.2, 0.1])).tolist()
    [0.5, 0.875, 0.5, 0.125]
    """
    ordered = np.sort(scores)
    below, upto = (np.searchsorted(ordered, scores, side) for side in ("left", "right"))
    return np.asarray((below + upto) / (2 * len(scores)))
