"""What is kept of an answer: its receipt for the caller, its record, its figures, its audit.

Nothing here waits: a full queue loses a record and says so, an answer is never held up.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec

from cascade.gateway.audit import Auditor
from cascade.gateway.decisions import Outbox
from cascade.gateway.http import Request
from cascade.gateway.ids import Ids
from cascade.gateway.lanes import Lane
from cascade.gateway.observe import Metrics
from cascade.gateway.replay import told
from cascade.gateway.spending import Spending
from cascade.store import DecisionRecord, Said
from cascade.types import Decision, Usage

if TYPE_CHECKING:  # OpenTelemetry is loaded only where tracing is on
    from cascade.gateway.tracing import Tracing

TENANT = "x-tenant-id"
NOT_A_TASK = ""
"""The task of a request that was passed through."""


class Visit(msgspec.Struct, frozen=True):
    """Somebody is waiting for one answer.

    started : ``time.perf_counter()`` at arrival.
    tenant : who asks and pays, for the log; empty if nobody said.
    alone : its time is its own; an input of a batch waits for the others too.
    """

    id: str
    started: float
    tenant: str = ""
    alone: bool = True

    @property
    def seconds(self) -> float:
        """Since arrival."""
        return time.perf_counter() - self.started


class Receipt(msgspec.Struct, frozen=True):
    """What an answer says about where it came from.

    tier : None when nobody answered. model : what stands behind the tier.
    overhead_seconds : time that no tier can account for.
    dollars : None while a stream's price is not known yet.
    """

    decision_id: str
    reason: str
    overhead_seconds: float
    dollars: float | None = None
    tier: str | None = None
    model: str | None = None
    confidence: float | None = None
    label: str | None = None
    proxy_version: str | None = None

    def headers(self) -> dict[str, str]:
        """The ``x-cascade-*`` response headers; what is not known is left out.

        >>> Receipt("dec_1", "certified", 0.00031, tier="proxy").headers()["x-cascade-overhead-ms"]
        '0.310'
        """
        fields = {
            "tier": self.tier,
            "model": self.model,
            "confidence": None if self.confidence is None else f"{self.confidence:.4f}",
            "reason": self.reason,
            "decision-id": self.decision_id,
            "proxy-version": self.proxy_version,
            "overhead-ms": f"{self.overhead_seconds * 1000:.3f}",
            "cost-usd": None if self.dollars is None else f"{self.dollars:.9f}",
        }
        return {f"x-cascade-{name}": text for name, text in fields.items() if text is not None}


@dataclass(frozen=True)
class Books:
    """Enter every answer of a typed task once: metrics, record, audit."""

    metrics: Metrics
    outbox: Outbox
    auditor: Auditor
    spending: Spending
    ids: Ids = field(default_factory=Ids)
    tracing: Tracing | None = None

    def visit(self, request: Request, *, alone: bool = True) -> Visit:
        """Who is waiting, and since when; not ``alone`` for an input of a batch."""
        tenant = request.tenant.known_as(request.headers.get(TENANT, ""))
        return Visit(self.ids.new("dec"), request.started, tenant, alone)

    def enter(self, visit: Visit, lane: Lane, decision: Decision) -> Receipt:
        """Write one decision down, and make out its receipt."""
        receipt = _receipt(visit, lane, decision)
        self.metrics.count_decision(lane.task.name, decision, lane.teacher)
        if visit.alone:
            self.metrics.overhead_seconds.of(lane.task.name).observe(receipt.overhead_seconds)
            self.metrics.request_seconds.of(lane.task.name).observe(visit.seconds)
        record = _record(visit, lane.task.name, receipt, decision.usage, told(lane, decision))
        self.outbox.put(record)
        self.spending.add(visit.tenant, record.dollars)
        self.auditor.consider(receipt.decision_id, lane, decision)
        if self.tracing is not None and visit.alone:
            self.tracing.decided(lane.task.name, receipt, decision.usage)
        return receipt

    def enter_passthrough(self, visit: Visit, receipt: Receipt, usage: Usage) -> None:
        """Write down a request that no task was asked."""
        tier = receipt.tier or ""
        self.metrics.requests.of(NOT_A_TASK, tier, receipt.reason).inc()
        self.metrics.count_spending(NOT_A_TASK, tier, usage)
        self.metrics.request_seconds.of(NOT_A_TASK).observe(visit.seconds)
        self.metrics.overhead_seconds.of(NOT_A_TASK).observe(receipt.overhead_seconds)
        self.spending.add(visit.tenant, usage.dollars)
        self.outbox.put(_record(visit, NOT_A_TASK, receipt, usage))
        if self.tracing is not None:
            self.tracing.passed(receipt, usage)


def _receipt(visit: Visit, lane: Lane, decision: Decision) -> Receipt:
    usage, answer = decision.usage, decision.answer
    return Receipt(
        decision_id=visit.id,
        reason=decision.reason,
        overhead_seconds=max(visit.seconds - usage.seconds, 0.0) if visit.alone else 0.0,
        dollars=usage.dollars,
        tier=answer.tier if answer else None,
        model=lane.models.get(answer.tier) if answer else None,
        confidence=answer.confidence if answer else None,
        label=answer.text if answer else None,
        proxy_version=lane.version,
    )


def _record(
    visit: Visit, task: str, receipt: Receipt, usage: Usage, trail: tuple[Said, ...] = ()
) -> DecisionRecord:
    return DecisionRecord(
        id=visit.id,
        at=time.time(),
        task=task,
        reason=receipt.reason,
        tenant=visit.tenant,
        tier=receipt.tier,
        model=receipt.model,
        proxy_version=receipt.proxy_version,
        label=receipt.label,
        confidence=receipt.confidence,
        prompt_tokens=usage.prompt_tokens,
        cached_tokens=usage.cached_tokens,
        output_tokens=usage.output_tokens,
        seconds=visit.seconds,
        overhead_seconds=receipt.overhead_seconds,
        dollars=usage.dollars,
        trail=trail,
    )
