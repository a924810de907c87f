"""Bet on weighted draws without replacement. Knows cells of rows and events; not what they mean.

The rows are frozen in an order that is cut into C cells. A rung g gives every cell a value v (one
number a cell), and its null says: over the rows still unlabelled, the sum of ``v * event`` is at
least ``owed``. Positive values are harm that a claim allows little of, negative ones are help.

Why it is valid. Before each draw somebody who knows only earlier answers names a chance for every
cell; inside a cell the draw is uniform over its unlabelled rows, so row i has the propensity
q_i = chance / unlabelled. They also name a forecast p of each cell's share of events, right or not.
Let Z = E + v_i * (event_i - p_i) / q_i, where E is the sum of ``v * p`` over the unlabelled rows
of all cells with a chance. Whatever p is, the expectation of Z is the sum of ``v * event`` over
those rows (a control variate: the better p, the smaller the variance of Z [2]_). Cells without a
chance may hold help only (else the rung does not play), so under the null that is at least
``owed``, and the wealth ``W *= 1 + bet * (owed - Z)`` is a nonnegative supermartingale as long as
the bet, fixed before the draw, is at most 1 / (largest possible Z - owed) [1]_ [2]_. It ever
reaches 1/delta with probability at most delta [3]_. An answer then moves from the unknown to the
known: ``owed -= v * event``. This happens at *every* rung, whether it played or not.

References
----------
.. [1] Waudby-Smith & Ramdas (2020), Confidence sequences for sampling without replacement,
       arXiv 2006.04347.
.. [2] Shekhar, Xu, Lipton, Liang & Ramdas (2023), Risk-limiting financial audits via weighted
       sampling without replacement, arXiv 2305.06884.
.. [3] Ville (1939), Etude critique de la notion de collectif.
"""

from __future__ import annotations

import msgspec
import numpy as np
from numpy.typing import NDArray

from cascade.errors import UsageError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

SAFEST = 0.95  # share of the largest bet that keeps the wealth positive
STEPS = 5  # of Newton's method
DOUBTS = (0.5, 1.0, 1.5)  # the forecast harm may be off: one gambler for each factor


