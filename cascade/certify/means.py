"""Bound the mean of a table's values by betting on weighted, prediction-powered draws.

Knows numbers in the order of drawing; nothing of rows, teachers or who draws. See ``aggregates``
for what it is good for.

Why it is valid. Let R be the rows without a value before a draw, y their values, S their sum and
i the row drawn from R with known chance p_i. For predictions f the *rectified* draw

    Z = (y_i - w f_i) / p_i + w sum_R f - S        w, the trust in f, fixed before the draw

has mean zero: prediction-powered inference [1]_ with power tuning [2]_, drawn without replacement.
A hypothetical mean fixes S, so a gambler who bets on "Z > 0" has a wealth that is a nonnegative
martingale if the hypothesis is true, and reaches 1/delta with probability at most delta (Ville
1939). The bound is the end of the means that were disproved at any time [3]_ [4]_.

References
----------
.. [1] Angelopoulos, Bates, Fannjiang, Jordan & Zrnic (2023), Prediction-powered inference,
       arXiv 2301.09633.
.. [2] Angelopoulos, Duchi & Zrnic (2023), PPI++, arXiv 2311.01453.
.. [3] Waudby-Smith & Ramdas (2020), Estimating means of bounded random variables by betting,
       arXiv 2010.09686, and without replacement, arXiv 2006.04347.
.. [4] Shekhar, Xu, Lipton, Liang & Ramdas (2023), Risk-limiting financial audits via weighted
       sampling without replacement, arXiv 2305.06884.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cascade.errors import UsageError

Floats = NDArray[np.float64]

SAFEST = 0.9  # share of the largest bet that keeps the wealth positive
TRUSTED = 20  # draws that the predictions' own word is worth before the values speak
HALVINGS = 50


class Trail(NamedTuple):
    """What was drawn, in order.

    predictions, chances : (n,) of every row; the chances sum to 1 and hold for the first draw.
    places, values : (t,) the rows drawn, and their values.
    """

    predictions: Floats
    chances: Floats
    places: NDArray[np.int64]
    values: Floats

    @property
    def left(self) -> Floats:
        """(t,) rows without a value, before each draw."""
        return np.asarray(len(self.predictions) - np.arange(len(self.places)), dtype=np.float64)

    @property
    def chance_left(self) -> Floats:
        """(t,) first chances of those rows, summed."""
        return np.asarray(1 - _before(self.chances[self.places]))

    @property
    def predicted_left(self) -> Floats:
        """(t,) mean prediction of those rows."""
        drawn = _before(self.predictions[self.places])
        return np.asarray((self.predictions.sum() - drawn) / self.left)

    @property
    def weights(self) -> Floats:
        """(t,) of each draw: 1 if it had the chance of an even draw, 2 if it had half of it."""
        chance = self.chances[self.places] / self.chance_left
        return np.asarray(1 / (self.left * chance))


def first_chances(predictions: Floats, even: float) -> Floats:
    """(n,) chance of each row to be drawn first; they sum to 1.

    In proportion to the spread of what is drawn (Neyman 1934), mixed with a share of even draws.

    >>> first_chances(np.array([0.0, 1.0, 0.5, 0.5]), even=0.5).round(3).tolist()
    [0.125, 0.125, 0.375, 0.375]
    """
    spread = np.sqrt(predictions * (1 - predictions)) + 1e-12
    return np.asarray(even / max(len(spread), 1) + (1 - even) * spread / spread.sum())


def lower_mean(trail: Trail, planned: int, delta: float) -> float:
    """Anytime lower bound of the mean of all rows' values, wrong with probability at most delta.

    The wealth of a gambler who bets on "the mean is larger" falls as the hypothetical mean rises,
    the cap on his bets included, so the means that he disproved end at the bound.
    """
    rows = len(trail.predictions)
    least = float(trail.values.sum()) / max(rows, 1)  # no value is below 0
    if len(trail.places) == 0:
        return least
    trust = _trust(trail)
    gain, bets = _gain(trail, trust), _bets(trail, trust, planned, delta)
    worst = trust * (_heaviest(trail) - trail.predicted_left)  # how far a draw can fall
    seen = _before(trail.values)

    def disproved(mean: float) -> bool:
        left = (mean * rows - seen) / trail.left
        safe = np.minimum(bets, SAFEST / np.maximum(worst + left, 1e-9))
        return bool(np.cumsum(np.log1p(safe * (gain - left))).max() >= -math.log(delta))

    return _last(disproved, least)


def _trust(trail: Trail) -> Floats:
    """(t,) weight of the predictions: the slope of values on them in the draws before (PPI++).

    Starts at 1, right for calibrated predictions, and falls to 0 for useless ones.
    """
    x = trail.weights * trail.predictions[trail.places]
    y = trail.weights * trail.values
    draws = np.maximum(np.arange(len(x)), 1)
    crossed = _before(x * y) - _before(x) * _before(y) / draws
    spread = _before(x * x) - _before(x) ** 2 / draws
    prior = TRUSTED * float(np.var(trail.predictions)) + 1e-9
    return np.asarray(np.clip((prior + crossed) / (prior + spread), 0.0, 1.0))


def _gain(trail: Trail, trust: Floats) -> Floats:
    """(t,) each draw's unbiased estimate of the mean of the rows that were left before it."""
    rectified = trail.values - trust * trail.predictions[trail.places]
    return np.asarray(trail.weights * rectified + trust * trail.predicted_left)


