"""Bounds hold as often as they promise, and never more tightly than the data allow."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from cascade.certify.bounds import (
    Deadline,
    OpenEnded,
    agreement_lower,
    allowed_wrong,
    binomial_cdf,
    log_binomial_cdf,
    log_wealth,
)

COUNTS = st.integers(0, 400).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n)))


@pytest.mark.parametrize(("n", "p"), [(1, 0.5), (250, 0.1), (5000, 0.01), (400, 0.999)])
def test_cdf_is_scipys(n: int, p: float) -> None:
    assert np.allclose(binomial_cdf(n, p), stats.binom.cdf(np.arange(n + 1), n, p), atol=1e-10)


@given(st.integers(0, 3000), st.floats(1e-4, 0.9999), st.lists(st.integers(-5, 3010), min_size=1))
def test_the_terms_that_matter_are_all_terms(n: int, p: float, counts: list[int]) -> None:
    """Asked one by one or together, near the mean or far from it."""
    every = np.append(binomial_cdf(n, p), 0.0)  # the last stands for counts below 0
    exact = every[[min(k, n) if k >= 0 else -1 for k in counts]]
    together = log_binomial_cdf(n, p, np.array(counts))
    alone = [float(log_binomial_cdf(n, p, np.array(k))) for k in counts]
    sure = exact > 1e-290  # below, only the logarithm is exact
    assert np.allclose(together[sure], np.log(exact[sure]), rtol=1e-9, atol=1e-9)
    assert np.allclose(together, alone, rtol=1e-9, atol=1e-9)
    assert np.array_equal(np.isneginf(together), np.array(counts) < 0)


def test_a_rung_is_lost_only_when_it_is() -> None:
    """Beyond what a double can hold: no chance is too small for its logarithm."""
    allowed = allowed_wrong(20_000, 0.3, 0.05)
    wealth = Deadline(20_000).log_wealth(9_000, [allowed, allowed + 1], 0.3, 0.05)
    assert -np.inf < wealth[0] < -745 and np.isneginf(wealth[1])


@given(COUNTS, st.floats(0.001, 0.5))
def test_agreement_bound_lies_below_the_observed_agreement(
    count: tuple[int, int], delta: float
) -> None:
    n, right = count
    assert 0 <= agreement_lower(right, n, delta) <= right / max(n, 1) + 1e-9


@given(COUNTS)
def test_more_right_answers_never_lower_the_bound(count: tuple[int, int]) -> None:
    n, right = count
    assert agreement_lower(right, n + 1, 0.05) <= agreement_lower(right + 1, n + 1, 0.05) + 1e-9


@given(st.integers(1, 300), st.floats(0.02, 0.5))
def test_every_bet_is_fair_under_the_null(n: int, risk: float) -> None:
    wrong = np.arange(n + 1)
    chance = stats.binom.pmf(wrong, n, risk)
    for bets in (Deadline(n), Deadline(2 * n), OpenEnded()):
        assert chance @ np.exp(bets.log_wealth(n, wrong, risk, 0.05)) <= 1 + 1e-9


@given(st.integers(1, 300), st.floats(0.02, 0.5), st.floats(0.01, 0.3))
def test_more_wrong_answers_never_help(n: int, risk: float, delta: float) -> None:
    for bets in (Deadline(n), OpenEnded()):
        wealth = np.exp(bets.log_wealth(n, np.arange(n + 1), risk, delta))
        assert np.all(np.diff(wealth) <= 1e-12)


def test_deadline_is_the_exact_test_at_the_end() -> None:
    allowed = allowed_wrong(250, 0.1, 0.05)
    wealth = Deadline(250).log_wealth(250, [allowed, allowed + 1], 0.1, 0.05)
    assert wealth[0] >= np.log(20) and np.isneginf(wealth[1])


def test_too_short_a_deadline_wins_nothing() -> None:
    assert Deadline(10).log_wealth(10, [0, 1], 0.1, 0.05).tolist() == [0.0, 0.0]


def test_anytime_bound_holds_at_all_times_together() -> None:
    rng, delta, risk = np.random.default_rng(0), 0.1, 0.15
    wrong = np.cumsum(rng.random((2000, 300)) < risk, axis=1)
    ever = np.zeros(2000, dtype=bool)
    for t in range(300):  # the bound excludes the truth iff the wealth against it is 1/delta
        ever |= log_wealth(t + 1, wrong[:, t], risk) >= np.log(1 / delta)
    assert ever.mean() <= delta
