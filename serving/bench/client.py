"""The own HTTP/1.1 client beside aiohttp: CPU time of a request, whole and streamed.

The engine is a process of its own, so that only the client's side is counted.

    python serving/bench/client.py --json -
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import statistics
import sys
import time
from pathlib import Path

import uvloop

from cascade.upstream import AiohttpTransport, PlainTransport, Transport

sys.path.insert(0, str(Path(__file__).parents[2]))
from serving.bench.processes import free_port
from serving.bench.quick_engine import QuickEngine

PATH = "/v1/chat/completions"
CALLERS = 64
FIELDS = {"content-type": "application/json"}
BODIES = {
    "whole": json.dumps({"model": "quick", "messages": [{"content": "Hello " * 160}]}).encode(),
    "stream": json.dumps({"model": "quick", "stream": True, "messages": []}).encode(),
}


async def _engine(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(QuickEngine, "127.0.0.1", port)
    await server.serve_forever()


def run_engine(port: int) -> None:
    """Answer for ever."""
    uvloop.run(_engine(port))


async def ask(transport: Transport, body: bytes, times: int) -> None:
    """One caller."""
    for _ in range(times):
        response = await transport.open("POST", PATH, body)
        while await response.next_chunk():
            pass


async def cpu_us(transport: Transport, body: bytes, requests: int) -> float:
    """CPU microseconds a request."""
    await ask(transport, body, CALLERS)
    before = time.process_time()
    await asyncio.gather(*(ask(transport, body, requests // CALLERS) for _ in range(CALLERS)))
    return 1e6 * (time.process_time() - before) / (requests // CALLERS * CALLERS)


async def compare(port: int, rounds: int, requests: int) -> dict[str, dict[str, float]]:
    """Medians over interleaved rounds."""
    clients: dict[str, Transport] = {
        "own": PlainTransport("127.0.0.1", port, FIELDS),
        "aiohttp": AiohttpTransport(f"http://127.0.0.1:{port}", FIELDS),
    }
    found: dict[str, dict[str, list[float]]] = {name: {} for name in clients}
    for _ in range(rounds):
        for kind, body in BODIES.items():
            for name, client in clients.items():
                found[name].setdefault(kind, []).append(await cpu_us(client, body, requests))
    for client in clients.values():
        await client.close()
    return {
        name: {f"{kind}_cpu_us": statistics.median(values) for kind, values in kinds.items()}
        for name, kinds in found.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--requests", type=int, default=3_200, help="of each measurement")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()

    port = free_port()
    engine = multiprocessing.get_context("spawn").Process(target=run_engine, args=(port,))
    engine.start()
    try:
        time.sleep(2.0)
        found = uvloop.run(compare(port, arguments.rounds, arguments.requests))
    finally:
        engine.terminate()
        engine.join()
    if arguments.json:
        print(json.dumps(found))
        return
    for name, row in found.items():
        print(name.ljust(10), "  ".join(f"{kind} {value:8.1f}" for kind, value in row.items()))
    for kind in found["own"]:
        print(f"aiohttp takes {found['aiohttp'][kind] / found['own'][kind]:.1f} times the {kind}")


if __name__ == "__main__":
    main()
