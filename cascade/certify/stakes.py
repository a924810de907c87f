"""The gamblers' bets where each rung believes something else of the same row.

As ``gamblers.plan_bets``, whose rungs are prefixes of one order with one answer a row. Here a rung
may have the proxy's answer where another has the small tier's, or none. Fairness needs only that
the null's wrong rows, spread over a rung's open rows, add up to their number.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from cascade.certify.gamblers import HALVINGS, LARGEST, SAFEST, spread_null
from cascade.certify.zones import Bools, Floats, Integers


class Stakes(NamedTuple):
    """One bet a gambler and rung.

    stakes : (C, G). spread : (C, G, S) the null's share of wrong on a row of each bin.
    least : (C, G) the smallest of them. growth : (C, G) expected log factor a draw, if right.
    """

    stakes: Floats
    spread: Floats
    least: Floats
    growth: Floats

    def log_factors(self, open_rows: Floats, null: Integers, bin_: int, wrong: Bools) -> Floats:
        """(C, G) log factors of a draw from ``bin_``; of no meaning where the rung has not got it.

        Parameters
        ----------
        open_rows : (G, S); null : (G,) wrong rows among them. Both of the moment before the draw:
            the spread is scaled until it adds up to the null again, and the stakes are kept safe.
        wrong : (G,) how the draw came out at each rung.
        """
        scale = null / np.maximum(np.einsum("cgs,gs->cg", self.spread, open_rows), 1e-9)
        lowest = np.minimum(self.least * scale, 1.0)
        stakes = np.minimum(self.stakes, SAFEST / np.maximum(1 - lowest, 1e-9))
        expected = np.minimum(self.spread[:, :, bin_] * scale, 1.0)
        return np.asarray(np.log1p(stakes * (expected - wrong)))


def plan_stakes(believed: Floats, open_rows: Floats, null: Floats) -> Stakes:
    """The bets that each gambler likes best: reverse information projection, see ``gamblers``.

    Parameters
    ----------
    believed : (C, G, S) chance that a rung gets an open row of a bin wrong.
    open_rows : (G, S). null : (G,) wrong rows that the null puts among them.
    """
    low = np.zeros(believed.shape[:2])
    high = np.full_like(low, LARGEST)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        x = spread_null(believed, (middle / (1 - middle))[..., None])
        short = np.einsum("cgs,gs->cg", x, open_rows) < null
        low, high = np.where(short, middle, low), np.where(short, high, middle)
    stakes = low / (1 - low)
    x = spread_null(believed, stakes[..., None])
    gain = believed * np.log(believed / x) + (1 - believed) * np.log((1 - believed) / (1 - x))
    total = np.maximum(open_rows.sum(axis=1), 1)
    return Stakes(
        stakes=stakes,
        spread=x,
        least=np.where(open_rows > 0, x, 1.0).min(axis=2, initial=1.0),
        growth=np.einsum("cgs,gs->cg", gain, open_rows) / total,
    )
