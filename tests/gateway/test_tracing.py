"""OpenTelemetry: one trace a request, from the caller to the engine, and never a prompt in it."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import aiohttp
import msgspec
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span as SentSpan
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from yarl import URL

from cascade import config
from cascade.certify import Certificate
from cascade.config import GatewayConfig
from cascade.errors import MissingExtra
from cascade.gateway.lanes import Lanes
from cascade.gateway.observe import Metrics
from cascade.gateway.tracing import TracedTier, Tracing, open_tracing
from cascade.gateway.wiring import build_services
from cascade.router import Router
from cascade.tiers.endpoint import Endpoint
from cascade.types import Answer, Query, Reply, Usage
from cascade.upstream import AiohttpTransport, PlainTransport
from cascade.upstream.trace import TRACE

from .conftest import Build, House, lane_of, send, typed, until

TRACE_ID, CALLER_SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
CALLER = f"00-{TRACE_ID}-{CALLER_SPAN}-01"
SECRET = "a secret that a caller typed"
PASSED = {"model": "large", "messages": [{"role": "user", "content": SECRET}], "stream": False}


class Listener:
    """An HTTP server on loopback that keeps what it is sent, and answers every POST alike."""

    def __init__(self, answer: bytes = b"", status: int = 200) -> None:
        self.bodies: list[bytes] = []
        self.headers: list[dict[str, str]] = []
        outer = self

        class Answering(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                outer.headers.append({name.lower(): text for name, text in self.headers.items()})
                outer.bodies.append(self.rfile.read(int(self.headers["content-length"])))
                self.send_response(status)
                self.send_header("content-length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_: object) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Answering)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Listener:
        self._thread = Thread(target=self._server.serve_forever)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


COMPLETION = {
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "fine"}}],
    "usage": {
        "prompt_tokens": 10,
        "completion_tokens": 2,
        "prompt_tokens_details": {"cached_tokens": 6},
    },
}


class OverHttp:
    """A teacher behind a real endpoint."""

    name = "large"

    def __init__(self, url: str) -> None:
        self.endpoint = Endpoint("big-b", [f"{url}/v1"], attempts=1)

    async def answer(self, queries: list[Query]) -> list[Reply]:
        for query in queries:
            await self.endpoint.chat({"messages": list(query.messages)})
        return [Answer(self.name, "no", 1.0, Usage(7, 3, 1, 0.01, 0.5)) for _ in queries]


class Traced:
    """A house whose spans stay in memory."""

    def __init__(self, house: House, kept: InMemorySpanExporter) -> None:
        self.house = house
        self._kept = kept

    def spans(self, n: int) -> list[ReadableSpan]:
        """When so many have ended; the server's own span is the last one."""
        until(lambda: len(self._kept.get_finished_spans()) >= n)
        assert len(self._kept.get_finished_spans()) == n
        return list(self._kept.get_finished_spans())

    def forget(self) -> None:
        self._kept.clear()

    def all_text(self) -> str:
        return "".join(span.to_json() for span in self._kept.get_finished_spans())


@contextmanager
def tracing_house(
    open_house: Build, certificate: Certificate, *, content: bool = False, **tiers: Any
) -> Iterator[Traced]:
    kept, provider, metrics = InMemorySpanExporter(), TracerProvider(), Metrics()
    provider.add_span_processor(SimpleSpanProcessor(kept))
    tracing = Tracing(provider, content=content)
    lane = lane_of(certificate, metrics, **tiers)
    router = Router(tracing.tiers(lane.router.tiers), lane.router.policy)
    lanes = Lanes({"mood": replace(lane, router=router)})
    with open_house(lanes=lanes, metrics=metrics, tracing=tracing) as house:
        yield Traced(house, kept)
    provider.shutdown()


@pytest.fixture
def traced(open_house: Build, certificate: Certificate) -> Iterator[Traced]:
    with tracing_house(open_house, certificate) as one:
        yield one


@pytest.fixture
async def engine() -> AsyncIterator[Listener]:
    with Listener(json.dumps(COMPLETION).encode()) as one:
        yield one


