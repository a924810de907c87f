"""Watch a certified policy in production: has its risk grown beyond what was certified?

Knows audited outcomes and their propensities; no clock, no store, no thresholds. State is plain
data: ``msgspec.json.encode(monitor)`` and back loses nothing.

The guarantee: as long as, from every start epoch on, the running mean of the requests' conditional
risks stays at or below 1 - target, the monitor *ever* alarms with probability at most delta,
whatever drifts meanwhile. Each gambler multiplies by 1 + bet (X - risk) with a *constant* bet, so
its mean is at most exp(bet * sum(risk_i - risk)) <= 1 under that null; sums over gamblers and
epochs with weights that sum to 1 are again such processes, and Ville's inequality (1939) bounds
their maximum (Podkopaev & Ramdas 2021, arXiv 2110.06177). A bet that varied with the data would
need *every single* risk below the limit; restarting at 1 (CUSUM) bounds only the run length.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import msgspec
import numpy as np
from numpy.typing import NDArray

from cascade.certify.claim import Guarantee
from cascade.errors import UsageError

Floats = NDArray[np.float64]

BET_FACTORS = (0.25, 0.5, 1.0, 2.0, 4.0)  # of the audit rate: about 1 / the spread of X
EPOCH_AUDITS = 50  # a new process starts every so many audits
SAFEST = 0.9  # share of the largest bet that keeps a wealth positive
SOON = 5.0  # evidence at which tightening one rung is cheap insurance
RICH = 500.0  # log wealth beyond which more says nothing, and exp would overflow
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
    rate, floor : mean and least probability of an audit of a request answered below the teacher.

    The other fields are its state. ``log_wealths`` : (epochs, gamblers), settled up to request
    ``settled``; ``weights`` : 1 / propensity of every audit that was wrong.

    >>> monitor = HarmMonitor(Guarantee(0.9, 0.05), rate=0.1, floor=0.02)
    >>> for _ in range(60):
    ...     monitor.skip(8)
    ...     monitor.record(wrong=True, propensity=0.1)
    >>> monitor.alarm, round(monitor.interval(0.05).low, 2)
    (True, 0.73)
    """

    guarantee: Guarantee
    rate: float
    floor: float
    requests: int = 0
    settled: int = 0
    audits: int = 0
    weights: list[float] = msgspec.field(default_factory=list)
    log_wealths: list[list[float]] = msgspec.field(default_factory=lambda: [_fresh()])
    highest: float = 1.0
    roots: int = 0
    root_sum: float = 0.0

    def __post_init__(self) -> None:
        if not 0 < self.floor <= self.rate <= 1:
            raise UsageError(f"0 < floor <= rate <= 1, not floor {self.floor}, rate {self.rate}")

    @property
    def evidence(self) -> float:
        """Wealth against "no harm" now: the mixture over gamblers and start epochs."""
        silent = self._silent_logs(self.requests - self.settled)
        logs = np.minimum(np.asarray(self.log_wealths) + silent, RICH)
        wealth = np.exp(logs).mean(axis=1)
        weight = _epoch_weights(len(wealth))
        return float(weight @ wealth + 1 - weight.sum())  # epochs to come still hold wealth 1

    @property
    def alarm(self) -> bool:
        """The wealth has reached 1/delta at least once: fall back."""
        return self.highest >= 1 / self.guarantee.delta

    @property
    def soon(self) -> bool:
        """Not an alarm, but reason enough to tighten by one rung."""
        return self.evidence >= SOON

    def propose(self, p_wrong: float) -> float:
        """Propensity with which to audit a request that is predicted wrong so often.

        The surer the policy, the rarer the audit: the variance is least for the square root
        (Neyman 1934). Updates the running mean that keeps the mean near ``rate``.
        """
        root = math.sqrt(min(max(p_wrong, 0.0), 1.0))
        self.roots += 1
        self.root_sum += root
        mean = max(self.root_sum / self.roots, 1e-9)
        return min(max(self.rate * root / mean, self.floor), 1.0)

    def skip(self, requests: int = 1) -> None:
        """Requests without an audit, or answered by the teacher: X = 0 for each."""
        self.requests += requests

    def record(self, wrong: bool, propensity: float) -> None:
        """An audited request: X = wrong / propensity, the propensity as logged before the audit."""
        if not self.floor <= propensity <= 1:
            raise UsageError(f"a propensity lies in [{self.floor}, 1], not {propensity}")
        logs = np.asarray(self.log_wealths) + self._silent_logs(self.requests - self.settled)
        loss = float(wrong) / propensity
        logs += np.log1p(self._bets() * (loss - self.guarantee.risk))
        self.log_wealths = logs.tolist()
        self.requests += 1
        self.settled = self.requests
        self.audits += 1
        if wrong:
            self.weights.append(loss)
        self.highest = max(self.highest, self.evidence)
        if self.audits % EPOCH_AUDITS == 0:
            self.log_wealths.append(_fresh())

    def interval(self, delta: float) -> Interval:
        """Mean risk since the first request, sure with 1 - delta at all times together.

        For the dashboard; under any drift. The upper end is slow where ``floor`` is small: a bet
        against high risks may not exceed it, because one weight can be as large as 1 / floor.
        """
        limit = math.log(2 / delta)
        up, down = self._bets(), -SAFEST * self.floor * np.array([0.1, 0.3, 1.0])
        low = _boundary(lambda mean: self._log_wealth(mean, up) < limit)
        high = _boundary(lambda mean: self._log_wealth(mean, down) >= limit)
        return Interval(low, high)

    def _bets(self) -> Floats:
        return np.minimum(self.rate * np.array(BET_FACTORS), SAFEST / self.guarantee.risk)

    def _silent_logs(self, requests: int) -> Floats:
        return np.asarray(requests * np.log1p(-self._bets() * self.guarantee.risk))

    def _log_wealth(self, mean: float, bets: Floats) -> float:
        """Log wealth of constant bets against "the mean risk is ``mean``", over all requests."""
        safe = np.clip(bets, -np.inf, SAFEST / max(mean, 1e-12))
        weights = np.asarray(self.weights)[:, None]
        logs = np.log1p(safe * (weights - mean)).sum(axis=0)
        logs += (self.requests - len(self.weights)) * np.log1p(-safe * mean)
        return float(np.logaddexp.reduce(logs) - math.log(len(bets)))


def _fresh() -> list[float]:
    return [0.0] * len(BET_FACTORS)


def _epoch_weights(epochs: int) -> Floats:
    """6 / (pi j)^2 for j = 1 .. epochs; all of them sum to 1."""
    return np.asarray(6 / (math.pi * np.arange(1, epochs + 1)) ** 2)


def _boundary(above: Callable[[float], bool]) -> float:
    """The least mean in [0, 1] from which on ``above`` holds; 1 if it never does."""
    low, high = 0.0, 1.0
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if above(middle) else (middle, high)
    return high
