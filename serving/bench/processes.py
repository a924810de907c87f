"""A gateway as a process of its own, and what the system knows of it. Knows no request."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

MODELS = Path(__file__).parents[2] / "models"
START_SECONDS = 60
STOP_SECONDS = 40
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class GatewayProcess:
    """``cascade serve`` under way; its words are in ``log``."""

    process: subprocess.Popen[bytes]
    url: str
    log: Path

    @property
    def sockets(self) -> int:
        """Open ones, the listening one included."""
        folder = Path(f"/proc/{self.process.pid}/fd")
        return sum(_target(link).startswith("socket:") for link in folder.iterdir())

    @property
    def rss_mib(self) -> float:
        """Resident memory, of its engines too."""
        return rss_mib(self.process.pid)

    @property
    def cpu_seconds(self) -> float:
        """User and system time since its start, of its engines too."""
        return cpu_seconds(self.process.pid)

    async def stop(self, by: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal and wait; the exit status."""
        self.process.send_signal(by)
        return await asyncio.to_thread(self.process.wait, STOP_SECONDS)


def tree(pid: int) -> list[int]:
    """A process and all its descendants."""
    children = defaultdict(list)
    for file in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            children[int(_fields(file)[1])].append(int(file.parent.name))
    found = [pid]
    for one in found:  # grows while it is read
        found += children[one]
    return found


def cpu_seconds(pid: int) -> float:
    """User and system time of a process tree so far."""
    stats = [_fields(Path(f"/proc/{one}/stat")) for one in tree(pid)]
    return sum(int(fields[11]) + int(fields[12]) for fields in stats) / TICKS


def rss_mib(pid: int) -> float:
    """Resident memory of a process tree."""
    pages = sum(int(_fields(Path(f"/proc/{one}/stat"))[21]) for one in tree(pid))
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def _fields(stat: Path) -> list[str]:
    return stat.read_text().rpartition(")")[2].split()


def _target(link: Path) -> str:
    try:
        return os.readlink(link)
    except OSError:  # closed since it was listed
        return ""


def free_port() -> int:
    """A port of loopback that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


@asynccontextmanager
async def serving(folder: Path, written: Mapping[str, Any]) -> AsyncIterator[GatewayProcess]:
    """A gateway that is ready; told to stop in the end, and killed if it does not.

    Parameters
    ----------
    folder : for its configuration, recipes, store, registry and log.
    written : ``tiers`` and whatever else of gateway.yaml is not the default.
    """
    port = free_port()
    config = {
        "version": 1,
        "tasks": str(folder / "recipes"),
        "store": f"sqlite:///{folder}/cascade.db",
        "registry": str(folder / "registry"),
        "models": str(MODELS),
        **written,
        "listen": {"port": port, **written.get("listen", {})},
    }
    (folder / "recipes").mkdir(exist_ok=True)
    (folder / "gateway.yaml").write_text(yaml.safe_dump(config))
    command = [sys.executable, "-m", "cascade", "serve", "--config", str(folder / "gateway.yaml")]
    log = folder / "serve.log"
    with log.open("ab") as words:
        process = subprocess.Popen(command, stderr=words, stdout=words)
    try:
        gateway = GatewayProcess(process, f"http://127.0.0.1:{port}", log)
        await _until_ready(gateway)
        yield gateway
    finally:
        process.terminate()
        try:
            await asyncio.to_thread(process.wait, STOP_SECONDS)
        finally:
            process.kill()
            process.wait()


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5):
            return True
    except OSError:
        return False


async def _until_ready(gateway: GatewayProcess) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and gateway.process.poll() is None:
        if await asyncio.to_thread(_answers, f"{gateway.url}/ready"):
            return
        await asyncio.sleep(0.05)
    raise RuntimeError(f"the gateway does not answer: {gateway.log.read_text()}")
