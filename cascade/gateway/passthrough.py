"""``POST /v1/chat/completions`` for a tier or a model by its name: the request as it came.

Only ``model`` is replaced. A stream is forwarded event by event; its usage is always asked for,
because somebody has to know what it cost, and kept back from a caller who did not ask.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any, Protocol

import msgspec

from cascade import reasons
from cascade.errors import TierError
from cascade.gateway import wire
from cascade.gateway.books import Books, Receipt, Visit
from cascade.gateway.chat import FORCE_TIER, visit_of
from cascade.gateway.events import EventSplitter, only_usage, usage_in
from cascade.gateway.http import Reply, Request, Response, Stream
from cascade.gateway.refusals import bad_request, refusal_of
from cascade.tiers.labels import usage_of
from cascade.types import Price, Usage


class Upstream(Protocol):
    """What the gateway needs of an OpenAI-compatible endpoint; ``tiers.Endpoint`` is one."""

    async def chat(self, body: Mapping[str, Any]) -> dict[str, Any]: ...

    def stream(self, body: Mapping[str, Any]) -> AsyncGenerator[bytes]: ...

    async def models(self) -> list[str]: ...

    async def close(self) -> None: ...


@dataclass(frozen=True)
class NamedModel:
    """An LLM tier that callers may ask by name.

    tier : its name in ``gateway.yaml``. model : what stands behind it.
    """

    tier: str
    model: str
    upstream: Upstream
    price: Price = Price()


@dataclass(frozen=True)
class PassThrough:
    """Answers chat requests whose ``model`` is a tier or a model behind one."""

    models: tuple[NamedModel, ...]
    books: Books

    def find(self, name: str) -> NamedModel | None:
        """The model with this name, or of the tier with this name."""
        return next((one for one in self.models if name in (one.tier, one.model)), None)

    async def answer(self, request: Request, model: NamedModel) -> Reply:
        """What the model says.

        Raises
        ------
        Refusal
            400: malformed, or a forced tier that is not there.
        TierError
            The endpoint refused or did not answer.
        """
        body = wire.decode(request.body, dict[str, Any])
        model, reason = self._forced(request, model)
        passage = Passage(visit_of(request), model, reason, self.books)
        return passage.stream(body) if body.get("stream") else await passage.whole(body)

    def _forced(self, request: Request, model: NamedModel) -> tuple[NamedModel, str]:
        tier = request.headers.get(FORCE_TIER)
        if tier is None:
            return model, reasons.PASSTHROUGH
        for one in self.models:
            if one.tier == tier:
                return one, reasons.FORCED
        known = ", ".join(one.tier for one in self.models)
        message = f"there is no LLM tier {tier[:40]!r}; there are: {known}"
        raise bad_request(message, param=FORCE_TIER, code="tier_not_found")


@dataclass(frozen=True)
class Passage:
    """One request on its way through."""

    visit: Visit
    model: NamedModel
    reason: str
    books: Books

    async def whole(self, body: Mapping[str, Any]) -> Response:
        """The completion, unchanged."""
        started = time.perf_counter()
        try:
            with self.books.metrics.inside(self.model.tier):
                completion = await self.model.upstream.chat(body)
        except TierError as exc:
            self._enter(_failed(self._receipt(), exc), Usage())
            raise
        usage = usage_of(completion, self.model.price, time.perf_counter() - started)
        receipt = replace(self._receipt(usage.seconds), dollars=usage.dollars)
        self._enter(receipt, usage)
        return Response(msgspec.json.encode(completion), headers=receipt.headers())

    def stream(self, body: Mapping[str, Any]) -> Stream:
        """The events of a completion, as they come."""
        options = body.get("stream_options") or {}
        if not isinstance(options, Mapping):
            raise bad_request("stream_options is not an object", param="stream_options")
        receipt = self._receipt()
        wants_usage = bool(options.get("include_usage"))
        asked = {**body, "stream_options": {**options, "include_usage": True}}
        return Stream(self._events(asked, wants_usage, receipt), receipt.headers())

    async def _events(
        self, body: Mapping[str, Any], wants_usage: bool, receipt: Receipt
    ) -> AsyncGenerator[bytes]:
        """Forward, and in the end, however it comes, write down what was used."""
        spent: Mapping[str, Any] = {}
        begun = False
        started = time.perf_counter()
        try:
            async with aclosing(self._timed_events(body)) as events:
                async for event in events:
                    spent = usage_in(event) or spent
                    if wants_usage or not only_usage(event):
                        begun = True
                        yield event
        except TierError as exc:
            receipt = _failed(receipt, exc)
            if not begun:  # nothing was sent yet: the caller gets a status of its own
                raise
            yield b"data: " + refusal_of(exc).body + b"\n\n"
            yield wire.DONE
        finally:
            seconds = time.perf_counter() - started
            self._enter(receipt, usage_of({"usage": spent}, self.model.price, seconds))

    async def _timed_events(self, body: Mapping[str, Any]) -> AsyncGenerator[bytes]:
        metrics, tier = self.books.metrics, self.model.tier
        events = whole_events(self.model.upstream.stream(body))
        with metrics.inside(tier):
            async with aclosing(metrics.timed(tier, self.visit.started, events)) as timed:
                async for event in timed:
                    yield event

    def _enter(self, receipt: Receipt, usage: Usage) -> None:
        self.books.enter_passthrough(self.visit, receipt, usage)

    def _receipt(self, tier_seconds: float = 0.0) -> Receipt:
        return Receipt(
            decision_id=self.visit.id,
            reason=self.reason,
            overhead_seconds=max(self.visit.seconds - tier_seconds, 0.0),
            tier=self.model.tier,
            model=self.model.model,
        )


def _failed(receipt: Receipt, error: TierError) -> Receipt:
    return replace(receipt, reason=refusal_of(error).code, tier=None)


async def whole_events(pieces: AsyncGenerator[bytes]) -> AsyncGenerator[bytes]:
    """Cut an engine's bytes into events."""
    splitter = EventSplitter()
    async with aclosing(pieces):
        async for piece in pieces:
            for event in splitter.feed(piece):
                yield event
    if rest := splitter.rest():
        yield rest