def _bets(trail: Trail, trust: Floats, planned: int, delta: float) -> Floats:
    """(t,) the bets that make the interval narrow after ``planned`` draws, by the draws before.

    Waudby-Smith & Ramdas (2020), equation 26, with the predictions' word for the first variance.
    """
    sure = trail.predictions * (1 - trail.predictions)
    spread = float((sure / trail.chances).sum()) / len(sure) ** 2
    gain = _gain(trail, trust)
    draws = np.arange(len(gain))
    seen = _before(gain**2) - _before(gain) ** 2 / np.maximum(draws, 1)
    variance = (TRUSTED * spread + np.maximum(seen, 0)) / (TRUSTED + draws)
    return np.asarray(np.sqrt(-2 * math.log(delta) / (np.maximum(variance, 1e-9) * planned)))


def _heaviest(trail: Trail) -> Floats:
    """(t,) the largest weighted prediction that a draw could meet."""
    most = float((trail.predictions / trail.chances).max())
    return np.asarray(most * trail.chance_left / trail.left)


def estimated_mean(trail: Trail) -> float:
    """Mean of the draws' own estimates, each unbiased: seen + what the rest seems to hold."""
    rows = len(trail.predictions)
    if len(trail.places) == 0:
        return float(trail.predictions.mean()) if rows else 0.0
    rest = trail.left * _gain(trail, _trust(trail))
    return float(np.mean(_before(trail.values) + rest)) / rows


def flipped(trail: Trail) -> Trail:
    """The same draws of what is missing to 1: its lower bound is an upper bound."""
    return trail._replace(predictions=1 - trail.predictions, values=1 - trail.values)


def _before(values: Floats) -> Floats:
    """(t,) sums of the values before each: all that a bet may know."""
    return np.asarray(np.cumsum(values) - values)


def _last(disproved: Callable[[float], bool], least: float) -> float:
    """The end of the disproved means, from ``least`` upward."""
    low, high = least, 1.0
    if not disproved(low):
        return low
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if disproved(middle) else (low, middle)
    return low


def require_unit(values: ArrayLike) -> None:
    """Refuse what lies outside [0, 1], NaN included."""
    array = np.asarray(values, dtype=np.float64)
    if not np.all((array >= 0) & (array <= 1)):
        raise UsageError("values and predictions lie between 0 and 1: scale them first")
