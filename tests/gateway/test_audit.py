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
from cascade.certify import Certificate, Guarantee, HarmMonitor
from cascade.gateway.audit import Auditor
from cascade.gateway.lanes import Lanes
from cascade.gateway.observe import Metrics
from cascade.gateway.watch import Watch
from cascade.store import DecisionRecord, Store, open_store
from cascade.types import Abstention, Answer, Decision, Query, Reply

from .conftest import Build, lane_of, typed, until

EVERYTHING = config.Audit(rate=1.0, floor=1.0)


def auditor_of(lanes: Lanes, store: Store | None = None, **more: Any) -> Auditor:
    settings = {"rng": np.random.default_rng(0), "keep": lambda record: None, **more}
    audit = settings.pop("audit", EVERYTHING)
    return Auditor(lanes, Metrics(), audit, log=store, pause_seconds=0.001, **settings)


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
    assert lane is not None and lane.reason == "demoted" and "audits" in lane.detail
    assert {record.reason for record in records} == {"audit"}
    assert all(record.dollars > 0 for record in records)


async def test_a_champion_that_is_right_stays(certificate: Certificate) -> None:
    lanes = Lanes({"mood": lane_of(certificate, Metrics())})
    auditor = auditor_of(lanes)
    await pass_by(auditor, lanes, "easy", 200)
    watch = auditor.watch(lanes.installed("mood"))
    assert watch is not None and not lanes.demoted("mood")
    assert watch.monitor.audits == 200 and watch.conditional_agreement == 1.0
    assert watch.agreement_lower_bound > 0.9


async def test_only_what_the_policy_decided_counts(certificate: Certificate) -> None:
    lane = lane_of(certificate, Metrics())
    lanes = Lanes({"mood": lane})
    auditor = auditor_of(lanes)
    forced = await lane.forced("proxy").route(Query.from_text("tricky"))
    auditor.consider("1", lane, forced)
    watch = auditor.watch(lane)
    assert watch is not None and watch.monitor.requests == 0
    auditor.consider("2", lane, await lane.router.route(Query.from_text("hard")))
    assert watch.monitor.requests == 1 and watch.monitor.audits == 0
    demoted = lane.without_champion("demoted", "why")
    assert auditor.watch(demoted) is None


async def test_a_teacher_that_is_down_is_asked_again_then_counts_as_wrong(
    certificate: Certificate,
) -> None:
    class Down:
        name, asked = "large", 0

        async def answer(self, queries: list[Query]) -> list[Reply]:
            self.asked += 1
            return [Abstention("large", "tier_unavailable") for _ in queries]

    teacher = Down()
    lanes = Lanes({"mood": lane_of(certificate, Metrics(), large=teacher)})
    auditor = auditor_of(lanes)
    await pass_by(auditor, lanes, "easy")
    watch = auditor.watch(lanes.installed("mood"))
    assert watch is not None and teacher.asked == 6
    assert watch.conditional_agreement == 0.0 and watch.monitor.audits == 1


async def test_a_bug_in_an_audit_does_not_end_the_audits(certificate: Certificate) -> None:
    class Broken:
        name = "large"

        async def answer(self, queries: list[Query]) -> list[Reply]:
            raise RuntimeError("a bug")

    lanes = Lanes({"mood": lane_of(certificate, Metrics(), large=Broken())})
    auditor = auditor_of(lanes)
    await pass_by(auditor, lanes, "easy", 3)
    watch = auditor.watch(lanes.installed("mood"))
    assert watch is not None and watch.monitor.audits == 3


async def test_a_full_queue_counts_against_the_champion(certificate: Certificate) -> None:
    lane = lane_of(certificate, Metrics())
    auditor = auditor_of(Lanes({"mood": lane}))
    decision = Decision(Query.from_text("easy"), Answer("proxy", "yes", 0.95), (), "certified")
    for i in range(1003):
        auditor.consider(str(i), lane, decision)
    watch = auditor.watch(lane)
    assert watch is not None and watch.conditional_agreement == 0.0


async def test_the_monitor_survives_a_restart_but_not_a_new_version(
    certificate: Certificate, tmp_path: Path
) -> None:
    with open_store(f"sqlite:///{tmp_path}/s.db") as store:
        lanes = Lanes({"mood": lane_of(certificate, Metrics())})
        await pass_by(auditor_of(lanes, store), lanes, "easy", 5)
        assert len(store.audits.settled("mood", 10)) == 5
        again = auditor_of(lanes, store).watch(lanes.installed("mood"))
        assert again is not None and again.monitor.audits == 5
        lanes.install(lane_of(certificate, Metrics(), version="2"))
        fresh = auditor_of(lanes, store).watch(lanes.installed("mood"))
        assert fresh is not None and fresh.monitor.audits == 0
        other_rate = auditor_of(lanes, store, audit=config.Audit(0.5, 0.5))
        watch = other_rate.watch(lane_of(certificate, Metrics()))
        assert watch is not None and watch.monitor.audits == 0
        store.monitors.save("mood", {"nonsense": 1})
        watch = auditor_of(lanes, store).watch(lane_of(certificate, Metrics()))
        assert watch is not None and watch.monitor.audits == 0


async def test_a_closed_store_does_not_stop_the_monitor(
    certificate: Certificate, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lanes = Lanes({"mood": lane_of(certificate, Metrics())})
    store = open_store(f"sqlite:///{tmp_path}/s.db", wait_seconds=0.1)
    auditor = auditor_of(lanes, store)
    auditor.watch(lanes.installed("mood"))
    store.close()
    for file in tmp_path.iterdir():
        file.unlink()
    tmp_path.chmod(0o500)
    await pass_by(auditor, lanes, "easy", 2)
    tmp_path.chmod(0o700)
    watch = auditor.watch(lanes.installed("mood"))
    assert watch is not None and watch.monitor.audits == 2


@given(st.lists(st.sampled_from(["skip", "right", "wrong"]), max_size=30), st.randoms())
def test_the_monitor_sees_requests_in_their_order(events: list[str], random: Any) -> None:
    """However late the teacher answers, the monitor ends as if it had answered at once."""
    guarantee = Guarantee(0.9, 0.05)
    expected = HarmMonitor(guarantee, rate=0.5, floor=0.1)
    watch = Watch(HarmMonitor(guarantee, rate=0.5, floor=0.1))
    open_audits = []
    for event in events:
        if event == "skip":
            expected.skip()
            watch.skip()
        else:
            expected.record(wrong=event == "wrong", propensity=0.5)
            open_audits.append((watch.open(0.5), event == "wrong"))
    random.shuffle(open_audits)
    for audit, wrong in open_audits:
        watch.settle(audit, wrong=wrong)
    assert watch.monitor == expected


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
        until(lambda: house.store.audits.settled("mood", 1))
