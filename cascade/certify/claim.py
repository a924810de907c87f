"""What a certificate says. Knows the words of the claim; nothing of how it was won."""

from __future__ import annotations

import math
from typing import Annotated, NamedTuple

import msgspec

from cascade.errors import UsageError

Seed = Annotated[int, msgspec.Meta(ge=0)]
"""Of the draws: random generators take no negative one, so no evidence may name one."""


class Guarantee(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is wanted: at least ``target`` agreement, wrong about it with at most ``delta``.

    Raises
    ------
    UsageError : either is not strictly between 0 and 1.

    >>> round(Guarantee(0.9, 0.05).risk, 3), round(Guarantee(0.9, 0.05).log_bar, 3)
    (0.1, 2.996)
    """

    target: float
    delta: float

    def __post_init__(self) -> None:
        if not (0 < self.target < 1 and 0 < self.delta < 1):
            raise UsageError(f"target and delta lie strictly between 0 and 1, not {self}")

    @property
    def risk(self) -> float:
        """The largest allowed share of final answers that differ from the teacher's."""
        return 1 - self.target

    @property
    def log_bar(self) -> float:
        """log(1/delta): what a log wealth must reach (Ville's inequality)."""
        return -math.log(self.delta)


class Rung(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One policy of a path: a threshold for each tier below the teacher.

    thresholds : tier -> least calibrated P(agree) at which that tier may answer; ``tier:label`` ->
        another one for that answer.
    share : predicted share of requests answered below the teacher, in [0, 1]. No claim.
    """

    thresholds: dict[str, float]
    share: float


class Conditional(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Agreement among the rows answered below the teacher only.

    estimate : observed (stream) or predicted (table) agreement; no claim.
    bound : lower bound, at the certificate's own delta.
    rows : how many rows it rests on.
    """

    estimate: float
    bound: float
    rows: int


AGREEMENT = "agreement"
"""The metric of a claim about all final answers. The others speak of a part of them."""


class Claim(NamedTuple):
    """What a body of evidence proves; see ``Certificate`` for the fields."""

    guarantee: Guarantee
    rung: Rung
    n: int
    labels: int
    bound: float
    conditional: Conditional
    method: str
    metric: str = AGREEMENT
