"""Whose label is bought next: rare labels are found, and every chance is the one that was told."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from cascade.distill.curriculum import FIRST, Curriculum, Sample, uneven

DIM = 16


def unit(rows: NDArray[np.floating]) -> NDArray[np.float32]:
    whole: NDArray[np.float32] = (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(
        np.float32
    )
    return whole


def world(n: int, rare: float, seed: int = 0) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Two clouds that overlap a little; the second is rare."""
    rng = np.random.default_rng(seed)
    y = (rng.random(n) < rare).astype(np.int64)
    X = rng.normal(size=(n, DIM))
    X[:, 0] += 3.0 * y
    return unit(X), y


def study(X: NDArray[np.float32], y: NDArray[np.int64], most: int, seed: int = 0) -> Sample:
    question = np.eye(1, DIM, dtype=np.float32)[0]
    curriculum = Curriculum(X, question, 2, most=most, rng=np.random.default_rng(seed))
    while len(rows := curriculum.next_rows()):
        curriculum.record(y[rows])
    return curriculum.sample


@settings(max_examples=20)
@given(st.integers(1, 90), st.integers(0, 40), st.integers(0, 5))
def test_no_row_twice_and_half_of_them_uniform(most: int, more: int, seed: int) -> None:
    X, y = world(most + more, 0.3, seed)
    sample = study(X, y, most, seed)
    assert len(sample.rows) == len(set(sample.rows)) == most
    assert sample.uniform.sum() == (most + 1) // 2
    assert ((sample.propensities > 0) & (sample.propensities <= 1 + 1e-9)).all()
    assert np.isfinite(sample.weights).all() and (sample.weights > 0).all()


def test_a_seed_decides_the_rows() -> None:
    X, y = world(600, 0.1)
    first, same, other = (study(X, y, 120, seed) for seed in (3, 3, 4))
    assert (first.rows == same.rows).all()
    assert (first.rows != other.rows).any()


def test_labels_decide_the_rows_of_later_rounds_only() -> None:
    X, y = world(600, 0.1)
    one, other = study(X, y, 120), study(X, np.roll(y, 1), 120)
    assert (one.rows[:FIRST] == other.rows[:FIRST]).all()
    assert (one.rows[one.uniform] == other.rows[other.uniform]).all()
    assert (one.rows != other.rows).any()


def test_rare_labels_are_sought_out() -> None:
    found, by_chance = 0, 0
    for seed in range(5):
        X, y = world(2000, 0.02, seed)
        sample = study(X, y, 200, seed)
        found += y[sample.rows[~sample.uniform]].sum()
        by_chance += y[sample.rows[sample.uniform]].sum()
    assert found > 4 * by_chance


def test_before_any_model_rows_like_the_question_are_asked_for() -> None:
    X, _ = world(2000, 0.0)
    curriculum = Curriculum(X, X[7], 2, most=60, rng=np.random.default_rng(0))
    curriculum.next_rows()
    sample = curriculum.sample
    likeness = X @ X[7]
    chosen = likeness[sample.rows[~sample.uniform]]
    assert (chosen > np.quantile(likeness, 0.95)).mean() > 0.25


def test_a_far_cluster_is_found_without_labels() -> None:
    common, rare = np.eye(2, DIM, dtype=np.float32)
    X = np.vstack([np.tile(common, (995, 1)), np.tile(rare, (5, 1))])
    for seed in range(10):
        curriculum = Curriculum(X, common, 2, most=20, rng=np.random.default_rng(seed))
        assert (curriculum.next_rows() >= 995).any()


def test_twins_and_unreadable_answers_do_not_stop_it() -> None:
    X = np.tile(unit(np.ones((1, DIM))), (150, 1))
    curriculum = Curriculum(X, X[0], 2, most=150, rng=np.random.default_rng(0))
    while len(rows := curriculum.next_rows()):
        curriculum.record(np.full(len(rows), -1))
    assert sorted(curriculum.sample.rows) == list(range(150))
    assert curriculum.sample.weights == pytest.approx(1.0)  # everything was bought
    assert curriculum.handled(0.9) == 0.0


def test_weighted_sums_are_right_on_average_and_plain_ones_are_not() -> None:
    """The trap: rows that were sought out for being rare make the rare look common."""
    X, y = world(800, 0.05)
    samples = [study(X, y, 100, seed) for seed in range(40)]
    weighted = [float((one.weights * y[one.rows]).mean()) for one in samples]
    plain = [float(y[one.rows].mean()) for one in samples]
    error = np.std(weighted) / np.sqrt(len(weighted))
    assert abs(np.mean(weighted) - y.mean()) < 3 * error
    assert np.mean(plain) > 2 * y.mean()


def test_no_weight_is_large() -> None:
    X, y = world(2000, 0.02)
    assert study(X, y, 200).weights.max() < 12


def test_a_purchase_that_stops_early_still_has_a_uniform_half() -> None:
    X, _ = world(1000, 0.1)
    curriculum = Curriculum(X, X[0], 2, most=400, rng=np.random.default_rng(0))
    curriculum.next_rows()
    assert curriculum.sample.uniform.sum() == FIRST / 2


def test_it_says_what_a_proxy_would_handle() -> None:
    X, y = world(1000, 0.4)
    curriculum = Curriculum(X, X[0], 2, most=60, rng=np.random.default_rng(0))
    curriculum.record(y[curriculum.next_rows()])
    strict, lax = curriculum.handled(0.99), curriculum.handled(0.8)
    assert 0.0 < strict < lax <= 1.0


@pytest.mark.parametrize("most", [0, 4])
def test_a_sample_that_cannot_be_drawn(most: int) -> None:
    X, _ = world(3, 0.5)
    with pytest.raises(ValueError, match="of 3 candidates"):
        Curriculum(X, X[0], 2, most=most, rng=np.random.default_rng(0))


def test_unevenness_grows_with_the_rarity_of_the_rarest() -> None:
    counts = [np.array([100 - rare, rare]) for rare in (50, 30, 10, 1, 0)]
    found = [uneven(one) for one in counts]
    assert found == sorted(found) and found[0] == 0.0 and found[-1] == 1.0
