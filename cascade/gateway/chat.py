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
from cascade.gateway.refusals import bad_request, refusal_of_decision
from cascade.router import Router

FORCE_TIER = "x-cascade-tier"


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
        router = router_for(lane, request.headers)
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


def router_for(lane: Lane, headers: Mapping[str, str]) -> Router:
    """The lane's own router, or the one tier that the request forces.

    Raises
    ------
    Refusal
        400: the lane has no such tier now.
    """
    tier = headers.get(FORCE_TIER)
    if tier is None:
        return lane.router
    if tier not in lane.router.tiers:
        known = ", ".join(lane.router.tiers)
        message = f"task {lane.task.name} has no tier {tier[:40]!r} now; there are: {known}"
        raise bad_request(message, param=FORCE_TIER, code="tier_not_found")
    return lane.forced(tier)


async def _as_they_come(events: Iterator[bytes]) -> AsyncGenerator[bytes]:
    for event in events:
        yield event
