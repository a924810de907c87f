"""The mean over one table from a stratified sample: narrower than ``MeanAudit``, less sure.

Knows values and predictions only. The interval is *asymptotic*: it covers the table's mean with
probability 1 - delta in the limit of many labels (central limit theorem), less with few labels or
rare values. Where the figure is a promise, use ``MeanAudit``.

The estimate itself is unbiased: in each stratum the mean of the labelled values, corrected by how
far the sample's predictions lie from all the stratum's predictions (prediction-powered inference
[1]_, stratified [2]_), the predictions' weight tuned on the other half of the labels (PPI++ [3]_,
cross-fitted), and the error without what is already known (finite-population correction [4]_).

References
----------
.. [1] Angelopoulos, Bates, Fannjiang, Jordan & Zrnic (2023), arXiv 2301.09633.
.. [2] Fisch et al. (2024), Stratified prediction-powered inference, arXiv 2406.04291.
.. [3] Angelopoulos, Duchi & Zrnic (2023), PPI++, arXiv 2311.01453.
.. [4] Cochran (1977), Sampling Techniques, chapters 5 and 7.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from cascade.certify.aggregates import Aggregate
from cascade.certify.means import Floats, first_chances, require_unit

STRATA = 10
EVEN = 0.5  # share of the labels that ignore the predictions
DOUBT = 2.0  # labels' worth of predicted spread
LEAST = 6  # labels a stratum: a variance from fewer means little


@dataclass(frozen=True)
class StratifiedSample:
    """Which rows to label; made by ``stratify``, before any label is seen.

    predictions : (n,). stratum : (n,) of each row. rows : (m,) to label, all of them: a row left
    out because of its value would bias the estimate.
    """

    predictions: Floats
    stratum: NDArray[np.int64]
    rows: NDArray[np.int64]

    def interval(self, values: Floats, delta: float) -> Aggregate:
        """Mean over all rows with an asymptotic interval.

        Parameters
        ----------
        values : (m,) in [0, 1], in the order of ``rows``. Unreadable answers: ask once with 0 and
            once with 1 in their place, and take the outer ends.
        delta : chance, in the limit, that the interval misses the mean.

        Raises
        ------
        UsageError : a value lies outside [0, 1].
        """
        require_unit(values)
        sizes = np.bincount(self.stratum)
        means = np.bincount(self.stratum, self.predictions) / sizes
        drawn = self.stratum[self.rows]
        off = self.predictions[self.rows] - means[drawn]
        rectified = values - _tuned(values, off, drawn) * off
        share, labels = sizes / len(self.predictions), np.bincount(drawn)
        centre = np.bincount(drawn, rectified) / labels
        spread = np.bincount(drawn, (rectified - centre[drawn]) ** 2)
        # a few labels that all agree prove no spread of zero: the predictions' word counts as two
        predicted = np.bincount(self.stratum, self.predictions * (1 - self.predictions)) / sizes
        spread = (spread + DOUBT * predicted) / (labels - 1 + DOUBT)
        variance = np.sum(share**2 * spread / labels * (1 - labels / sizes))
        mean, margin = float(share @ centre), _quantile(delta) * float(np.sqrt(variance))
        return Aggregate(
            mean=float(np.clip(mean, 0, 1)),
            low=max(mean - margin, 0.0),
            high=min(mean + margin, 1.0),
            delta=delta,
            rows=len(self.predictions),
            labels=len(self.rows),
        )


def stratify(predictions: Floats, labels: int, rng: np.random.Generator) -> StratifiedSample:
    """Cut the table by prediction, and sample every stratum alike.

    Unsure rows are in small strata, so that they are labelled more often (Neyman 1934).

    >>> sample = stratify(np.linspace(0, 1, 1000), 100, np.random.default_rng(0))
    >>> sample.interval(sample.predictions[sample.rows].round(), 0.05).labels
    100
    """
    require_unit(predictions)
    labels = min(labels, len(predictions))
    strata = max(min(STRATA, labels // LEAST), 1)
    order = np.lexsort((rng.random(len(predictions)), predictions))
    depth = np.cumsum(first_chances(predictions[order], EVEN))
    cut = np.minimum((depth / depth[-1] * strata).astype(np.int64), strata - 1)
    stratum = np.empty(len(predictions), dtype=np.int64)
    stratum[order] = np.unique(cut, return_inverse=True)[1]  # a heavy row can skip a stratum
    rows = [
        rng.permutation(np.flatnonzero(stratum == one))[:quota]
        for one, quota in enumerate(_quotas(np.bincount(stratum), labels))
    ]
    return StratifiedSample(predictions, stratum, np.concatenate(rows))


def _quotas(sizes: NDArray[np.int64], labels: int) -> NDArray[np.int64]:
    """(S,) labels for each stratum: as even as the small ones allow."""
    quotas = np.zeros_like(sizes)
    for turn, one in enumerate(np.argsort(sizes)):
        quotas[one] = min(sizes[one], (labels - quotas.sum()) // (len(sizes) - turn))
    return quotas


def _tuned(values: Floats, off: Floats, stratum: NDArray[np.int64]) -> Floats:
    """(m,) weight of the predictions for each label, from the labels of the other half."""
    half = np.arange(len(values)) % 2 == 0
    weights = np.where(half, _slope(values, off, stratum, ~half), 0.0)
    return np.where(half, weights, _slope(values, off, stratum, half))


def _slope(
    values: Floats, off: Floats, stratum: NDArray[np.int64], used: NDArray[np.bool_]
) -> float:
    """Slope of values on predictions within strata; 1 where the labels cannot tell."""
    x, y = (_centred(one[used], stratum[used]) for one in (off, values))
    return float(np.clip((1e-9 + x @ y) / (1e-9 + x @ x), 0.0, 1.0))


def _centred(values: Floats, stratum: NDArray[np.int64]) -> Floats:
    """Values less the mean of their stratum."""
    means = np.bincount(stratum, values) / np.maximum(np.bincount(stratum), 1)
    return np.asarray(values - means[stratum])


def _quantile(delta: float) -> float:
    return NormalDist().inv_cdf(1 - delta / 2)
