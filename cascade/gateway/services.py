"""Everything a gateway is made of, built elsewhere and handed in; how to start and stop it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from cascade.config import Listen
from cascade.errors import CascadeError
from cascade.gateway.audit import Auditor
from cascade.gateway.books import Books
from cascade.gateway.decisions import Outbox
from cascade.gateway.keys import Keys
from cascade.gateway.lanes import Lanes
from cascade.gateway.observe import Metrics
from cascade.gateway.passthrough import NamedModel
from cascade.gateway.spending import Spending
from cascade.gateway.switches import heed_for_ever
from cascade.gateway.tenants import Tenants
from cascade.registry import Registry
from cascade.store import AuditStore, DecisionStore

if TYPE_CHECKING:  # OpenTelemetry is loaded only where tracing is on
    from cascade.gateway.tracing import Tracing

logger = logging.getLogger(__name__)

READY_SECONDS = 2.0
"""How long an engine may take to say that it is there, and how long its word is good."""


class Follower(Protocol):
    """Keeps the lanes up with the registry; ``gateway.champions.Champions`` is one."""

    def start(self) -> None: ...

    def stop(self) -> None: ...

    def poll(self) -> None:
        """Look now, and return when what was found is in place."""
        ...

    def problems(self) -> dict[str, str]:
        """What is wrong with each task's champion, in words."""
        ...


class Reloading(Protocol):
    """Follows the configuration's file; ``gateway.reload.Reload`` is one."""

    async def run(self) -> None: ...

    async def close(self) -> None:
        """Close what was replaced and may still be in use."""
        ...

    def status(self) -> dict[str, Any]:
        """What was loaded when, what is wrong with the file, what needs a restart."""
        ...


def _nothing(since: float, until: float) -> dict[str, float]:
    """What was spent, where no store remembers it."""
    return {}


@dataclass
class Services:
    """One gateway's parts.

    models : LLM tiers, cheapest first; a reload swaps them in place.
    tenants : if there are none, anyone may ask.
    decisions, audits, registry, follower, reload, tracing : None where there is none.
    """

    lanes: Lanes
    models: list[NamedModel]
    metrics: Metrics
    outbox: Outbox
    auditor: Auditor
    tenants: Tenants = field(default_factory=lambda: Tenants([], Spending(_nothing)))
    admin_keys: Keys = field(default_factory=lambda: Keys([]))
    listen: Listen = Listen()
    decisions: DecisionStore | None = None
    audits: AuditStore | None = None
    registry: Registry | None = None
    follower: Follower | None = None
    reload: Reloading | None = None
    tracing: Tracing | None = None

    @property
    def books(self) -> Books:
        """Where answers are entered."""
        spending = self.tenants.spending
        return Books(self.metrics, self.outbox, self.auditor, spending, tracing=self.tracing)


class Running:
    """A gateway's background work, and whether it can answer.

    Start and stop belong to the event loop that serves.
    """

    def __init__(self, services: Services) -> None:
        self._services = services
        self._tasks: list[asyncio.Task[None]] = []
        self._checked_at = float("-inf")
        self._answers: dict[str, bool] = {}
        self._checking = asyncio.Lock()
        self.draining = False

    async def start(self) -> None:
        """Begin to write, to audit and to follow."""
        services = self._services
        for job in (services.outbox.run, services.auditor.run, services.tenants.spending.run):
            self._begin(job())
        self._begin(heed_for_ever(services.lanes))
        if services.follower is not None:
            await asyncio.to_thread(services.follower.start)
        if services.reload is not None:
            self._begin(services.reload.run())

    def _begin(self, job: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(job)
        task.add_done_callback(_complain)
        self._tasks.append(task)

    async def stop(self) -> None:
        """Requests have ended: finish the audits, write every record, let go of everything."""
        self.draining = True
        services, seconds = self._services, self._services.listen.drain_seconds / 2
        if services.follower is not None:
            await asyncio.to_thread(services.follower.stop)
        await services.auditor.drain(seconds)
        await services.outbox.drain(seconds)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for model in services.models:
            await model.upstream.close()
        if services.reload is not None:
            await services.reload.close()

    async def ready(self) -> bool:
        """Whether an LLM tier answers; asked at most every ``READY_SECONDS``."""
        loop = asyncio.get_running_loop()
        async with self._checking:
            if loop.time() - self._checked_at >= READY_SECONDS:
                tiers = [model.tier for model in self._services.models]
                found = await asyncio.gather(*(_answers(m) for m in self._services.models))
                self._answers = dict(zip(tiers, found, strict=True))
                self._checked_at = loop.time()
        return not self.draining and any(self._answers.values())

    @property
    def answering(self) -> dict[str, bool]:
        """Which LLM tiers answered when they were last asked."""
        return dict(self._answers)


def _complain(task: asyncio.Task[None]) -> None:
    """Background work that ends by itself has failed, and nobody awaits it."""
    if not task.cancelled() and task.exception() is not None:
        logger.error("background work has stopped", exc_info=task.exception())


async def _answers(model: NamedModel) -> bool:
    try:
        await asyncio.wait_for(model.upstream.models(), READY_SECONDS)
    except (CascadeError, TimeoutError):
        return False
    return True
