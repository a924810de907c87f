"""The teacher checks, the monitor learns in order, a harmful champion goes."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cascade import config
from cascade.certify import Certificate, Guarantee, HarmMonitor, Rung, Watch, certify_stream
from cascade.gateway.audit import Auditor
from cascade.gateway.docket import Docket
from cascade.gateway.lanes import Lane, Lanes
from cascade.gateway.observe import Metrics
from cascade.store import DecisionRecord, Store, open_store
from cascade.types import Abstention, Answer, Decision, Query, Reply

from .conftest import Build, lane_of, on_two_rungs, typed, until

EVERYTHING = config.Audit(rate=1.0, floor=1.0)


class SimulatedClock:
    """Time that passes only where somebody sleeps."""

    def __init__(self) -> None:
        self.seconds = 1_000.0

    def now(self) -> float:
        return self.seconds

    async def sleep(self, seconds: float) -> None:
        self.seconds += seconds
        await asyncio.sleep(0)


def auditor_of(lanes: Lanes, store: Store | None = None, **more: Any) -> Auditor:
    clock = SimulatedClock()
    settings = {
        "rng": np.random.default_rng(0),
        "keep": lambda record: None,
        "clock": clock.now,
        "sleep": clock.sleep,
        **more,
    }
    audit = settings.pop("audit", EVERYTHING)
    return Auditor(lanes, Metrics(), audit, log=store, **settings)


def docket_of(auditor: Auditor) -> Docket:
    docket = auditor.docket("mood")
    assert docket is not None
    return docket


async def pass_by(auditor: Auditor, lanes: Lanes, text: str, times: int = 1) -> None:
    """Requests that are decided and considered, and their audits made."""
    working = asyncio.create_task(auditor.run())
    for i in range(times):
        lane = lanes.get("mood")
        assert lane is not None
        decision = await lane.router.route(Query.from_text(text))
        auditor.consider(f"{text}-{i}", lane, decision)
    await auditor.drain(5)
    working.cancel()
    await asyncio.gather(working, return_exceptions=True)


async def test_a_champion_that_is_wrong_is_demoted(certificate: Certificate) -> None:
    lanes = Lanes({"mood": lane_of(certificate, Metrics())})
    records: list[DecisionRecord] = []
    auditor = auditor_of(lanes, keep=records.append)
    await pass_by(auditor, lanes, "tricky", 200)
    lane = lanes.get("mood")
    assert lane is not None and lane.reason == "demoted" and "alarmed" in lane.detail
    assert {record.reason for record in records} == {"audit"}
    assert all(record.dollars > 0 for record in records)


async def test_a_champion_that_is_right_stays(certificate: Certificate) -> None:
    lanes = Lanes({"mood": lane_of(certificate, Metrics())})
    auditor = auditor_of(lanes)
    await pass_by(auditor, lanes, "easy", 200)
    docket = docket_of(auditor)
    assert docket.watch.rung == 0 and docket.watch.steps == []
    assert docket.watch.monitor.audits == 200 and docket.conditional_agreement == 1.0
    assert docket.agreement_lower_bound > 0.9


async def test_only_what_the_policy_decided_counts(certificate: Certificate) -> None:
    lane = lane_of(certificate, Metrics())
    lanes = Lanes({"mood": lane})
    auditor = auditor_of(lanes)
    forced = await lane.forced("proxy").route(Query.from_text("tricky"))
    auditor.consider("1", lane, forced)
    demoted = lane.without_champion("demoted", "why")
    auditor.consider("2", demoted, await demoted.router.route(Query.from_text("easy")))
    assert auditor.docket("mood") is None
    auditor.consider("3", lane, await lane.router.route(Query.from_text("hard")))
    monitor = docket_of(auditor).watch.monitor
    assert monitor.requests == 1 and monitor.audits == 0


async def test_a_teacher_that_is_down_is_asked_for_half_a_minute_then_counts_as_wrong(
    certificate: Certificate, tmp_path: Path
) -> None:
    clock, asked_at = SimulatedClock(), list[float]()

    class Down:
        name = "large"

        async def answer(self, queries: list[Query]) -> list[Reply]:
            asked_at.append(clock.now())
            return [Abstention("large", "tier_unavailable") for _ in queries]

    lanes = Lanes({"mood": lane_of(certificate, Metrics(), large=Down())})
    with open_store(f"sqlite:///{tmp_path}/s.db") as store:
        auditor = auditor_of(lanes, store, clock=clock.now, sleep=clock.sleep)
        await pass_by(auditor, lanes, "easy")
        (audit,) = store.audits.settled("mood", 10)
    assert asked_at == [1_000.0, 1_001.0, 1_003.0, 1_007.0, 1_015.0, 1_031.0]
    assert (audit.at, audit.settled_at, audit.wrong) == (1_000.0, 1_031.0, True)
    docket = docket_of(auditor)
    assert docket.conditional_agreement == 0.0 and docket.watch.monitor.audits == 1


async def test_a_bug_in_an_audit_does_not_end_the_audits(certificate: Certificate) -> None:
    class Broken:
        name = "large"

        async def answer(self, queries: list[Query]) -> list[Reply]:
            raise RuntimeError("a bug")

    lanes = Lanes({"mood": lane_of(certificate, Metrics(), large=Broken())})
    auditor = auditor_of(lanes)
    await pass_by(auditor, lanes, "easy", 3)
    assert docket_of(auditor).watch.monitor.audits == 3


async def test_a_full_queue_counts_against_the_champion(certificate: Certificate) -> None:
    lane = lane_of(certificate, Metrics())
    auditor = auditor_of(Lanes({"mood": lane}))
    decision = Decision(Query.from_text("easy"), Answer("proxy", "yes", 0.95), (), "certified")
    for i in range(1003):
        auditor.consider(str(i), lane, decision)
    assert docket_of(auditor).conditional_agreement == 0.0


async def test_the_watch_survives_a_restart_but_not_a_new_version(
    certificate: Certificate, tmp_path: Path
) -> None:
    def watch_of(lane: Lane, **more: Any) -> Watch:
        auditor = auditor_of(Lanes({"mood": lane}), store, **more)
        auditor.install(lane)
        return docket_of(auditor).watch

    lane = lane_of(certificate, Metrics())
    with open_store(f"sqlite:///{tmp_path}/s.db") as store:
        lanes = Lanes({"mood": lane})
        await pass_by(auditor_of(lanes, store), lanes, "easy", 5)
        assert len(store.audits.settled("mood", 10)) == 5
        assert watch_of(lane).monitor.audits == 5
        assert watch_of(lane_of(certificate, Metrics(), version="2")).monitor.audits == 0
        assert watch_of(lane, audit=config.Audit(0.5, 0.5)).monitor.audits == 0
        store.monitors.save("mood", {"nonsense": 1})
        assert watch_of(lane).monitor.audits == 0


async def test_a_restart_forgets_no_unaudited_request(
    certificate: Certificate, tmp_path: Path
) -> None:
    """Forgotten, they would make every audit weigh too much: a restart a day, and it alarms."""
    lane = lane_of(certificate, Metrics())
    with open_store(f"sqlite:///{tmp_path}/s.db") as store:
        for _ in range(3):
            lanes = Lanes({"mood": lane})
            auditor = auditor_of(lanes, store, audit=config.Audit(1e-9, 1e-9))
            await pass_by(auditor, lanes, "easy", 7)
    assert docket_of(auditor).watch.monitor.requests == 21


async def test_harm_steps_back_a_rung_and_the_rung_survives_a_restart(
    certificate: Certificate, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lane = on_two_rungs(lane_of(certificate, Metrics()))
    with open_store(f"sqlite:///{tmp_path}/s.db") as store:
        lanes = Lanes({"mood": lane})
        auditor = auditor_of(lanes, store)
        await pass_by(auditor, lanes, "tricky", 60)
        served = lanes.get("mood")
        assert served is not None and served.rung == 0 and not served.reason
        (step,) = docket_of(auditor).watch.steps
        assert (step.rung, step.alarm) == (0, False) and "evidence" in step.reason
        assert "version 1" in caplog.text and "rung 0" in caplog.text
        restarted = Lanes({"mood": lane})
        auditor_of(restarted, store).install(lane)
        again = restarted.get("mood")
        assert again is not None and again.rung == 0
        assert again.router.policy == lane.rungs[0]


def certificate_at(delta: float) -> Certificate:
    rungs = [Rung({"proxy": 0.9, "small": 0.8}, 0.9)]
    answered = np.ones((300, 1), dtype=bool)
    won = certify_stream(answered, ~answered, rungs, Guarantee(0.9, delta))
    assert won is not None
    return won


async def test_after_a_fall_only_a_stronger_certificate_reopens(
    certificate: Certificate, tmp_path: Path
) -> None:
    lane = lane_of(certificate, Metrics())
    with open_store(f"sqlite:///{tmp_path}/s.db") as store:
        lanes = Lanes({"mood": lane})
        await pass_by(auditor_of(lanes, store), lanes, "tricky", 200)
        restarted = Lanes({"mood": lane})
        auditor = auditor_of(restarted, store)
        auditor.install(lane)
        fallen = restarted.get("mood")
        assert fallen is not None and fallen.reason == "demoted"
        auditor.install(lane_of(certificate, Metrics(), version="2"))
        weak = restarted.get("mood")
        assert weak is not None and weak.reason == "no_champion" and "certify" in weak.detail
        auditor.install(lane_of(certificate_at(0.05 * 6 / np.pi**2), Metrics(), version="3"))
        strong = restarted.get("mood")
        assert strong is not None and strong.reason == ""
        auditor.install(lane)  # a rollback is no new certificate
        rolled_back = restarted.get("mood")
        assert rolled_back is not None and rolled_back.reason == "no_champion"
        assert docket_of(auditor).watch.falls == 1


async def test_a_late_audit_of_an_old_version_is_not_the_new_ones_state(
    certificate: Certificate, tmp_path: Path
) -> None:
    with open_store(f"sqlite:///{tmp_path}/s.db") as store:
        old = lane_of(certificate, Metrics())
        lanes = Lanes({"mood": old})
        auditor = auditor_of(lanes, store)
        auditor.install(old)
        decision = await old.router.route(Query.from_text("easy"))
        auditor.consider("late", old, decision)
        auditor.install(lane_of(certificate, Metrics(), version="2"))
        await pass_by(auditor, lanes, "easy")
        state = store.monitors.load("mood")
        assert state is not None and state["version"] == "2"
        assert state["monitor"]["audits"] == 1


async def test_a_lane_without_champion_is_installed_as_it_is(certificate: Certificate) -> None:
    blank = lane_of(certificate, Metrics()).without_champion("no_champion", "nothing")
    lanes = Lanes({"mood": blank})
    auditor = auditor_of(lanes)
    auditor.install(blank)
    assert lanes.get("mood") is blank and auditor.docket("mood") is None


async def test_a_closed_store_does_not_stop_the_monitor(
    certificate: Certificate, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lanes = Lanes({"mood": lane_of(certificate, Metrics())})
    store = open_store(f"sqlite:///{tmp_path}/s.db", wait_seconds=0.1)
    auditor = auditor_of(lanes, store)
    auditor.install(lanes.installed("mood"))
    store.close()
    for file in tmp_path.iterdir():
        file.unlink()
    tmp_path.chmod(0o500)
    await pass_by(auditor, lanes, "easy", 2)
    tmp_path.chmod(0o700)
    assert docket_of(auditor).watch.monitor.audits == 2


@given(st.lists(st.sampled_from(["skip", "right", "wrong"]), max_size=30), st.randoms())
def test_the_monitor_sees_requests_in_their_order(events: list[str], random: Any) -> None:
    """However late the teacher answers, the monitor ends as if it had answered at once."""
    guarantee = Guarantee(0.9, 0.05)
    expected = HarmMonitor(guarantee, rate=0.5, floor=0.1)
    monitor = HarmMonitor(guarantee, rate=0.5, floor=0.1)
    docket = Docket(Watch("1", monitor, rung=0, delta=0.05))
    open_audits = []
    for event in events:
        if event == "skip":
            expected.skip()
            docket.skip()
        else:
            expected.record(wrong=event == "wrong", propensity=0.5)
            open_audits.append((docket.open(0.5, rung=0), event == "wrong"))
    random.shuffle(open_audits)
    for audit, wrong in open_audits:
        docket.settle(audit, wrong=wrong)
    assert monitor == expected


async def test_a_running_gateway_audits_demotes_and_says_so(open_house: Build) -> None:
    with open_house(audit=EVERYTHING) as house:
        async with aiohttp.ClientSession() as session:
            for _ in range(100):
                request = typed("tricky")
                async with session.post(f"{house.v1}/chat/completions", json=request) as answer:
                    reason = answer.headers["x-cascade-reason"]
                if reason == "demoted":
                    break
                assert reason == "certified"
                await asyncio.sleep(0.01)
        assert reason == "demoted"
        assert answer.headers["x-cascade-tier"] == "large"
        assert house.metric("audit_total", task="mood", agreed="false") > 3
        assert house.metric("conditional_agreement", task="mood") == 0.0
        assert 0 <= house.metric("agreement_lower_bound", task="mood") < 0.9
        assert house.metric("evidence_of_harm", task="mood") >= 20
        assert house.metric("served_rung", task="mood") == 0
        until(lambda: house.store.audits.settled("mood", 1))
