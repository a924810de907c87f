"""Means with intervals: they cover, they use the predictions, and they can be checked offline."""

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from cascade.certify import Aggregate, MeanAudit, MeanEvidence, stratify
from cascade.errors import CertificateError, UsageError

Floats = NDArray[np.float64]


def table(
    seed: int, rows: int = 2_000, truthful: bool = True, low: float = 0.5
) -> tuple[Floats, Floats]:
    """Predictions, and values that they are right or altogether wrong about."""
    rng = np.random.default_rng(seed)
    p = rng.beta(low, 1.5, rows)
    return p, (rng.random(rows) < (p if truthful else 1 - p)).astype(float)


def audited(p: Floats, values: Floats, labels: int, seed: int = 0) -> MeanAudit:
    audit = MeanAudit(p, labels=labels, seed=seed)
    for _ in range(labels):
        draw = audit.draw()
        assert draw is not None
        audit.record(draw, float(values[draw.row]))
    return audit


def covers(found: Aggregate, values: Floats) -> bool:
    return bool(found.low <= values.mean() <= found.high)


def test_the_exact_interval_covers_whatever_the_predictions_are() -> None:
    for truthful in (True, False):
        tables = [(seed, *table(seed, 400, truthful)) for seed in range(100)]
        misses = sum(not covers(audited(p, y, 60, s).interval(0.2), y) for s, p, y in tables)
        assert misses <= 30  # of 100, at delta = .2; 29 is the 99% quantile


def test_the_exact_interval_covers_at_all_times_together() -> None:
    misses = 0
    for seed in range(60):
        p, values = table(seed, 300)
        audit, missed = MeanAudit(p, labels=80, seed=seed), False
        for _ in range(100):
            draw = audit.draw()
            assert draw is not None
            audit.record(draw, float(values[draw.row]))
            missed |= len(audit.draws) % 10 == 0 and not covers(audit.interval(0.2), values)
        misses += missed
    assert misses <= 20  # of 60: the 99% quantile at delta = .2


def test_the_stratified_interval_covers_nearly_as_often_as_promised() -> None:
    rng = np.random.default_rng(0)
    misses = 0
    for seed in range(200):
        p, values = table(seed)
        sample = stratify(p, 150, rng)
        misses += not covers(sample.interval(values[sample.rows], 0.1), values)
    assert misses <= 32  # of 200; asymptotic: 30 is the 99% quantile of the promise


def test_good_predictions_narrow_both_intervals() -> None:
    p, values = table(1)
    blind, rng = np.full(len(p), p.mean()), np.random.default_rng(0)
    seeing, unseeing = (audited(q, values, 300).interval(0.1) for q in (p, blind))
    assert seeing.high - seeing.low < 0.85 * (unseeing.high - unseeing.low)
    one, other = (stratify(q, 300, rng) for q in (p, blind))
    narrow, wide = (s.interval(values[s.rows], 0.1) for s in (one, other))
    assert narrow.high - narrow.low < 0.85 * (wide.high - wide.low)


def test_estimates_are_unbiased_even_if_the_predictions_are_wrong() -> None:
    p, values = table(2, truthful=False)
    rng = np.random.default_rng(0)
    exact = [audited(p, values, 60, seed).interval(0.1).mean for seed in range(150)]
    samples = [stratify(p, 60, rng) for _ in range(150)]
    stratified = [one.interval(values[one.rows], 0.1).mean for one in samples]
    for means in (exact, stratified):
        assert abs(np.mean(means) - values.mean()) < 4 * np.std(means) / np.sqrt(150)


def test_a_whole_table_is_known_exactly() -> None:
    p, values = table(3, 60)
    found = audited(p, values, 60).interval(0.1)
    assert found.low == pytest.approx(values.mean()) and found.high == pytest.approx(values.mean())
    sample = stratify(p, 60, np.random.default_rng(0))
    all_of_it = sample.interval(values[sample.rows], 0.1)
    assert all_of_it.high - all_of_it.low == pytest.approx(0)
    # nearly: each half of the labels is corrected by the other half's slope
    assert all_of_it.mean == pytest.approx(values.mean(), abs=0.02)


def test_known_rows_count_and_are_never_drawn() -> None:
    p, values = table(4, 100)
    known = {row: float(values[row]) for row in range(70)}
    audit = MeanAudit(p, labels=30, seed=0, known=known)
    while (draw := audit.draw()) is not None:
        assert draw.row not in known
        audit.record(draw, float(values[draw.row]))
    assert len(audit.draws) == 30
    assert audit.interval(0.1).mean == pytest.approx(values.mean())


