"""Whose label to buy next: rows that teach, drawn by chance, every chance written down.

Knows embeddings, and the labels bought so far; knows no teacher, no price and not how a proxy is
fitted in the end. It says which rows it wants and is told their labels; who buys them is not its
concern.

Half of the rows are a uniform sample of the candidates, settled before any label is known: what is
common, and how sure a proxy may be, is judged there. The other half are drawn one by one among the
rest, from a mixture of three chances:

- a tenth: uniform, so that no row's weight is large;
- where a plain model is unsure and nothing near was bought: margin times squared distance;
- the rows that look most like the rare labels; before there is a model, most like the question.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from cascade.distill.fit import (
    FOLDS,
    LinearLearner,
    TrainingSet,
    cross_fit,
    spread,
    stratified_folds,
)
from cascade.distill.learning_curve import handled_share

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]
Rows = NDArray[np.intp]
Singles = NDArray[np.float32]

FIRST: Final = 60
"""Labels of the first round, bought before there is any model."""
GROWTH: Final = 1.6
EVENLY: Final = 0.1
"""Share of the uniform chances in the mixture: no row weighs more than about 1 / EVENLY."""
PLAIN: Final = LinearLearner(3.0)
TWINS: Final = 1e-5
"""Squared distance up to which two rows count as one: float32 leaves about 1e-7 between equal rows,
and that would pass for diversity."""


@dataclass(frozen=True)
class Sample:
    """Candidates whose labels were bought to train on, in the order of their drawing.

    rows : (n,) indices into the candidates.
    propensities : (n,) chance of each row when it was drawn, given all earlier draws.
    uniform : (n,) whether the row came from the uniform half.
    others : candidates that were not set aside for the uniform half.
    """

    rows: Rows
    propensities: Floats
    uniform: NDArray[np.bool_]
    others: int

    @property
    def weights(self) -> Floats:
        """(n,), for sums over the sample that are right, on average, for all candidates.

        Of uniform rows 1; of the others the weights of Farquhar, Gal & Rainforth, "On statistical
        bias in active learning", ICLR 2021, arXiv 2101.11665, equation 6: draws without
        replacement from chances that follow what was learnt so far.
        """
        weights = np.ones(len(self.rows))
        chances = self.propensities[~self.uniform]
        drawn = np.arange(1, len(chances) + 1)
        left = self.others - drawn
        surplus = 1.0 / ((left + 1) * chances) - 1.0
        weights[~self.uniform] += (self.others - len(chances)) / np.maximum(left, 1) * surplus
        return weights


class Curriculum:
    """Ask for rows in rounds, each chosen with the labels of those before.

    Parameters
    ----------
    X : (c, d) unit embeddings of the candidates.
    question : (d,) unit embedding of the task's question.
    n_labels : labels of the task.
    most : rows to ask for at most, in all.

    Raises
    ------
    ValueError
        ``most`` is not in 1..c.

    Examples
    --------
    >>> X = np.eye(4, dtype=np.float32).repeat(25, axis=0)
    >>> curriculum = Curriculum(X, X[0], 4, most=80, rng=np.random.default_rng(0))
    >>> while len(rows := curriculum.next_rows()):
    ...     curriculum.record(rows // 25)
    >>> len(curriculum.sample.rows), int(curriculum.sample.uniform.sum())
    (80, 40)
    """

    def __init__(
        self, X: Singles, question: Singles, n_labels: int, *, most: int, rng: np.random.Generator
    ) -> None:
        if not 1 <= most <= len(X):
            raise ValueError(f"{most} rows of {len(X)} candidates")
        self._X = X
        self._likeness = (X @ question).astype(np.float64)  # (c,)
        self._n_labels = n_labels
        self._rng = rng
        self._uniform = rng.permutation(len(X))[: (most + 1) // 2]
        self._free = np.ones(len(X), bool)
        self._free[self._uniform] = False
        self._nearest = np.full(len(X), -1.0, np.float32)  # cosine to the nearest row taken
        self._totals = _totals(most)
        self._draws: list[tuple[int, float, bool]] = []
        self._labels: list[int] = []

    @property
    def sample(self) -> Sample:
        """The rows that were asked for so far."""
        rows, chances, uniform = zip(*self._draws, strict=True)
        others = len(self._X) - len(self._uniform)
        return Sample(np.array(rows), np.array(chances), np.array(uniform), others)

    def next_rows(self) -> Rows:
        """The rows of the next round, (b,); none when all rounds are over."""
        asked = len(self._draws)
        total = next((total for total in self._totals if total > asked), asked)
        self._take_uniform((total + 1) // 2)
        self._take_chosen(total - len(self._draws))
        return np.array([row for row, _, _ in self._draws[asked:]], np.intp)

    def record(self, labels: Sequence[int] | Indices) -> None:
        """The labels of the round, as indices; -1 where the answer could not be read."""
        self._labels.extend(int(label) for label in labels)

    def handled(self, target: float) -> float:
        """Share of the candidates that a plain proxy of the labels so far would handle, with at
        most 1 - target of them wrong; 0 while there are too few labels for one."""
        known = self._known()
        if not _teaches(known.y):
            return 0.0
        chance = cross_fit(PLAIN, known, stratified_folds(known.y, self._rng))
        right = chance.argmax(axis=1) == known.y
        weights = self.sample.weights[: len(self._labels)][np.array(self._labels) >= 0]
        return handled_share(chance.max(axis=1), right, weights, target)

    def _take_uniform(self, upto: int) -> None:
        """Continue the uniform sample until it has so many rows."""
        taken = sum(uniform for _, _, uniform in self._draws)
        for place in range(taken, upto):
            self._take(self._uniform[place], 1.0 / (len(self._X) - place), True)

    def _take_chosen(self, n: int) -> None:
        doubt, wanted, share = self._look()
        best = _best_of(np.where(self._free, wanted, -np.inf), 2 * n)
        for _ in range(n):
            chances = self._chances(doubt, best & self._free, share)
            row = int(self._rng.choice(len(chances), p=chances))
            self._free[row] = False
            self._take(row, chances[row], False)

    def _take(self, row: int, chance: float, uniform: bool) -> None:
        self._draws.append((int(row), float(chance), uniform))
        self._nearest = np.maximum(self._nearest, self._X @ self._X[row])

    def _look(self) -> tuple[Floats, Floats, float]:
        """By what to choose: doubt (c,), likeness to what is wanted (c,), and the latter's share
        of the mixture."""
        known = self._known()
        if not _teaches(known.y):
            return np.ones(len(self._X)), self._likeness, 0.5
        counts, model = np.bincount(known.y, minlength=self._n_labels), PLAIN.fit(known)
        chance = spread(model.probabilities(self._X), model.seen, self._n_labels)
        ranked = np.partition(chance, -2, axis=1)
        return 1.0 - ranked[:, -1] + ranked[:, -2], chance @ (1.0 / (1.0 + counts)), uneven(counts)

    def _known(self) -> TrainingSet:
        """The rows whose labels could be read."""
        y = np.array(self._labels, np.int64)
        readable = y >= 0
        rows = np.array([row for row, _, _ in self._draws[: len(y)]], np.intp)[readable]
        hard = np.eye(self._n_labels)[y[readable]]
        return TrainingSet(self._X[rows], y[readable], hard)

    def _chances(self, doubt: Floats, best: NDArray[np.bool_], share: float) -> Floats:
        """(c,) of the next draw; the rows that are taken have none."""
        distances = 2.0 - 2.0 * self._nearest.astype(np.float64)  # squared, between unit vectors
        unsure = np.where(self._free & (distances > TWINS), doubt * distances, 0.0)
        parts = [(EVENLY, self._free), ((1 - EVENLY) * share, best)]
        parts.append(((1 - EVENLY) * (1 - share), unsure))
        mixture = sum(part * weights / weights.sum() for part, weights in parts if weights.any())
        chances: Floats = mixture / np.sum(mixture)
        return chances


def uneven(counts: Indices) -> float:
    """0 where all labels are as common, towards 1 where one has nearly all: 1 - entropy / maximum.

    >>> uneven(np.array([50, 50])), round(uneven(np.array([97, 3])), 2)
    (0.0, 0.81)
    """
    shares = counts[counts > 0] / counts.sum()
    entropy = -float((shares * np.log(shares)).sum())
    return round(1.0 - entropy / math.log(len(counts)), 9)


def _teaches(y: Indices) -> bool:
    """Whether a model can be fitted without any fold: two labels, the rarer ones not too rare."""
    return len(y) - int(np.bincount(y, minlength=2).max()) >= FOLDS


def _totals(most: int) -> list[int]:
    """Rows bought after each round.

    >>> _totals(400), _totals(30)
    ([60, 88, 128, 187, 274, 400], [30])
    """
    first = min(FIRST, most)
    rounds = 1 + int(np.ceil(np.log(most / first) / np.log(GROWTH)))
    return [round(total) for total in np.geomspace(first, most, rounds).tolist()]


def _best_of(scores: Floats, n: int) -> NDArray[np.bool_]:
    """(c,), which rows have the n highest scores."""
    best = np.zeros(len(scores), bool)
    best[np.argsort(-scores, kind="stable")[:n]] = True
    return best
