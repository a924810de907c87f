"""How sure a count of wrong answers makes us. Knows counts; nothing of rungs, rows or labels.

Everything here may be looked at after every draw, and the sampling stopped whenever one likes. A
bet is a gambler's wealth against the null "the risk is at least ``risk``". Under the null the
wealth is a nonnegative supermartingale that starts at 1, so it ever reaches 1/delta with
probability at most delta [2]_.

References
----------
.. [1] Waudby-Smith & Ramdas (2020), Estimating means of bounded random variables by betting,
       arXiv 2010.09686, Theorem 3 (hedged capital; here one-sided).
.. [2] Ville (1939), Etude critique de la notion de collectif.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

import msgspec
import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

HALVINGS = 60  # of an interval of length 1: ends below the resolution of a double
GRID = (np.arange(40) + 0.5) / 40  # fractions of the largest safe bet, spread evenly
REACH = 9.0  # square roots of the mean: terms so far off add up to less than e^-40 of the sum
AUDITS = 1024  # deadlines whose goals are remembered, the rungs of all audits of a process


def binomial_cdf(n: int, p: float) -> Floats:
    """P(Binomial(n, p) <= k) for k = 0 .. n, shape (n + 1,). Needs 0 < p < 1.

    >>> binomial_cdf(2, 0.5).round(2).tolist()
    [0.25, 0.75, 1.0]
    """
    steps = np.arange(1, n + 1)
    odds = np.log(n + 1 - steps) - np.log(steps) + np.log(p) - np.log1p(-p)
    log_pmf = n * np.log1p(-p) + np.concatenate([[0.0], np.cumsum(odds)])
    return np.asarray(np.minimum(np.cumsum(np.exp(log_pmf)), 1.0))


def log_binomial_cdf(n: int, p: float, counts: NDArray[np.int64]) -> Floats:
    """log P(Binomial(n, p) <= k) for each k, shape (...); -inf below 0. Needs 0 < p < 1.

    As ``binomial_cdf``, from the terms that matter: about the square root of the mean, not n. For
    k up to the mean np, the term at k - d is at most exp(-d^2 / 2k) of the one at k, since each
    factor on the way, (k - i) (1 - p) / ((n - k + i + 1) p), is at most 1 - i / k.

    >>> np.exp(log_binomial_cdf(2, 0.5, np.array([-1, 0, 1, 9]))).round(2).tolist()
    [0.0, 0.25, 0.75, 1.0]
    """
    reach = REACH * math.sqrt(n * p) + 10
    # past the mean by as much, the sum is 1
    capped = np.minimum(counts, min(n, math.ceil(n * p + 2 * reach)))
    least = int(np.min(capped[capped >= 0], initial=n))
    low = max(math.floor(min(least, n * p) - reach), 0)
    high = max(int(np.max(capped, initial=0)), low)
    steps = np.arange(low + 1, high + 1)
    odds = np.log(n + 1 - steps) - np.log(steps) + np.log(p) - np.log1p(-p)
    log_pmf = _log_pmf(n, p, low) + np.concatenate([[0.0], np.cumsum(odds)])
    log_cdf = np.minimum(np.logaddexp.accumulate(log_pmf), 0.0)
    return np.asarray(np.where(counts < 0, -np.inf, log_cdf[np.maximum(capped - low, 0)]))


def _log_pmf(n: int, p: float, k: int) -> float:
    ways = math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
    return ways + k * math.log(p) + (n - k) * math.log1p(-p)


def leading(true: ArrayLike) -> int:
    """How many are true before the first that is not: fixed-sequence testing certifies no more.

    >>> leading([True, True, False, True]), leading([])
    (2, 0)
    """
    return int(np.argmin(np.append(np.asarray(true, dtype=np.bool_), False)))


def allowed_wrong(n: int, risk: float, delta: float) -> int:
    """Most wrong answers in ``n`` draws that still disprove "risk >= ``risk``"; -1 if none do.

    >>> allowed_wrong(250, 0.10, 0.05), allowed_wrong(20, 0.10, 0.05)
    (16, -1)
    """
    return int(np.searchsorted(binomial_cdf(n, risk), delta, side="right")) - 1


def log_wealth(draws: int, wrong: ArrayLike, risk: float, fractions: Floats = GRID) -> Floats:
    """Log of the mean wealth of gamblers who bet constant fractions against "risk >= ``risk``".

    Parameters
    ----------
    draws : how many answers were checked.
    wrong : (...) how many of them were wrong.
    risk : the null's least risk, in (0, 1).
    fractions : (k,) in (0, 1), of the largest safe bet 1/(1 - risk). A right answer multiplies a
        gambler's wealth by 1 + fraction * risk / (1 - risk), a wrong one by 1 - fraction.

    Returns
    -------
    (...) log wealth. The mean of e-values is an e-value, so the mixture needs no correction [1]_.

    >>> log_wealth(40, [0, 2], 0.10).round(2).tolist()
    [2.79, 0.3]
    """
    lost = np.asarray(wrong, dtype=np.float64)[..., None]
    logs = lost * np.log1p(-fractions) + (draws - lost) * np.log1p(fractions * risk / (1 - risk))
    top = logs.max(axis=-1)
    mean = np.exp(logs - top[..., None]).mean(axis=-1)
    return np.asarray(top + np.log(mean), dtype=np.float64)


def agreement_lower(right: int, n: int, delta: float) -> float:
    """Anytime lower bound of an agreement: valid after every draw, whatever made us stop [1]_.

    >>> round(agreement_lower(120, 130, 0.05), 3), agreement_lower(0, 0, 0.05)
    (0.84, 0.0)
    """
    if right == 0:
        return 0.0
    limit = np.log(1 / delta)
    return 1.0 - _bisect(lambda risk: bool(log_wealth(n, n - right, risk) >= limit))


def _bisect(rejected: Callable[[float], bool]) -> float:
    """The least risk in (0, 1) that the data reject, given that larger ones are rejected too."""
    low, high = 0.0, 1.0
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if rejected(middle) else (middle, high)
    return min(high, 1.0)


class Deadline(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="deadline"):
    """Bet so that the wealth is largest after exactly ``draws`` draws: the strongest for a budget.

    The wealth is P(at most c wrong in all draws | wrong so far, risk) over the same before any
    draw, c the most wrong answers that disprove the null. It is Doob's martingale of the exact
    binomial test, so at the deadline it *is* that test (uniformly most powerful, Neyman &
    Pearson 1933), and before it a rung with more than c wrong is known to be lost. Simulated at
    T = .90, delta = .05, 250 draws: a true risk of .06 certifies 7 times in 10, with mixtures,
    plug-in Kelly or aGRAPA 4 to 6 times. After the deadline nothing changes any more.
    """

    draws: int

    def log_wealth(self, draws: int, wrong: ArrayLike, risk: float, delta: float) -> Floats:
        """Log wealth, (...); -inf where the null can no longer be disproved.

        >>> Deadline(250).log_wealth(250, [16, 17], 0.10, 0.05).round(2).tolist()
        [3.48, -inf]
        """
        lost = np.asarray(wrong)
        allowed, log_chance = _goal(self.draws, risk, delta)
        if allowed < 0:
            return np.zeros(lost.shape)
        left = max(self.draws - draws, 0)
        return np.asarray(log_binomial_cdf(left, risk, allowed - lost) - log_chance)


@lru_cache(maxsize=AUDITS)
def _goal(draws: int, risk: float, delta: float) -> tuple[int, float]:
    """The most wrong answers that disprove the null, and the log of their chance under it."""
    allowed = allowed_wrong(draws, risk, delta)
    return allowed, float(log_binomial_cdf(draws, risk, np.array(allowed)))


class OpenEnded(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="open_ended"):
    """Bet without a deadline: sample as long as one likes, for a certain price in power."""

    def log_wealth(self, draws: int, wrong: ArrayLike, risk: float, delta: float) -> Floats:
        """Log wealth of the even mixture of constant bets, (...).

        >>> OpenEnded().log_wealth(250, [10, 17], 0.10, 0.05).round(2).tolist()
        [5.16, 0.62]
        """
        return log_wealth(draws, wrong, risk)


Bets = Deadline | OpenEnded
"""How to bet against "risk >= ``risk``": the same for every rung, chosen before the draws."""