async def test_a_request_is_one_trace(traced: Traced) -> None:
    got = await send(
        f"{traced.house.v1}/chat/completions",
        typed("hard"),
        traceparent=CALLER,
        tracestate="vendor=1",
    )
    proxy, small, large, server = traced.spans(4)
    assert [one.name for one in (proxy, small, large, server)] == [
        "classify proxy",
        "chat small",
        "chat large",
        "chat task/mood",
    ]
    assert server.kind is SpanKind.SERVER and large.kind is SpanKind.CLIENT
    for child in (proxy, small, large):
        assert child.parent and child.parent.span_id == server.context.span_id
        assert server.start_time <= child.start_time <= child.end_time <= server.end_time
    assert server.parent is not None
    assert f"{server.parent.span_id:016x}" == CALLER_SPAN
    assert {f"{one.context.trace_id:032x}" for one in (proxy, small, large, server)} == {TRACE_ID}
    told = dict(server.attributes or {})
    assert told["cascade.decision_id"] == got.headers["x-cascade-decision-id"]
    assert (told["cascade.reason"], told["cascade.tier"]) == ("below_threshold", "large")
    assert (told["gen_ai.operation.name"], told["gen_ai.provider.name"]) == ("chat", "cascade")
    assert (told["gen_ai.request.model"], told["gen_ai.response.model"]) == ("task/mood", "big-b")
    assert told["gen_ai.usage.input_tokens"] == 200  # of both LLM tiers
    assert told["gen_ai.usage.cache_read.input_tokens"] == 160
    assert told["cascade.task"] == "mood" and told["cascade.confidence"] == 1.0
    assert dict(small.attributes or {})["cascade.confidence"] == 0.3


async def test_an_answer_of_the_proxy_asks_nobody_else(traced: Traced) -> None:
    await send(f"{traced.house.v1}/chat/completions", typed("easy"))
    proxy, server = traced.spans(2)
    assert proxy.kind is SpanKind.INTERNAL and server.parent is None
    assert dict(server.attributes or {})["cascade.reason"] == "certified"
    assert server.status.status_code is StatusCode.UNSET


async def test_a_failure_is_marked_as_one(traced: Traced) -> None:
    await send(f"{traced.house.v1}/chat/completions", typed("never heard"))
    *_, server = traced.spans(3)
    assert server.status.status_code is StatusCode.ERROR
    assert dict(server.attributes or {})["error.type"] == "tier_unavailable"


async def test_a_mistake_of_the_caller_is_not_ours(traced: Traced) -> None:
    await send(f"{traced.house.v1}/chat/completions", {"model": "nobody", "messages": []})
    [server] = traced.spans(1)
    assert server.name == "chat"  # what a caller invents must not become a name
    assert dict(server.attributes or {})["error.type"] == "model_not_found"
    assert server.status.status_code is StatusCode.UNSET


@pytest.mark.parametrize("stream", [False, True])
async def test_what_is_passed_through(traced: Traced, stream: bool) -> None:
    await send(f"{traced.house.v1}/chat/completions", {**PASSED, "stream": stream})
    client, server = traced.spans(2)
    assert (client.kind, client.name) == (SpanKind.CLIENT, "chat big-b")
    assert client.parent and client.parent.span_id == server.context.span_id
    told = dict(server.attributes or {})
    assert told["gen_ai.usage.input_tokens"] == 10 and told["gen_ai.usage.output_tokens"] == 2
    assert told.get("gen_ai.request.stream", False) is stream
    assert told["cascade.reason"] == "passthrough"


async def test_an_engine_that_fails(traced: Traced) -> None:
    for status, code, blamed in (
        (500, "tier_unavailable", StatusCode.ERROR),
        (400, "unsupported_input", StatusCode.UNSET),
    ):
        traced.forget()
        traced.house.engine.status = status
        await send(f"{traced.house.v1}/chat/completions", PASSED)
        _, server = traced.spans(2)
        assert dict(server.attributes or {})["error.type"] == code
        assert server.status.status_code is blamed


async def test_a_stream_that_breaks_off(traced: Traced) -> None:
    traced.house.engine.breaks_off = True
    await send(f"{traced.house.v1}/chat/completions", {**PASSED, "stream": True})
    _, server = traced.spans(2)
    assert server.status.status_code is StatusCode.ERROR


