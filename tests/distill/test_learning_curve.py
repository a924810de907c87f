"""When the next label no longer pays: steep curves go on, flat ones end, luck ends nothing."""

from __future__ import annotations

import numpy as np
import pytest

from cascade.distill.learning_curve import LearningCurve, handled_share


def curve_of(limit: float, fall: float, *labels: int) -> LearningCurve:
    curve = LearningCurve()
    for n in labels:
        curve.add(n, limit - fall / n)
    return curve


def test_two_points_end_nothing() -> None:
    assert curve_of(0.7, 0.0, 60, 100).worth_another(1)


def test_a_flat_curve_ends_a_small_job_and_never_a_large_one() -> None:
    flat = curve_of(0.7, 0.0, 60, 100, 200, 400)
    assert not flat.worth_another(1_000)
    assert flat.worth_another(1_000_000)


def test_a_steeper_curve_promises_more() -> None:
    gains = [curve_of(0.7, fall, 60, 100, 200).gain() for fall in (0.0, 10.0, 20.0)]
    assert gains == sorted(gains) and gains[0] < gains[-1]
    assert gains[2] - gains[1] == pytest.approx(10 / 200**2, rel=0.2)


def test_more_labels_promise_less() -> None:
    gains = [curve_of(0.7, 10.0, *range(50, most, 50)).gain() for most in (200, 400, 800)]
    assert gains == sorted(gains, reverse=True)


def test_a_falling_curve_is_luck_and_not_a_loss() -> None:
    assert curve_of(0.6, -10.0, 60, 100, 200).gain() > 0


def test_handled_share_of_weighted_rows() -> None:
    top, right = np.array([0.9, 0.8, 0.7]), np.array([True, False, True])
    assert handled_share(top, right, np.ones(3), 0.9) == pytest.approx(1 / 3)
    assert handled_share(top, right, np.array([1.0, 0.2, 1.0]), 0.9) == pytest.approx(1.0)
    assert handled_share(top, ~right & False, np.ones(3), 0.9) == 0.0
