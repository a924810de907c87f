"""Which rung may serve: tighten, step back, the teacher; what a new certificate must cost."""

import hashlib

import msgspec
import numpy as np
import pytest

from cascade.certify import (
    Certificate,
    Guarantee,
    HarmMonitor,
    Rung,
    Step,
    TableAudit,
    Watch,
    audit_table,
    certified_rungs,
    certify_stream,
    reopened,
)
from cascade.certify.monitor import CLOSER
from cascade.certify.suspicion import Suspicion
from cascade.certify.watch import SETTLING_REQUESTS
from cascade.errors import CertificateError

GUARANTEE = Guarantee(0.90, 0.05)


def watch(rung: int = 3) -> Watch:
    return Watch("1", HarmMonitor(GUARANTEE, 0.05, 0.02), rung, GUARANTEE.delta)


def until_step(watcher: Watch, silent: int = 0, audits: int = 5_000) -> None:
    """Wrong audits, each after ``silent`` requests without one, until something happens."""
    for _ in range(audits):
        watcher.skip(silent)
        if watcher.record(True, 0.05, watcher.rung or 0):
            return
    raise AssertionError("nothing happened")


def test_it_tightens_first_then_steps_back_then_leaves_it_to_the_teacher() -> None:
    watcher = watch()
    for _ in range(3):
        until_step(watcher, silent=2)
    assert [step.rung for step in watcher.steps] == [2, 1, None]
    assert [step.alarm for step in watcher.steps] == [False, True, True]
    assert watcher.fallen and watcher.falls == 1 and "new certificate" in watcher.why


def test_alarms_far_apart_step_back_one_rung_each() -> None:
    watcher = watch(rung=2)
    watcher.monitor.cash = 10.0  # evidence that was gathered before; tightening is behind us
    watcher.steps.append(Step(0, 2, False, "tightened"))
    until_step(watcher)
    first = watcher.steps[-1]
    watcher.skip(SETTLING_REQUESTS + 1)
    watcher.monitor.cash = 25.0
    until_step(watcher)
    assert first.alarm and first.rung == 1 and watcher.steps[-1].rung == 0
    assert not watcher.fallen


def test_the_most_careful_rung_falls_to_the_teacher_at_the_first_alarm() -> None:
    watcher = watch(rung=0)
    until_step(watcher)
    assert [step.rung for step in watcher.steps] == [None] and watcher.falls == 1
    assert watcher.record(True, 0.05, 0) is None  # late audits of requests before the fall


def test_no_rung_is_tightened_twice_at_once() -> None:
    watcher = watch(rung=5)
    watcher.monitor.cash = 6.0
    for _ in range(3):
        watcher.record(True, 1.0, watcher.rung or 0)
    assert [step.rung for step in watcher.steps] == [4]
    watcher.skip(SETTLING_REQUESTS)
    watcher.monitor.cash = 6.0
    watcher.record(True, 1.0, 4)
    assert [step.rung for step in watcher.steps] == [4, 3]


def test_right_answers_and_abandoned_rungs_make_no_step() -> None:
    watcher = watch()
    watcher.monitor.cash = 30.0
    assert watcher.record(False, 0.05, 3) is None
    assert watcher.record(True, 0.05, 4) is None
    assert watcher.record(True, 0.05, 3) is not None


def test_a_harmless_policy_keeps_its_rung() -> None:
    rng, watcher = np.random.default_rng(0), watch()
    for _ in range(1_000):
        propensity = watcher.propose(0.1)
        watcher.skip(int(rng.geometric(propensity)) - 1)
        watcher.record(bool(rng.random() < 0.04), propensity, 3)
    assert watcher.rung == 3 and watcher.why == "" and not watcher.fallen


def test_it_goes_on_after_a_restart_as_if_nothing_had_happened() -> None:
    watcher, twin = watch(), watch()
    for audit in range(200):
        for each in (watcher, twin):
            each.notice(audit % 7 == 0)
            each.skip(3)
            each.record(audit % 4 != 0, each.propose(0.3), each.rung or 0)
        twin = msgspec.json.decode(msgspec.json.encode(twin), type=Watch)
    assert twin == watcher and watcher.steps


def test_novelty_only_makes_it_look_closer() -> None:
    watcher = watch()
    usual = watcher.propose(0.1)
    for request in range(3_000):
        watcher.notice(request % 100 == 0)
    assert watcher.propose(0.1) == pytest.approx(usual)
    for request in range(300):
        watcher.notice(request % 5 == 0)
    assert watcher.propose(0.1) == pytest.approx(CLOSER * usual)
    assert watcher.rung == 3 and watcher.monitor.evidence == 1.0


def test_a_suspicion_gets_used_to_what_stays() -> None:
    rng, suspicion = np.random.default_rng(1), Suspicion(rise=0.1, bar=3.0, memory=100)
    for event in rng.random(300) < 0.05:
        suspicion.see(bool(event))
    roused = []
    for event in rng.random(2_000) < 0.3:
        suspicion.see(bool(event))
        roused.append(suspicion.roused)
    assert any(roused[:60]) and suspicion.usual > 0.2


def test_returns_cost_ever_more_and_all_together_no_more_than_delta() -> None:
    deltas = [reopened(GUARANTEE, falls).delta for falls in range(1, 10_000)]
    assert sum(deltas) <= GUARANTEE.delta
    assert sum(deltas) == pytest.approx(GUARANTEE.delta, rel=1e-3)
    assert deltas == sorted(deltas, reverse=True) and reopened(GUARANTEE, 0) == GUARANTEE


def stream_certificate() -> Certificate:
    wrong = np.random.default_rng(2).random((300, 1)) < [0.01, 0.03, 0.30]
    rungs = [Rung({"proxy": bar}, 0.5) for bar in (0.9, 0.8, 0.7)]
    won = certify_stream(np.ones_like(wrong), np.maximum.accumulate(wrong, 1), rungs, GUARANTEE)
    assert won is not None
    return won


def test_rungs_up_to_the_certified_one_are_certified_and_none_above() -> None:
    found = certified_rungs(stream_certificate())
    assert [rung.thresholds["proxy"] for rung in found] == [0.9, 0.8]


def test_a_table_has_no_rungs_to_serve() -> None:
    audit = TableAudit(np.full(300, 0.99), GUARANTEE, rng=np.random.default_rng(3))
    digest = hashlib.sha256(b"").hexdigest()
    certificate = audit_table(audit, lambda row: False, 100, digest).certificate
    assert certificate is not None
    with pytest.raises(CertificateError, match="stream"):
        certified_rungs(certificate)
