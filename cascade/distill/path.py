"""The path: a dozen policies from the most careful to the boldest, before anything is certified.

Knows honest confidences of the training rows and what a tier costs; knows no label and no model.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from cascade.benches import LARGE, PROXY, SMALL
from cascade.errors import NotEnoughSignal
from cascade.tiers.agreement import Floats
from cascade.tiers.artifact import Rung
from cascade.types import SKIP

NEVER: Final = 2.0
"""A threshold that no confidence reaches."""

RUNGS: Final = 12
PRICES: Final = 200
BEYOND: Final = 1.4
"""The boldest rung's predicted risk, as a multiple of what the target allows: the path must reach
past the certified rung, and rungs far beyond it only buy labels until they are lost."""
CAREFUL: Final = 0.25
"""The first rung's, likewise: certified with certainty, and already useful."""
LIKELY: Final = 0.8
"""The certified rung's, likewise, as a guess: there the tier sets are compared."""

DOUBT: Final = 1.645
"""Standard errors by which a path must be dearer to count as dearer: 95% of a normal's."""
CLEARLY: Final = 0.05
"""Share of requests that a path must spare the teacher beyond the cheapest one, to be preferred to
it where the training rows cannot tell their costs apart."""

Thresholds = dict[str, float]


@dataclass(frozen=True)
class Costs:
    """What one request costs in each tier that costs something, in any one unit."""

    small: float
    large: float


@dataclass(frozen=True)
class _Trade:
    """What the tiers know and charge. Rows are in order of the proxy's confidence, surest first.

    proxy, small : (n,) honest P(agree) of each tier below the teacher.
    ends : (k,) last row of each group of equal confidence; no cut goes through one.
    """

    proxy: Floats
    small: Floats
    ends: NDArray[np.intp]
    costs: Costs

    @classmethod
    def of(cls, proxy: Floats, small: Floats, costs: Costs) -> _Trade:
        """Order the rows. A confidence of 0 marks one that no tier will answer."""
        order = np.argsort(-proxy, kind="stable")
        ranked = proxy[order]
        ends = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True) & (ranked > 0.0))
        return cls(ranked, small[order], ends, costs)

    def small_stops(self, price: float) -> float:
        """At this price of an error, the small tier's least confidence; the proxy's too, alone."""
        return float(1.0 - self.costs.large / price)

    def asking(self, price: float) -> Floats:
        """(n,) what asking the small tier comes to: its price, then an error or the teacher."""
        settled: Floats = np.minimum(price * (1.0 - self.small), self.costs.large)
        return self.costs.small + settled

    def best_cuts(self, stopping: Floats, asking: Floats) -> tuple[float, float]:
        """The proxy's confidences, to stop and to ask, that make three zones cheapest.

        The prefix sums need no model of the conditional expectation: each cut lies where an
        isotonic regression of the surplus on the confidence changes its sign.

        Parameters
        ----------
        stopping : (n,) cost of the proxy's answer over that of asking the small tier.
        asking : (n,) cost of asking the small tier over that of the teacher.
        """
        stopped = np.append(0.0, np.cumsum(stopping)[self.ends])
        asked = np.append(0.0, np.cumsum(asking)[self.ends])
        last = int(np.argmin(np.minimum.accumulate(stopped) + asked))
        first = int(np.argmin(stopped[: last + 1]))
        cuts = np.append(NEVER, self.proxy[self.ends])
        return float(cuts[first]), 0.0 if last == len(self.ends) else float(cuts[last])


@dataclass(frozen=True, eq=False)
class _Policy:
    """A rung, and what each training row would cost under it, (n,)."""

    rung: Rung
    spent: Floats

    @property
    def cost(self) -> float:
        """Predicted cost of a request."""
        return float(self.spent.mean())


def build_path(
    proxy: Floats,
    small: Floats | None,
    costs: Costs,
    *,
    target: float,
    rungs: int = RUNGS,
    careful: float = CAREFUL,
) -> tuple[Rung, ...]:
    """Policies by a falling price of an error, their predicted costs evenly spaced.

    With a price lambda for an error, the small tier stops where lambda (1 - a1) <= large. Before it
    there are three actions: the proxy stops, lambda (1 - a0); the small tier is asked,
    small + E[min(lambda (1 - a1), large) | a0]; or it is skipped, large. The tiers are the proxy
    alone, the small tier alone, or both: whichever is predicted to be cheapest where the path is
    likely to be certified, since a chain can lose to its best pair (arXiv 2605.06350). Where the
    training rows cannot tell the difference, it is one that asks the teacher clearly less.

    Parameters
    ----------
    proxy : (n,) out-of-fold P(teacher agrees) of the proxy; 0 where a gate would turn a row away.
    small : (n,) the same of the small tier, 0 where it abstains; None without a small tier.
    target : the agreement to certify; the path ends a little beyond it.
    careful : the first rung's predicted risk, as a multiple of what the target allows. Nothing is
        certified where that rung is wrong already, so 0 is safest where few labels made the
        confidences; but of few rungs, each careful one is missing where the certified one lies.

    Returns
    -------
    At most ``rungs`` policies. Thresholds never rise along them, so each answers below the teacher
    at least what the one before it answers there.

    Raises
    ------
    NotEnoughSignal
        No tier below the teacher answers a single row.
    """
    trade = _Trade.of(proxy, np.zeros(len(proxy)) if small is None else small, costs)
    tier_sets = [_proxy_alone] if small is None else [_proxy_alone, _small_alone, _both]
    paths = [path for tiers in tier_sets if (path := _cheaper_and_cheaper(trade, tiers))]
    if not paths:
        raise NotEnoughSignal("no tier below the teacher would answer anything: buy more labels")
    chosen = _cheapest(paths, LIKELY * (1 - target), costs)
    within = _between(chosen, careful * (1 - target), BEYOND * (1 - target))
    return _evenly(within, rungs)


