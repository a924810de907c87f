"""10,000 requests through a real gateway whose engine fails one in twenty of them.

Typed and passed through, whole and streamed. Every request has to end in its own right answer or in
a typed error, in time; afterwards no socket is left, and no decision is lost.

    python serving/bench/faults.py --json - > faults.json
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import sqlite3
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import yaml

sys.path.insert(0, str(Path(__file__).parents[2]))
from serving.bench.misbehaving import FAULTS, TRANSIENT, TYPED, Engine, right_answer
from serving.bench.processes import GatewayProcess, free_port, serving

CALLERS = 48
PATIENCE_SECONDS = 20.0  # after them a request counts as hung
TIER_SECONDS = 1.0
SETTLE_SECONDS = 4.0  # idle connections are closed on both sides by then
LEAVERS = 20
TASK = "even"
UNHANDLED = ("Traceback", "was destroyed", "never retrieved", "never awaited")


@dataclass(frozen=True)
class Order:
    """One request: what the engine will do to it, and how it is asked."""

    number: int
    deed: str
    typed: bool
    stream: bool
    refused: bool = False  # by a tier where nobody listens

    @property
    def body(self) -> dict[str, Any]:
        """The request as JSON."""
        model = f"task/{TASK}" if self.typed else "small" if self.refused else "large"
        text = f"request {self.number} {self.deed}"
        messages = [{"role": "user", "content": text}]
        return {"model": model, "messages": messages, "stream": self.stream}


def orders(requests: int, share: float, rng: np.random.Generator) -> Iterator[Order]:
    """A mix in which ``share`` of the requests meet a fault; half of the faults pass."""
    kinds = [*FAULTS, "refuses"]
    for number in range(requests):
        typed, stream, lasting = (bool(one) for one in rng.integers(0, 2, 3))
        kind = str(rng.choice(kinds)) if rng.random() < share else "answers"
        if kind == "refuses":
            yield Order(number, "answers", False, stream, refused=True)
        else:
            prefix = "" if lasting or kind == "answers" else TRANSIENT
            yield Order(number, prefix + kind, typed, stream)


def read_stream(text: str) -> tuple[str | None, bool]:
    """What a stream said; None where it says that it broke off; and whether it has its end."""
    datas = [line.removeprefix("data: ") for line in text.split("\n\n") if line]
    events = [json.loads(data) for data in datas if data != "[DONE]"]
    if any("error" in event for event in events):
        return None, True
    deltas = [one["delta"].get("content") or "" for event in events for one in event["choices"]]
    return "".join(deltas), datas[-1:] == ["[DONE]"]


def judge(order: Order, status: int, text: str) -> str:
    """``answer``, ``error``, ``wrong`` or ``untyped``."""
    if status != 200:
        error = json.loads(text)["error"]
        return "error" if error["code"] and error["type"] and error["message"] else "untyped"
    if order.stream:
        said, ended = read_stream(text)
        if said is None:
            return "error"
    else:
        said, ended = json.loads(text)["choices"][0]["message"]["content"], True
    return "answer" if ended and said == right_answer(order.number, order.typed) else "wrong"


async def ask(session: aiohttp.ClientSession, url: str, order: Order) -> str:
    """The fate of one request."""
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            async with session.post(f"{url}/v1/chat/completions", json=order.body) as response:
                return judge(order, response.status, await response.text())
    except TimeoutError:
        return "hung"
    except (aiohttp.ClientError, ValueError, LookupError, TypeError):
        return "untyped"


async def ask_all(url: str, waiting: Iterator[Order]) -> dict[str, Counter[str]]:
    """Every order's fate, counted by what the engine did."""
    fates: dict[str, Counter[str]] = {}
    connector = aiohttp.TCPConnector(limit=CALLERS)
    async with aiohttp.ClientSession(connector=connector) as session:

        async def caller() -> None:
            for order in waiting:
                fate = await ask(session, url, order)
                deed = "refuses" if order.refused else order.deed.removeprefix(TRANSIENT)
                fates.setdefault(deed, Counter())[fate] += 1

        await asyncio.gather(*(caller() for _ in range(CALLERS)))
    return fates


async def leave(url: str, engine: Engine, number: int) -> float:
    """Seconds from a caller's leaving until the engine notices; in turn every kind of request."""
    order = Order(number, "hangs", typed=bool(number & 2), stream=bool(number & 1))
    async with aiohttp.ClientSession() as session:
        asking = asyncio.create_task(
            session.post(f"{url}/v1/chat/completions", json=order.body)  # type: ignore[arg-type]
        )
        await asyncio.sleep(0.2)
        asking.cancel()
        left_at = time.monotonic()
        await asyncio.wait({asking})
    deadline = left_at + TIER_SECONDS
    while number not in engine.left_at and time.monotonic() < deadline:
        await asyncio.sleep(0.002)
    return engine.left_at.get(number, deadline) - left_at


