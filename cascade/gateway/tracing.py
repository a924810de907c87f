"""Tell OpenTelemetry what became of a request, in the words of its GenAI conventions.

Knows spans; imported only where tracing is on. Spans leave in batches, from a thread of their own.
What was asked and answered stays here unless the operator opts in.
"""

from __future__ import annotations

import os
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping
from contextlib import ExitStack, aclosing, contextmanager
from typing import Any

import msgspec
from opentelemetry import context, trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span, SpanKind, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from cascade import config
from cascade.benches import PROXY
from cascade.errors import CascadeError
from cascade.gateway.books import Receipt
from cascade.gateway.http import Reply, Request, Stream
from cascade.gateway.refusals import UNANSWERED, Refusal, refusal_of
from cascade.types import Abstention, Query, Tier, Usage
from cascade.types import Reply as TierReply
from cascade.upstream.trace import TRACE

SERVICE = "cascade"
NANO = 1_000_000_000
EXPORT_SECONDS = 3.0
"""For one batch, tries and pauses together; so long a dead collector can hold up the end."""

Route = Callable[[Request], Awaitable[Reply]]


class Tracing:
    """Spans of one gateway.

    Parameters
    ----------
    provider : owned by the caller, who shuts it down.
    content : whether prompts and answers go along.
    """

    def __init__(self, provider: TracerProvider, *, content: bool = False) -> None:
        self._tracer = provider.get_tracer(SERVICE)
        self._propagator = TraceContextTextMapPropagator()
        self._content = content

    def around(self, route: Route) -> Route:
        """The same route in a server span, below the trace that the caller is in."""

        async def traced(request: Request) -> Reply:
            span = self._begin(request)
            try:
                reply = await route(request)
            except BaseException as exc:
                _fail(span, exc)
                span.end()
                raise
            if isinstance(reply, Stream):
                span.set_attribute("gen_ai.request.stream", True)
                return msgspec.structs.replace(reply, events=_until_its_end(span, reply.events))
            if self._content:
                span.set_attribute("gen_ai.output.messages", _answer_in(reply.body))
            span.end()
            return reply

        return traced

    def tiers(self, tiers: Mapping[str, Tier]) -> dict[str, Tier]:
        """The same tiers, and every question to one of them is a span."""
        return {name: TracedTier(tier, self) for name, tier in tiers.items()}

    def decided(self, task: str, receipt: Receipt, usage: Usage) -> None:
        """What a task's request came to."""
        span = trace.get_current_span()
        _describe(span, f"task/{task}", receipt, usage)
        span.set_attribute("cascade.task", task)

    def decided_many(self, task: str, queries: int, usage: Usage) -> None:
        """What a batch used together; each of its decisions is in the store."""
        span = trace.get_current_span()
        span.update_name(f"chat task/{task}")
        span.set_attributes({"gen_ai.request.model": f"task/{task}", **_usage(usage)})
        span.set_attributes({"cascade.task": task, "cascade.queries": queries})

    def passed(self, receipt: Receipt, usage: Usage) -> None:
        """What a request came to that was passed through, and the engine's part of it."""
        span = trace.get_current_span()
        if not span.is_recording():
            return
        model = receipt.model or ""
        _describe(span, model, receipt, usage)
        ended = time.time_ns()
        started = ended - int(usage.seconds * NANO)
        child = self._tracer.start_span(f"chat {model}", kind=SpanKind.CLIENT, start_time=started)
        _describe(child, model, receipt, usage)
        child.set_attribute("gen_ai.provider.name", "openai")
        child.end(ended)

    @contextmanager
    def asking(self, tier: str) -> Iterator[Span]:
        """While a tier is asked on behalf of a request; an audit is nobody's request."""
        if not trace.get_current_span().is_recording():
            yield trace.INVALID_SPAN
            return
        what = {"gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai"}
        if tier == PROXY:
            what = {"gen_ai.operation.name": "classify", "gen_ai.provider.name": SERVICE}
        name = f"{what['gen_ai.operation.name']} {tier}"
        kind = SpanKind.INTERNAL if tier == PROXY else SpanKind.CLIENT
        with self._tracer.start_as_current_span(name, kind=kind, attributes=what) as span:
            before = TRACE.set(self._fields())
            try:
                yield span
            finally:
                TRACE.reset(before)

    def _begin(self, request: Request) -> Span:
        """Never detached: the task, and its context with it, ends with the request."""
        parent = self._propagator.extract(request.headers)
        attributes = {"gen_ai.operation.name": "chat", "gen_ai.provider.name": SERVICE}
        span = self._tracer.start_span(
            "chat", context=parent, kind=SpanKind.SERVER, attributes=attributes
        )
        span.set_attribute("cascade.request_id", request.id)
        if self._content:
            span.set_attribute("gen_ai.input.messages", _question_in(request.body))
        context.attach(trace.set_span_in_context(span, parent))
        TRACE.set(self._fields())
        return span

    def _fields(self) -> Mapping[str, str]:
        fields: dict[str, str] = {}
        self._propagator.inject(fields)
        return fields


