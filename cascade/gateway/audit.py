"""Ask the teacher, now and then, what it would have said; take a harmful champion out.

Knows lanes, a monitor and a store; nobody waits for it. Only what the policy itself decided counts:
a forced request says nothing about the policy.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import msgspec
import numpy as np

from cascade import config, reasons
from cascade.certify import Guarantee, HarmMonitor
from cascade.errors import StoreError
from cascade.gateway.lanes import Lane, Lanes
from cascade.gateway.observe import Metrics
from cascade.gateway.watch import Audit, Watch
from cascade.store import AuditRecord, AuditStore, DecisionRecord, MonitorStore
from cascade.types import Abstention, Answer, Decision, Query, Reply

logger = logging.getLogger(__name__)

MOST_OPEN = 1000
ATTEMPTS = 6
FIRST_PAUSE_SECONDS = 1.0
"""Doubles after each failure: 31 seconds in all, then the audit counts as wrong."""


class AuditLog(Protocol):
    """Where audits and monitors outlive the process; ``cascade.store.Store`` is one."""

    audits: AuditStore
    monitors: MonitorStore


@dataclass(frozen=True)
class Case:
    """One answer below the teacher that is to be checked."""

    decision_id: str
    lane: Lane
    query: Query
    answer: Answer
    watch: Watch
    audit: Audit


class State(msgspec.Struct, frozen=True):
    """A monitor as it is stored: evidence against one version says nothing about another."""

    version: str
    monitor: HarmMonitor


class Auditor:
    """Watches every task with a champion.

    Parameters
    ----------
    audit : mean and least propensity.
    log : None forgets everything at the end of the process.
    rng : decides who is audited; must not be guessable by callers.
    keep : takes the record of what an audit cost.
    """

    def __init__(
        self,
        lanes: Lanes,
        metrics: Metrics,
        audit: config.Audit,
        *,
        rng: np.random.Generator,
        keep: Callable[[DecisionRecord], None],
        log: AuditLog | None = None,
        pause_seconds: float = FIRST_PAUSE_SECONDS,
    ) -> None:
        self._lanes = lanes
        self._metrics = metrics
        self._audit = audit
        self._rng = rng
        self._keep = keep
        self._log = log
        self._pause_seconds = pause_seconds
        # by version too: a request that began before a swap still belongs to the old champion
        self._watches: dict[tuple[str, str], Watch] = {}
        self._cases: asyncio.Queue[Case] = asyncio.Queue(MOST_OPEN)

    def consider(self, decision_id: str, lane: Lane, decision: Decision) -> None:
        """Count a decision and perhaps open an audit of it; returns at once."""
        watch = None if decision.reason == reasons.FORCED else self.watch(lane)
        if watch is None:
            return
        answer = decision.answer
        if answer is None or answer.tier == lane.teacher:
            watch.skip()
            return
        propensity = watch.monitor.propose(1 - answer.confidence)
        if self._rng.random() >= propensity:
            watch.skip()
            return
        audit = watch.open(propensity)
        try:
            self._cases.put_nowait(Case(decision_id, lane, decision.query, answer, watch, audit))
        except asyncio.QueueFull:
            # never as X = 0: an audit that cannot be made counts against the champion
            watch.settle(audit, wrong=True)
            self._metrics.dropped.of("audit").inc()

    def watch(self, lane: Lane) -> Watch | None:
        """The watch over this lane's champion; None without one.

        The first call for a version reads the store: whoever installs a lane makes it.
        """
        if lane.certificate is None or lane.version is None or lane.reason:
            return None
        key = lane.task.name, lane.version
        watch = self._watches.get(key)
        if watch is None:
            guarantee = Guarantee(lane.certificate.target, lane.certificate.delta)
            watch = self._watches[key] = Watch(self._monitor(*key, guarantee))
        return watch

    async def run(self) -> None:
        """Make audits, one at a time: they must not crowd out the callers' own requests."""
        while True:
            case = await self._cases.get()
            try:
                await self._check(case)
            except Exception:
                logger.exception("an audit of %s failed", case.lane.task.name)
                if case.audit.wrong is None:  # it would hold back every later one
                    case.watch.settle(case.audit, wrong=True)
            finally:
                self._cases.task_done()

    async def drain(self, seconds: float) -> None:
        """Finish what is open. What is left then stays pending in the store and counts for
        nothing: a shutdown knows no outcome, so leaving them out favours nobody."""
        try:
            await asyncio.wait_for(self._cases.join(), seconds)
        except TimeoutError:
            logger.warning("%d audits stay pending", self._cases.qsize())

    async def _check(self, case: Case) -> None:
        await self._write_down(self._open, case)
        reply = await self._ask_teacher(case)
        said = reply.text if isinstance(reply, Answer) else None
        case.watch.settle(case.audit, wrong=said != case.answer.text)
        self._show(case, agreed=said == case.answer.text)
        self._record_cost(case, reply)
        await self._write_down(self._settle, case, said)
        if case.watch.monitor.alarm and not self._lanes.demoted(case.lane.task.name):
            await asyncio.to_thread(self._demote, case)

    async def _ask_teacher(self, case: Case) -> Reply:
        """The teacher's reply; a teacher that is down is asked again for a while."""
        teacher = case.lane.router.tiers[case.lane.teacher]
        pause = self._pause_seconds
        for attempt in range(ATTEMPTS):
            (reply,) = await teacher.answer([case.query])
            down = isinstance(reply, Abstention) and reply.reason == reasons.TIER_UNAVAILABLE
            if not down or attempt == ATTEMPTS - 1:
                break
            await asyncio.sleep(pause)
            pause *= 2
        return reply

    def _show(self, case: Case, *, agreed: bool) -> None:
        task = case.lane.task.name
        self._metrics.audits.of(task, "true" if agreed else "false").inc()
        self._metrics.agreement_lower_bound.of(task).set(case.watch.agreement_lower_bound)
        conditional = case.watch.conditional_agreement
        if conditional is not None:
            self._metrics.conditional_agreement.of(task).set(conditional)

    def _record_cost(self, case: Case, reply: Reply) -> None:
        usage, task = reply.usage, case.lane.task.name
        self._metrics.count_spending(task, reply.tier, usage)
        self._keep(
            DecisionRecord(
                id=f"{case.decision_id}-audit",
                at=time.time(),
                task=task,
                reason=reasons.AUDIT,
                tier=reply.tier,
                model=case.lane.models.get(reply.tier),
                proxy_version=case.lane.version,
                label=reply.text if isinstance(reply, Answer) else None,
                prompt_tokens=usage.prompt_tokens,
                cached_tokens=usage.cached_tokens,
                output_tokens=usage.output_tokens,
                seconds=usage.seconds,
                dollars=usage.dollars,
            )
        )

    def _demote(self, case: Case) -> None:
        monitor = case.watch.monitor
        why = f"the monitor alarmed after {monitor.audits} audits of {monitor.requests} requests"
        logger.error("task %s: %s: the teacher answers now", case.lane.task.name, why)
        try:
            self._lanes.demote(case.lane.task.name, why, case.lane.version)
        except StoreError:
            logger.exception("the demotion is in force but would not survive a restart")

    async def _write_down(self, write: Callable[..., None], *what: object) -> None:
        """Durable before it counts, unless the store is down: then the monitor still learns."""
        if self._log is None:
            return
        try:
            await asyncio.to_thread(write, self._log, *what)
        except StoreError as exc:
            logger.warning("an audit is not written: %s", exc)

    @staticmethod
    def _open(log: AuditLog, case: Case) -> None:
        record = AuditRecord(
            decision_id=case.decision_id,
            at=time.time(),
            task=case.lane.task.name,
            tier=case.answer.tier,
            answer=case.answer.text,
            propensity=case.audit.propensity,
            proxy_version=case.lane.version,
        )
        log.audits.open(record)

    @staticmethod
    def _settle(log: AuditLog, case: Case, said: str | None) -> None:
        log.audits.settle(case.decision_id, said, time.time())
        state = State(case.lane.version or "", case.watch.monitor)
        log.monitors.save(case.lane.task.name, msgspec.to_builtins(state))

    def _monitor(self, task: str, version: str, guarantee: Guarantee) -> HarmMonitor:
        """The stored monitor of this very version, guarantee and rate, or a fresh one."""
        fresh = HarmMonitor(guarantee, rate=self._audit.rate, floor=self._audit.floor)
        state = self._stored(task)
        if state is None or state.version != version:
            return fresh
        same = (state.monitor.guarantee, state.monitor.rate, state.monitor.floor)
        return state.monitor if same == (guarantee, fresh.rate, fresh.floor) else fresh

    def _stored(self, task: str) -> State | None:
        try:
            stored = self._log.monitors.load(task) if self._log else None
            return None if stored is None else msgspec.convert(stored, State)
        except (StoreError, msgspec.ValidationError) as exc:
            logger.warning("the monitor of %s starts afresh: %s", task, exc)
            return None
