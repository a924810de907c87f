"""Is the next label worth its price? Knows how much a proxy handled after so many labels.

Money is counted in teacher answers: a label costs one, and a request that is handled below the
teacher saves one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

LEAST_POINTS: Final = 3
LEAST_VARIANCE: Final = 0.05
"""Of one row's being handled or not: a share of 0 or 1 among few rows is not certain."""


class Point(NamedTuple):
    """After so many labels, the share of requests that a proxy would handle."""

    labels: int
    handled: float


@dataclass
class LearningCurve:
    """Handled shares, which approach their limit about as a - b / labels."""

    points: list[Point] = field(default_factory=list)

    def add(self, labels: int, handled: float) -> None:
        """Another point."""
        self.points.append(Point(labels, handled))

    def gain(self) -> float:
        """What the next label may add to the handled share: b / labels^2, b one standard error
        above its estimate. A curve that looks flat by luck must not end the purchase.

        >>> curve = LearningCurve([Point(50, 0.3), Point(100, 0.5), Point(200, 0.6)])
        >>> 0.0005 < curve.gain() < 0.001
        True
        """
        if len(self.points) < LEAST_POINTS:
            return float("inf")
        labels, handled = (np.array(column) for column in zip(*self.points, strict=True))
        precision = labels / np.maximum(handled * (1.0 - handled), LEAST_VARIANCE)
        steps = 1.0 / labels - np.average(1.0 / labels, weights=precision)
        spread = float((precision * steps**2).sum())
        fall = -float((precision * steps * handled).sum()) / spread
        return (max(fall, 0.0) + float(spread**-0.5)) / self.points[-1].labels ** 2

    def worth_another(self, requests: int) -> bool:
        """Whether the next label saves what it costs over so many requests.

        >>> curve = LearningCurve([Point(50, 0.3), Point(100, 0.5), Point(200, 0.6)])
        >>> curve.worth_another(1_000_000), curve.worth_another(1_000)
        (True, False)
        """
        return requests * self.gain() >= 1.0


def handled_share(top: Floats, right: NDArray[np.bool_], weight: Floats, target: float) -> float:
    """The largest share of the rows, surest first, with which at most 1 - target of all go wrong.

    Parameters
    ----------
    top : (n,) confidence; right : (n,) whether the answer is the teacher's; weight : (n,).

    >>> right = np.array([True, True, False, False])
    >>> handled_share(np.array([0.9, 0.8, 0.7, 0.6]), right, np.ones(4), 0.75)
    0.75
    """
    order = np.argsort(-top, kind="stable")
    share = np.cumsum(weight[order]) / weight.sum()
    wrong = np.cumsum(weight[order] * ~right[order]) / weight.sum()
    kept = np.flatnonzero(wrong <= 1.0 - target + 1e-12)
    return float(share[kept[-1]]) if kept.size else 0.0
