"""More requests than the engine can answer: what comes in time, with a bounded queue and without.

Callers arrive at random moments (Poisson) whether or not the last ones were answered, and give up
after a second. The engine takes 4 at a time and 50 ms each: 80 a second.

    python serving/bench/overload.py --json - > overload.json
    python serving/bench/overload.py --minutes 20     # soak: 70% of capacity, for so long
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))
from serving.bench.misbehaving import WORK_SECONDS, Engine
from serving.bench.processes import GatewayProcess, serving

PLACES = 4
CAPACITY = PLACES / WORK_SECONDS  # requests a second
IN_TIME_SECONDS = 1.0
LOADS = (0.5, 0.9, 1.0, 1.5, 3.0)  # of capacity
QUEUES = {"bounded": 0.5, "unbounded": 1e9}  # seconds until one's turn
SOAK_LOAD = 0.7
SAMPLE_SECONDS = 15.0


@dataclass
class Tally:
    """What became of the requests; ``seconds`` are of those that were answered in time."""

    asked: int = 0
    sent_away: int = 0
    late: int = 0
    failed: int = 0
    seconds: list[float] = field(default_factory=list)

    def figures(self, span: float) -> dict[str, float]:
        """Per second of the ``span`` seconds in which they were asked, and percentiles."""
        p50, p99 = np.percentile(self.seconds or [np.nan], [50, 99])
        return {
            "offered": self.asked / span,
            "goodput": len(self.seconds) / span,
            "sent_away": self.sent_away / span,
            "late": self.late / span,
            "failed": self.failed / span,
            "p50_ms": 1e3 * float(p50),
            "p99_ms": 1e3 * float(p99),
        }


async def ask(session: aiohttp.ClientSession, url: str, tally: Tally) -> None:
    """One caller, who waits for ``IN_TIME_SECONDS`` and then leaves."""
    tally.asked += 1
    message = {"role": "user", "content": f"request {tally.asked} works"}
    started = time.perf_counter()
    try:
        async with asyncio.timeout(IN_TIME_SECONDS):
            body = {"model": "large", "messages": [message]}
            async with session.post(f"{url}/v1/chat/completions", json=body) as response:
                await response.read()
    except TimeoutError:
        tally.late += 1
        return
    except aiohttp.ClientError:
        tally.failed += 1
        return
    if response.status == 200:
        tally.seconds.append(time.perf_counter() - started)
    elif response.status == 429 and int(response.headers["retry-after"]) > 0:
        tally.sent_away += 1
    else:
        tally.failed += 1


async def offer(url: str, rate: float, seconds: float, rng: np.random.Generator) -> Tally:
    """Callers at ``rate`` a second, for so long; returns when the last one has left."""
    tally, asking = Tally(), set[asyncio.Task[None]]()
    loop = asyncio.get_running_loop()
    due, end = loop.time(), loop.time() + seconds
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as session:
        while (due := due + float(rng.exponential(1 / rate))) < end:
            await asyncio.sleep(max(due - loop.time(), 0))
            task = asyncio.create_task(ask(session, url, tally))
            asking.add(task)
            task.add_done_callback(asking.discard)
        await asyncio.gather(*asking)
    return tally


def write_config(engine: Engine, queue_seconds: float) -> dict[str, Any]:
    """One tier that takes as many requests at a time as the engine works on."""
    large = {
        "model": "m",
        "replicas": [f"http://127.0.0.1:{engine.port}/v1"],
        "concurrency": PLACES,
        "queue_seconds": queue_seconds,
    }
    return {"tiers": {"large": large}}


async def overload(folder: Path, seconds: float, seed: int) -> dict[str, Any]:
    """Every load with either queue, and what of the peak is left at three times the capacity."""
    rng = np.random.default_rng(seed)
    found: dict[str, Any] = {}
    async with Engine().listening() as engine:
        for name, queue_seconds in QUEUES.items():
            (folder / name).mkdir()
            config = write_config(engine, queue_seconds)
            async with serving(folder / name, config) as gateway:
                rows = [
                    (await offer(gateway.url, load * CAPACITY, seconds, rng)).figures(seconds)
                    for load in LOADS
                ]
            kept = rows[-1]["goodput"] / max(row["goodput"] for row in rows)
            found[name] = {"kept_of_peak": kept, "loads": dict(zip(LOADS, rows, strict=True))}
    return found


async def soak(folder: Path, minutes: float, seed: int) -> dict[str, Any]:
    """Memory and latency over time at a load that leaves room."""
    rng = np.random.default_rng(seed)
    async with (
        Engine().listening() as engine,
        serving(folder, write_config(engine, QUEUES["bounded"])) as gateway,
    ):
        rounds = range(round(60 * minutes / SAMPLE_SECONDS))
        samples = [await _sample(gateway, rng) for _ in rounds]
    third = len(samples) // 3
    p99 = [sample["p99_ms"] for sample in samples]
    warm, last = samples[third]["rss_mib"], samples[-1]["rss_mib"]
    return {
        "samples": samples,
        "rss_growth_percent": 100 * (last / warm - 1),  # from the first third's end on
        "p99_ms_first_third": float(np.median(p99[:third])),
        "p99_ms_last_third": float(np.median(p99[-third:])),
        "failed": sum(sample["failed"] + sample["late"] for sample in samples),
    }


async def _sample(gateway: GatewayProcess, rng: np.random.Generator) -> dict[str, float]:
    tally = await offer(gateway.url, SOAK_LOAD * CAPACITY, SAMPLE_SECONDS, rng)
    more = {"rss_mib": gateway.rss_mib, "sockets": gateway.sockets, "cpu_s": gateway.cpu_seconds}
    return {**tally.figures(SAMPLE_SECONDS), **more}


def show(rows: dict[Any, dict[str, float]]) -> None:
    """A table for people."""
    columns = list(next(iter(rows.values())))
    print(" " * 8 + "".join(f"{column:>11}" for column in columns))
    for name, row in rows.items():
        print(f"{name!s:<8}" + "".join(f"{row[column]:11.1f}" for column in columns))


def main() -> None:
    """Overload, or with ``--minutes`` a soak."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=10.0, help="for each load")
    parser.add_argument("--minutes", type=float, help="soak instead; 20 for the record")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", help="write the figures there; - for the terminal")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if args.minutes:
            found = asyncio.run(soak(folder, args.minutes, args.seed))
        else:
            found = asyncio.run(overload(folder, args.seconds, args.seed))
    if args.json == "-":
        print(json.dumps(found, indent=2))
        return
    if args.json:
        Path(args.json).write_text(json.dumps(found, indent=2))
    if args.minutes:
        show(dict(enumerate(found.pop("samples"))))
        print(", ".join(f"{name} {figure:.1f}" for name, figure in found.items()))
        return
    for queue, figures in found.items():
        print(f"{queue} queue: {figures['kept_of_peak']:.0%} of the peak at {LOADS[-1]:g}x")
        show(figures["loads"])


if __name__ == "__main__":
    main()
