"""Choose the next draw of a table audit. Any choice is valid; this one is cheap.

Knows predicted errors and prices. Nothing here can break a certificate, only waste labels.
"""

from __future__ import annotations

import msgspec
import numpy as np
from numpy.typing import NDArray

from cascade.certify.table import HOPELESS, Ledger

Floats = NDArray[np.float64]

OVERSHOOT = 0.7  # a wealth jumps past the bar; mean excess, in nats


class Prices(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Dollars (or any unit) a row: one teacher call, and one answer below the teacher."""

    teacher: float = 1.0
    below: float = 0.0


def growth(risk: Floats, null: Floats) -> Floats:
    """Expected log wealth a draw at Kelly's bet: KL(risk || null) of two coins.

    >>> growth(np.array([0.05]), np.array([0.1])).round(4).tolist()
    [0.0167]
    """
    risk = np.clip(risk, 1e-9, 1 - 1e-9)
    null = np.clip(null, 1e-9, 1 - 1e-9)
    return np.asarray(
        risk * np.log(risk / null) + (1 - risk) * np.log((1 - risk) / (1 - null)), dtype=np.float64
    )


def net_values(ledger: Ledger, scale: float, prices: Prices) -> Floats:
    """(G,) what certifying each rung would add, less the labels it needs; -inf if it cannot be."""
    null, rows = ledger.null_wrong, np.maximum(ledger.unlabelled, 1)
    expected = scale * ledger.left_wrong
    possible = (expected < HOPELESS * null) & (np.arange(len(rows)) >= ledger.passed)
    speed = np.maximum(growth(expected / rows, null / rows), 1e-9)
    need = np.maximum(ledger.guarantee.log_bar - ledger.now + OVERSHOOT, 0.0) / speed
    saved = (ledger.sizes - _certified_rows(ledger)) * (prices.teacher - prices.below)
    return np.asarray(np.where(possible, saved - need * prices.teacher, -np.inf))


def _certified_rows(ledger: Ledger) -> int:
    return int(ledger.sizes[ledger.passed - 1]) if ledger.passed else 0
