"""Cut a ranked table into cells, finely where a rung might end. Knows forecasts only."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cascade.certify.aims import Aim, Recall
from cascade.certify.weighted import Floats, Ints

FINE, COARSE = 24, 12  # cells where rungs may end; cells of equal weight over the whole table
BEYOND = 2.0  # forecast harm of the boldest fine rung, over the allowed: forecasts may be too dark


def cell_edges(p_positive: Floats, aims: Sequence[Aim], known_positive: int) -> Ints:
    """(C + 1,) ranks at which cells begin and end, from 0 to n.

    p_positive : (n,) forecast, falling. Any edges are valid; these put rungs where they matter.

    >>> from cascade.certify.claim import Guarantee
    >>> aim = Recall(Guarantee(0.9, 0.1))
    >>> cell_edges(np.linspace(1, 0, 1000), [aim], 0)[[0, 1, 4, 5, 6, -1]].tolist()
    [0, 56, 236, 301, 369, 1000]
    """
    rows = len(p_positive)
    root = np.cumsum(np.sqrt(p_positive))  # draws that look for positives are weighed by it
    edges = [np.searchsorted(root, np.linspace(0, root[-1], COARSE + 1)), np.array([0, rows])]
    for aim in aims:
        low, high = _useful(p_positive, aim, known_positive)
        edges.append(np.linspace(low, high, FINE + 1))
    return np.unique(np.concatenate(edges).astype(np.int64))


def _useful(p_positive: Floats, aim: Aim, known_positive: int) -> tuple[int, int]:
    """Between which ranks a rung of this aim may end without being hopeless."""
    rows = len(p_positive)
    kept = np.cumsum(p_positive)
    if isinstance(aim, Recall):
        missed = kept[-1:] - kept
        hopeless = missed > BEYOND * aim.rho * (kept + known_positive)
        return int(hopeless.sum()), rows
    sizes = np.arange(1, rows + 1)
    harm = sizes - kept
    hopeful = np.flatnonzero(harm <= BEYOND * aim.guarantee.risk * (sizes + known_positive))
    return 0, int(hopeful[-1]) + 1 if len(hopeful) else min(rows, FINE)
