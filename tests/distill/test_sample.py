"""Who trains and who judges: disjoint, uniform where it must be, and the same for one seed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cascade.distill.sample import CANDIDATES_A_LABEL, representative, split
from cascade.errors import RecipeError
from cascade.recipes import Labels


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


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


@given(st.lists(st.floats(0.1, 12.0), min_size=1, max_size=80))
def test_representatives_come_as_often_as_they_weigh(weights: list[float]) -> None:
    weight = np.array(weights)
    rows = representative(weight)
    assert len(rows) == len(weight)
    expected = weight / weight.mean()
    times = np.bincount(rows, minlength=len(weight))
    assert (np.abs(times - expected) < 1 + 1e-6).all()


def test_rows_of_one_weight_represent_themselves() -> None:
    assert representative(np.full(7, 0.3)).tolist() == list(range(7))
