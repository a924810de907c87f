"""What a trial is told. Knows no audit."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from cascade.certify import Guarantee

ROUNDING = 1e-9  # bounds are shares of counts


class Cell(NamedTuple):
    """One setting. n : rows of the table, or draws from the stream."""

    mode: str
    world: str
    planner: str
    n: int
    target: float
    delta: float

    @property
    def guarantee(self) -> Guarantee:
        """What the certificate of this cell says."""
        return Guarantee(self.target, self.delta)


Trial = Callable[[Cell, np.random.Generator], bool]
"""Whether the certificate of one run, if there is one, is false."""
