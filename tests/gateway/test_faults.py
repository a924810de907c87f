"""The fault battery in short (``serving/bench/faults.py`` is the long form), and processes that end
under load, in good order and in none.
"""

from __future__ import annotations

import asyncio
import itertools
import signal
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import aiohttp
import pytest

from serving.bench.faults import Order, judge, kept, measure, write_config
from serving.bench.misbehaving import Engine
from serving.bench.processes import GatewayProcess, serving

pytestmark = pytest.mark.slow


async def test_no_wrong_answer_no_hang_no_leak_no_loss(tmp_path: Path) -> None:
    found = await measure(tmp_path, requests=400, share=0.3, seed=0)
    assert found["answer"] + found["error"] == 400
    assert found["wrong"] == found["untyped"] == found["hung"] == 0
    assert found["healthy_failed"] == 0
    assert found["sockets_leaked"] <= 0 and found["tasks_leaked"] == 0
    assert found["decisions_lost"] == 0 and found["unhandled"] == 0
    assert found["leave_ms_p50"] < 500
    assert len(found["fates"]) == 12  # every fault was met


@asynccontextmanager
async def under_load(folder: Path, deed: str) -> AsyncIterator[tuple[GatewayProcess, Counter[str]]]:
    """A gateway that 16 callers ask without a pause until it does not let them in any more."""
    fates: Counter[str] = Counter()
    numbers = itertools.count()

    async def caller(url: str) -> None:
        async with aiohttp.ClientSession() as session:
            for number in numbers:
                order = Order(number, deed, typed=bool(number % 3), stream=bool(number % 2))
                try:
                    fates[await ask(session, url, order)] += 1
                except aiohttp.ClientConnectorError:
                    return

    async with (
        Engine().listening() as engine,
        serving(folder, write_config(folder, engine)) as gateway,
    ):
        callers = [asyncio.create_task(caller(gateway.url)) for _ in range(16)]
        yield gateway, fates
        async with asyncio.timeout(20):
            await asyncio.gather(*callers)


async def ask(session: aiohttp.ClientSession, url: str, order: Order) -> str:
    """The fate of a request; ``cut`` if its connection was."""
    try:
        async with session.post(f"{url}/v1/chat/completions", json=order.body) as response:
            return judge(order, response.status, await response.text())
    except aiohttp.ClientConnectorError:
        raise
    except aiohttp.ClientError:
        return "cut"


async def until(fates: Counter[str], answers: int) -> None:
    async with asyncio.timeout(60):
        while fates["answer"] < answers:
            await asyncio.sleep(0.01)


async def test_sigterm_under_load_finishes_what_it_took(tmp_path: Path) -> None:
    async with under_load(tmp_path, "dawdles") as (gateway, fates):
        await until(fates, 60)
        assert await gateway.stop() == 0
    # a kept connection may be closed just when the next request is written to it: not taken
    assert fates["wrong"] == fates["untyped"] == 0 and fates["cut"] <= 16
    answered = fates["answer"] + fates["error"]
    assert await kept(tmp_path, answered) == answered


async def test_kill_under_load_leaves_a_store_that_opens(tmp_path: Path) -> None:
    """What was answered a moment before may be lost; nothing else, and the next start is one."""
    async with under_load(tmp_path, "answers") as (gateway, fates):
        await until(fates, 200)
        before = await kept(tmp_path, 100)
        assert await gateway.stop(signal.SIGKILL) == -signal.SIGKILL
    assert fates["wrong"] == fates["untyped"] == 0
    with closing(sqlite3.connect(tmp_path / "cascade.db")) as store:
        assert store.execute("pragma integrity_check").fetchone() == ("ok",)
    assert await kept(tmp_path, before) >= before
    async with Engine().listening() as engine, aiohttp.ClientSession() as session:
        again = tmp_path / "again"
        again.mkdir()
        config = write_config(again, engine) | {"store": f"sqlite:///{tmp_path}/cascade.db"}
        async with serving(again, config) as gateway:
            order = Order(2, "answers", typed=True, stream=False)
            assert await ask(session, gateway.url, order) == "answer"
