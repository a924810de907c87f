"""How familiar an embedding is, measured against the training embeddings.

Knows geometry and the labels of the neighbours; knows no text and takes no decision but the gate.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
from numpy.typing import NDArray

from cascade.config import Strict
from cascade.tiers.agreement import Floats

Singles = NDArray[np.float32]

NEIGHBOURS: Final = 10
MOST_ROWS: Final = 1_000
"""Rows of the training set that are kept: 1.5 MB stay in a core's cache, twice that do not."""


@dataclass(frozen=True)
class Familiarity:
    """What the neighbourhood of n queries looks like.

    neighbours : (n,), share of the nearest training rows whose label is the predicted one.
    distance : (n,), cosine distance to the 10th nearest training row (the last, if fewer).
    mahalanobis : (n,), distance to the nearest class centre.
    """

    neighbours: Floats
    distance: Floats
    mahalanobis: Floats


class NoveltyGate(Strict, frozen=True):
    """The largest distances at which the proxy may speak."""

    distance: float
    mahalanobis: float

    def novel(self, familiarity: Familiarity) -> NDArray[np.bool_]:
        """(n,), whether each query lies beyond what training has seen.

        >>> seen = Familiarity(np.ones(2), np.array([0.1, 0.9]), np.array([1.0, 1.0]))
        >>> NoveltyGate(0.5, 2.0).novel(seen).tolist()
        [False, True]
        """
        far = familiarity.distance > self.distance
        strange = familiarity.mahalanobis > self.mahalanobis
        return np.logical_or(far, strange)


@dataclass(frozen=True)
class Neighbourhood:
    """The training embeddings and their class-conditional Gaussian [1]_.

    rows : (m, d) unit rows; labels : (m,).
    whitening : (d, d), W with W W^T = the precision matrix; centres : (c, d), class means times W.

    .. [1] Podolskiy et al., "Revisiting Mahalanobis distance for transformer-based out-of-domain
       detection", AAAI 2021, arXiv 2101.03778.
    """

    rows: Singles
    labels: NDArray[np.int64]
    whitening: Singles
    centres: Singles

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[np.generic]]) -> Neighbourhood:
        """The inverse of ``arrays``."""
        return cls(
            np.asarray(arrays["rows"], np.float32),
            np.asarray(arrays["labels"], np.int64),
            np.asarray(arrays["whitening"], np.float32),
            np.asarray(arrays["centres"], np.float32),
        )

    @property
    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """What to store, by name."""
        return {
            "rows": self.rows,
            "labels": self.labels,
            "whitening": self.whitening,
            "centres": self.centres,
        }

    def look(self, embeddings: Singles, predicted: NDArray[np.int64]) -> Familiarity:
        """Compare queries with the training rows.

        Parameters
        ----------
        embeddings : (n, d) unit rows.
        predicted : (n,), the label index that was answered for each.
        """
        k = min(NEIGHBOURS, len(self.rows))
        similarity = embeddings @ self.rows.T  # (n, m)
        nearest = similarity.argpartition(-k, axis=1)[:, -k:]  # (n, k), the farthest of them first
        agree = self.labels[nearest] == predicted[:, None]
        farthest = similarity[np.arange(len(nearest)), nearest[:, 0]]
        return Familiarity(
            neighbours=agree.sum(axis=1) / k,
            distance=1.0 - farthest.astype(np.float64),
            mahalanobis=self._mahalanobis(embeddings),
        )

    def _mahalanobis(self, embeddings: Singles) -> Floats:
        """(n,), distance to the nearest centre in the whitened space."""
        white = embeddings @ self.whitening  # (n, d)
        from_centres = self._centre_squares - 2.0 * (white @ self.centres.T)  # (n, c)
        squares = np.vecdot(white, white) + from_centres.min(axis=1)
        distance: Floats = np.sqrt(np.maximum(squares, 0.0, dtype=np.float64))
        return distance

    @cached_property
    def _centre_squares(self) -> Singles:
        """(c,), squared norms of the centres."""
        squares: Singles = np.vecdot(self.centres, self.centres)
        return squares
