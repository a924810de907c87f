"""``POST /v1/chat/completions`` for a typed task: one label from the cheapest tier that may."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from cascade.gateway import wire
from cascade.gateway.books import Books
from cascade.gateway.http import Reply, Request, Response, Stream
from cascade.gateway.lanes import Lane
from cascade.gateway.latencies import Latencies
from cascade.gateway.refusals import bad_request, refusal_of_decision
from cascade.policies import Hurried
from cascade.router import Router

FORCE_TIER = "x-cascade-tier"
BUDGET = "x-slo-ttft-ms"
LONGEST_BUDGET_MS = 3_600_000


@dataclass(frozen=True)
class TypedChat:
    """Answers chat requests whose ``model`` is ``task/<name>``."""

    books: Books

    async def answer(self, request: Request, fields: dict[str, Any], lane: Lane) -> Reply:
        """A completion, or the events of one. fields : of the request's body.

        Raises
        ------
        Refusal
            Malformed, asking for what a label does not have, or no tier could answer.
        """
        typed, extra = wire.read_typed(fields)
        form = wire.format_for(typed, lane.task.labels)
        router = router_for(lane, request.headers, self.books.metrics.latencies)
        visit = self.books.visit(request)
        decision = await router.route(wire.query_of(typed, extra, visit.id))
        headers = self.books.enter(visit, lane, decision).headers()
        if decision.answer is None:
            raise refusal_of_decision(decision, headers)
        completion = wire.Completion(
            id=f"chatcmpl-{visit.id}",
            model=typed.model,
            created=int(time.time()),
            content=form.write(decision.answer.text),
            usage=decision.usage,
        )
        if typed.stream:
            return Stream(_as_they_come(completion.events(typed.wants_usage)), headers)
        return Response(completion.whole(), headers=headers)


def router_for(lane: Lane, headers: Mapping[str, str], latencies: Latencies) -> Router:
    """The lane's own router, the one tier that the request forces, or the one for its budget.

    Raises
    ------
    Refusal
        400: the lane has no such tier now, or the budget is no time.
    """
    tier, budget = headers.get(FORCE_TIER), headers.get(BUDGET)
    if tier is not None:
        return _forced(lane, tier)
    if budget is None:
        return lane.router
    policy = Hurried(lane.router.policy, lane.teacher, _seconds(budget), latencies.expected())
    return Router(lane.router.tiers, policy)


def _forced(lane: Lane, tier: str) -> Router:
    if tier not in lane.router.tiers:
        known = ", ".join(lane.router.tiers)
        message = f"task {lane.task.name} has no tier {tier[:40]!r} now; there are: {known}"
        raise bad_request(message, param=FORCE_TIER, code="tier_not_found")
    return lane.forced(tier)


def _seconds(budget: str) -> float:
    if not budget.isdecimal() or not 0 < int(budget) <= LONGEST_BUDGET_MS:
        message = f"{BUDGET} is {budget[:40]!r}: send milliseconds, such as 300"
        raise bad_request(message, param=BUDGET)
    return int(budget) / 1000


async def _as_they_come(events: Iterator[bytes]) -> AsyncGenerator[bytes]:
    for event in events:
        yield event
