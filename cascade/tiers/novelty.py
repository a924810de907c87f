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

from cascade.shapes import Strict
from cascade.tiers.agreement import Floats

Singles = NDArray[np.float32]

NEIGHBOURS: Final = 10
MOST_ROWS: Final = 1_000
"""Rows of the training set that are kept: 1.5 MB stay in a core's cache, twice that do not."""


@dataclass(frozen=True)
class Familiarity:
    """What the neighbourhood of n queries looks like.

    neighbours : (n,), share of the nearest training rows whose label is the predicted one.
    distance : (n,), cosine distance to the nearest training row. Not to the 10th: with few labels a
        class that row belongs to another class, and says little.
    mahalanobis : (n,), distance to the nearest class centre.
    """

    neighbours: Floats
    distance: Floats
    mahalanobis: Floats


class NoveltyGate(Strict, frozen=True):
    """How far and how strange a query may be before the proxy keeps silent.

    A query is strange where it is far and the answer is unsure as well: either sign alone lets
    about twice as many out-of-scope queries pass.

    distance : the largest cosine distance to the nearest training row.
    doubt : what a probability of 1 missing from the answer weighs, in units of distance.
    strangeness : the largest sum of distance and weighed doubt.
    """

    distance: float
    doubt: float
    strangeness: float

    def novel(self, top: NDArray[np.floating], familiarity: Familiarity) -> NDArray[np.bool_]:
        """(n,), whether each query lies beyond what training has seen.

        Parameters
        ----------
        top : (n,), probability of the answer.

        >>> seen = Familiarity(np.ones(3), np.array([0.1, 0.9, 0.4]), np.ones(3))
        >>> NoveltyGate(0.5, 1.0, 0.7).novel(np.array([0.9, 0.9, 0.6]), seen).tolist()
        [False, True, True]
        """
        strangeness = familiarity.distance + self.doubt * (1.0 - top)
        return np.logical_or(familiarity.distance > self.distance, strangeness > self.strangeness)


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
        nearest = similarity.argpartition(-k, axis=1)[:, -k:]  # (n, k)
        agree = self.labels[nearest] == predicted[:, None]
        return Familiarity(
            neighbours=agree.sum(axis=1) / k,
            distance=1.0 - similarity.max(axis=1).astype(np.float64),
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
