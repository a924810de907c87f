"""The path: ever bolder policies, whatever the confidences and the prices are."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cascade.certify import Confidences, Guarantee, JointAudit, JointPrices, Said, audit_joint
from cascade.certify import Rung as ClaimRung
from cascade.distill.path import BEYOND, CAREFUL, NEVER, Costs, build_path
from cascade.errors import NotEnoughSignal
from cascade.tiers.artifact import Rung
from cascade.types import SKIP


def confidences(seed: int, n: int = 400) -> tuple[np.ndarray, np.ndarray]:
    """A proxy that is right 80% of the time and a small tier that is right 90%."""
    rng = np.random.default_rng(seed)
    return rng.beta(3.2, 0.8, n), rng.beta(4.5, 0.5, n)


def handled(rung: Rung) -> float:
    return 1 - rung.shares["large"]


def zones(rung: Rung, a0: np.ndarray, a1: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(n,) rows that the proxy answers, that the small tier is asked, and that it answers."""
    by_proxy = a0 >= rung.thresholds["proxy"]
    asked = ~by_proxy & (a0 >= rung.thresholds.get(SKIP, 0.0)) & (a0 > 0)
    asked &= "small" in rung.thresholds
    return by_proxy, asked, asked & (a1 >= rung.thresholds.get("small", NEVER))


def cost_of(rung: Rung, a0: np.ndarray, a1: np.ndarray, costs: Costs) -> float:
    _, asked, _ = zones(rung, a0, a1)
    return float(costs.small * asked.mean() + costs.large * rung.shares["large"])


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.01, 1.5), st.floats(0.6, 0.99), st.booleans())
def test_policies_only_grow_bolder_and_cheaper(
    seed: int, small: float, target: float, three: bool
) -> None:
    a0, a1 = confidences(seed)
    costs = Costs(small, 1.0)
    path = build_path(a0, a1 if three else None, costs, target=target)
    assert 1 <= len(path) <= 12
    for careful, bold in pairwise(path):
        keys = careful.thresholds | bold.thresholds
        assert all(
            bold.thresholds.get(key, 0.0) <= careful.thresholds.get(key, 0.0) for key in keys
        )
        assert handled(bold) >= handled(careful) - 1e-12
        assert cost_of(bold, a0, a1, costs) < cost_of(careful, a0, a1, costs)
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


def test_a_careful_path_is_the_same_with_an_earlier_beginning() -> None:
    a0, _ = confidences(0)
    usual = build_path(a0, None, Costs(0.0, 1.0), target=0.9, rungs=1_000)
    careful = build_path(a0, None, Costs(0.0, 1.0), target=0.9, rungs=1_000, careful=0.0)
    assert careful[-len(usual) :] == usual
    assert careful[0].risk < usual[0].risk / 2


def test_a_first_rung_that_is_wrong_already_costs_the_whole_certificate() -> None:
    """The confidences promise a sixth of the errors. Only a careful path has a rung that holds."""
    rng = np.random.default_rng(0)
    wrong = np.linspace(0.0, 0.6, 1_500)
    optimist = 1 - wrong / (6 - 5 * wrong)
    proxy = (rng.random(1_500) < wrong).astype(np.int64)  # the teacher always says 0
    certified = []
    for careful in (CAREFUL, 0.0):
        path = build_path(optimist, None, Costs(0.0, 1.0), target=0.95, rungs=40, careful=careful)
        audit = JointAudit(
            optimist,
            [ClaimRung(rung.thresholds, handled(rung)) for rung in path],
            Guarantee(0.95, 0.1),
            promised=Confidences(optimist, np.zeros(1_500)),
            prices=JointPrices(small=0.0),
            rng=np.random.default_rng(1),
        )
        result = audit_joint(
            audit,
            proxy,
            lambda rows: Said(np.zeros(len(rows), dtype=np.int64), np.zeros(len(rows))),
            lambda row: 0,
            label_budget=400,
            table_digest="0" * 64,
        )
        certified.append(result.certificate is not None)
    assert certified == [False, True]


