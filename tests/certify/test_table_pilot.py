"""The pilot looks everywhere, and a few labels never make it certain."""

import numpy as np
import pytest

from cascade.certify.pilot import calibrate, fit_platt, pilot_rows, wrong_at_worst


def test_pilot_covers_all_ranks_of_a_sorted_table() -> None:
    scores = np.linspace(0, 1, 1000)
    rows = pilot_rows(scores, 40, np.random.default_rng(0))
    assert 35 <= len(rows) <= 40 and rows[0] == 0 and rows[-1] == 999
    assert np.diff(rows).max() <= 60


def test_pilot_of_a_tiny_table_is_the_table() -> None:
    assert pilot_rows(np.array([0.3, 0.1]), 40, np.random.default_rng(0)).tolist() == [0, 1]


@pytest.mark.parametrize("positive", [True, False])
def test_one_class_or_extreme_scores_stay_finite(positive: bool) -> None:
    scores = np.array([0.0, 1e-300, 0.5, 1.0])
    chance = fit_platt(scores, np.full(4, positive))(scores)
    assert np.all(np.isfinite(chance)) and np.all((chance > 0) & (chance < 1))


def test_platt_finds_the_shift_of_an_overconfident_score() -> None:
    rng = np.random.default_rng(0)
    scores = rng.random(2000)
    truth = rng.random(2000) < 1 / (1 + np.exp(2 - np.log(scores / (1 - scores))))
    assert fit_platt(scores, truth)(np.array([0.5]))[0] == pytest.approx(0.119, abs=0.03)


def test_scores_that_mean_only_their_order_are_calibrated() -> None:
    rng = np.random.default_rng(0)
    truth = rng.random(4000)
    positive = rng.random(4000) < truth
    squeezed = 0.5 + truth**9 / 1000  # every logit is about zero, and none is linear in the truth
    chance = calibrate(squeezed, np.arange(400), positive[:400])
    assert np.all(np.diff(chance[np.argsort(squeezed)]) >= 0)
    assert np.mean((chance >= 0.5) == positive) > 0.7  # 0.75 for who knows the truth


def test_a_pessimist_never_expects_fewer_wrong_answers() -> None:
    p_agree = np.random.default_rng(0).uniform(0.5, 1, 100)
    assert wrong_at_worst(p_agree) > np.mean(1 - p_agree)
    assert wrong_at_worst(np.ones(3)) == 0
