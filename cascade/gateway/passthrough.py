"""``POST /v1/chat/completions`` for a tier or a model by its name: the request as it came.

Bytes go through as they came, both ways; only ``model`` is replaced where the tier knows it by
another name. A stream's usage is always asked for, because somebody has to know what it cost, and
kept back from a caller who did not ask.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Protocol

import msgspec

from cascade import reasons
from cascade.errors import TierError, TierUnavailable
from cascade.gateway import wire
from cascade.gateway.admission import Gate
from cascade.gateway.books import Books, Receipt, Visit
from cascade.gateway.chat import FORCE_TIER
from cascade.gateway.events import UsageFilter
from cascade.gateway.http import Reply, Request, Response, Stream
from cascade.gateway.refusals import bad_request, refusal_of
from cascade.tiers.labels import usage_of
from cascade.tiers.responses import Forwarded
from cascade.types import Price, Usage

TOKEN_BYTES = 4
"""Of a request's JSON, in the mean: for streams that end before their usage is known."""


class Upstream(Protocol):
    """What the gateway needs of an OpenAI-compatible endpoint; ``tiers.Endpoint`` is one."""

    async def forward(self, body: bytes) -> Forwarded: ...

    def stream(self, body: bytes) -> AsyncGenerator[bytes]: ...

    async def models(self) -> list[str]: ...

    async def close(self) -> None: ...


@dataclass(frozen=True)
class NamedModel:
    """An LLM tier that callers may ask by name.

    tier : its name in ``gateway.yaml``. model : what stands behind it. gate : its queue.
    """

    tier: str
    model: str
    upstream: Upstream
    price: Price = Price()
    gate: Gate = field(default_factory=lambda: Gate(places=1024, wait_seconds=60.0))


@dataclass(frozen=True)
class PassThrough:
    """Answers chat requests whose ``model`` is a tier or a model behind one."""

    models: Sequence[NamedModel]
    books: Books

    def find(self, name: str) -> NamedModel | None:
        """The model with this name, or of the tier with this name."""
        return next((one for one in self.models if name in (one.tier, one.model)), None)

    async def answer(self, request: Request, fields: dict[str, Any], model: NamedModel) -> Reply:
        """What the model says. fields : of the request's body.

        Raises
        ------
        Refusal
            400: malformed, or a forced tier that is not there.
        TierError
            The endpoint refused or did not answer.
        """
        model, reason = self._forced(request, model)
        passage = Passage(self.books.visit(request), model, reason, self.books)
        match fields.get("stream"):
            case True:
                return passage.stream(fields)
            case False | None:
                return await passage.whole(_renamed(request.body, fields, model.model))
        raise bad_request("stream is neither true nor false", param="stream")

    def _forced(self, request: Request, model: NamedModel) -> tuple[NamedModel, str]:
        tier = request.headers.get(FORCE_TIER)
        if tier is None:
            return model, reasons.PASSTHROUGH
        allowed = [one for one in self.models if request.tenant.may(one.tier, one.model)]
        for one in allowed:
            if one.tier == tier:
                return one, reasons.FORCED
        known = ", ".join(one.tier for one in allowed)
        message = f"there is no LLM tier {tier[:40]!r}; there are: {known}"
        raise bad_request(message, param=FORCE_TIER, code="tier_not_found")


class Passage(msgspec.Struct, frozen=True):
    """One request on its way through."""

    visit: Visit
    model: NamedModel
    reason: str
    books: Books

    async def whole(self, body: bytes) -> Response:
        """The completion, unchanged."""
        started = time.perf_counter()
        try:
            async with self.model.gate.place():
                with self.books.metrics.inside(self.model.tier):
                    found = await self.model.upstream.forward(body)
        except TierError as exc:
            self._enter(_failed(self._receipt(), exc), Usage())
            raise
        usage = self._usage(found.usage, started)
        receipt = self._receipt(usage.seconds, usage.dollars)
        self._enter(receipt, usage)
        return Response(found.body, headers=receipt.headers())

    def stream(self, fields: Mapping[str, Any]) -> Stream:
        """The events of a completion, as they come."""
        options = fields.get("stream_options") or {}
        if not isinstance(options, Mapping):
            raise bad_request("stream_options is not an object", param="stream_options")
        asked = {
            **fields,
            "model": self.model.model,
            "stream_options": {**options, "include_usage": True},
        }
        receipt = self._receipt()
        events = UsageFilter(wanted=bool(options.get("include_usage")))
        return Stream(self._events(msgspec.json.encode(asked), events, receipt), receipt.headers())

    async def _events(
        self, body: bytes, events: UsageFilter, receipt: Receipt
    ) -> AsyncGenerator[bytes]:
        """Forward, and in the end, however it comes, write down what was used."""
        begun = False
        started = time.perf_counter()
        async with self.model.gate.place():  # who is sent away is not entered: no tier was asked
            try:
                async with aclosing(self._pieces(body, events)) as pieces:
                    async for piece in pieces:
                        begun = True
                        yield piece
            except TierError as exc:
                receipt = _failed(receipt, exc)
                if not begun:  # nothing was sent yet: the caller gets a status of its own
                    raise
                yield b"data: " + refusal_of(exc).body + b"\n\n"
                yield wire.DONE
            finally:
                # who leaves before the engine says what it used has used it all the same
                said = events.usage or (_counted(body, events) if receipt.tier else {})
                self._enter(receipt, self._usage(said, started))

    async def _pieces(self, body: bytes, events: UsageFilter) -> AsyncGenerator[bytes]:
        metrics, tier = self.books.metrics, self.model.tier
        rhythm = metrics.rhythm(tier, self.visit.started)
        with metrics.inside(tier):
            async with aclosing(self.model.upstream.stream(body)) as pieces:
                async for piece in pieces:
                    if whole := events.feed(piece):
                        rhythm.beat()
                        yield whole
            if rest := events.rest():
                yield rest
        if not events.ended:
            raise TierUnavailable(f"the stream of {tier} ended without [DONE]; ask again")

    def _usage(self, said: Mapping[str, Any], started: float) -> Usage:
        return usage_of({"usage": said}, self.model.price, time.perf_counter() - started)

    def _enter(self, receipt: Receipt, usage: Usage) -> None:
        self.books.enter_passthrough(self.visit, receipt, usage)

    def _receipt(self, tier_seconds: float = 0.0, dollars: float | None = None) -> Receipt:
        return Receipt(
            decision_id=self.visit.id,
            reason=self.reason,
            overhead_seconds=max(self.visit.seconds - tier_seconds, 0.0),
            dollars=dollars,
            tier=self.model.tier,
            model=self.model.model,
        )


def _renamed(body: bytes, fields: Mapping[str, Any], model: str) -> bytes:
    """The body with the name by which the endpoint knows the model."""
    return body if fields["model"] == model else msgspec.json.encode({**fields, "model": model})


def _counted(body: bytes, events: UsageFilter) -> Mapping[str, int]:
    """The usage of a stream whose engine did not say it: an event is a token or more."""
    return {"prompt_tokens": len(body) // TOKEN_BYTES, "completion_tokens": events.events}


def _failed(receipt: Receipt, error: TierError) -> Receipt:
    return msgspec.structs.replace(receipt, reason=refusal_of(error).code, tier=None)
