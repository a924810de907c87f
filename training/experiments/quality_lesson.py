"""A proxy fitted on some rows of a table, and how it does on others.

Knows embeddings and the teacher's labels; knows no certificate and not how the rows were chosen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cascade.distill.calibrate import calibrate_proxy
from cascade.distill.fit import fit_answerer
from cascade.distill.report import calibration_error, reliability_bins
from cascade.distill.sample import representative
from cascade.tiers.proxy import proxy_features

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Table:
    """X : (n, d) unit embeddings; y : (n,) the teacher's label indices; words : (n,)."""

    X: NDArray[np.float32]
    y: Indices
    words: Indices
    n_labels: int


@dataclass(frozen=True)
class Lesson:
    """What a proxy says of test rows it has never seen.

    said : (n,) label indices; right : (n,) whether the teacher agrees; trust : (n,) P(agree).
    promised : (m,) P(agree) of the training rows out of fold, each as often as it weighs.
    """

    said: Indices
    right: NDArray[np.bool_]
    trust: Floats
    promised: Floats

    @property
    def calibration_error(self) -> float:
        """Expected calibration error of P(agree)."""
        return calibration_error(reliability_bins(self.trust, self.right))

    def wrong_where(self, promised: float) -> float:
        """Share of the test rows that is really answered wrongly by the threshold with which
        ``promised`` of the training rows are expected to be."""
        surest = -np.sort(-self.promised)
        fits = np.flatnonzero(np.cumsum(1 - surest) <= promised * len(surest))
        threshold = surest[fits[-1]] if fits.size else np.inf
        return float((~self.right & (self.trust >= threshold)).mean())


def learn(
    table: Table,
    rows: Indices,
    test: Indices,
    *,
    weight: Floats | None = None,
    learners: Sequence[Any] | None = None,
    rng: np.random.Generator,
) -> Lesson:
    """Fit and calibrate on ``rows``, and answer ``test``."""
    X, y, words = table.X[rows], table.y[rows], table.words[rows]
    groups = None if learners is None else [learners]
    answerer = fit_answerer(X, y, table.n_labels, rng=rng, learners=groups)
    proxy = calibrate_proxy(X, y, words, answerer, rng=rng, weight=weight)
    chances = answerer.probabilities(table.X[test])
    said = chances.argmax(axis=1)
    looks = proxy.neighbourhood.look(table.X[test], said)
    trust = proxy.agreement.model.confidence(proxy_features(chances, looks, table.words[test]))
    stands_for = np.ones(len(rows)) if weight is None else weight
    promised = proxy.agreement.out_of_fold[representative(stands_for)]
    return Lesson(said, said == table.y[test], trust, promised)
