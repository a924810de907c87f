"""Records, batches, readiness, draining: what happens behind an answer."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import aiohttp
import pytest

from cascade.certify import Certificate
from cascade.errors import StoreError
from cascade.gateway.batches import Batched
from cascade.gateway.decisions import Outbox
from cascade.gateway.lanes import Lanes
from cascade.gateway.observe import Metrics
from cascade.store import DecisionRecord
from cascade.testing import FakeTier
from cascade.types import Query, Reply

from .conftest import TEACHER, Build, House, SlowTier, lane_of, typed, until


class Writer:
    """A store that can be broken."""

    def __init__(self) -> None:
        self.written: list[str] = []
        self.broken = False

    def __call__(self, records: Sequence[DecisionRecord]) -> None:
        if self.broken:
            raise StoreError("the disk is full")
        self.written += [record.id for record in records]


def record(i: int) -> DecisionRecord:
    return DecisionRecord(str(i), 0.0, "mood", "certified")


async def test_outbox_writes_in_order_and_drains() -> None:
    writer = Writer()
    outbox = Outbox(writer, Metrics())
    working = asyncio.create_task(outbox.run())
    for i in range(1200):
        outbox.put(record(i))
    await asyncio.sleep(0.1)
    working.cancel()
    for i in range(1200, 1300):
        outbox.put(record(i))
    await outbox.drain(5)
    assert writer.written == [str(i) for i in range(1300)]


async def test_outbox_waits_for_a_broken_store_and_counts_what_it_loses(
    caplog: pytest.LogCaptureFixture,
) -> None:
    writer, metrics = Writer(), Metrics()
    writer.broken = True
    outbox = Outbox(writer, metrics, capacity=10)
    for i in range(15):
        outbox.put(record(i))
    await outbox.drain(0.2)
    dropped = metrics.registry.get_sample_value("cascade_dropped_total", {"what": "decision"})
    assert dropped == 15 and writer.written == []
    assert caplog.text.count("does not keep up") == 1
    writer.broken = False
    outbox.put(record(99))
    await outbox.drain(1)
    assert writer.written == ["99"]


class Counting:
    """A slow tier that knows its batches."""

    name = "proxy"

    def __init__(self) -> None:
        self.sizes: list[int] = []

    async def answer(self, queries: list[Query]) -> list[Reply]:
        self.sizes.append(len(queries))
        await asyncio.sleep(0.02)
        if any(query.text == "bug" for query in queries):
            raise RuntimeError("a bug")
        return await FakeTier("proxy", {str(i): (str(i), 1.0) for i in range(200)}).answer(queries)


async def test_a_crowd_shares_calls_and_each_gets_its_own() -> None:
    tier = Counting()
    batched = Batched(tier, most=64)
    asks = [batched.answer([Query.from_text(str(i))]) for i in range(100)]
    replies = await asyncio.gather(*asks)
    assert [reply.text for (reply,) in replies] == [str(i) for i in range(100)]  # type: ignore[union-attr]
    assert len(tier.sizes) <= 3 and max(tier.sizes) <= 64


async def test_who_leaves_takes_nobody_along() -> None:
    batched = Batched(Counting())
    first, second, third = (
        asyncio.create_task(batched.answer([Query.from_text(str(i))])) for i in range(3)
    )
    await asyncio.sleep(0)
    second.cancel()
    assert (await first)[0].text == "0" and (await third)[0].text == "2"  # type: ignore[union-attr]
    with pytest.raises(asyncio.CancelledError):
        await second


async def test_a_bug_reaches_its_callers_and_the_next_batch_works() -> None:
    batched = Batched(Counting())
    with pytest.raises(RuntimeError, match="a bug"):
        await batched.answer([Query.from_text("bug")])
    assert (await batched.answer([Query.from_text("7")]))[0].text == "7"  # type: ignore[union-attr]


async def test_ready_only_while_an_engine_answers(open_house: Build) -> None:
    with open_house() as house:
        async with aiohttp.ClientSession() as session:
            async with session.get(house.url + "/ready") as answer:
                assert answer.status == 200
                body = await answer.json()
            assert body == {
                "ready": True,
                "tiers": {"small": True, "large": True},
                "tasks": ["mood"],
            }


async def test_not_ready_without_an_engine(open_house: Build) -> None:
    with open_house(address="http://127.0.0.1:9/v1") as house:
        async with aiohttp.ClientSession() as session:
            async with session.get(house.url + "/ready") as answer:
                assert answer.status == 503 and not (await answer.json())["ready"]
            async with session.get(house.url + "/health") as answer:
                assert answer.status == 200


async def test_shutdown_lets_requests_end_and_loses_no_record(
    open_house: Build, certificate: Certificate
) -> None:
    metrics = Metrics()
    slow = SlowTier(FakeTier("large", TEACHER), 0.5)
    lanes = Lanes({"mood": lane_of(certificate, metrics, large=slow)})
    with open_house(lanes=lanes, metrics=metrics) as house:
        async with aiohttp.ClientSession() as session:

            async def ask() -> tuple[int, str]:
                url = f"{house.v1}/chat/completions"
                async with session.post(url, json=typed("hard")) as answer:
                    return answer.status, answer.headers["x-cascade-decision-id"]

            asking = [asyncio.create_task(ask()) for _ in range(10)]
            await asyncio.sleep(0.2)
            await asyncio.to_thread(house.served.stop)
            answers = await asyncio.gather(*asking)
        assert {status for status, _ in answers} == {200}
        kept = {one.id for one in house.store.decisions.recent(100)}
        assert kept == {id for _, id in answers}


async def test_a_caller_who_leaves_interrupts_the_tier(
    open_house: Build, certificate: Certificate
) -> None:
    metrics = Metrics()
    slow = SlowTier(FakeTier("large", TEACHER), 30)
    lanes = Lanes({"mood": lane_of(certificate, metrics, large=slow)})
    with open_house(lanes=lanes, metrics=metrics) as house:
        timeout = aiohttp.ClientTimeout(total=0.3)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            with pytest.raises(TimeoutError):
                await session.post(f"{house.v1}/chat/completions", json=typed("hard"))
        until(lambda: slow.cancelled == 1)
        until(lambda: house.metric("inflight", tier="large", replica="") == 0)


async def test_every_answer_is_counted_and_kept(house: House) -> None:
    async with aiohttp.ClientSession() as session:
        for text in ("hard", "easy", "middle"):
            body = typed(text)
            headers = {"x-tenant-id": "acme"}
            url = f"{house.v1}/chat/completions"
            async with session.post(url, json=body, headers=headers) as answer:
                assert answer.status == 200
    until(lambda: len(house.store.decisions.recent(10)) == 3)
    newest = house.store.decisions.recent(10, "mood")[0]
    assert (newest.tenant, newest.tier, newest.label) == ("acme", "small", "no")
    assert newest.text is None
    counted = {"task": "mood", "tier": "proxy", "reason": "certified"}
    assert house.metric("requests_total", **counted) == 1
    assert house.metric("saved_dollars_total", task="mood") == pytest.approx(3e-5)
    assert house.metric("prompt_tokens_total", cached="true") == 240
    assert house.metric("tier_seconds_count", tier="proxy") == 3
    assert house.metric("overhead_seconds_count", task="mood") == 3
