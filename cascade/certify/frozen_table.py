"""Compare a certificate with the table that it names. Knows rows and ranks; replays no proof.

A replay sees the draws. It cannot see how many rows the table has, nor that a row stood where a
draw says: whoever has the table can (``certificate.check_table``). Published before the first draw,
the digest of the freeze also shows that nothing was rearranged afterwards.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cascade.errors import CertificateError

Integers = NDArray[np.int64]


def freeze_digest(order: Integers, rows: int, cuts: Sequence[int]) -> str:
    """sha256 of a table at its freeze.

    Parameters
    ----------
    order : (m,) its unlabelled rows in the order of their ranks.
    rows : of the whole table.
    cuts : ranks at which prefixes, zones or cells end.
    """
    frozen = np.concatenate([[rows, len(cuts)], cuts, order]).astype("<i8")
    return hashlib.sha256(frozen.data).hexdigest()


class FrozenTable(NamedTuple):
    """What evidence says of its table.

    digest : see ``freeze_digest``; rows, cuts : what it was made of, with the order.
    places : (row, rank) of every draw.
    outside : rows that have no rank; None where the evidence does not list them.
    """

    digest: str
    rows: int
    cuts: list[int]
    places: list[tuple[int, int]]
    outside: list[int] | None = None

    def check(self, order: Integers, rows: int) -> None:
        """Raise ``CertificateError`` unless this is the table of that order and so many rows."""
        if rows != self.rows:
            raise CertificateError(f"the evidence is of {self.rows} rows, and the table has {rows}")
        if not self._is_order(order):
            raise CertificateError("the order does not name every row once that has a rank")
        if self.digest != freeze_digest(order, rows, self.cuts):
            raise CertificateError("this order, or where it was cut, is not what was frozen")
        for row, rank in self.places:
            if not 0 <= rank < len(order) or order[rank] != row:
                raise CertificateError(f"row {row} does not stand at the rank {rank} of its draw")

    def _is_order(self, order: Integers) -> bool:
        named = np.concatenate([order, np.array(self.outside or [], dtype=np.int64)])
        complete = self.outside is None or len(named) == self.rows
        once = len(np.unique(named)) == len(named)
        inside = bool(np.all((named >= 0) & (named < self.rows)))
        return complete and once and inside and max(self.cuts, default=0) <= len(order)
