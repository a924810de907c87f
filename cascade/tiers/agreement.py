"""P(the teacher agrees) with an answer, from how sure and how familiar it looks.

Knows features and a fitted logistic curve; knows no embedding, no file and how nothing was fitted.
Training and serving compute their features here, so that they cannot differ.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from cascade.shapes import Strict

Floats = NDArray[np.float64]

FLOOR: Final = 1e-4
"""Probabilities are floored before a logarithm: below it a score says "no" and not how loudly."""

CONFIDENCE_FEATURES: Final = ("top", "log_margin", "entropy")


class AgreementModel(Strict, frozen=True):
    """A logistic curve over standardised features: P(the teacher would say the same).

    features : names of the k columns it was fitted on, in order.
    """

    features: tuple[str, ...]
    mean: tuple[float, ...]
    scale: tuple[float, ...]
    coef: tuple[float, ...]
    intercept: float

    def __post_init__(self) -> None:
        if {len(self.mean), len(self.scale), len(self.coef)} != {len(self.features)}:
            raise ValueError("mean, scale and coef need one number for each feature")

    def confidence(self, features: Floats) -> Floats:
        """P(agree) of each row.

        Parameters
        ----------
        features : (n, k), columns as in ``self.features``.

        Returns
        -------
        (n,), in [0, 1].

        >>> model = AgreementModel(("top",), (0.5,), (0.1,), (1.0,), 0.0)
        >>> model.confidence(np.array([[0.5], [0.6]])).round(3).tolist()
        [0.5, 0.731]
        """
        standard = (features - np.array(self.mean)) / np.array(self.scale)
        return sigmoid(standard @ np.array(self.coef) + self.intercept)


def sigmoid(logits: Floats) -> Floats:
    """The logistic function; tanh keeps it from overflowing.

    >>> sigmoid(np.array([-1000.0, 0.0])).tolist()
    [0.0, 0.5]
    """
    half: Floats = 0.5 * (1.0 + np.tanh(0.5 * logits))
    return half


def floored_log(probabilities: NDArray[np.floating]) -> Floats:
    """Logarithm of probabilities that may be 0.

    >>> floored_log(np.array([1.0, 0.0])).round(2).tolist()
    [0.0, -9.21]
    """
    logs: Floats = np.log(np.maximum(probabilities, FLOOR, dtype=np.float64))
    return logs


def confidence_features(probabilities: NDArray[np.floating]) -> Floats:
    """How sure a row of label probabilities looks.

    Parameters
    ----------
    probabilities : (n, L), rows that sum to 1, L >= 2.

    Returns
    -------
    (n, 3): the columns of ``CONFIDENCE_FEATURES``; entropy in nats, margin in log odds.

    >>> confidence_features(np.array([[0.5, 0.5]])).round(3).tolist()
    [[0.5, 0.0, 0.693]]
    """
    logs = floored_log(probabilities)
    ranked = np.partition(logs, -2, axis=1)
    entropy = -(probabilities * logs).sum(axis=1)
    margin = ranked[:, -1] - ranked[:, -2]
    return np.stack([np.exp(ranked[:, -1]), margin, entropy], axis=1)