class TracedTier:
    """A tier whose every question is a span: the same answers."""

    def __init__(self, tier: Tier, tracing: Tracing) -> None:
        self.name = tier.name
        self._tier = tier
        self._tracing = tracing

    async def answer(self, queries: list[Query]) -> list[TierReply]:
        """What the traced tier answers."""
        with self._tracing.asking(self.name) as span:
            replies = await self._tier.answer(queries)
            _describe_replies(span, self.name, replies)
        return replies


def open_tracing(settings: config.Tracing, stack: ExitStack) -> Tracing:
    """Export to ``settings.endpoint`` until ``stack`` is closed, then send what is left.

    ``OTEL_SERVICE_NAME``, ``OTEL_TRACES_SAMPLER`` and the rest of OpenTelemetry's environment hold.
    """
    named = {} if "OTEL_SERVICE_NAME" in os.environ else {SERVICE_NAME: SERVICE}
    provider = TracerProvider(resource=Resource.create(named), shutdown_on_exit=False)
    address = f"{(settings.endpoint or '').rstrip('/')}/v1/traces"
    exporter = OTLPSpanExporter(address, timeout=EXPORT_SECONDS)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    stack.callback(provider.shutdown)
    return Tracing(provider, content=settings.trace_content)


def _describe(span: Span, model: str, receipt: Receipt, usage: Usage) -> None:
    span.update_name(f"chat {model}")
    attributes = {
        "gen_ai.request.model": model,
        "gen_ai.response.model": receipt.model,
        **_usage(usage),
        "cascade.decision_id": receipt.decision_id,
        "cascade.reason": receipt.reason,
        "cascade.tier": receipt.tier,
        "cascade.confidence": receipt.confidence,
        "cascade.proxy_version": receipt.proxy_version,
        "cascade.overhead_seconds": receipt.overhead_seconds,
        "cascade.dollars": usage.dollars,
    }
    span.set_attributes({name: value for name, value in attributes.items() if value is not None})
    if receipt.tier is None:
        span.set_attribute("error.type", receipt.reason)
        if receipt.reason in UNANSWERED:
            span.set_status(StatusCode.ERROR)


def _describe_replies(span: Span, tier: str, replies: list[TierReply]) -> None:
    """Of one query as a rule; of a batch, what it used together and how many abstained."""
    span.set_attributes({"gen_ai.request.model": tier, "cascade.queries": len(replies)})
    span.set_attributes(_usage(sum((reply.usage for reply in replies), Usage())))
    abstentions = [reply for reply in replies if isinstance(reply, Abstention)]
    span.set_attribute("cascade.abstentions", len(abstentions))
    if abstentions:
        span.set_attribute("cascade.reason", abstentions[0].reason)
    if len(replies) == 1 and not isinstance(replies[0], Abstention):
        span.set_attribute("cascade.confidence", replies[0].confidence)


def _usage(usage: Usage) -> dict[str, int]:
    return {
        "gen_ai.usage.input_tokens": usage.prompt_tokens,
        "gen_ai.usage.cache_read.input_tokens": usage.cached_tokens,
        "gen_ai.usage.output_tokens": usage.output_tokens,
    }


def _fail(span: Span, error: BaseException) -> None:
    """Below 500 it is the caller's mistake, and one who leaves makes none. The message stays here:
    it may quote a prompt."""
    if isinstance(error, CascadeError):
        error = refusal_of(error)
    if isinstance(error, Refusal):
        span.set_attribute("error.type", error.code)
        ours = error.status >= 500
    else:
        span.set_attribute("error.type", type(error).__qualname__)
        ours = isinstance(error, Exception)  # a cancelled task is not
    if ours:
        span.set_status(StatusCode.ERROR)


async def _until_its_end(span: Span, events: AsyncGenerator[bytes]) -> AsyncGenerator[bytes]:
    try:
        async with aclosing(events):
            async for event in events:
                yield event
    except BaseException as exc:
        _fail(span, exc)
        raise
    finally:
        span.end()


def _question_in(body: bytes) -> str:
    """``gen_ai.input.messages`` of a request; empty where it cannot be read."""
    try:
        fields: dict[str, Any] = msgspec.json.decode(body)
        asked = fields.get("messages") or [
            {"role": "user", "content": text} for text in fields.get("inputs", [])
        ]
        return _messages(asked)
    except (msgspec.DecodeError, AttributeError, TypeError):
        return "[]"


def _answer_in(body: bytes) -> str:
    """``gen_ai.output.messages`` of an answer; empty where it has no choices."""
    try:
        return _messages([one["message"] for one in msgspec.json.decode(body)["choices"]])
    except (msgspec.DecodeError, KeyError, TypeError):
        return "[]"


def _messages(messages: list[dict[str, Any]]) -> str:
    """OpenAI's messages in the shape of OpenTelemetry's: a role and parts."""
    shaped = [
        {"role": one.get("role"), "parts": [{"type": "text", "content": one.get("content")}]}
        for one in messages
    ]
    return msgspec.json.encode(shaped).decode()