def test_costs_are_about_evenly_spaced() -> None:
    a0, a1 = confidences(1, n=5_000)
    costs = Costs(0.3, 1.0)
    path = build_path(a0, a1, costs, target=0.9)
    steps = -np.diff([cost_of(rung, a0, a1, costs) for rung in path])
    assert steps.max() < 2 * steps.mean()


def test_shares_and_risk_are_those_of_the_thresholds() -> None:
    a0, a1 = confidences(2)
    for rung in build_path(a0, a1, Costs(0.3, 1.0), target=0.9):
        by_proxy, _, by_small = zones(rung, a0, a1)
        assert (rung.shares["proxy"], rung.shares["small"]) == (by_proxy.mean(), by_small.mean())
        assert rung.risk == pytest.approx(((1 - a0) * by_proxy + (1 - a1) * by_small).mean())


def test_the_small_tier_is_skipped_where_it_would_hardly_help() -> None:
    """It knows the rows that the proxy half knows, and none of those that the proxy does not."""
    a0 = np.linspace(0.01, 1, 1_000)
    a1 = np.where(a0 > 0.5, 0.97, 0.2)
    path = build_path(a0, a1, Costs(0.3, 1.0), target=0.9)
    asking = [rung for rung in path if rung.shares["small"] > 0]
    assert len(asking) >= 2
    assert all(0.5 < rung.thresholds[SKIP] < 0.55 for rung in asking)


def test_a_small_tier_as_good_everywhere_is_never_skipped() -> None:
    a0 = np.linspace(0.01, 1, 1_000)
    path = build_path(a0, np.full(1_000, 0.95), Costs(0.1, 1.0), target=0.9)
    asking = [rung for rung in path if rung.shares["small"] > 0]
    assert asking and all(SKIP not in rung.thresholds for rung in asking)


def test_a_dear_or_useless_small_tier_is_left_out() -> None:
    a0, a1 = confidences(6)
    for small, price in ((a1, 1.2), (np.full(len(a0), 0.3), 0.1)):
        path = build_path(a0, small, Costs(price, 1.0), target=0.9)
        assert all(set(rung.thresholds) == {"proxy"} for rung in path)
        assert path == build_path(a0, None, Costs(price, 1.0), target=0.9)


def test_three_tiers_are_never_predicted_dearer_than_their_best_pair() -> None:
    """Compared where the certified rung is likely to lie."""
    for seed in range(5):
        a0, a1 = confidences(seed)
        costs = Costs(0.2, 1.0)
        never_sure = np.full(len(a0), 1e-6)
        chosen = build_path(a0, a1, costs, target=0.9, rungs=1_000)
        pairs = [
            (build_path(a0, None, costs, target=0.9, rungs=1_000), a0),
            (build_path(never_sure, a1, costs, target=0.9, rungs=1_000), never_sure),
        ]
        cheapest = min(
            cost_of(rung, proxy, a1, costs)
            for path, proxy in pairs
            for rung in path
            if rung.risk <= 0.08
        )
        best = min(cost_of(rung, a0, a1, costs) for rung in chosen if rung.risk <= 0.08)
        assert best <= cheapest + 0.01


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


def test_a_useless_proxy_never_answers() -> None:
    _, a1 = confidences(5)
    first = build_path(np.full(len(a1), 0.5), a1, Costs(0.1, 1.0), target=0.9)[0]
    assert first.shares["proxy"] == 0.0 and first.thresholds["proxy"] > 1.0
    assert first.shares["small"] > 0.2


def test_certainty_everywhere_is_one_rung() -> None:
    (only,) = build_path(np.ones(50), None, Costs(0.3, 1.0), target=0.9)
    assert handled(only) == 1.0 and only.risk == 0.0


def test_where_costs_cannot_be_told_apart_the_teacher_is_spared() -> None:
    """Alone, the proxy is predicted to cost .27, with the small tier .28: 300 rows cannot tell."""
    a0, a1 = confidences(3, 300)
    costs, within = Costs(0.66, 1.0), 0.08  # the risk at which tier sets are compared
    alone, both = build_path(a0, None, costs, target=0.9), build_path(a0, a1, costs, target=0.9)
    kept = [rung.shares["large"] for rung in alone if rung.risk <= within]
    assert min(rung.shares["large"] for rung in both if rung.risk <= within) < min(kept) - 0.1
