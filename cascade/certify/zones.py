"""Where each policy of a path lets whom answer: three zones of a table ranked by the proxy.

Knows ranks, thresholds and predictions; nothing of draws, labels or wealth.

A rung with the thresholds (proxy t0, small t1, skip s) lets the proxy answer the rows of confidence
t0 and more, asks the small tier about those from s to t0, and leaves the rest to the teacher. The
small tier's answer stands where its own confidence is t1 or more. No threshold rises along a path,
so whatever a rung answers below the teacher, every bolder one answers there too.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from cascade.certify.claim import Rung
from cascade.errors import CertificateError, UsageError
from cascade.types import SKIP

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Bools = NDArray[np.bool_]


NEVER = 2.0
"""A threshold that no confidence reaches; unlike infinity, JSON has it."""


class Tiers(NamedTuple):
    """The names in the thresholds."""

    proxy: str = "proxy"
    small: str = "small"


class Confidences(NamedTuple):
    """What both tiers promised on rows like those of the table: training rows, out of fold.

    proxy, small : (m,) P(the teacher agrees); 0 where a tier would not answer.
    """

    proxy: Floats
    small: Floats


class Zones(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A path on one table, frozen before the first draw.

    Ranks are places by the proxy's confidence among the rows without a label, 0 the surest. Bins
    are the ranks between neighbouring ``edges``; no zone ends inside one.

    rungs : (G,) policies, most careful first.
    proxied : (G,) the proxy answers the ranks below this.
    asked : (G,) the small tier is asked about the ranks from ``proxied`` below this.
    needs : (G,) least confidence of the small tier at which its answer stands.
    edges : (S,) where each bin ends.
    p_wrong : (S,) predicted P(the proxy is wrong) on a row of each bin.
    stands : (G,) predicted share of the asked rows on which the small tier's answer stands.
    stands_wrong : (G,) the same, where it stands and is wrong.

    The last three steer bets and cost; however wrong, they cannot break a certificate.
    """

    rungs: list[Rung]
    proxied: list[int]
    asked: list[int]
    needs: list[float]
    edges: list[int]
    p_wrong: list[float]
    stands: list[float]
    stands_wrong: list[float]

    def check(self, rows: int) -> None:
        """Raise ``CertificateError`` where these are no growing zones in a table of ``rows``."""
        by_rung = (self.rungs, self.proxied, self.asked, self.needs, self.stands, self.stands_wrong)
        predicted = [*self.p_wrong, *self.stands, *self.stands_wrong]
        sound = (
            len({len(column) for column in by_rung}) == 1
            and len(self.edges) == len(self.p_wrong)
            and _rises([0, *self.proxied])
            and _rises([0, *self.asked, rows])
            and _rises([-threshold for threshold in self.needs])
            and all(one <= two for one, two in zip(self.proxied, self.asked, strict=True))
            and self.edges == _edges(self.proxied, self.asked)
            and all(0 <= share <= 1 for share in predicted)
        )
        if not sound:
            raise CertificateError("the rungs of the evidence are no path of growing zones")

    @property
    def by_proxy(self) -> Bools:
        """(G, S) bins that the proxy answers."""
        return np.asarray(np.asarray(self.edges) <= np.asarray(self.proxied)[:, None])

    @property
    def by_asking(self) -> Bools:
        """(G, S) bins about which the small tier is asked."""
        return (
            np.asarray(np.asarray(self.edges) <= np.asarray(self.asked)[:, None]) & ~self.by_proxy
        )

    @property
    def wrong(self) -> Floats:
        """(G, S) predicted chance that a rung answers a row of a bin below the teacher, wrongly."""
        asking = self.by_asking * np.asarray(self.stands_wrong)[:, None]
        return np.asarray(self.by_proxy * np.asarray(self.p_wrong) + asking)


def lay_zones(
    ranked: Floats, path: Sequence[Rung], known: Confidences, tiers: Tiers, least: int
) -> Zones:
    """The zones of a path.

    Parameters
    ----------
    ranked : (n,) the proxy's confidences, falling, above 0: without rows that no tier may answer.
    known : of rows like these, for the predictions.
    least : rungs that touch no more rows than this are left out: they are not worth a label.

    Raises
    ------
    UsageError : a threshold rises along the path.
    """
    cuts = np.array([_cuts(rung, tiers) for rung in path]).reshape(-1, 3)  # proxy, skip, small
    if np.any(np.diff(cuts, axis=0) > 0):
        raise UsageError("a threshold rises along the path: order it from careful to bold")
    proxied = np.searchsorted(-ranked, -cuts[:, 0], side="right")
    asked = np.maximum(proxied, np.searchsorted(-ranked, -cuts[:, 1], side="right"))
    kept = np.flatnonzero(asked > least).tolist()
    edges = _edges(proxied[kept].tolist(), asked[kept].tolist())
    shares = np.array([_forecast(cuts[rung], known) for rung in kept]).reshape(-1, 2)
    return Zones(
        rungs=[path[rung] for rung in kept],
        proxied=proxied[kept].tolist(),
        asked=asked[kept].tolist(),
        needs=cuts[kept, 2].tolist(),
        edges=edges,
        p_wrong=[float(1 - ranked[low:high].mean()) for low, high in pairwise([0, *edges])],
        stands=shares[:, 0].tolist(),
        stands_wrong=shares[:, 1].tolist(),
    )


def _cuts(rung: Rung, tiers: Tiers) -> tuple[float, float, float]:
    """Least confidence of the proxy to answer and to ask, and of the small tier to stand. Without
    a small tier, nobody is asked."""
    answers = rung.thresholds[tiers.proxy]
    if tiers.small not in rung.thresholds:
        return answers, answers, NEVER
    return answers, rung.thresholds.get(SKIP, 0.0), rung.thresholds[tiers.small]


def _forecast(cuts: Floats, known: Confidences) -> tuple[float, float]:
    """Shares of the asked rows on which the small tier's answer stands, and stands wrongly."""
    asked = (known.proxy < cuts[0]) & (known.proxy >= cuts[1]) & (known.proxy > 0)
    small = known.small[asked]
    if len(small) == 0:
        return 0.0, 0.0
    stands = small >= cuts[2]
    return float(stands.mean()), float((stands * (1 - small)).mean())


def _edges(proxied: Sequence[int], asked: Sequence[int]) -> list[int]:
    return sorted({*proxied, *asked} - {0})


def _rises(values: Sequence[float]) -> bool:
    return all(low <= high for low, high in pairwise(values))
