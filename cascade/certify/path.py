"""A path of policies for one tier: ever lower thresholds. Knows predicted agreement only.

Make it from training rows, before the first audit draw; see ``StreamAudit`` for why a long nested
path costs no power.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cascade.certify.claim import Rung

RUNGS = 16
BEYOND = 1.3  # predicted risk at the last rung, over the allowed one: predictions may be too dark


def threshold_path(
    p_agree: NDArray[np.float64], target: float, *, tier: str = "proxy", rungs: int = RUNGS
) -> list[Rung]:
    """Thresholds whose answered shares grow evenly, most conservative first.

    Parameters
    ----------
    p_agree : (n,) calibrated P(agree) on rows like those to come, out of sample.
    target : agreement wanted over all rows, the teacher's included.

    >>> path = threshold_path(np.linspace(0.5, 1, 101), target=0.9, rungs=4)
    >>> [(round(rung.thresholds["proxy"], 2), round(rung.share, 2)) for rung in path]
    [(0.92, 0.18), (0.82, 0.36), (0.73, 0.53), (0.65, 0.71)]
    """
    surest = np.sort(p_agree)[::-1]
    risk = np.cumsum(1 - surest) / len(surest)
    last = max(int(np.searchsorted(risk, BEYOND * (1 - target), side="right")), 1)
    sizes = np.unique(np.linspace(0, last, rungs + 1).astype(np.int64)[1:])
    thresholds = dict.fromkeys(float(surest[size - 1]) for size in sizes if size)  # no ties
    return [Rung({tier: at}, float(np.mean(p_agree >= at))) for at in thresholds]


def answered_by(
    p_agree: NDArray[np.float64], path: Sequence[Rung], tier: str = "proxy"
) -> NDArray[np.bool_]:
    """(n, G) which rungs answer which rows below the teacher.

    >>> answered_by(np.array([0.7, 0.95]), [Rung({"proxy": 0.9}, 0.5)]).tolist()
    [[False], [True]]
    """
    thresholds = np.array([rung.thresholds[tier] for rung in path])
    return np.asarray(p_agree[:, None] >= thresholds)