def _proxy_alone(trade: _Trade, price: float) -> Thresholds:
    return {PROXY: trade.small_stops(price)}


def _small_alone(trade: _Trade, price: float) -> Thresholds:
    """The proxy only says where the small tier is not worth asking."""
    never_stop = np.full(len(trade.proxy), np.inf)
    _, ask = trade.best_cuts(never_stop, trade.asking(price) - trade.costs.large)
    return {PROXY: NEVER, SMALL: trade.small_stops(price), SKIP: ask}


def _both(trade: _Trade, price: float) -> Thresholds:
    asking = trade.asking(price)
    stopping = price * (1.0 - trade.proxy) - asking
    stop, ask = trade.best_cuts(stopping, asking - trade.costs.large)
    return {PROXY: stop, SMALL: trade.small_stops(price), SKIP: ask}


def _cheaper_and_cheaper(
    trade: _Trade, tiers: Callable[[_Trade, float], Thresholds]
) -> list[_Policy]:
    """The policies of one tier set, without those that save nothing over the one before."""
    kept: list[_Policy] = []
    for thresholds in _nested([tiers(trade, price) for price in _prices(trade.costs)]):
        policy = _describe(trade, thresholds)
        if policy.cost < (kept[-1].cost if kept else trade.costs.large) - 1e-9:
            kept.append(policy)
    return kept


def _prices(costs: Costs) -> Floats:
    """Prices of an error at which the small tier's threshold runs evenly from 1 down to 0.

    Never quite 0: a confidence of 0 marks a row that the tier will not answer at all.
    """
    tolerated = np.linspace(1e-3, 1.0 - 1e-3, PRICES)  # 1 - t1
    prices: Floats = costs.large / tolerated
    return prices


def _nested(candidates: list[Thresholds]) -> list[Thresholds]:
    """Each policy answers at least what the one before it answered below the teacher."""
    lowest = dict.fromkeys(candidates[0], NEVER)
    nested = []
    for one in candidates:
        lowest = {key: min(lowest[key], one[key]) for key in lowest}
        nested.append(lowest)
    return nested


def _describe(trade: _Trade, thresholds: Thresholds) -> _Policy:
    """What a policy would do to the training rows. A skip of nothing is left out."""
    by_proxy = trade.proxy >= thresholds[PROXY]
    shares = {PROXY: float(by_proxy.mean())}
    risk = ((1.0 - trade.proxy) * by_proxy).mean()
    spent = np.where(by_proxy, 0.0, trade.costs.large)
    if SMALL in thresholds:
        asked = ~by_proxy & (trade.proxy >= thresholds[SKIP]) & (trade.proxy > 0.0)
        by_small = asked & (trade.small >= thresholds[SMALL])
        shares[SMALL] = float(by_small.mean())
        risk += ((1.0 - trade.small) * by_small).mean()
        spent = trade.costs.small * asked + np.where(by_small, 0.0, spent)
    shares[LARGE] = 1.0 - sum(shares.values())
    named = {key: at for key, at in thresholds.items() if key != SKIP or at > 0.0}
    return _Policy(Rung(named, shares, float(risk)), spent)


def _cheapest(paths: list[list[_Policy]], risk: float, costs: Costs) -> list[_Policy]:
    """The path whose best policy within ``risk`` costs least; or one that the training rows, taken
    in pairs, cannot tell from it, if that one spares the teacher clearly more."""
    reached = [_within(path, risk, costs) for path in paths]
    best = min(reached, key=lambda policy: policy.cost)
    excess = [policy.spent - best.spent for policy in reached]
    tied = [one.mean() <= DOUBT * one.std() / np.sqrt(len(one)) for one in excess]
    rivals = [policy for policy, tie in zip(reached, tied, strict=True) if tie]
    sparing = min(rivals, key=lambda policy: policy.rung.shares[LARGE])
    clearly = sparing.rung.shares[LARGE] < best.rung.shares[LARGE] - CLEARLY
    return paths[reached.index(sparing if clearly else best)]


def _within(path: list[_Policy], risk: float, costs: Costs) -> _Policy:
    """The cheapest policy within ``risk``; where there is none, the teacher answers everything."""
    teacher = _Policy(Rung({}, {LARGE: 1.0}, 0.0), np.full(len(path[0].spent), costs.large))
    able = [policy for policy in path if policy.rung.risk <= risk]
    return min(able, key=lambda policy: policy.cost, default=teacher)


def _between(path: list[_Policy], least: float, most: float) -> list[_Policy]:
    """Policies whose predicted risk lies in a range, with one beyond either end where there is
    one."""
    risks = np.maximum.accumulate([policy.rung.risk for policy in path])
    first = max(int(np.searchsorted(risks, least)) - 1, 0)
    last = int(np.searchsorted(risks, most))
    return path[first : last + 1]


def _evenly(path: list[_Policy], rungs: int) -> tuple[Rung, ...]:
    """Rungs whose predicted costs are about evenly spaced, both ends included."""
    costs = np.array([policy.cost for policy in path])
    wanted = np.linspace(costs[0], costs[-1], rungs)
    nearest = np.abs(costs[None, :] - wanted[:, None]).argmin(axis=1)
    chosen = range(len(path)) if len(path) <= rungs else np.unique(nearest)
    return tuple(path[i].rung for i in chosen)
