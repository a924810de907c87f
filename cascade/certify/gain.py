"""Normalised discounted cumulative gain of a list that may miss some rows. Knows grades only.

An estimate, no claim: the best possible list is not known, so rows that nobody graded are stood in
for by graded ones (Jarvelin & Kekalainen 2002, with the grade itself as the gain).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def estimated_ndcg(seen: Floats, stand_ins: Sequence[tuple[float, float]], k: int) -> float:
    """nDCG@k of the ``k`` best of the graded rows.

    Parameters
    ----------
    seen : (n,) nonnegative grades of all rows that were graded.
    stand_ins : a grade, and how many ungraded rows it stands for.

    >>> estimated_ndcg(np.array([3.0, 2.0, 0.0]), [], k=2)
    1.0
    >>> round(estimated_ndcg(np.array([3.0, 2.0, 0.0]), [(3.0, 0.5)], k=2), 3)
    0.931
    """
    hidden = np.array(stand_ins, dtype=np.float64).reshape(-1, 2)
    got = _gain(seen, np.ones(len(seen)), k)
    best = _gain(np.append(seen, hidden[:, 0]), np.append(np.ones(len(seen)), hidden[:, 1]), k)
    return got / best if best > 0 else 1.0


def _gain(grades: Floats, copies: Floats, k: int) -> float:
    """Discounted gain of the best k places; a grade's copies share consecutive places."""
    order = np.argsort(-grades, kind="stable")
    ends = np.minimum(np.cumsum(copies[order]), k)
    discount = np.append(0.0, np.cumsum(1 / np.log2(np.arange(2, k + 2))))
    reached = np.interp(ends, np.arange(k + 1), discount)
    return float(grades[order] @ np.diff(reached, prepend=0.0))
