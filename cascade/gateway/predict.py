"""``POST /v1/tasks/<name>/predict``: many texts at once, each with its own fate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from cascade.gateway import wire
from cascade.gateway.books import Books, Receipt
from cascade.gateway.chat import router_for
from cascade.gateway.http import Request, Response
from cascade.gateway.lanes import Lane
from cascade.gateway.refusals import bad_request, refusal_of_decision
from cascade.types import Decision, Query, Usage

MOST_INPUTS = 1000


@dataclass(frozen=True)
class Predict:
    """Answers batches: an item that fails carries its error, the others their labels."""

    books: Books

    async def answer(self, request: Request, lane: Lane) -> Response:
        """One result an input, in order.

        Raises
        ------
        Refusal
            400: malformed, or more than ``MOST_INPUTS`` inputs.
        """
        inputs = wire.decode(request.body, wire.PredictRequest).inputs
        if len(inputs) > MOST_INPUTS:
            message = f"{len(inputs)} inputs: send at most {MOST_INPUTS} a call"
            raise bad_request(message, param="inputs")
        router = router_for(lane, request.headers, self.books.metrics.latencies)
        visits = [self.books.visit(request, alone=False) for _ in inputs]
        queries = [
            Query(visit.id, ({"role": "user", "content": text},))
            for visit, text in zip(visits, inputs, strict=True)
        ]
        decisions = await router.route_many(queries)
        results = [
            _result(self.books.enter(visit, lane, decision), decision)
            for visit, decision in zip(visits, decisions, strict=True)
        ]
        usage = sum((one.usage for one in decisions), Usage())
        if self.books.tracing is not None:
            self.books.tracing.decided_many(lane.task.name, len(decisions), usage)
        return Response(_body(lane, results, usage))


def _result(receipt: Receipt, decision: Decision) -> Mapping[str, Any]:
    result: dict[str, Any] = {
        "label": receipt.label,
        "confidence": receipt.confidence,
        "tier": receipt.tier,
        "reason": receipt.reason,
        "decision_id": receipt.decision_id,
    }
    if decision.answer is None:
        refusal = refusal_of_decision(decision)
        result["error"] = {"message": refusal.message, "code": refusal.code}
    return result


def _body(lane: Lane, results: list[Mapping[str, Any]], usage: Usage) -> bytes:
    return msgspec.json.encode(
        {
            "object": "list",
            "model": f"task/{lane.task.name}",
            "proxy_version": lane.version,
            "data": results,
            "usage": {**wire.usage_json(usage), "cost_usd": usage.dollars},
        }
    )
