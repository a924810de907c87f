"""The stream monitor: silent without harm, quick with it, the same after a restart."""

from copy import deepcopy

import msgspec
import numpy as np
import pytest

from cascade.certify import Guarantee, HarmMonitor
from cascade.certify.monitor import CLOSER
from cascade.errors import UsageError

GUARANTEE = Guarantee(0.90, 0.05)


def monitor(rate: float = 0.05, floor: float = 0.02) -> HarmMonitor:
    return HarmMonitor(GUARANTEE, rate, floor)


def watch(watcher: HarmMonitor, risks: np.ndarray, rng: np.random.Generator) -> int | None:
    """Feed requests of these risks, audited as the monitor proposes; the request of the alarm."""
    seen = 0
    while True:
        propensity = watcher.propose(0.1)
        request = seen + int(rng.geometric(propensity)) - 1
        if request >= len(risks):
            return None
        watcher.skip(request - seen)
        watcher.record(bool(rng.random() < risks[request]), propensity)
        seen = request + 1
        if watcher.alarm:
            return request


def drift(rng: np.random.Generator, requests: int) -> np.ndarray:
    """Risks that wander to the very edge of what is allowed: a running mean of at most .10."""
    wild = rng.uniform(0, 0.2, requests)
    return np.where(np.cumsum(wild) <= 0.1 * np.arange(1, requests + 1), wild, 0.0)


def test_false_alarms_are_rarer_than_delta() -> None:
    rng = np.random.default_rng(0)
    alarms = [watch(monitor(), np.full(4_000, 0.1), rng) is not None for _ in range(40)]
    assert sum(alarms) <= 6  # the 99% quantile; ``make bench-certificates`` asks a thousand


def test_no_false_alarm_under_drift_within_the_limit() -> None:
    rng = np.random.default_rng(1)
    assert sum(watch(monitor(), drift(rng, 5_000), rng) is not None for _ in range(25)) <= 4


def test_a_jump_is_seen_within_a_few_hundred_audits() -> None:
    rng, delays = np.random.default_rng(2), []
    risks = np.repeat([0.04, 0.15], [3_000, 10_000])
    for _ in range(10):
        alarm = watch(HarmMonitor(Guarantee(0.95, 0.05), 0.05, 0.02), risks, rng)
        assert alarm is not None and alarm >= 3_000
        delays.append((alarm - 3_000) * 0.05)
    assert np.median(delays) <= 100  # audits, had the rate stayed the usual one


def test_a_weighted_audit_is_worth_its_weight() -> None:
    heavy, light = monitor(), monitor()
    heavy.record(True, 0.05)
    light.record(True, 0.5)
    assert heavy.evidence > light.evidence


def test_unaudited_requests_speak_for_the_policy() -> None:
    busy, quiet = monitor(), monitor()
    for watcher, silent in ((busy, 0), (quiet, 30)):
        watcher.record(True, 0.05)
        watcher.skip(silent)
    assert quiet.evidence < busy.evidence and quiet.interval(0.05).high <= 1


def test_interval_covers_the_mean_of_drifting_risks_at_all_times_together() -> None:
    rng, misses = np.random.default_rng(3), 0
    for _ in range(40):
        watcher, missed, risks = monitor(0.2, 0.2), False, 0.0
        for audit in range(150):
            risk = 0.02 if audit < 60 else 0.25
            silent = int(rng.geometric(0.2)) - 1
            watcher.skip(silent)
            watcher.record(bool(rng.random() < risk), 0.2)
            risks += risk * (silent + 1)
            if audit % 15 == 0:
                interval = watcher.interval(0.1)
                missed |= not interval.low <= risks / watcher.requests <= interval.high
        misses += missed
    assert misses <= 8


def test_interval_is_everything_before_the_first_audit() -> None:
    interval = monitor().interval(0.05)
    assert interval.low < 1e-9 and interval.high == 1.0


def test_state_survives_a_restart() -> None:
    rng = np.random.default_rng(4)
    watcher, twin = monitor(), monitor()
    for _ in range(130):
        wrong, propensity = bool(rng.random() < 0.2), float(rng.uniform(0.02, 1))
        for each in (watcher, twin):
            each.propose(0.1)
            each.skip(3)
            each.record(wrong, propensity)
        twin = msgspec.json.decode(msgspec.json.encode(twin), type=HarmMonitor)
    assert twin == watcher and twin.audits == 130


def test_surer_answers_are_audited_less_but_never_below_the_floor() -> None:
    watcher = monitor()
    proposals = [watcher.propose(p) for p in [0.05] * 50]
    assert proposals == pytest.approx([0.05] * 50)
    assert watcher.propose(0.0) == watcher.floor
    assert watcher.propose(0.5) > 0.1


def test_mean_propensity_is_the_rate() -> None:
    watcher, rng = monitor(), np.random.default_rng(5)
    assert np.mean([watcher.propose(p) for p in rng.uniform(0.05, 0.3, 2000)]) == pytest.approx(
        0.05, rel=0.02
    )


def test_extreme_evidence_stays_finite_and_soon_comes_first() -> None:
    watcher, soon = monitor(0.2, 0.02), None
    for audit in range(2000):
        watcher.record(True, 0.02)
        soon = audit if watcher.soon and soon is None else soon
    assert watcher.alarm and np.isfinite(watcher.evidence) and soon is not None


@pytest.mark.parametrize(("rate", "floor"), [(0.01, 0.02), (0.1, 0.0), (2.0, 0.1)])
def test_impossible_rates_are_refused(rate: float, floor: float) -> None:
    with pytest.raises(UsageError, match="floor"):
        monitor(rate, floor)


@pytest.mark.parametrize("propensity", [0.0, 0.01, 1.5])
def test_impossible_propensities_are_refused(propensity: float) -> None:
    with pytest.raises(UsageError, match="propensity"):
        monitor().record(True, propensity)


def test_it_looks_closer_while_uneasy_and_calms_down() -> None:
    watcher = monitor()
    assert watcher.propose(0.1) == pytest.approx(0.05)
    for _ in range(8):
        watcher.record(True, 0.05)
    assert watcher.uneasy and watcher.propose(0.1) == pytest.approx(CLOSER * 0.05)
    for _ in range(200):
        watcher.skip(10)
        watcher.record(False, 0.5)
    assert not watcher.uneasy and watcher.propose(0.1) == pytest.approx(0.05)


def test_somebody_else_may_make_it_look_closer() -> None:
    assert monitor(0.02).propose(0.1, closer=True) == pytest.approx(CLOSER * 0.02)


def test_wealth_is_kept_when_an_epoch_begins() -> None:
    watcher = monitor()
    for audit in range(49):
        watcher.record(audit % 3 == 0, 0.05)
    before = deepcopy(watcher)
    bets, risk = np.asarray(before.bets), GUARANTEE.risk
    watcher.record(True, 0.05)
    grown = before.cash + np.asarray(before.stakes) @ (1 + bets * (20 - risk))
    assert watcher.evidence == pytest.approx(grown)
    assert watcher.cash + sum(watcher.stakes) == pytest.approx(grown)
