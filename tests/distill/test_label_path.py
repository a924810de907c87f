"""A path for every label: from training rows alone, and only where there is something to prove."""

from __future__ import annotations

import numpy as np
import pytest

from cascade.certify import Guarantee
from cascade.distill.label_path import plan_labels
from cascade.errors import NotEnoughSignal

NAMES = ("fine", "rare", "other")
WANTED = Guarantee(0.9, 0.1)


def test_a_label_with_too_few_draws_is_left_out() -> None:
    said = np.repeat([0, 1, 2], [480, 20, 500])
    plan = plan_labels(said, np.full(1000, 0.97), NAMES, WANTED, draws=300)
    assert set(plan.labels) == {"fine", "other"}
    assert plan.labels["fine"][-1].share == pytest.approx(0.48)
    assert [rung.thresholds for rung in plan.path] == [{"proxy": 0.97}]
    assert plan.path[0].shares == {"proxy": 1.0, "large": 0.0}
    assert plan.path[0].risk == pytest.approx(0.03)


def test_each_label_has_the_end_of_the_shared_path() -> None:
    rng = np.random.default_rng(0)
    sure = rng.beta(8, 0.8, 3000)
    plan = plan_labels(rng.integers(0, 3, 3000), sure, NAMES, WANTED, draws=900)
    whole = [rung.thresholds for rung in plan.path]
    assert len(whole) > 3 and whole == sorted(whole, key=lambda one: -one["proxy"])
    for rungs in plan.labels.values():
        own = [rung.thresholds for rung in rungs]
        assert own and own == whole[-len(own) :]


def test_rows_that_a_gate_turns_away_are_nobodys_share() -> None:
    said, sure = np.zeros(400, np.int64), np.repeat([0.99, 0.0], 200)
    plan = plan_labels(said, sure, NAMES, Guarantee(0.5, 0.1), draws=400)
    assert plan.path[-1].thresholds == {"proxy": 0.99}
    assert plan.labels["fine"][-1].share == 0.5


def test_a_proxy_that_would_answer_nothing_is_refused() -> None:
    with pytest.raises(NotEnoughSignal, match="buy more labels"):
        plan_labels(np.zeros(9, np.int64), np.zeros(9), NAMES, WANTED, draws=300)
