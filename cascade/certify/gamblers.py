"""Bets against "this prefix still holds at least r wrong rows". Knows predictions; draws nothing.

A gambler spreads the null's r wrong rows over the N unlabelled rows of a prefix, x_i on row i, and
takes a stake d. A draw of row i then multiplies its wealth by ``1 + d (x_i - wrong_i)``.

*Fair*, whatever x and d are: the row is drawn uniformly, so the factor's mean is
``1 + d (sum x - number wrong) / N``, at most 1 under the null as ``sum x = r``. x and d only have
to be fixed before the draw, and ``d <= 1 / (1 - min x)`` keeps the wealth positive.

*Strong*: a gambler who believes that row i is wrong with probability p_i does best with the x that
is closest to p among all that the null allows, the one with ``(x - p) / (x (1 - x)) = d``. Then the
factor is the likelihood ratio p/x or (1 - p)/(1 - x) (reverse information projection: Grunwald, de
Heide & Koolen, Safe testing, arXiv 1906.07801, Theorem 1). Spreading r evenly is the special case
of a prediction that is the same for every row; uneven predictions need about a fifth less labels.

Nobody knows how far off the predictions are, so there is one gambler for each ``SHIFTS`` of their
log-odds; the mean of e-values is an e-value. A table's last gambler follows the earlier draws
(``drift``): a bet may depend on anything that was known before its draw.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

SHIFTS = np.array([-0.7, 0.0, 0.4])  # more gamblers cost more than they learn (tables_made.py)
PRIOR = np.full(3, 1 / 3)  # of each shift, before any draw
SAFEST = 0.95  # share of the largest stake that keeps the wealth positive
LEARNER = 0.1  # prior of the gambler who learns his shift
DRIFT = 0.5  # prior deviation of that shift
NEWTON = 8  # steps, which are damped
LEAST_P = 1e-4  # nobody is surer than that
HALVINGS = 14  # of the interval in which a stake is sought; its precision costs power only
LARGEST = 0.99  # stake / (1 + stake), where the null says that every row is wrong


class Bets(NamedTuple):
    """One bet a rung and gambler, to be scaled to the null of the moment (``settle``).

    stakes : (G, C) d. spread : (G, C, S) x of a row of each segment; zero outside the prefix.
    least : (G, C) the smallest x. growth : (G, C) expected log factor a draw, if the gambler is
    right.
    """

    stakes: Floats
    spread: Floats
    least: Floats
    growth: Floats


def beliefs(p_wrong: Floats, shifts: Floats = SHIFTS) -> Floats:
    """(C, S) what each gambler believes of a row of each segment, where (S,) is predicted.

    shifts : (C,) of the predictions' log-odds.

    >>> beliefs(np.array([0.1]))[:, 0].round(3).tolist()
    [0.052, 0.1, 0.142]
    """
    safe = np.clip(p_wrong, LEAST_P, 1 - LEAST_P)
    odds = np.exp(shifts)[:, None] * (safe / (1 - safe))
    return np.asarray(odds / (1 + odds))


def drift(p_wrong: Floats, wrong: NDArray[np.int64], right: NDArray[np.int64]) -> float:
    """How far the draws say that the predictions' log-odds are off: a maximum a posteriori shift.

    A table of millions is worth thousands of labels. Where the pilot was worse than any of
    ``SHIFTS``, all who keep to it lose that long, and the audit chases a rung that none can win.

    Parameters
    ----------
    p_wrong, wrong, right : (S,) prediction for each segment, and how many were drawn there.

    Examples
    --------
    >>> forecast, wrong, right = np.array([0.05, 0.2]), np.array([100, 40]), np.array([900, 60])
    >>> round(drift(forecast, wrong, right), 2)
    0.77
    """
    safe = np.clip(p_wrong, LEAST_P, 1 - LEAST_P)
    odds, shift = safe / (1 - safe), 0.0
    for _ in range(NEWTON):
        chance = odds * np.exp(shift) / (1 + odds * np.exp(shift))
        slope = wrong.sum() - ((wrong + right) * chance).sum() - shift / DRIFT**2
        curve = ((wrong + right) * chance * (1 - chance)).sum() + 1 / DRIFT**2
        shift += float(np.clip(slope / curve, -1.0, 1.0))
    return shift


def spread_null(p: Floats, stake: Floats) -> Floats:
    """The x in [p, 1] with (x - p) / (x (1 - x)) = stake.

    >>> spread_null(np.array([0.1, 0.2, 0.1]), np.array([0.0, 1.0, 8.0])).round(3).tolist()
    [0.1, 0.447, 0.889]
    """
    slack = 1 - stake
    return np.asarray(2 * p / (slack + np.sqrt(slack * slack + 4 * stake * p)))


def plan_bets(believed: Floats, left: Floats, null_wrong: Floats) -> Bets:
    """The bets that each gambler likes best.

    Parameters
    ----------
    believed : (C, S) chance that a row of the segment is wrong.
    left : (S,) unlabelled rows of each segment; prefix g is the segments 0 .. g, so G = S.
    null_wrong : (G,) wrong rows that the null puts among them.
    """
    rows = np.tril(np.broadcast_to(left, (len(left), len(left))))  # (G, S)
    p = believed[None]  # (1, C, S)
    low = np.zeros((len(left), len(believed)))
    high = np.full_like(low, LARGEST)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        x = spread_null(p, (middle / (1 - middle))[..., None])
        short = np.einsum("gcs,gs->gc", x, rows) < null_wrong[:, None]
        low, high = np.where(short, middle, low), np.where(short, high, middle)
    stakes = low / (1 - low)
    x = spread_null(p, stakes[..., None])
    gain = p * np.log(p / x) + (1 - p) * np.log((1 - p) / (1 - x))
    total = np.maximum(rows.sum(axis=1), 1)
    inside = np.tri(len(left))[:, None, :]
    return Bets(
        stakes=stakes,
        spread=x * inside,
        least=np.where(inside > 0, x, 1.0).min(axis=2),
        growth=np.einsum("gcs,gs->gc", gain, rows) / total[:, None],
    )


def settle(bets: Bets, left: Floats, null_wrong: Floats, draw: tuple[int, int, bool]) -> Floats:
    """(last - segment + 1, C) log factors of a draw at the rungs segment .. last.

    Parameters
    ----------
    left, null_wrong : of the moment before the draw. The bets may be older: their spread is scaled
        until it adds up to the null again, and the stakes are kept safe.
    draw : (segment of the drawn row, last rung at which it counts, whether it was wrong).
    """
    segment, last, wrong = draw
    rungs = slice(segment, last + 1)
    spread = bets.spread[rungs]
    scale = null_wrong[rungs, None] / np.maximum(spread @ left, 1e-12)
    lowest = np.minimum(bets.least[rungs] * scale, 1.0)
    stakes = np.minimum(bets.stakes[rungs], SAFEST / np.maximum(1 - lowest, 1e-12))
    return np.asarray(np.log1p(stakes * (spread[:, :, segment] * scale - wrong)))