def test_no_label_leaves_everything_open() -> None:
    found = MeanAudit(np.full(50, 0.3), labels=10, seed=0).interval(0.1)
    assert (found.low, found.high) == (0.0, 1.0) and found.mean == pytest.approx(0.3)
    assert found.total == pytest.approx((15.0, 0.0, 50.0))


def test_trap_unreadable_values_left_out_bias_the_mean() -> None:
    """Every yes confuses the teacher two times in three."""
    misses = {"left out": 0, "recorded": 0}
    for seed in range(40):
        rng = np.random.default_rng(seed)
        values = (rng.random(1_000) < 0.3).astype(float)
        unreadable = (values == 1) & (rng.random(1_000) < 0.67)
        audit = MeanAudit(np.full(1_000, 0.3), labels=200, seed=seed)
        for _ in range(200):
            draw = audit.draw()
            assert draw is not None
            audit.record(draw, None if unreadable[draw.row] else float(values[draw.row]))
        readable = [draw.value for draw in audit.draws if draw.value is not None]
        share, n = np.mean(readable), len(readable)
        misses["left out"] += share + 1.64 * np.sqrt(share * (1 - share) / n) < values.mean()
        misses["recorded"] += not covers(audit.interval(0.1), values)
    assert misses["left out"] >= 35 and misses["recorded"] <= 9


def test_draws_may_run_ahead_and_are_recorded_in_their_order() -> None:
    p, values = table(5)
    audit = MeanAudit(p, labels=20, seed=0)
    ahead = [draw for _ in range(20) if (draw := audit.draw()) is not None]
    with pytest.raises(UsageError, match="order of drawing"):
        audit.record(ahead[1], 1.0)
    for draw in ahead:
        audit.record(draw, float(values[draw.row]))
    assert audit.evidence() == audited(p, values, 20).evidence()
    with pytest.raises(UsageError, match="order of drawing"):
        audit.record(ahead[0], 1.0)


def test_evidence_survives_its_file_and_wins_the_same_interval() -> None:
    p, values = table(6)
    audit = audited(p, values, 50)
    data = msgspec.json.encode(audit.evidence())
    again = msgspec.json.decode(data, type=MeanEvidence).replay()
    assert again.interval(0.05) == audit.interval(0.05)


def test_evidence_that_the_seed_does_not_give_is_refused() -> None:
    evidence = audited(*table(7), labels=10).evidence()
    swapped = [*evidence.draws[1:], evidence.draws[0]]
    impossible = [msgspec.structs.replace(evidence.draws[0], value=2.0)]
    for draws in (swapped, impossible):
        with pytest.raises(CertificateError, match="cannot have been bought"):
            msgspec.structs.replace(evidence, draws=draws).replay()


@pytest.mark.parametrize("bad", [-0.1, 1.1, float("nan")])
def test_values_outside_the_unit_interval_are_refused(bad: float) -> None:
    with pytest.raises(UsageError, match="between 0 and 1"):
        MeanAudit(np.array([bad, 0.5]), labels=1, seed=0)
    with pytest.raises(UsageError, match="between 0 and 1"):
        stratify(np.array([bad, 0.5]), 1, np.random.default_rng(0))
    audit = MeanAudit(np.array([0.5]), labels=1, seed=0)
    draw = audit.draw()
    assert draw is not None
    with pytest.raises(UsageError, match="between 0 and 1"):
        audit.record(draw, bad)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 60), st.floats(0.02, 0.4))
def test_bounds_are_ordered_and_more_doubt_narrows_them(seed: int, n: int, delta: float) -> None:
    p, values = table(seed, 80)
    audit = audited(p, values, n, seed)
    sure, unsure = audit.interval(delta / 2), audit.interval(delta)
    assert 0 <= sure.low <= sure.mean <= sure.high <= 1
    assert unsure.low <= unsure.mean <= unsure.high


def test_strata_are_all_sampled() -> None:
    p, _ = table(8, low=0.05)
    sample = stratify(p, 90, np.random.default_rng(0))
    assert len(set(sample.rows.tolist())) == len(sample.rows)
    assert np.bincount(sample.stratum[sample.rows]).min() >= 6


def test_certain_predictions_stay_finite() -> None:
    values = np.arange(200) % 2 == 0
    found = audited(values.astype(float), values.astype(float), 40).interval(0.1)
    assert covers(found, values.astype(float))
    sample = stratify(values.astype(float), 40, np.random.default_rng(0))
    assert sample.interval(values[sample.rows].astype(float), 0.1).mean == pytest.approx(0.5)
