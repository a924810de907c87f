"""Who trains and who judges: disjoint, uniform where it must be, and the same for one seed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from cascade.distill.sample import CANDIDATES_A_LABEL, draw_train, split
from cascade.errors import RecipeError
from cascade.recipes import Labels


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def unit_rows(n: int, d: int = 8, seed: int = 0) -> NDArray[np.float32]:
    rows = rng(seed).normal(size=(n, d))
    unit: NDArray[np.float32] = (rows / np.linalg.norm(rows, axis=1)[:, None]).astype(np.float32)
    return unit


@given(st.integers(0, 500), st.integers(1, 60), st.integers(0, 60), st.integers(0, 60))
def test_pools_are_disjoint_and_as_large_as_promised(
    extra: int, train: int, certify: int, evaluate: int
) -> None:
    n = train + certify + evaluate + extra
    pools = split(n, Labels(train, certify, evaluate), rng())
    dealt = np.concatenate([pools.train, pools.certify, pools.evaluate])
    assert len(set(dealt)) == len(dealt) and set(dealt) <= set(range(n))
    assert len(pools.certify) == certify and len(pools.evaluate) == evaluate
    assert len(pools.train) == min(train + extra, CANDIDATES_A_LABEL * train)


def test_a_seed_decides_the_pools() -> None:
    buy = Labels(20, 20, 20)
    first, same, other = (split(100, buy, rng(seed)) for seed in (0, 0, 1))
    assert (first.certify == same.certify).all()
    assert (first.certify != other.certify).any()


def test_judges_come_from_anywhere_in_a_sorted_table() -> None:
    drawn = [row for seed in range(500) for row in split(20, Labels(10, 5, 5), rng(seed)).certify]
    expected = 500 * 5 / 20
    chi2 = float(((np.bincount(drawn, minlength=20) - expected) ** 2 / expected).sum())
    assert chi2 < 43.8  # 99.9% of chi2(19)


def test_every_place_in_the_certifying_order_is_uniform() -> None:
    first = [split(20, Labels(10, 5, 5), rng(seed)).certify[0] for seed in range(1000)]
    chi2 = float(((np.bincount(first, minlength=20) - 50) ** 2 / 50).sum())
    assert chi2 < 43.8


def test_a_table_that_is_too_small() -> None:
    with pytest.raises(RecipeError, match="29 distinct texts for 30 labels.*lower `buy`"):
        split(29, Labels(10, 10, 10), rng())


@given(st.integers(1, 40), st.integers(0, 40), st.integers(0, 5))
def test_a_train_sample_has_no_row_twice(n: int, more: int, seed: int) -> None:
    sample = draw_train(unit_rows(n + more), n, rng(seed))
    assert len(sample.rows) == len(set(sample.rows)) == n
    assert len(sample.propensities) == len(sample.uniform) == n
    assert ((sample.propensities > 0) & (sample.propensities <= 1 + 1e-9)).all()
    assert sample.uniform.sum() == (n + 1) // 2


def test_a_seed_decides_the_train_sample() -> None:
    embeddings = unit_rows(200)
    first, same, other = (draw_train(embeddings, 20, rng(seed)) for seed in (3, 3, 4))
    assert (first.rows == same.rows).all()
    assert (first.rows != other.rows).any()


def test_the_diverse_half_finds_a_rare_cluster() -> None:
    common, rare = np.eye(2, 8, dtype=np.float32)
    embeddings = np.vstack([np.tile(common, (995, 1)), np.tile(rare, (5, 1))])
    found = [any(draw_train(embeddings, 10, rng(seed)).rows >= 995) for seed in range(20)]
    assert all(found)


def test_twins_do_not_stop_the_drawing() -> None:
    embeddings = np.tile(unit_rows(1, d=384), (30, 1))
    sample = draw_train(embeddings, 30, rng())
    assert sorted(sample.rows) == list(range(30))


def test_diverse_rows_are_drawn_as_often_as_they_say() -> None:
    # 2 rows of 3: one uniform, then one by its squared distance from it
    embeddings = np.array([[1, 0], [0, 1], [0.6, 0.8]], dtype=np.float32)
    pairs = [draw_train(embeddings, 2, rng(seed)) for seed in range(3000)]
    after_first = [one for one in pairs if one.rows[0] == 0]
    second = np.mean([one.rows[1] == 1 for one in after_first])
    assert second == pytest.approx(2 / (2 + 0.8), abs=0.05)  # 2 - 2 cos of each
    (told,) = {round(one.propensities[1], 6) for one in after_first if one.rows[1] == 1}
    assert told == pytest.approx(2 / 2.8, abs=1e-5)


@pytest.mark.parametrize("n", [0, 4])
def test_a_sample_that_cannot_be_drawn(n: int) -> None:
    with pytest.raises(ValueError, match="of 3 candidates"):
        draw_train(unit_rows(3), n, rng())
