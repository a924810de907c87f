"""What a gateway adds to a request that it passes through: CPU time, delay, memory.

Ours with everything on (keys, ids, metrics, decision records), beside nginx as the floor where it
is installed, and any gateways that already run in front of the engine of this program:

    python serving/bench/overhead.py --json -
    python serving/bench/overhead.py --peer 'router=http://127.0.0.1:8081/v1/chat/completions,pid=7'

Rounds are interleaved and medians shown. Trust CPU time: it is that of a gateway's whole process
tree, while on a shared machine the delay says more about the neighbours. Two cores are needed: the
gateways get one, the callers and the engine the other.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import secrets
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path

import uvloop

sys.path.insert(0, str(Path(__file__).parents[2]))
from serving.bench.closed_loop import load
from serving.bench.processes import cpu_seconds, free_port, rss_mib, serving
from serving.bench.quick_engine import EVENTS, QuickEngine

CHAT = "/v1/chat/completions"
GATEWAY_CPU, CALLERS_CPU = 0, 1
WHOLE_CALLERS, STREAM_CALLERS = 64, 32
TEXT = "Please consider the following passage and answer the question that follows it in one line. "

NGINX = """
daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{ worker_connections 1024; }}
http {{
  access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  upstream engine {{ server 127.0.0.1:{engine}; keepalive 128; }}
  server {{
    listen 127.0.0.1:{port} reuseport; keepalive_requests 1000000;
    location / {{
      proxy_pass http://engine; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_buffering off;
    }}
  }}
}}
"""


@dataclass(frozen=True)
class Gateway:
    """One that runs. pid : of its first process; None for the engine itself."""

    name: str
    url: str
    pid: int | None
    model: str = "quick"
    key: str = "none"

    def body(self, *, stream: bool) -> bytes:
        """A request of about 1 kB."""
        messages = [
            {"role": "system", "content": "You are a helpful assistant."},
            {"role": "user", "content": TEXT * 9},
        ]
        asked = {"model": self.model, "messages": messages, "max_tokens": 128}
        return json.dumps(asked | ({"stream": True} if stream else {})).encode()


def cpu(gateway: Gateway) -> float:
    """Seconds so far; 0 for the engine, which runs in this process."""
    return cpu_seconds(gateway.pid) if gateway.pid else 0.0


async def measure(gateway: Gateway, seconds: float) -> dict[str, float]:
    """One round of one gateway."""

    async def asked(stream: bool, callers: int) -> tuple[float, float]:
        """CPU microseconds an answer, and the median delay in microseconds."""
        before = cpu(gateway)
        body = gateway.body(stream=stream)
        key = {"authorization": f"Bearer {gateway.key}"}
        seen = await load(gateway.url, repeat(body), key, callers=callers, seconds=seconds)
        if seen.wrong or not seen.seconds:
            raise RuntimeError(f"{gateway.name}: {seen.wrong} wrong answers, such as {seen.said!r}")
        return 1e6 * (cpu(gateway) - before) / len(seen.seconds), seen.quantile_us(0.5)

    _, alone = await asked(False, 1)
    whole_cpu, _ = await asked(False, WHOLE_CALLERS)
    stream_cpu, _ = await asked(True, STREAM_CALLERS)
    _, stream_alone = await asked(True, 1)
    return {
        "cpu_us": whole_cpu,
        "p50_us": alone,
        "sse_cpu_us": stream_cpu / EVENTS,
        "stream_p50_us": stream_alone,
        "rss_mib": rss_mib(gateway.pid) if gateway.pid else 0.0,
    }


def summary(rounds: dict[str, list[dict[str, float]]]) -> dict[str, dict[str, float]]:
    """Medians of every gateway; delays less what the engine itself takes."""
    medians = {
        name: {key: statistics.median(one[key] for one in found) for key in found[0]}
        for name, found in rounds.items()
    }
    direct = medians.pop("direct")
    return {
        name: {
            "cpu_us": found["cpu_us"],
            "added_p50_us": found["p50_us"] - direct["p50_us"],
            "sse_cpu_us": found["sse_cpu_us"],
            "added_stream_us": found["stream_p50_us"] - direct["stream_p50_us"],
            "rss_mib": found["rss_mib"],
        }
        for name, found in medians.items()
    }


@contextlib.asynccontextmanager
async def ours(folder: Path, engine: int) -> AsyncIterator[Gateway]:
    """Our gateway, everything on that a stranger's installation would have."""
    key = secrets.token_urlsafe(32)
    large = {
        "model": "quick",
        "replicas": [f"http://127.0.0.1:{engine}/v1"],
        "concurrency": 2 * WHOLE_CALLERS,
        "price": {"input": 0.6, "cached_input": 0.12, "output": 1.2},
    }
    async with serving(folder, {"tiers": {"large": large}, "api_keys": [key]}) as gateway:
        pid = gateway.process.pid
        yield Gateway("ours", gateway.url + CHAT, pid, "quick", key)