class Plan(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How to draw and what to expect. Any plan is valid; a good one needs few labels.

    weights : (C,) chance of each cell, up to a common factor.
    p_positive : (C,) forecast share of positive rows among its unlabelled ones. Only bets on it.
    """

    weights: list[float]
    p_positive: list[float]

    def chances(self, unlabelled: Ints) -> Floats:
        """(C,) chance that the next draw falls into each cell; cells without rows have none.

        Raises
        ------
        UsageError : no cell with unlabelled rows has a chance, or a weight is impossible.

        >>> Plan([1.0, 3.0, 4.0], [0.5, 0.5, 0.5]).chances(np.array([9, 9, 0])).tolist()
        [0.25, 0.75, 0.0]
        """
        weights = np.asarray(self.weights)
        if len(weights) != len(unlabelled) or not np.all(np.isfinite(weights) & (weights >= 0)):
            raise UsageError("a plan needs one finite weight, not negative, for every cell")
        left = np.where(unlabelled > 0, weights, 0.0)
        total = np.cumsum(left)[-1]  # summed one by one: the same on every machine
        if total <= 0:
            raise UsageError("the plan gives no unlabelled row a chance: stop, or weigh its cells")
        return np.asarray(left / total)


class WeightedLottery:
    """Weighted draws of ranks without replacement; the same for the same seed and plans.

    >>> lottery = WeightedLottery(np.array([2, 2]), seed=0)
    >>> sorted(lottery.draw(np.array([0.5, 0.5])) for _ in range(2))
    [0, 2]
    """

    def __init__(self, sizes: Ints, seed: int) -> None:
        self.starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
        self.sizes = sizes
        self._rng = np.random.Generator(np.random.PCG64(seed))
        self._drawn: set[int] = set()

    def draw(self, chances: Floats) -> int:
        """A rank that was never drawn; its cell by ``chances``, (C,), then uniform in the cell."""
        aim = np.searchsorted(np.cumsum(chances), self._rng.random(), side="right")
        cell = min(int(aim), int(np.flatnonzero(chances)[-1]))
        start, size = int(self.starts[cell]), int(self.sizes[cell])
        rank = start + int(self._rng.random() * size)
        while rank in self._drawn:  # rejection keeps it uniform on the rest
            rank = start + int(self._rng.random() * size)
        self._drawn.add(rank)
        return rank

    def cell(self, rank: int) -> int:
        """The cell that holds a rank."""
        return int(np.searchsorted(self.starts, rank, side="right")) - 1


class WeightedLedger:
    """Every rung's wealth. Records draws; does not choose them.

    Parameters
    ----------
    values : (G, C) harm (positive) or help (negative) of an event in each cell, for each rung.
    owed : (G,) the least sum of ``values * event`` that each null says at the freeze.
    sizes : (C,) rows of each cell.
    """

    def __init__(self, values: Floats, owed: Floats, sizes: Ints) -> None:
        self.values = values
        self.owed = owed.astype(np.float64)
        self.unlabelled = sizes.astype(np.int64)
        self.harm = np.maximum(values, 0.0)
        self.log_wealth = np.zeros((len(owed), len(DOUBTS)))
        self.highest = np.zeros(len(owed))

    @property
    def now(self) -> Floats:
        """(G,) log wealth of each rung: the mean over its gamblers, which is an e-value too."""
        top = self.log_wealth.max(axis=1)
        return np.asarray(top + np.log(np.exp(self.log_wealth - top[:, None]).mean(axis=1)))

    @property
    def refuted(self) -> NDArray[np.bool_]:
        """(G,) nulls that say of the unlabelled rows more than all of them could hold."""
        return np.asarray(self.harm @ self.unlabelled < self.owed)

    def gains(self, chances: Floats, p_event: Floats) -> Floats:
        """(G, 2, C) owed - Z if the next draw falls into a cell and is no event, or is one.

        0 where no draw can fall.
        """
        return gains(self.values, self.owed, self.unlabelled, chances, p_event)

    def bets(self, chances: Floats, p_event: Floats) -> Floats:
        """(G, gamblers) the bets that grow fastest if the forecast is right, or off by a factor.

        chances, p_event : (C,) of the next draw; the forecast share of events among the unlabelled.
        """
        factors = np.where(self.values[:, None] > 0, np.asarray(DOUBTS)[:, None], 1.0)
        bets = fastest_bets(
            self.gains(chances, p_event)[:, None],
            outcomes(chances, np.minimum(p_event * factors, 1.0)),  # (G, gamblers, 2, C)
        )
        hidden = self.harm @ np.where(chances > 0, 0, self.unlabelled) > 0
        return np.asarray(np.where(hidden[:, None], 0.0, bets))

    def record(self, cell: int, event: bool | None, chances: Floats, p_event: Floats) -> None:
        """Settle a draw at every rung. event : None counts as the worse of the two everywhere."""
        column = self.values[:, cell]
        happened = column > 0 if event is None else np.full(len(column), event)
        bets = self.bets(chances, p_event)
        gain = self.gains(chances, p_event)[np.arange(len(column)), happened.astype(int), cell]
        self.log_wealth += np.log1p(bets * gain[:, None])
        self.highest = np.maximum(self.highest, self.now)
        self.owed = self.owed - column * happened
        self.unlabelled[cell] -= 1


def gains(
    values: Floats, owed: Floats, unlabelled: Ints, chances: Floats, p_event: Floats
) -> Floats:
    """(..., G, 2, C) owed - Z of every outcome; see ``WeightedLedger.gains``.

    values : (G, C). owed : (G,). chances : (..., 1 or G, C). unlabelled, p_event : (C,).
    """
    worth = inverse_propensity(unlabelled, chances) * values
    expected = ((chances > 0) * unlabelled * p_event * values).sum(axis=-1)
    surprise = np.stack([-p_event * worth, (1 - p_event) * worth], axis=-2)
    possible = (chances > 0)[..., None, :]
    return np.asarray(np.where(possible, (owed - expected)[..., None, None] - surprise, 0.0))


def outcomes(chances: Floats, p_event: Floats) -> Floats:
    """(..., 2, C) probability of no event and of an event in each cell."""
    return np.stack([chances * (1 - p_event), chances * p_event], axis=-2)


def fastest_bets(gains: Floats, probabilities: Floats) -> Floats:
    """Kelly's bets [1]_ within what keeps a wealth positive whatever happens.

    Newton's method on the expected log wealth, which is concave in the bet.

    Parameters
    ----------
    gains, probabilities : (..., 2, C) of every outcome, to a bet of 1.

    References
    ----------
    .. [1] Kelly (1956), A new interpretation of information rate.

    >>> fastest_bets(np.array([[[20.0], [-80.0]]]), np.array([[[0.9], [0.1]]])).round(5).tolist()
    [0.00625]
    """
    cap = SAFEST / np.maximum(-gains.min(axis=(-2, -1)), 1.0)
    bets = np.zeros(np.broadcast_shapes(gains.shape, probabilities.shape)[:-2])
    for _ in range(STEPS):
        returns = gains / (1 + bets[..., None, None] * gains)
        slope = (probabilities * returns).sum(axis=(-2, -1))
        curve = (probabilities * returns**2).sum(axis=(-2, -1))
        bets = np.clip(bets + slope / np.maximum(curve, 1e-12), 0.0, cap)
    return bets


def inverse_propensity(unlabelled: Ints, chances: Floats) -> Floats:
    """1 / q of a row in each cell, the shape of ``chances``; 0 where none can be drawn.

    >>> inverse_propensity(np.array([10, 10, 0]), np.array([0.8, 0.2, 0.0])).tolist()
    [12.5, 50.0, 0.0]
    """
    nothing = np.zeros(chances.shape)
    return np.asarray(np.divide(unlabelled, chances, out=nothing, where=chances > 0))
