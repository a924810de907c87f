"""Ask the teacher, now and then, what it would have said; make a harmful champion more careful.

Knows lanes, watches and a store; nobody waits for it. Only what the policy itself decided counts:
a forced request says nothing about the policy. Which rung may serve is the watch's to say.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

import msgspec
import numpy as np

from cascade import config, reasons
from cascade.certify import Certificate, Guarantee, HarmMonitor, Watch, reopened
from cascade.errors import StoreError, UsageError
from cascade.gateway.docket import Audit, Docket
from cascade.gateway.lanes import Lane, Lanes
from cascade.gateway.observe import Metrics
from cascade.gateway.replay import audit_of
from cascade.store import AuditRecord, AuditStore, DecisionRecord, MonitorStore
from cascade.types import Abstention, Answer, Decision, Query, Reply

logger = logging.getLogger(__name__)

MOST_OPEN = 1000
ATTEMPTS = 6
FIRST_PAUSE_SECONDS = 1.0
"""Doubles after each failure: 31 seconds in all, then the audit counts as wrong."""

ROUNDED = 1 + 1e-9
"""A delta that was computed elsewhere may differ in its last digits."""


class AuditLog(Protocol):
    """Where audits and watches outlive the process; ``cascade.store.Store`` is one."""

    audits: AuditStore
    monitors: MonitorStore


@dataclass(frozen=True)
class Case:
    """One answer below the teacher that is to be checked."""

    decision_id: str
    lane: Lane
    query: Query
    answer: Answer
    docket: Docket
    audit: Audit


class Auditor:
    """Watches every task with a champion.

    Parameters
    ----------
    audit : mean and least propensity.
    log : None forgets everything at the end of the process.
    rng : decides who is audited; must not be guessable by callers.
    keep : takes the record of what an audit cost.
    clock, sleep : seconds since 1970, and how to let some pass.
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
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._lanes = lanes
        self._metrics = metrics
        self._audit = audit
        self._rng = rng
        self._keep = keep
        self._log = log
        self._clock = clock
        self._sleep = sleep
        # by version too: a request that began before a swap still belongs to the old champion
        self._dockets: dict[tuple[str, str], Docket] = {}
        self._current: dict[str, Docket] = {}
        self._cases: asyncio.Queue[Case] = asyncio.Queue(MOST_OPEN)

    def install(self, lane: Lane) -> None:
        """Swap in a new lane, on the rung on which its version was left; reads the store."""
        task, certificate = lane.task.name, lane.certificate
        if certificate is None or lane.version is None or lane.reason:
            self._lanes.install(lane)
            return
        watch = self._begin(lane, lane.version, certificate).watch
        asked = reopened(Guarantee(certificate.target, watch.delta), watch.falls)
        if watch.fallen:
            lane = lane.on_rung(None, watch.why)
        elif certificate.delta > asked.delta * ROUNDED:
            detail = f"after {watch.falls} falls its certificate needs delta <= {asked.delta:.2g}"
            lane = lane.without_champion(reasons.NO_CHAMPION, f"{detail}: certify it again")
        else:
            lane = lane.on_rung(watch.rung, "")
        self._lanes.install(lane)
        self._show_watch(task, watch)

    def tune(self, audit: config.Audit) -> None:
        """Audit at other rates; a champion's lane has to be installed again to be audited so."""
        self._audit = audit

    def docket(self, task: str) -> Docket | None:
        """The champion's audits, even if it has been taken out; None before the first champion."""
        return self._current.get(task)

    def consider(self, decision_id: str, lane: Lane, decision: Decision) -> None:
        """Count a decision and perhaps open an audit of it; returns at once."""
        docket = None if decision.reason == reasons.FORCED else self._docket(lane)
        if docket is None:
            return
        docket.watch.notice(decision.reason == reasons.NOVEL)
        answer = decision.answer
        if answer is None or answer.tier == lane.teacher:
            docket.skip()
            return
        propensity = docket.watch.propose(1 - answer.confidence)
        if self._rng.random() >= propensity:
            docket.skip()
            return
        audit = docket.open(propensity, lane.rung)
        case = Case(decision_id, lane, decision.query, answer, docket, audit)
        try:
            self._cases.put_nowait(case)
        except asyncio.QueueFull:
            # never as X = 0: an audit that cannot be made counts against the champion
            self._hear(case, wrong=True)
            self._metrics.dropped.of("audit").inc()

    async def run(self) -> None:
        """Make audits, one at a time: they must not crowd out the callers' own requests."""
        while True:
            case = await self._cases.get()
            try:
                await self._check(case)
            except Exception:
                logger.exception("an audit of %s failed", case.lane.task.name)
                if case.audit.wrong is None:  # it would hold back every later one
                    self._hear(case, wrong=True)
            finally:
                self._cases.task_done()

    async def drain(self, seconds: float) -> None:
        """Finish what is open, and remember how many requests there were, the unaudited too: after
        a restart that had forgotten those, the audits would weigh too much.

        What is still open then stays pending in the store and counts for nothing: a shutdown knows
        no outcome, so leaving them out favours nobody.
        """
        try:
            await asyncio.wait_for(self._cases.join(), seconds)
        except TimeoutError:
            logger.warning("%d audits stay pending", self._cases.qsize())
        for task, docket in list(self._current.items()):
            await self._write_down(self._save, task, docket.watch)

    async def _check(self, case: Case) -> None:
        await self._write_down(self._open, case)
        reply = await self._ask_teacher(case)
        said = reply.text if isinstance(reply, Answer) else None
        self._hear(case, wrong=said != case.answer.text)
        self._show(case, agreed=said == case.answer.text)
        self._record_cost(case, reply)
        await self._write_down(self._settle, case, said)

    def _hear(self, case: Case, *, wrong: bool) -> None:
        """Settle an audit, and serve whatever rung is right now. In force before it is durable: a
        full disk must not keep a harmful champion in."""
        task, version = case.lane.task.name, case.lane.version or ""
        monitor = case.docket.watch.monitor
        for step in case.docket.settle(case.audit, wrong=wrong):
            self._lanes.serve(task, version, step.rung, step.reason)
            logger.warning(
                "task %s, version %s: %s, rung %s, evidence %.3g, %d audits of %d requests",
                *(task, version, step.reason, "teacher" if step.rung is None else step.rung),
                *(monitor.evidence, monitor.audits, monitor.requests),
            )

    async def _ask_teacher(self, case: Case) -> Reply:
        """The teacher's reply; a teacher that is down is asked again for a while."""
        teacher = case.lane.router.tiers[case.lane.teacher]
        pause = FIRST_PAUSE_SECONDS
        for attempt in range(ATTEMPTS):
            (reply,) = await teacher.answer([case.query])
            down = isinstance(reply, Abstention) and reply.reason == reasons.TIER_UNAVAILABLE
            if not down or attempt == ATTEMPTS - 1:
                break
            await self._sleep(pause)
            pause *= 2
        return reply

    def _show(self, case: Case, *, agreed: bool) -> None:
        task = case.lane.task.name
        self._metrics.audits.of(task, "true" if agreed else "false").inc()
        self._metrics.agreement_lower_bound.of(task).set(case.docket.agreement_lower_bound)
        conditional = case.docket.conditional_agreement
        if conditional is not None:
            self._metrics.conditional_agreement.of(task).set(conditional)
        self._show_watch(task, case.docket.watch)

    def _show_watch(self, task: str, watch: Watch) -> None:
        self._metrics.evidence_of_harm.of(task).set(watch.monitor.evidence)
        self._metrics.served_rung.of(task).set(0 if watch.rung is None else watch.rung + 1)

    def _record_cost(self, case: Case, reply: Reply) -> None:
        usage, task = reply.usage, case.lane.task.name
        self._metrics.count_spending(task, reply.tier, usage)
        self._keep(
            DecisionRecord(
                id=audit_of(case.decision_id),
                at=self._clock(),
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

    async def _write_down(self, write: Callable[..., None], *what: object) -> None:
        """Durable before it counts, unless the store is down: then the monitor still learns."""
        if self._log is None:
            return
        try:
            await asyncio.to_thread(write, self._log, *what)
        except StoreError as exc:
            logger.warning("an audit is not written: %s", exc)

    def _open(self, log: AuditLog, case: Case) -> None:
        record = AuditRecord(
            decision_id=case.decision_id,
            at=self._clock(),
            task=case.lane.task.name,
            tier=case.answer.tier,
            answer=case.answer.text,
            propensity=case.audit.propensity,
            proxy_version=case.lane.version,
        )
        log.audits.open(record)

    def _settle(self, log: AuditLog, case: Case, said: str | None) -> None:
        log.audits.settle(case.decision_id, said, self._clock())
        task = case.lane.task.name
        if self._current[task] is case.docket:  # not a late audit of a version that has gone
            self._save(log, task, case.docket.watch)

    @staticmethod
    def _save(log: AuditLog, task: str, watch: Watch) -> None:
        log.monitors.save(task, msgspec.to_builtins(watch))

    def _docket(self, lane: Lane) -> Docket | None:
        """Of the champion that this lane serves; None where it serves none."""
        if lane.certificate is None or lane.version is None or lane.reason:
            return None
        found = self._dockets.get((lane.task.name, lane.version))
        return found or self._begin(lane, lane.version, lane.certificate)

    def _begin(self, lane: Lane, version: str, certificate: Certificate) -> Docket:
        """Continue the watch over this very version, or begin one that knows of earlier falls."""
        task = lane.task.name
        current = self._current.get(task)
        past = current.watch if current else self._stored(task)
        watch = self._watch(past, lane, version, certificate)
        docket = current if current and watch is past else Docket(watch)
        self._dockets[task, version] = self._current[task] = docket
        return docket

    def _watch(
        self, past: Watch | None, lane: Lane, version: str, certificate: Certificate
    ) -> Watch:
        guarantee = Guarantee(certificate.target, certificate.delta)
        fresh = HarmMonitor(guarantee, rate=self._audit.rate, floor=self._audit.floor)
        if past is None:
            return Watch(version, fresh, lane.rung, certificate.delta)
        same = past.monitor.guarantee, past.monitor.rate, past.monitor.floor
        if past.version == version and same == (guarantee, fresh.rate, fresh.floor):
            return past
        if past.version == version:  # audited at another rate now; what was decided stays
            return msgspec.structs.replace(past, monitor=fresh)
        first = past.delta if past.falls else certificate.delta
        return Watch(version, fresh, lane.rung, first, past.falls)

    def _stored(self, task: str) -> Watch | None:
        try:
            stored = self._log.monitors.load(task) if self._log else None
            return None if stored is None else msgspec.convert(stored, Watch)
        except (StoreError, UsageError, msgspec.ValidationError) as exc:
            logger.warning("the monitor of %s starts afresh: %s", task, exc)
            return None