async def test_a_caller_who_leaves_in_the_middle(traced: Traced) -> None:
    traced.house.engine.pause_seconds = 0.5
    body = {**PASSED, "stream": True}
    async with aiohttp.ClientSession() as session:
        answer = await session.post(f"{traced.house.v1}/chat/completions", json=body)
        await answer.content.readany()
        answer.close()
    await asyncio.to_thread(traced.spans, 2)
    server = traced.spans(2)[-1]
    assert server.kind is SpanKind.SERVER
    assert dict(server.attributes or {})["error.type"] in {"CancelledError", "GeneratorExit"}
    assert server.status.status_code is StatusCode.UNSET


async def test_a_batch_is_one_trace(traced: Traced) -> None:
    inputs = {"inputs": ["easy", "middle", "hard"]}
    await send(f"{traced.house.v1}/tasks/mood/predict", inputs)
    spans = traced.spans(4)
    asked = {span.name: dict(span.attributes or {})["cascade.queries"] for span in spans}
    assert asked == {"classify proxy": 3, "chat small": 2, "chat large": 1, "chat task/mood": 3}
    assert dict(spans[-1].attributes or {})["gen_ai.usage.input_tokens"] == 300


async def test_no_text_leaves_unless_it_is_wanted(
    open_house: Build, certificate: Certificate
) -> None:
    for content in (False, True):
        with tracing_house(open_house, certificate, content=content) as traced:
            await send(f"{traced.house.v1}/chat/completions", PASSED)
            await send(f"{traced.house.v1}/chat/completions", typed(SECRET))  # nobody can answer
            traced.spans(5)
            assert (SECRET in traced.all_text()) is content
            assert ("from big-b" in traced.all_text()) is content


async def test_a_batch_and_nonsense_as_content(open_house: Build, certificate: Certificate) -> None:
    with tracing_house(open_house, certificate, content=True) as traced:
        await send(f"{traced.house.v1}/tasks/mood/predict", {"inputs": ["easy"]})
        await send(f"{traced.house.v1}/chat/completions", b"[no json")
        await send(f"{traced.house.v1}/chat/completions", {"model": "large", "messages": 3})
        traced.spans(5)
        assert "easy" in traced.all_text()


async def test_the_engine_hears_of_its_own_span(
    open_house: Build, certificate: Certificate, engine: Listener
) -> None:
    """Not of the caller's: then the engine's time would hang beside the tier's, not below it."""
    teacher = OverHttp(engine.url)
    with tracing_house(open_house, certificate, large=teacher) as traced:
        await send(f"{traced.house.v1}/chat/completions", typed("hard"), traceparent=CALLER)
        large = next(span for span in traced.spans(4) if span.name == "chat large")
    assert engine.headers[0]["traceparent"] == f"00-{TRACE_ID}-{large.context.span_id:016x}-01"


async def test_what_the_caller_does_not_sample_is_not_kept_but_goes_on(
    open_house: Build, certificate: Certificate, engine: Listener
) -> None:
    teacher = OverHttp(engine.url)
    with tracing_house(open_house, certificate, large=teacher) as traced:
        unsampled = CALLER.removesuffix("01") + "00"
        await send(f"{traced.house.v1}/chat/completions", typed("hard"), traceparent=unsampled)
        assert traced.spans(0) == []
    heard = engine.headers[0]["traceparent"]
    assert heard.startswith(f"00-{TRACE_ID}-") and heard.endswith("-00")


async def test_a_hostile_traceparent_is_nobodys(traced: Traced) -> None:
    await send(f"{traced.house.v1}/chat/completions", typed("easy"), traceparent="00-zz-zz-01")
    assert traced.spans(2)[-1].parent is None


@pytest.mark.parametrize("kind", [PlainTransport, AiohttpTransport])
async def test_both_clients_send_the_trace(kind: Any, engine: Listener) -> None:
    url = URL(engine.url)
    client = kind(url.host, url.port, {}) if kind is PlainTransport else kind(engine.url, {})
    for fields in ({}, {"traceparent": CALLER, "tracestate": "vendor=1"}, {}):
        before = TRACE.set(fields)
        incoming = await client.open("POST", "/v1/chat/completions", b"{}")
        while await incoming.next_chunk():
            pass
        TRACE.reset(before)
    await client.close()
    assert [heard.get("traceparent") for heard in engine.headers] == [None, CALLER, None]
    assert engine.headers[1]["tracestate"] == "vendor=1"
    assert engine.bodies == [b"{}"] * 3