def write_config(folder: Path, engine: Engine) -> dict[str, Any]:
    """A task without a proxy, the misbehaving engine behind it, and a tier that nobody serves."""
    (folder / "recipes").mkdir()
    recipe = {
        "name": TASK,
        "kind": "filter",
        "prompt": TYPED.decode(),
        "source": {"table": "none.csv", "text": "text"},
    }
    (folder / "recipes" / "even.yaml").write_text(yaml.safe_dump(recipe))
    common = {"timeout_seconds": TIER_SECONDS, "concurrency": 2 * CALLERS}
    large = {"model": "m", "replicas": [f"http://127.0.0.1:{engine.port}/v1"], **common}
    small = {"model": "gone", "replicas": [f"http://127.0.0.1:{free_port()}/v1"], **common}
    return {"tiers": {"large": large, "small": small}, "listen": {"drain_seconds": 10}}


async def kept(folder: Path, expected: int) -> int:
    """Decisions in the store, once they are as many as expected or no more come."""
    found, deadline = -1, time.monotonic() + SETTLE_SECONDS
    while found < expected and time.monotonic() < deadline:
        await asyncio.sleep(0.1)
        with contextlib.closing(sqlite3.connect(folder / "cascade.db")) as store:
            found = int(store.execute("select count(*) from cascade_decisions").fetchone()[0])
    return found


async def measure(folder: Path, requests: int, share: float, seed: int) -> dict[str, Any]:
    """Ask everything of one gateway, then look at what is left of it."""
    async with Engine().listening() as engine:
        config = write_config(folder, engine)
        async with serving(folder, config) as gateway:
            return await _measure(gateway, engine, folder, list(_mixed(requests, share, seed)))


def _mixed(requests: int, share: float, seed: int) -> Iterator[Order]:
    return orders(requests, share, np.random.default_rng(seed))


async def _measure(
    gateway: GatewayProcess, engine: Engine, folder: Path, asked: list[Order]
) -> dict[str, Any]:
    before, started = gateway.sockets, time.monotonic()
    fates = await ask_all(gateway.url, iter(asked))
    seconds = time.monotonic() - started
    lost = len(asked) - await kept(folder, len(asked))
    leavers = range(len(asked), len(asked) + LEAVERS)
    noticed = [await leave(gateway.url, engine, one) for one in leavers]
    await asyncio.sleep(SETTLE_SECONDS)
    after = gateway.sockets
    status = await gateway.stop()
    total = sum(fates.values(), Counter[str]())
    return {
        "requests": len(asked),
        "seconds": seconds,
        "fates": {deed: dict(found) for deed, found in sorted(fates.items())},
        **{fate: total[fate] for fate in ("answer", "error", "wrong", "untyped", "hung")},
        "healthy_failed": sum(fates["answers"].values()) - fates["answers"]["answer"],
        "sockets_leaked": after - before,
        "tasks_leaked": gateway.log.read_text().count("task(s)") + (status != 0),
        "decisions_lost": lost,
        "unhandled": sum(gateway.log.read_text().count(sign) for sign in UNHANDLED),
        "leave_ms_p50": 1e3 * float(np.median(noticed)),
        "leave_ms_max": 1e3 * max(noticed),
    }


def show(found: dict[str, Any]) -> None:
    """Tables for people."""
    fates = ("answer", "error", "wrong", "untyped", "hung")
    print(f"{'the engine':<22}" + "".join(f"{fate:>9}" for fate in fates))
    for deed, counts in found["fates"].items():
        print(f"{deed:<22}" + "".join(f"{counts.get(fate, 0):9d}" for fate in fates))
    print(f"{'all':<22}" + "".join(f"{found[fate]:9d}" for fate in fates))
    for name in ("healthy_failed", "sockets_leaked", "tasks_leaked", "decisions_lost", "unhandled"):
        print(f"{name:<22}{found[name]:9d}")
    print(f"a caller leaves, the engine knows: p50 {found['leave_ms_p50']:.0f} ms, ", end="")
    print(f"max {found['leave_ms_max']:.0f} ms; {found['seconds']:.0f} s in all")


def main() -> None:
    """Run the battery once."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--share", type=float, default=0.05, help="of requests that meet a fault")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", help="write the figures there; - for the terminal")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = asyncio.run(measure(Path(folder), args.requests, args.share, args.seed))
    if args.json == "-":
        print(json.dumps(found, indent=2))
        return
    show(found)
    if args.json:
        Path(args.json).write_text(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
