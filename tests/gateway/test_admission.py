"""The gate before a tier: nobody is let in twice, no place is lost, and no queue is endless."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from cascade.gateway.admission import Gate
from cascade.gateway.refusals import Refusal

from .conftest import House, send, until

FOREVER = 1e9
USER = [{"role": "user", "content": "hi"}]


async def test_no_more_are_inside_than_there_are_places() -> None:
    gate, inside, most = Gate(3, FOREVER), 0, 0

    async def ask() -> None:
        nonlocal inside, most
        async with gate.place():
            inside += 1
            most = max(most, inside)
            await asyncio.sleep(0.001)
            inside -= 1

    await asyncio.gather(*(ask() for _ in range(30)))
    assert most == 3 and gate.free == 3


async def test_first_come_first_served() -> None:
    gate, order = Gate(1, FOREVER), []

    async def ask(i: int) -> None:
        async with gate.place():
            order.append(i)
            await asyncio.sleep(0)

    await asyncio.gather(*(ask(i) for i in range(10)))
    assert order == list(range(10))


async def test_who_leaves_loses_no_place() -> None:
    """Cancelled while waiting, inside, and in the very moment of its turn."""
    rng = np.random.default_rng(0)
    gate = Gate(2, FOREVER)

    async def ask() -> None:
        async with gate.place():
            await asyncio.sleep(float(rng.choice([0, 0.001])))

    for _ in range(100):
        asking = [asyncio.create_task(ask()) for _ in range(8)]
        for _ in range(int(rng.integers(0, 5))):
            await asyncio.sleep(0)
        for one in asking:
            if rng.random() < 0.5:
                one.cancel()
        ends = await asyncio.gather(*asking, return_exceptions=True)
        assert all(end is None or isinstance(end, asyncio.CancelledError) for end in ends)
        assert gate.free == 2


async def hold(gate: Gate, seconds: float) -> None:
    async with gate.place():
        await asyncio.sleep(seconds)


async def test_an_unknown_tier_is_waited_for() -> None:
    gate = Gate(1, wait_seconds=0.001)
    assert gate.expected_wait_seconds == 0
    await asyncio.gather(*(hold(gate, 0.001) for _ in range(3)))


async def test_the_queue_ends_where_the_wait_would_be_too_long() -> None:
    gate = Gate(2, wait_seconds=0.5)
    gate.learn(0.1)  # so two places serve 20 a second, and 10 may wait
    asking = [asyncio.create_task(hold(gate, 10)) for _ in range(12)]
    await asyncio.sleep(0)
    with pytest.raises(Refusal) as refused:
        await hold(gate, 0)
    assert refused.value.status == 429 and refused.value.code == "overloaded"
    assert refused.value.headers == {"retry-after": "1"}
    asking[-1].cancel()
    await asyncio.sleep(0)
    waiting = asyncio.create_task(hold(gate, 0))  # there is room for one again
    await asyncio.sleep(0)
    assert not waiting.done()
    for one in [*asking, waiting]:
        one.cancel()
    await asyncio.gather(*asking, waiting, return_exceptions=True)
    assert gate.free == 2


async def test_the_longer_places_are_held_the_shorter_the_queue() -> None:
    rooms = []
    for seconds in (0.1, 1.0, 10.0):
        gate = Gate(4, wait_seconds=5)
        gate.learn(seconds)
        asking = [asyncio.create_task(hold(gate, 100)) for _ in range(300)]
        await asyncio.sleep(0)
        rooms.append(sum(not one.done() for one in asking))
        for one in asking:
            one.cancel()
        await asyncio.gather(*asking, return_exceptions=True)
    assert rooms == [4 + 200, 4 + 20, 4 + 2]


async def test_who_leaves_early_does_not_make_the_tier_look_fast() -> None:
    gate = Gate(1, wait_seconds=5)
    gate.learn(10.0)
    for _ in range(50):
        leaving = asyncio.create_task(hold(gate, 100))
        await asyncio.sleep(0)
        leaving.cancel()
        await asyncio.gather(leaving, return_exceptions=True)
    assert gate.expected_wait_seconds == 10.0


@pytest.mark.parametrize("stream", [False, True])
async def test_a_gateway_sends_away_whom_a_full_tier_cannot_take(
    house: House, stream: bool
) -> None:
    """In words, and without a decision: no tier was asked. Other tiers go on."""
    gate = next(one.gate for one in house.services.models if one.tier == "large")
    places, gate.free = gate.free, 0
    gate.learn(1e6)
    body = {"model": "large", "messages": USER, "stream": stream}
    got = await send(f"{house.v1}/chat/completions", body)
    assert (got.status, got.json["error"]["code"]) == (429, "overloaded")
    assert got.json["error"]["type"] == "rate_limit_error"
    assert int(got.headers["retry-after"]) > 0
    assert house.metric("errors_total", status="429", code="overloaded") == 1
    assert house.engine.bodies == []
    small = await send(f"{house.v1}/chat/completions", {**body, "model": "small"})
    assert small.status == 200
    gate.free = places
    assert (await send(f"{house.v1}/chat/completions", body)).status == 200
    until(lambda: len(house.store.decisions.recent(10)) == 2)
    assert gate.free == places
