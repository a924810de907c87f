"""Choose the next draw of a table audit. Any choice is valid; this one is cheap.

Knows predicted errors and prices. Nothing here can break a certificate, only waste labels.

It looks ahead: for every rung, and every number of labels after which one might give up, what is
the rung worth in the opinion of all gamblers together, less the labels that they expect to need?
"""

from __future__ import annotations

import math
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from cascade.certify.table import Ledger

Floats = NDArray[np.float64]

SLOWER = 0.3  # nats that a rung needs more than its best gambler would: the others lose meanwhile
SLOWEST = 1e-6  # nats a label; whoever learns less never wins


class Prices(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Dollars (or any unit) a row: one teacher call, and one answer below the teacher."""

    teacher: float = 1.0
    below: float = 0.0


class Prospect(NamedTuple):
    """What one rung promises.

    net : worth of certifying it, less the labels; in the unit of the prices.
    labels : expected number of labels until it is certified or given up.
    """

    rung: int
    net: float
    labels: int


def best_prospect(ledger: Ledger, prices: Prices) -> Prospect | None:
    """The rung to draw from; None where no label is worth its price."""
    first = ledger.passed
    if first == len(ledger.sizes):
        return None
    labels = labels_needed(ledger)[first:]
    # as many rows as may be wrong are answered without any certificate
    certified = int(ledger.sizes[first - 1]) if first else ledger.budget
    worth = np.asarray(ledger.sizes[first:] - certified, dtype=np.float64)
    worth = worth * (prices.teacher - prices.below)
    nets, spent = _horizons(labels, worth, ledger.opinion, prices.teacher)
    rung, stop = np.unravel_index(np.argmax(nets), nets.shape)
    if nets[rung, stop] <= 0:
        return None
    return Prospect(
        first + int(rung), float(nets[rung, stop]), max(1, math.ceil(spent[rung, stop]))
    )


def labels_needed(ledger: Ledger) -> Floats:
    """(G, C) labels until each rung is certified, if gambler c is right; inf if it never is."""
    missing = np.maximum(ledger.guarantee.log_bar - ledger.now + SLOWER, SLOWER)
    growth = ledger.bets.growth
    need = missing[:, None] / np.maximum(growth, SLOWEST)
    enough = ledger.unlabelled[:, None] >= need  # a rung cannot be asked for more than it has
    return np.asarray(np.where((growth > SLOWEST) & enough, need, np.inf))


def _horizons(need: Floats, worth: Floats, opinion: Floats, price: float) -> tuple[Floats, Floats]:
    """(G, C) net worth and expected labels of giving up when the c-th gambler would have won."""
    horizon = np.where(np.isfinite(need), need, 0.0)[:, :, None]  # (G, C, 1)
    wins = (need[:, None, :] <= horizon) @ opinion
    spent = np.minimum(need[:, None, :], horizon) @ opinion
    return worth[:, None] * wins - price * spent, spent
