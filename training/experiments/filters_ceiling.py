"""How precise may an answer at a recall target be, on average, if the promise holds on any table?

A bound for every method that answers the rows above a threshold, corrected by its labels, and that
keeps its promise whatever the table is. Take a stop s, and turn k random negative rows beyond it
into positives, just as many as make an answer that stops at s or earlier miss its target. A method
that labels none of them cannot notice, so it stops by s as often as before, and now fails. Labels
are ``budget``, rows beyond are N: all k are missed with probability C(N - budget, k) / C(N, k), so
on the given table it stops by s with probability at most delta over that.

The bound is generous: all labels look beyond s, and all mend the answer too. One thing it leaves
out, the few positives that the labels find beyond the threshold.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln
from tables_rivals import Table

from cascade.certify import Guarantee

Floats = NDArray[np.float64]


def recall_ceiling(table: Table, guarantee: Guarantee, budget: int) -> float:
    """Largest mean precision at the recall target."""
    labels = table.labels[np.argsort(-table.scores, kind="stable")]
    stops = np.arange(1, len(labels) + 1)
    kept = np.cumsum(labels)
    chance = _stops_by(labels, guarantee, budget)
    precision = kept / np.maximum(stops - budget, np.maximum(kept, 1))
    # a later stop may be the more precise one: give the earlier ones as much
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    return float(precision @ np.diff(chance, prepend=0.0))


def _stops_by(labels: NDArray[np.bool_], guarantee: Guarantee, budget: int) -> Floats:
    """(n,) largest probability that a valid method stops at each rank or earlier."""
    kept = np.cumsum(labels)
    missed = kept[-1] - kept
    beyond = np.arange(len(labels))[::-1] - missed  # negative rows
    rho = guarantee.risk / guarantee.target
    turned = np.maximum(np.floor(rho * kept + 1e-9) + 1 - missed, 0)
    unseen = np.where(
        beyond - budget >= turned,
        np.exp(_log_choose(beyond - budget, turned) - _log_choose(beyond, turned)),
        0.0,
    )
    chance = np.minimum(guarantee.delta / np.maximum(unseen, guarantee.delta), 1.0)
    return np.minimum.accumulate(chance[::-1])[::-1]


def _log_choose(n: Floats, k: Floats) -> Floats:
    n = np.maximum(n, k)
    return np.asarray(gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1))