@contextlib.contextmanager
def nginx(folder: Path, engine: int) -> Iterator[Gateway | None]:
    """nginx in front of the engine; None where it is not installed."""
    program = shutil.which("nginx")
    if program is None:
        yield None
        return
    port = free_port()
    config = folder / "nginx.conf"
    config.write_text(NGINX.format(folder=folder, port=port, engine=engine))
    process = subprocess.Popen(
        [program, "-p", str(folder), "-c", str(config)], stderr=subprocess.DEVNULL
    )
    try:
        yield Gateway("nginx", f"http://127.0.0.1:{port}{CHAT}", process.pid)
    finally:
        process.terminate()
        process.wait()


def peer(text: str) -> Gateway:
    """``name=url,pid=7,model=m,key=k``; the last two may be missing."""
    address, *options = text.split(",")
    name, _, url = address.partition("=")
    given = dict(option.split("=", 1) for option in options)
    return Gateway(name, url, int(given["pid"]), given.get("model", "quick"), given.get("key", "-"))


async def compare(
    peers: list[Gateway], rounds: int, seconds: float, engine_port: int
) -> dict[str, dict[str, float]]:
    """Everything, interleaved."""
    loop = asyncio.get_running_loop()
    engine = await loop.create_server(QuickEngine, "127.0.0.1", engine_port)
    port = engine.sockets[0].getsockname()[1]
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        os.sched_setaffinity(0, {GATEWAY_CPU})  # what is started now stays there
        async with ours(folder, port) as gateway:
            with nginx(folder, port) as floor:
                await asyncio.sleep(0.5)
                os.sched_setaffinity(0, {CALLERS_CPU})
                direct = Gateway("direct", f"http://127.0.0.1:{port}{CHAT}", None)
                gateways = [direct, *filter(None, [floor]), *peers, gateway]
                return await _rounds(gateways, rounds, seconds)


async def _rounds(
    gateways: list[Gateway], rounds: int, seconds: float
) -> dict[str, dict[str, float]]:
    found = defaultdict(list)
    for number in range(-1, rounds):  # the first one warms up
        for gateway in gateways:
            measured = await measure(gateway, seconds if number >= 0 else 0.3)
            if number >= 0:
                found[gateway.name].append(measured)
                shown = ", ".join(f"{key} {value:.1f}" for key, value in measured.items())
                print(f"{number + 1}/{rounds} {gateway.name}: {shown}", file=sys.stderr)
    return summary(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--peer", type=peer, action="append", default=[], metavar="NAME=URL,pid=N")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.5, help="of each measurement")
    parser.add_argument("--engine-port", type=int, default=0, help="fixed, for peers to find it")
    parser.add_argument("--json", metavar="FILE", help="write the result as JSON; - for stdout")
    arguments = parser.parse_args()
    if len(os.sched_getaffinity(0)) <= CALLERS_CPU:
        raise SystemExit("two cores are needed: one for the gateways, one for the callers")

    work = compare(arguments.peer, arguments.rounds, arguments.seconds, arguments.engine_port)
    result = uvloop.run(work)
    if arguments.json == "-":
        print(json.dumps(result))
    elif arguments.json:
        Path(arguments.json).write_text(json.dumps(result, indent=1) + "\n")
    out = sys.stderr if arguments.json == "-" else sys.stdout
    columns = list(result["ours"])
    print("  ".join(["gateway".ljust(14), *(name.rjust(15) for name in columns)]), file=out)
    for name, row in sorted(result.items(), key=lambda item: item[1]["cpu_us"]):
        print("  ".join([name.ljust(14), *(f"{row[key]:15.1f}" for key in columns)]), file=out)


if __name__ == "__main__":
    main()
