"""The path: a dozen policies from the most careful to the boldest, before anything is certified.

Knows honest confidences of the training rows and what a tier costs; knows no label and no model.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from cascade.errors import NotEnoughSignal
from cascade.tiers.agreement import Floats
from cascade.tiers.artifact import Rung

NEVER: Final = 2.0
"""A threshold that no confidence reaches."""

RUNGS: Final = 12
PRICES: Final = 400
BEYOND: Final = 1.4
"""The boldest rung's predicted risk, as a multiple of what the target allows: the path must reach
past the certified rung, and rungs far beyond it only buy labels until they are lost."""
CAREFUL: Final = 0.25
"""The first rung's, likewise: certified with certainty, and already useful."""


@dataclass(frozen=True)
class Costs:
    """What one request costs in each tier that costs something, in any one unit."""

    small: float
    large: float


@dataclass(frozen=True)
class _Confidences:
    """(n,) honest P(agree) of the proxy and, where there is a small tier, of the small tier."""

    proxy: Floats
    small: Floats | None


def build_path(
    proxy: Floats, small: Floats | None, costs: Costs, *, target: float, rungs: int = RUNGS
) -> tuple[Rung, ...]:
    """Policies by a falling price of an error, their handled shares evenly spaced.

    With a price lambda for an error, the small tier stops where lambda (1 - a1) <= large, and the
    proxy where lambda (1 - a0) <= small + E[min(lambda (1 - a1), large) | a0] (ALGORITHMS B).

    Parameters
    ----------
    proxy : (n,) out-of-fold P(teacher agrees) of the proxy; 0 where a gate would turn a row away.
    small : (n,) the same of the small tier, 0 where it abstains; None without a small tier.
    target : the agreement to certify; the path ends a little beyond it.

    Returns
    -------
    At most ``rungs`` policies; thresholds never rise along them.

    Raises
    ------
    NotEnoughSignal
        No tier below the teacher answers a single row.
    """
    known = _Confidences(proxy, small)
    candidates = _nested([_thresholds(known, costs, price) for price in _prices(costs)])
    described = _distinct([_describe(known, one) for one in candidates])
    if not described:
        raise NotEnoughSignal("no tier below the teacher would answer anything: buy more labels")
    within = _between(described, CAREFUL * (1 - target), BEYOND * (1 - target))
    return _evenly(within, rungs)


def _prices(costs: Costs) -> Floats:
    """Prices of an error at which the small tier's threshold runs evenly from 1 down to 0.

    Never quite 0: a confidence of 0 marks a row that the tier will not answer at all.
    """
    tolerated = np.linspace(1e-3, 1.0 - 1e-3, PRICES)  # 1 - t1
    prices: Floats = costs.large / tolerated
    return prices


def _thresholds(known: _Confidences, costs: Costs, price: float) -> dict[str, float]:
    """The best thresholds at one price of an error."""
    small_stops = float(1.0 - costs.large / price)
    if known.small is None:
        return {"proxy": small_stops}
    escalated = costs.small + np.minimum(price * (1.0 - known.small), costs.large)
    surplus = price * (1.0 - known.proxy) - escalated  # of answering at the proxy, each row
    return {"proxy": _best_cut(known.proxy, surplus), "small": small_stops}


def _best_cut(confidence: Floats, surplus: Floats) -> float:
    """The threshold on ``confidence`` that makes the sum of ``surplus`` above it smallest.

    The prefix sum needs no model of the conditional expectation: its smallest point is where an
    isotonic regression of ``surplus`` on ``confidence`` changes its sign.

    >>> _best_cut(np.array([0.9, 0.8, 0.7]), np.array([-1.0, -0.5, 2.0]))
    0.8
    """
    order = np.argsort(-confidence, kind="stable")
    ranked = confidence[order]
    total = np.cumsum(surplus[order])
    possible = np.append(ranked[1:] != ranked[:-1], True) & (ranked > 0.0)  # whole ties only
    best = int(np.argmin(np.where(possible, total, np.inf)))
    return float(ranked[best]) if possible[best] and total[best] < 0 else NEVER


def _nested(candidates: list[dict[str, float]]) -> list[dict[str, float]]:
    """Each policy answers at least what the one before it answered, in every tier."""
    lowest = dict.fromkeys(candidates[0], NEVER)
    nested = []
    for one in candidates:
        lowest = {tier: min(lowest[tier], one[tier]) for tier in lowest}
        nested.append(lowest)
    return nested


def _describe(known: _Confidences, thresholds: dict[str, float]) -> Rung:
    """What a policy would do to the training rows."""
    by_proxy = known.proxy >= thresholds["proxy"]
    shares = {"proxy": float(by_proxy.mean())}
    risk = ((1.0 - known.proxy) * by_proxy).mean()
    if known.small is not None:
        by_small = ~by_proxy & (known.small >= thresholds["small"])
        shares["small"] = float(by_small.mean())
        risk += ((1.0 - known.small) * by_small).mean()
    shares["large"] = 1.0 - sum(shares.values())
    return Rung(thresholds, shares, float(risk))


def _handled(rung: Rung) -> float:
    return 1.0 - rung.shares["large"]


def _distinct(described: list[Rung]) -> list[Rung]:
    """The first rung of each handled share; those that answer nothing are no policy."""
    kept: list[Rung] = []
    for rung in described:
        if _handled(rung) > (_handled(kept[-1]) if kept else 0.0) + 1e-9:
            kept.append(rung)
    return kept


def _between(described: list[Rung], least: float, most: float) -> list[Rung]:
    """Rungs whose predicted risk lies in a range, with one beyond either end where there is one."""
    risks = np.array([rung.risk for rung in described])
    first = max(int(np.searchsorted(risks, least)) - 1, 0)
    last = int(np.searchsorted(risks, most))
    return described[first : last + 1]


def _evenly(described: list[Rung], rungs: int) -> tuple[Rung, ...]:
    """Rungs whose handled shares are about evenly spaced, both ends included."""
    if len(described) <= rungs:
        return tuple(described)
    shares = np.array([_handled(rung) for rung in described])
    wanted = np.linspace(shares[0], shares[-1], rungs)
    nearest = np.abs(shares[None, :] - wanted[:, None]).argmin(axis=1)
    return tuple(described[i] for i in np.unique(nearest))
