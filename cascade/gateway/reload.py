"""Follow gateway.yaml and its recipes while the gateway runs: look, read, fit; else keep.

What a changed configuration means for the running parts is somebody else's. An invalid file
changes nothing, and is told once.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import sys
import time
from pathlib import Path
from typing import Any, Protocol

from cascade.config import GatewayConfig, load_config
from cascade.errors import CascadeError
from cascade.gateway.observe import Metrics
from cascade.gateway.reconcile import reconcile
from cascade.gateway.watched import Watched

logger = logging.getLogger(__name__)

LOOK_SECONDS = 2.0

APPLIED, REFUSED = "applied", "refused"


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
    """The follower of one configuration.

    Parameters
    ----------
    running : what was made of the watched file at the start.
    """

    def __init__(
        self,
        watched: Watched,
        running: GatewayConfig,
        fitter: Fitter,
        metrics: Metrics,
        look_seconds: float = LOOK_SECONDS,
    ) -> None:
        self._watched = watched
        self._running = running
        self._fitter = fitter
        self._metrics = metrics
        self._look_seconds = look_seconds
        self._asked = asyncio.Event()
        self._error: str | None = None
        self._restart_for: tuple[str, ...] = ()
        self._loaded_at = time.time()

    async def run(self) -> None:
        """Look for ever, every few seconds and at a SIGHUP."""
        self._hear_sighup()
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._asked.wait(), self._look_seconds)
            asked = self._asked.is_set()
            self._asked.clear()
            try:
                await self.look(anyway=asked)
            except Exception:  # a bug in here must not end the following
                logger.exception("%s could not be followed", self._watched.path)

    async def look(self, *, anyway: bool = False) -> None:
        """Take over what has changed since the last look. anyway : even if nothing has."""
        await self._fitter.tidy()
        if await asyncio.to_thread(self._watched.look) or anyway:
            await self._take_over()

    async def close(self) -> None:
        """The end: requests are over."""
        await self._fitter.close()

    def status(self) -> dict[str, Any]:
        """For ``/admin/status``. ``loaded_at``: Unix seconds; ``error``: why the file is not it."""
        return {
            "file": str(self._watched.path),
            "loaded_at": self._loaded_at,
            "error": self._error,
            "restart_needed_for": list(self._restart_for),
        }

    def _hear_sighup(self) -> None:
        """Not from a terminal, which sends one when it is closed: that goes on to be the end."""
        if sys.stdin is None or not sys.stdin.isatty():
            with contextlib.suppress(ValueError, RuntimeError):  # not the main thread: no signals
                asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self._asked.set)

    async def _take_over(self) -> None:
        try:
            written = await asyncio.to_thread(load_config, self._watched.path)
            self._watched.folder = Path(written.tasks)
            reconciled = reconcile(self._running, written)
            await self._fitter.fit(reconciled.config)
        except CascadeError as exc:
            self._error = str(exc)
            self._metrics.config_reloads.of(REFUSED).inc()
            logger.error("the configuration before stays: %s", exc)
            return
        self._running, self._restart_for = reconciled
        self._error, self._loaded_at = None, time.time()
        self._metrics.config_reloads.of(APPLIED).inc()
        logger.warning("%s: loaded again", self._watched.path)
        if self._restart_for:
            logger.warning("restart needed for: %s", ", ".join(self._restart_for))
