"""How fast the proxy answers through a real gateway, and whom it keeps waiting.

Takes the champion of a task from the registry of a configuration (``make demo`` makes one) and
replaces every LLM by an engine that answers at once. The texts are the task's own, cut into pieces
of 40 tokens; none is asked twice, or the cache of embeddings would answer. Requests force the
proxy, so that each is one decision of it: an answer, or a 400 where the text is too strange.

    python serving/bench/proxy.py --config serving/gateway.yaml training/recipes/bbc-topic.yaml
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from itertools import repeat
from pathlib import Path
from typing import Any

import uvloop
import yaml

from cascade.recipes import Recipe, load_recipe

sys.path.insert(0, str(Path(__file__).parents[2]))
from serving.bench.closed_loop import Tally, load
from serving.bench.processes import GatewayProcess, serving
from serving.bench.quick_engine import QuickEngine

CHAT = "/v1/chat/completions"
FORCED = {"x-cascade-tier": "proxy"}
GATEWAY_CPU, CALLERS_CPU = 0, 1
ALONE, CROWD, BESIDE = 1, 64, 16  # callers
WORDS = 30  # about 40 tokens


def request(model: str, text: str) -> bytes:
    """A chat request's body."""
    return json.dumps({"model": model, "messages": [{"role": "user", "content": text}]}).encode()


def texts(recipe: Recipe) -> Iterator[str]:
    """Pieces of the rows of the recipe's table, each once."""
    column = recipe.source.column.column
    with Path(recipe.source.table).open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            words = row[column].split()
            for start in range(0, len(words), WORDS):
                yield " ".join(words[start : start + WORDS])


def without_llms(config: dict[str, Any], engine: int) -> dict[str, Any]:
    """The configuration with the quick engine behind every LLM tier, under the LLM's own name."""
    behind = {"replicas": [f"http://127.0.0.1:{engine}/v1"], "concurrency": 64}
    tiers = {
        name: tier
        if name == "proxy"
        else {"model": tier["model"], "price": tier["price"], **behind}
        for name, tier in config["tiers"].items()
    }
    kept = {key: value for key, value in config.items() if key not in ("listen", "store")}
    return {**kept, "tiers": tiers}


class Bench:
    """One gateway under measurement."""

    def __init__(self, gateway: GatewayProcess, recipe: Recipe, seconds: float) -> None:
        self._gateway = gateway
        self._seconds = seconds
        self._unasked = (request(f"task/{recipe.name}", text) for text in texts(recipe))

    async def proxy(self, callers: int) -> Tally:
        """Decisions of the proxy alone, all of them on new texts."""
        seen = await self._load(self._unasked, FORCED, callers)
        if seen.wrong > len(seen.seconds) / 2:
            raise SystemExit(f"the proxy answers too little, such as {seen.said!r}")
        return seen

    async def passed(self) -> Tally:
        """Requests that are passed through."""
        seen = await self._load(repeat(request("large", "Hello")), {}, BESIDE)
        if seen.wrong:
            raise SystemExit(f"{seen.wrong} wrong answers, such as {seen.said!r}")
        return seen

    async def _load(self, bodies: Iterator[bytes], headers: dict[str, str], callers: int) -> Tally:
        url = self._gateway.url + CHAT
        return await load(url, bodies, headers, callers=callers, seconds=self._seconds)

    async def figures(self) -> dict[str, float]:
        """Everything that is measured."""
        await self.proxy(ALONE)  # warms up
        alone = await self.proxy(ALONE)
        before = self._gateway.cpu_seconds
        crowd = await self.proxy(CROWD)
        cpu = self._gateway.cpu_seconds - before
        passed = await self.passed()
        passed_beside, _ = await asyncio.gather(self.passed(), self.proxy(CROWD))
        proxy_beside, _ = await asyncio.gather(self.proxy(ALONE), self.passed())
        return {
            "p50_ms": alone.quantile_us(0.5) / 1e3,
            "p99_ms": alone.quantile_us(0.99) / 1e3,
            "answered": 1 - crowd.wrong / len(crowd.seconds),
            "answers_per_s": len(crowd.seconds) / self._seconds,
            "answers_per_cpu_s": len(crowd.seconds) / cpu,
            "passed_p99_ms": passed.quantile_us(0.99) / 1e3,
            "passed_p99_ms_beside_proxy": passed_beside.quantile_us(0.99) / 1e3,
            "p99_ms_beside_passed": proxy_beside.quantile_us(0.99) / 1e3,
        }


async def measure(config: dict[str, Any], recipe: Recipe, seconds: float) -> dict[str, float]:
    """Start the engine and the gateway, and measure."""
    engine = await asyncio.get_running_loop().create_server(QuickEngine, "127.0.0.1", 0)
    port = engine.sockets[0].getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        os.sched_setaffinity(0, {GATEWAY_CPU})  # what is started now stays there
        async with serving(Path(folder), without_llms(config, port)) as gateway:
            os.sched_setaffinity(0, {CALLERS_CPU})
            return await Bench(gateway, recipe, seconds).figures()


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--config", type=Path, default=Path("serving/gateway.yaml"))
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()

    config = yaml.safe_load(arguments.config.read_text(encoding="utf-8"))
    found = uvloop.run(measure(config, load_recipe(arguments.recipe), arguments.seconds))
    if arguments.json:
        print(json.dumps(found))
        return
    for name, value in found.items():
        print(f"{name:30} {value:10.2f}")


if __name__ == "__main__":
    main()
