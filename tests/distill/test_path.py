"""The path: ever bolder policies, whatever the confidences and the prices are."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cascade.distill.path import BEYOND, Costs, build_path
from cascade.errors import NotEnoughSignal
from cascade.tiers.artifact import Rung


def confidences(seed: int, n: int = 400) -> tuple[np.ndarray, np.ndarray]:
    """A proxy that is right 80% of the time and a small tier that is right 90%."""
    rng = np.random.default_rng(seed)
    return rng.beta(3.2, 0.8, n), rng.beta(4.5, 0.5, n)


def handled(rung: Rung) -> float:
    return 1 - rung.shares["large"]


@settings(max_examples=40)
@given(st.integers(0, 10_000), st.floats(0.01, 1.5), st.floats(0.6, 0.99), st.booleans())
def test_policies_only_grow_bolder(seed: int, small: float, target: float, three: bool) -> None:
    a0, a1 = confidences(seed)
    path = build_path(a0, a1 if three else None, Costs(small, 1.0), target=target)
    assert 1 <= len(path) <= 12
    for careful, bold in pairwise(path):
        assert all(bold.thresholds[tier] <= careful.thresholds[tier] for tier in bold.thresholds)
        assert handled(bold) > handled(careful)
    for rung in path:
        assert sum(rung.shares.values()) == pytest.approx(1.0)
        assert 0.0 <= rung.risk <= handled(rung)


@pytest.mark.parametrize("three", [False, True])
def test_the_path_begins_useful_and_ends_beyond_the_target(three: bool) -> None:
    a0, a1 = confidences(0)
    path = build_path(a0, a1 if three else None, Costs(0.3, 1.0), target=0.95)
    assert handled(path[0]) > 0.1
    assert path[0].risk < 0.05 / 2
    assert 0.05 < path[-1].risk < 0.05 * BEYOND + 0.02


def test_handled_shares_are_about_evenly_spaced() -> None:
    a0, a1 = confidences(1, n=5_000)
    steps = np.diff([handled(rung) for rung in build_path(a0, a1, Costs(0.3, 1), target=0.9)])
    assert steps.max() < 2 * steps.mean()


def test_shares_and_risk_are_those_of_the_thresholds() -> None:
    a0, a1 = confidences(2)
    rung = build_path(a0, a1, Costs(0.3, 1.0), target=0.9)[5]
    proxy = a0 >= rung.thresholds["proxy"]
    small = ~proxy & (a1 >= rung.thresholds["small"])
    assert (rung.shares["proxy"], rung.shares["small"]) == (proxy.mean(), small.mean())
    assert rung.risk == pytest.approx(((1 - a0) * proxy + (1 - a1) * small).mean())


def test_a_dearer_small_tier_leaves_more_to_the_proxy() -> None:
    a0, a1 = confidences(3)
    shares = [
        np.mean([r.shares["proxy"] for r in build_path(a0, a1, Costs(cost, 1.0), target=0.9)])
        for cost in (0.05, 0.3, 0.8)
    ]
    assert shares == sorted(shares) and shares[0] < shares[2]


def test_a_tier_that_turns_a_row_away_does_not_answer_it() -> None:
    a0, a1 = confidences(4)
    a0[:100] = a1[:100] = 0.0
    path = build_path(a0, a1, Costs(0.3, 1.0), target=0.6)
    assert 0.7 < handled(path[-1]) <= 0.75


def test_tiers_that_answer_nothing_have_no_path() -> None:
    with pytest.raises(NotEnoughSignal, match="no tier below the teacher"):
        build_path(np.zeros(20), np.zeros(20), Costs(0.3, 1.0), target=0.9)


def test_a_useless_proxy_is_skipped_by_its_threshold() -> None:
    _, a1 = confidences(5)
    first = build_path(np.full(len(a1), 0.5), a1, Costs(0.1, 1.0), target=0.9)[0]
    assert first.shares["proxy"] == 0.0 and first.thresholds["proxy"] > 1.0
    assert first.shares["small"] > 0.2


def test_certainty_everywhere_is_one_rung() -> None:
    (only,) = build_path(np.ones(50), None, Costs(0.3, 1.0), target=0.9)
    assert handled(only) == 1.0 and only.risk == 0.0
