"""Follow gateway.yaml and its recipes while the gateway runs: look, settle, read, fit; else keep.

Knows files and when they changed; what a changed configuration means for the running parts is
somebody else's. An invalid file changes nothing, and is told once.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import signal
import time
from pathlib import Path
from typing import Any, Protocol

from cascade.config import GatewayConfig, load_config
from cascade.errors import CascadeError
from cascade.gateway.observe import Metrics
from cascade.gateway.reconcile import reconcile

logger = logging.getLogger(__name__)

LOOK_SECONDS = 2.0
SETTLE_SECONDS = 0.2
"""How long a changed file must stay as it is: editors write in pieces, and a configuration that
ends before its ``api_keys`` is a valid one."""

APPLIED, REFUSED = "applied", "refused"

Stamp = tuple[tuple[str, int, int], ...]
"""Of every file its name, its time of change (ns) and its size."""


class Fitter(Protocol):
    """Makes the running parts serve a configuration; ``gateway.refit.Refit`` is one."""

    async def fit(self, config: GatewayConfig) -> None:
        """Serve it from the next request on; on CascadeError the one before is served."""
        ...

    async def tidy(self) -> None:
        """Close what was replaced, as far as nobody uses it."""
        ...

    async def close(self) -> None:
        """Close all that was replaced."""
        ...


class Reload:
    """The follower of one file.

    Parameters
    ----------
    path : of gateway.yaml. running : what was made of it at the start.
    """

    def __init__(
        self,
        path: Path,
        running: GatewayConfig,
        fitter: Fitter,
        metrics: Metrics,
        *,
        look_seconds: float = LOOK_SECONDS,
        settle_seconds: float = SETTLE_SECONDS,
    ) -> None:
        self._path = path
        self._running = running
        self._fitter = fitter
        self._metrics = metrics
        self._look_seconds = look_seconds
        self._settle_seconds = settle_seconds
        self._tasks = Path(running.tasks)
        self._stamp = self._look()
        self._digest = self._read()
        self._asked = asyncio.Event()
        self._error: str | None = None
        self._restart_for: tuple[str, ...] = ()
        self._loaded_at = time.time()

    async def run(self) -> None:
        """Look for ever, every few seconds and at a SIGHUP."""
        with contextlib.suppress(ValueError, RuntimeError):  # not the main thread: no signals there
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self._asked.set)
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._asked.wait(), self._look_seconds)
            asked = self._asked.is_set()
            self._asked.clear()
            try:
                await self.look(anyway=asked)
            except Exception:  # a bug in here must not end the following
                logger.exception("%s could not be followed", self._path)

    async def look(self, *, anyway: bool = False) -> None:
        """Take over what has changed since the last look. anyway : even if nothing has."""
        await self._fitter.tidy()
        stamp = await asyncio.to_thread(self._look)
        if stamp == self._stamp and not anyway:
            return
        digest = await asyncio.to_thread(self._read)
        await asyncio.sleep(self._settle_seconds)
        if await asyncio.to_thread(self._read) != digest:
            return  # it is being written: the next look is soon enough
        changed = digest != self._digest
        self._stamp, self._digest = stamp, digest
        if changed or anyway:
            await self._take_over()

    async def close(self) -> None:
        """The end: requests are over."""
        await self._fitter.close()

    def status(self) -> dict[str, Any]:
        """For ``/admin/status``. ``loaded_at``: Unix seconds; ``error``: why the file is not it."""
        return {
            "file": str(self._path),
            "loaded_at": self._loaded_at,
            "error": self._error,
            "restart_needed_for": list(self._restart_for),
        }

    async def _take_over(self) -> None:
        try:
            written = await asyncio.to_thread(load_config, self._path)
            self._tasks = Path(written.tasks)
            reconciled = reconcile(self._running, written)
            await self._fitter.fit(reconciled.config)
        except (CascadeError, ValueError) as exc:
            self._error = str(exc)
            self._metrics.config_reloads.of(REFUSED).inc()
            logger.error("the configuration before stays: %s", exc)
            return
        self._running, self._restart_for = reconciled
        self._error, self._loaded_at = None, time.time()
        self._metrics.config_reloads.of(APPLIED).inc()
        logger.warning("%s: loaded again", self._path)
        if self._restart_for:
            logger.warning("restart needed for: %s", ", ".join(self._restart_for))

    def _files(self) -> list[Path]:
        return [self._path, *sorted(self._tasks.glob("*.yaml"))]

    def _look(self) -> Stamp:
        found = []
        for file in self._files():
            with contextlib.suppress(OSError):  # gone since it was listed, or not there at all
                stat = file.stat()
                found.append((str(file), stat.st_mtime_ns, stat.st_size))
        return tuple(found)

    def _read(self) -> str:
        whole = hashlib.sha256()
        for file in self._files():
            with contextlib.suppress(OSError):
                content = hashlib.sha256(file.read_bytes()).hexdigest()
                whole.update(f"{file}={content}\n".encode())
        return whole.hexdigest()
