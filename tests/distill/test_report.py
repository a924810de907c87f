"""The figures of a report: counts, bins, calibration."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cascade.distill.report import calibration_error, confusion_matrix, reliability_bins
from tests.distill.reports import make_report

ANSWERS = st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=60)


@given(ANSWERS, st.integers(1, 12))
def test_bins_hold_every_answer_once_in_order_of_confidence(
    answers: list[tuple[float, bool]], bins: int
) -> None:
    confidence = np.array([one for one, _ in answers])
    agreed = np.array([one for _, one in answers])
    found = reliability_bins(confidence, agreed, bins)
    assert sum(one.answers for one in found) == len(answers)
    assert [one.confidence for one in found] == sorted(one.confidence for one in found)
    assert sum(one.agreement * one.answers for one in found) == pytest.approx(agreed.sum())
    assert 0 <= calibration_error(found) <= 1


def test_perfect_confidence_has_no_calibration_error() -> None:
    agreed = np.array([True, False] * 10)
    assert calibration_error(reliability_bins(agreed.astype(float), agreed, bins=2)) == 0


def test_nothing_measured_is_no_error() -> None:
    assert calibration_error(()) == 0


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("abc"))))
def test_confusion_counts_every_pair(pairs: list[tuple[str, str]]) -> None:
    counts = confusion_matrix([a for a, _ in pairs], [b for _, b in pairs], "abc")
    assert counts.sum() == len(pairs)
    assert np.trace(counts) == sum(a == b for a, b in pairs)
    assert counts[0, 1] == pairs.count(("a", "b"))


def test_agreement_and_recalls_come_from_the_confusion() -> None:
    report = replace(make_report(), confusion=np.array([[8, 2], [0, 0]]))
    assert report.agreement == 0.8
    assert report.recalls["yes"] == 0.8
    assert np.isnan(report.recalls["no"])
    assert replace(report, confusion=np.zeros((2, 2), int)).agreement == 0


def test_calibration_error_tells_an_honest_confidence_from_an_empty_one() -> None:
    rng = np.random.default_rng(5)
    confidence = rng.random(2_000)
    honest = reliability_bins(confidence, rng.random(2_000) < confidence)
    empty = reliability_bins(confidence, rng.random(2_000) < 0.5)
    assert calibration_error(honest) < 0.04 < 0.2 < calibration_error(empty)