def sent(receiver: Listener) -> list[SentSpan]:
    """What arrived at a receiver, decoded as OTLP."""
    found = []
    for body in receiver.bodies:
        request = ExportTraceServiceRequest.FromString(body)
        for resource in request.resource_spans:
            names = {one.key: one.value.string_value for one in resource.resource.attributes}
            assert names["service.name"] == "cascade"
            found += [span for scope in resource.scope_spans for span in scope.spans]
    return found


async def test_spans_arrive_over_otlp(open_house: Build, certificate: Certificate) -> None:
    with Listener() as receiver:
        with ExitStack() as stack:
            tracing = open_tracing(config.Tracing(endpoint=f"{receiver.url}/"), stack)
            with open_house(tracing=tracing) as house:
                url = f"{house.v1}/chat/completions"
                assert (await send(url, PASSED, traceparent=CALLER)).status == 200
            await asyncio.to_thread(stack.close)  # sends what is left
        client, server = sorted(sent(receiver), key=lambda span: span.kind, reverse=True)
    assert server.trace_id.hex() == TRACE_ID and server.parent_span_id.hex() == CALLER_SPAN
    assert client.parent_span_id == server.span_id
    told = {one.key: one.value for one in server.attributes}
    assert told["gen_ai.request.model"].string_value == "big-b"
    assert told["gen_ai.usage.input_tokens"].int_value == 10
    assert receiver.headers[0]["content-type"] == "application/x-protobuf"
    assert SECRET.encode() not in b"".join(receiver.bodies)


async def test_a_dead_collector_holds_nobody_up(
    open_house: Build, certificate: Certificate, caplog: pytest.LogCaptureFixture
) -> None:
    with ExitStack() as stack:
        tracing = open_tracing(config.Tracing(endpoint="http://127.0.0.1:1"), stack)
        with open_house(tracing=tracing) as house:
            got = await send(f"{house.v1}/chat/completions", typed("easy"))
            assert got.status == 200
        started = time.monotonic()
        await asyncio.to_thread(stack.close)
        assert time.monotonic() - started < 6
    assert SECRET not in caplog.text


def test_off_is_not_even_imported() -> None:
    program = """
import sys, cascade.gateway.wiring
print(*sys.modules)
import cascade.gateway.tracing
print(*sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    off, on = (set(line.split()) for line in done.stdout.splitlines())
    ours = {"cascade.gateway.tracing", "opentelemetry.sdk", "opentelemetry.exporter"}
    assert ours.isdisjoint(off) and ours <= on


def settings(folder: Path) -> GatewayConfig:
    """One task, one tier that nobody serves, and tracing on."""
    (folder / "recipes").mkdir()
    recipe = {
        "name": "spam",
        "kind": "filter",
        "prompt": "Is it spam?",
        "source": {"table": "none.csv", "text": "text"},
    }
    (folder / "recipes" / "spam.yaml").write_text(json.dumps(recipe))
    return GatewayConfig(
        version=1,
        tiers=config.Tiers(config.LanguageModel("m", replicas=("http://127.0.0.1:1/v1",))),
        tasks=str(folder / "recipes"),
        store=f"sqlite:///{folder}/cascade.db",
        registry=str(folder / "registry"),
        tracing=config.Tracing(endpoint="http://127.0.0.1:4318"),
    )


def test_every_tier_is_wired_with_its_span(models_dir: Path, tmp_path: Path) -> None:
    wired = msgspec.structs.replace(settings(tmp_path), models=str(models_dir))
    with ExitStack() as stack:
        services = build_services(wired, stack)
        lane = services.lanes.get("spam")
        assert lane is not None and isinstance(lane.router.tiers["large"], TracedTier)
        assert services.books.tracing is services.tracing is not None


def test_on_without_the_extra_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, models_dir: Path, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "cascade.gateway.tracing", None)
    wired = msgspec.structs.replace(settings(tmp_path), models=str(models_dir))
    with ExitStack() as stack, pytest.raises(MissingExtra, match=r"cascade-router\[otel\]"):
        build_services(wired, stack)
