"""Watch a certified policy in production: has its risk grown beyond what was certified?

Knows audited outcomes and their propensities; no clock, no store, no thresholds. State is plain
data: ``msgspec.json.encode(monitor)`` and back loses nothing.

The guarantee: as long as, from every start epoch on, the running mean of the requests' conditional
risks r_i stays at or below 1 - target, the monitor *ever* alarms with probability at most delta,
whatever drifts meanwhile.

Why it holds. An epoch starts every ``EPOCH_AUDITS`` audits. There, and only there, the wealth is
divided between cash and a few gamblers, in any way that the past suggests. A gambler's bet is fixed
for the epoch; each request multiplies its stake by 1 + bet (X - risk), X = wrong audited /
propensity, an unbiased estimate of r_i. Divided by 1 + bet (r_i - risk), the stake is a martingale;
and up to any moment of the epoch the product of those divisors is at most exp(bet sum(r_i - risk))
<= 1 under the null. So the wealth never exceeds the martingale that divides its own wealth in the
same proportions, and Ville's inequality (1939) bounds its maximum (Podkopaev & Ramdas 2021, arXiv
2110.06177; betting 2010.09686). The traps: a bet that follows the data *within* an epoch would need
every single risk below the limit; a wealth restarted at 1 (CUSUM) bounds only the run length.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import msgspec
import numpy as np
from numpy.typing import NDArray

from cascade.certify.claim import Guarantee
from cascade.certify.suspicion import Suspicion
from cascade.errors import UsageError

Floats = NDArray[np.float64]

BET_FACTORS = (0.25, 0.5, 1.0, 2.0, 4.0)  # of the audit rate: about 1 / the spread of X
UPS = len(BET_FACTORS)
LOW_ODDS = (0.1, 0.3, 1.0)  # of the largest safe ones: the interval's bets on a low risk
EPOCH_AUDITS = 50  # the wealth is divided anew every so many audits
CAUTION = 100.0  # the larger, the less is staked while nothing points to harm
SAFEST = 0.9  # share of the largest bet that keeps a wealth positive
SOON = 5.0  # evidence at which tightening one rung is cheap insurance
UNEASY = 2.5  # streak of some gambler, a log wealth, at which to look closer
CLOSER = 20.0  # times the usual audit rate while there is reason to look closer
RICH = 50.0  # log wealth beyond which more says nothing, and exp would overflow
MOST = math.exp(RICH)
HALVINGS = 40


class Interval(msgspec.Struct, frozen=True):
    """An anytime confidence interval of the mean risk."""

    low: float
    high: float


class HarmMonitor(msgspec.Struct, forbid_unknown_fields=True):
    """Evidence that a policy does harm, from propensity-weighted audits.

    Every request counts: ``skip`` those without an audit (the teacher's own included, their X is
    0), ``record`` the audited ones, both in the order of the requests. An audit without an answer
    stays pending and holds the later ones back, or counts as wrong; never as right.

    Parameters
    ----------
    guarantee : the certificate's target, and delta = chance of ever alarming without harm.
    rate, floor : mean and least probability of an audit of a request answered below the teacher,
        while nothing is suspicious.

    The other fields are its state. ``stakes``, ``bets``, ``streaks`` : (gamblers,), settled up to
    request ``settled``; a streak is what a gambler's log wealth has gained since its lowest point,
    and decides its next stake. ``epoch_weight`` : sum of 1 / propensity over this epoch's audits.
    ``gains`` : what wrong audits brought each gambler of the ``interval``, as logs.

    >>> monitor = HarmMonitor(Guarantee(0.9, 0.05), rate=0.1, floor=0.02)
    >>> for _ in range(120):
    ...     monitor.skip(8)
    ...     monitor.record(wrong=True, propensity=0.1)
    >>> monitor.alarm, round(monitor.interval(0.05).low, 2)
    (True, 0.83)
    """

    guarantee: Guarantee
    rate: float
    floor: float
    requests: int = 0
    settled: int = 0
    audits: int = 0
    cash: float = 1.0
    stakes: list[float] = msgspec.field(default_factory=lambda: [0.0] * len(BET_FACTORS))
    bets: list[float] = msgspec.field(default_factory=list)
    streaks: list[float] = msgspec.field(default_factory=lambda: [0.0] * len(BET_FACTORS))
    epoch_weight: float = 0.0
    gains: list[float] = msgspec.field(default_factory=lambda: [0.0] * (UPS + len(LOW_ODDS)))
    highest: float = 1.0
    roots: int = 0
    root_sum: float = 0.0
    suspicion: Suspicion = msgspec.field(
        default_factory=lambda: Suspicion(rise=0.1, bar=5.0, memory=2_000)
    )

    def __post_init__(self) -> None:
        if not 0 < self.floor <= self.rate <= 1:
            raise UsageError(f"0 < floor <= rate <= 1, not floor {self.floor}, rate {self.rate}")
        if not self.bets:
            self._begin_epoch(self.rate)

    @property
    def evidence(self) -> float:
        """Wealth against "no harm" now: the cash and every gambler's stake."""
        logs = zip(self.stakes, self._silent_logs(), strict=True)
        return self.cash + sum(stake * math.exp(silent) for stake, silent in logs)

    @property
    def alarm(self) -> bool:
        """The wealth has reached 1/delta at least once."""
        return self.highest >= 1 / self.guarantee.delta

    @property
    def alarming(self) -> bool:
        """The wealth is at 1/delta now."""
        return self.evidence >= 1 / self.guarantee.delta

    @property
    def soon(self) -> bool:
        """Not an alarm, but reason enough to tighten by one rung."""
        return self.evidence >= SOON

    @property
    def uneasy(self) -> bool:
        """Reason to look closer: a gambler's streak, or more wrong audits than there used to be."""
        return self.suspicion.roused or max(self.streaks) >= UNEASY

    def propose(self, p_wrong: float, *, closer: bool = False) -> float:
        """Propensity with which to audit a request that is predicted wrong so often.

        The surer the policy, the rarer the audit: the variance is least for the square root
        (Neyman 1934). Updates the running mean that keeps the mean near ``rate``. While the
        monitor is uneasy, or somebody else has reason to look ``closer``, audits are twenty times
        as frequent: any propensity is valid that is chosen before the draw.
        """
        root = math.sqrt(min(max(p_wrong, 0.0), 1.0))
        self.roots += 1
        self.root_sum += root
        mean = max(self.root_sum / self.roots, 1e-9)
        usual = max(self.rate * root / mean, self.floor)
        return min(usual * CLOSER if closer or self.uneasy else usual, 1.0)

    def skip(self, requests: int = 1) -> None:
        """Requests without an audit, or answered by the teacher: X = 0 for each."""
        self.requests += requests

    def record(self, wrong: bool, propensity: float) -> None:
        """An audited request: X = wrong / propensity, the propensity as logged before the audit."""
        if not self.floor <= propensity <= 1:
            raise UsageError(f"a propensity lies in [{self.floor}, 1], not {propensity}")
        loss = wrong / propensity
        for k, silent in enumerate(self._silent_logs()):
            won = math.log1p(self.bets[k] * (loss - self.guarantee.risk))
            self.stakes[k] = min(self.stakes[k] * math.exp(silent + won), MOST)
            streak = max(self.streaks[k] + silent, 0.0) + won
            self.streaks[k] = min(max(streak, 0.0), RICH)
        self.requests += 1
        self.settled = self.requests
        self.audits += 1
        self.suspicion.see(wrong)
        if wrong:
            self.gains = (np.asarray(self.gains) + np.log1p(self._odds * loss)).tolist()
        self.highest = max(self.highest, self.evidence)
        self.epoch_weight += 1 / propensity
        if self.audits % EPOCH_AUDITS == 0:
            self._begin_epoch(EPOCH_AUDITS / self.epoch_weight)

    def interval(self, delta: float) -> Interval:
        """Mean risk since the first request, sure with 1 - delta at all times together.

        For the dashboard; under any drift. The upper end is slow where ``floor`` is small: nobody
        may bet much on low risks, because one weight can be as large as 1 / floor.

        Each request multiplies a gambler's wealth by 1 + odds X; divided by 1 + odds r_i it is a
        martingale. As the log is concave, those divisors multiply to at most (1 + odds mean)^n, so
        the wealth divided by that exceeds 1/delta no more often (Ville), whatever the r_i were. The
        trap: bets that are constant instead of odds stand for other odds whenever the mean moves.
        """
        bar = math.log(2 / delta)
        return Interval(
            low=_boundary(lambda mean: self._log_wealth(mean, slice(UPS)) < bar),
            high=_boundary(lambda mean: self._log_wealth(mean, slice(UPS, None)) >= bar),
        )

    def _begin_epoch(self, rate: float) -> None:
        """Divide the wealth anew: the more, the longer a gambler's streak; little without one.

        rate : at which audits were made lately; the best bet is of its order.
        """
        wealth = self.cash + sum(self.stakes)
        pull = np.exp(np.asarray(self.streaks))
        shares = pull / (CAUTION + pull.sum())
        self.stakes = (wealth * shares).tolist()
        self.cash = wealth * float(1 - shares.sum())
        self.bets = self._safe_bets(rate).tolist()
        self.epoch_weight = 0.0

    def _safe_bets(self, rate: float) -> Floats:
        return np.minimum(rate * np.array(BET_FACTORS), SAFEST / self.guarantee.risk)

    def _silent_logs(self) -> list[float]:
        """Each gambler's log factor for the requests since the last audit."""
        silent = self.requests - self.settled
        return [silent * math.log1p(-bet * self.guarantee.risk) for bet in self.bets]

    @property
    def _odds(self) -> Floats:
        """Of the interval's gamblers: those who bet on a high risk, then those on a low one."""
        ups, downs = np.array(BET_FACTORS), np.array(LOW_ODDS)
        return np.append(self.rate * ups, -SAFEST * self.floor * downs)

    def _log_wealth(self, mean: float, side: slice) -> float:
        """Log of one side's mean wealth, against "the mean risk is ``mean``"."""
        logs = np.asarray(self.gains)[side] - self.requests * np.log1p(self._odds[side] * mean)
        return float(np.logaddexp.reduce(logs) - math.log(len(logs)))


def _boundary(above: Callable[[float], bool]) -> float:
    """The least mean in [0, 1] from which on ``above`` holds; 1 if it never does."""
    low, high = 0.0, 1.0
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if above(middle) else (middle, high)
    return high
