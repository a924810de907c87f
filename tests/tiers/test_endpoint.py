"""The endpoint against real servers on loopback that misbehave."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import numpy as np
import pytest
from aiohttp import web

from cascade.errors import ConfigError, TierRejected, TierUnavailable
from cascade.tiers import endpoint as endpoint_module
from cascade.tiers import responses as responses_module
from cascade.tiers.endpoint import Endpoint
from cascade.tiers.replicas import Replicas
from cascade.tiers.responses import retry_after_seconds

Handle = Callable[[web.Request], Awaitable[web.StreamResponse]]
GOOD = {"choices": [{"message": {"content": "yes"}}]}
BODY = {"messages": [{"role": "user", "content": "fine"}]}
RAW = json.dumps({**BODY, "model": "m", "stream": True}).encode()
KEY = "sk-secret-0123456789"


class Server:
    """Answers its requests with one scripted behaviour after the other, then with the last."""

    def __init__(self, *script: Handle) -> None:
        self.script = list(script)
        self.seen: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.url = ""

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        self.headers.append(dict(request.headers))
        self.seen.append(await request.json() if request.can_read_body else {})
        step = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        return await step(request)


@contextlib.asynccontextmanager
async def serving(*script: Handle) -> AsyncIterator[Server]:
    server = Server(*script)
    runner = web.ServerRunner(web.Server(server), shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    server.url = f"http://{host}:{port}/v1"
    try:
        yield server
    finally:
        await runner.cleanup()


def says(status: int, body: Any = None, **headers: str) -> Handle:
    async def handle(_: web.Request) -> web.StreamResponse:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return web.json_response(body, status=status, headers=named)

    return handle


def writes(text: bytes) -> Handle:
    async def handle(_: web.Request) -> web.StreamResponse:
        return web.Response(body=text)

    return handle


def waits(seconds: float) -> Handle:
    async def handle(_: web.Request) -> web.StreamResponse:
        await asyncio.sleep(seconds)
        return web.json_response(GOOD)

    return handle


def streams(*chunks: bytes, then: str = "end") -> Handle:
    async def handle(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-length": "500"} if then == "cut" else {})
        await response.prepare(request)
        for chunk in chunks:
            await response.write(chunk)
        if then == "cut" and request.transport is not None:
            request.transport.close()
        if then == "hang":
            await asyncio.sleep(30)
        return response

    return handle


good = says(200, GOOD)
cut_off = streams(b'{"choices": [', then="cut")


def closed_port() -> str:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{unused.getsockname()[1]}/v1"


def endpoint(*urls: str, seconds: float = 5.0, **options: Any) -> Endpoint:
    return Endpoint(
        "some-model",
        urls,
        KEY,
        timeout_seconds=seconds,
        rng=np.random.default_rng(0),
        **options,
    )


async def test_sends_model_key_and_body() -> None:
    async with serving(good) as server, endpoint(server.url + "/") as asked:
        assert await asked.chat({**BODY, "model": "other", "stream": True}) == GOOD
    assert server.seen == [{**BODY, "model": "some-model", "stream": False}]
    assert server.headers[0]["Authorization"] == f"Bearer {KEY}"


@pytest.mark.parametrize(
    "trouble",
    [
        says(500, {"error": {"message": "out of memory"}}),
        says(503),
        says(429, None, Retry_After="0.1"),
        says(408),
        writes(b"<html>busy</html>"),
        writes(b'["a list"]'),
        writes(b'{"object": "no choices"}'),
        writes(b"\xff\xfe"),
        cut_off,
    ],
)
async def test_trouble_that_passes_is_waited_out(trouble: Handle) -> None:
    async with serving(trouble, trouble, good) as server, endpoint(server.url) as asked:
        assert await asked.chat(BODY) == GOOD
    assert len(server.seen) == 3


async def test_trouble_that_stays_ends_after_the_attempts() -> None:
    async with (
        serving(says(500, {"error": {"message": "on fire"}})) as server,
        endpoint(server.url) as asked,
    ):
        with pytest.raises(TierUnavailable, match=r"3 attempts .* on fire.*Check") as caught:
            await asked.chat(BODY)
    assert len(server.seen) == 3
    assert type(caught.value) is TierUnavailable and caught.value.__cause__ is not None


async def test_retry_after_is_honoured_within_the_deadline() -> None:
    async with (
        serving(says(429, None, Retry_After="0.6"), good) as server,
        endpoint(server.url) as asked,
    ):
        started = time.monotonic()
        assert await asked.chat(BODY) == GOOD
        assert time.monotonic() - started >= 0.6


async def test_retry_after_beyond_the_deadline_gives_up_at_once() -> None:
    async with (
        serving(says(429, None, Retry_After="3600"), good) as server,
        endpoint(server.url) as asked,
    ):
        started = time.monotonic()
        with pytest.raises(TierUnavailable, match="1 attempts"):
            await asked.chat(BODY)
        assert time.monotonic() - started < 20


async def test_refused_connections_end_within_the_attempts() -> None:
    async with endpoint(closed_port()) as asked:
        with pytest.raises(TierUnavailable, match="3 attempts"):
            await asked.chat(BODY)


async def test_a_hanging_endpoint_ends_at_the_deadline() -> None:
    async with serving(waits(30)) as server, endpoint(server.url, seconds=0.5) as asked:
        started = time.monotonic()
        with pytest.raises(TierUnavailable, match="no answer in time"):
            await asked.chat(BODY)
        assert 0.4 < time.monotonic() - started < 20


async def test_the_next_replica_answers_for_a_dead_one() -> None:
    async with (
        serving(good) as server,
        endpoint(closed_port(), closed_port(), server.url, attempts=1) as asked,
    ):
        assert await asked.chat(BODY) == GOOD


async def test_a_hanging_replica_leaves_time_for_the_next() -> None:
    async with (
        serving(waits(30)) as hung,
        serving(good) as server,
        endpoint(hung.url, server.url, seconds=4) as asked,
    ):
        assert await asked.chat(BODY) == GOOD
        assert await asked.chat(BODY) == GOOD
        assert await asked.chat(BODY) == GOOD
    assert len(hung.seen) == 1  # then it rests


async def test_replicas_are_asked_in_turn() -> None:
    async with (
        serving(good) as first,
        serving(good) as second,
        endpoint(first.url, second.url) as asked,
    ):
        for _ in range(4):
            await asked.chat(BODY)
    assert len(first.seen) == len(second.seen) == 2


@pytest.mark.parametrize(
    ("status", "step"), [(400, "too long"), (401, "api_key"), (404, "/v1"), (307, "redirects")]
)
async def test_a_wrong_request_is_not_repeated(status: int, step: str) -> None:
    refusal = says(status, {"error": {"message": "too long"}}, Location="http://127.0.0.1:1/")
    async with serving(refusal) as server, endpoint(server.url, server.url) as asked:
        with pytest.raises(TierRejected, match=step) as caught:
            await asked.chat(BODY)
    assert caught.value.status == status and len(server.seen) == 1


@pytest.mark.parametrize("status", [500, 501])
async def test_what_an_engine_cannot_do_is_not_repeated(status: int) -> None:
    refusal = says(status, {"error": {"message": "image input is not supported"}})
    async with serving(refusal) as server, endpoint(server.url) as asked:
        with pytest.raises(TierRejected) as caught:
            await asked.chat(BODY)
    assert caught.value.status == 422 and len(server.seen) == 1


@pytest.mark.parametrize("status", [401, 500])
async def test_the_key_is_in_no_error_and_no_log(
    status: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with (
        serving(says(status, {"error": {"message": f"bad key {KEY}"}})) as server,
        endpoint(server.url) as asked,
    ):
        with pytest.raises((TierRejected, TierUnavailable)) as caught:
            await asked.chat(BODY)
    assert "bad key ***" in str(caught.value)
    assert KEY not in caplog.text + repr(caught.value) + repr(caught.value.__cause__) + repr(asked)


async def test_concurrency_is_bounded() -> None:
    running, most = 0, 0

    async def handle(_: web.Request) -> web.StreamResponse:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.02)
        running -= 1
        return web.json_response(GOOD)

    async with serving(handle) as server, endpoint(server.url, concurrency=3) as asked:
        await asyncio.gather(*(asked.chat(BODY) for _ in range(12)))
    assert most == 3


async def test_waiting_for_ones_turn_is_not_part_of_the_deadline() -> None:
    async with (
        serving(waits(0.3)) as server,
        endpoint(server.url, seconds=1.0, concurrency=1) as asked,
    ):
        found = await asyncio.gather(*(asked.chat(BODY) for _ in range(6)))
    assert found == [GOOD] * 6


async def test_connections_are_kept() -> None:
    peers = set()

    async def handle(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        peers.add(request.transport.get_extra_info("peername"))
        return web.json_response(GOOD)

    async with serving(handle) as server, endpoint(server.url) as asked:
        for _ in range(5):
            await asked.chat(BODY)
    assert len(peers) == 1


async def test_too_large_answers_and_requests_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (endpoint_module, responses_module):
        monkeypatch.setattr(module, "LARGEST_BODY_BYTES", 1000)
    async with serving(writes(b"[" * 5000)) as server, endpoint(server.url, attempts=1) as asked:
        with pytest.raises(TierUnavailable, match="more than 1000 bytes"):
            await asked.chat(BODY)
        with pytest.raises(TierRejected, match="shorten") as caught:
            await asked.chat({"messages": "x" * 2000})
    assert caught.value.status == 413 and len(server.seen) == 1


async def test_half_a_surrogate_pair_is_refused() -> None:
    async with endpoint(closed_port()) as asked:
        with pytest.raises(TierRejected, match="JSON"):
            await asked.chat({"messages": "\ud800"})


async def test_a_stream_arrives_as_it_was_sent() -> None:
    chunks = [b'data: {"a": 1}\n\n', b"data: [DONE]\n\n"]
    async with serving(streams(*chunks)) as server, endpoint(server.url) as asked:
        received = [chunk async for chunk in asked.stream(RAW)]
    assert b"".join(received) == b"".join(chunks)
    assert server.seen[0] == json.loads(RAW)


async def test_a_completion_is_forwarded_as_it_was_written() -> None:
    said = b'{ "choices":[{}], "odd" : 1.0, "usage": {"prompt_tokens": 3}}'
    async with serving(writes(said)) as server, endpoint(server.url) as asked:
        found = await asked.forward(RAW)
    assert (found.body, found.usage) == (said, {"prompt_tokens": 3})
    assert server.seen == [json.loads(RAW)]


@pytest.mark.parametrize("said", [b"[]", b"{}", b'{"choices": 1}', b"no", b'{"choices": []'])
async def test_what_is_no_completion_is_not_forwarded(said: bytes) -> None:
    async with (
        serving(writes(said), good) as server,
        endpoint(server.url, closed_port()) as asked,
    ):
        assert json.loads((await asked.forward(RAW)).body) == GOOD


async def test_a_stream_may_begin_at_another_replica() -> None:
    async with (
        serving(streams(b"data: [DONE]\n\n")) as server,
        endpoint(closed_port(), server.url) as asked,
    ):
        assert [chunk async for chunk in asked.stream(RAW)] == [b"data: [DONE]\n\n"]


@pytest.mark.parametrize("then", ["cut", "hang"])
async def test_a_broken_stream_is_not_repeated(then: str) -> None:
    async with (
        serving(streams(b"data: 1\n\n", then=then)) as server,
        endpoint(server.url, seconds=0.7) as asked,
    ):
        received = []
        with pytest.raises(TierUnavailable, match="broke off"):
            async for chunk in asked.stream(RAW):
                received.append(chunk)
    assert received == [b"data: 1\n\n"] and len(server.seen) == 1


async def test_leaving_a_stream_early_frees_its_place() -> None:
    async with (
        serving(streams(b"data: 1\n\n", then="hang"), good) as server,
        endpoint(server.url, concurrency=1) as asked,
    ):
        async with contextlib.aclosing(asked.stream(RAW)) as stream:
            assert await anext(stream) == b"data: 1\n\n"
        assert await asked.chat(BODY) == GOOD


async def test_a_refused_stream_says_why() -> None:
    async with (
        serving(says(400, {"error": {"message": "no"}})) as server,
        endpoint(server.url) as asked,
    ):
        with pytest.raises(TierRejected, match="said 400: no"):
            await anext(asked.stream(RAW))


async def test_models_are_listed() -> None:
    async with serving(says(200, {"data": [{"id": "m"}]})) as server, endpoint(server.url) as asked:
        assert await asked.models() == ["m"]


async def test_a_list_of_models_that_is_none() -> None:
    async with serving(says(200, {"data": 7})) as server, endpoint(server.url) as asked:
        with pytest.raises(TierUnavailable, match="list of models"):
            await asked.models()


async def test_usable_again_after_close() -> None:
    async with serving(good) as server:
        asked = endpoint(server.url)
        await asked.chat(BODY)
        await asked.close()
        assert await asked.chat(BODY) == GOOD
        await asked.close()
        await asked.close()


@pytest.mark.parametrize(
    "url", ["", "localhost:8000/v1", "ftp://host/v1", "http://user:pass@host/v1", "http://[::1/v1"]
)
def test_wrong_addresses_are_refused(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Endpoint("m", [url])
    assert "pass@" not in str(caught.value)


def test_no_address_and_unusable_keys_are_refused() -> None:
    with pytest.raises(ConfigError, match="no address"):
        Endpoint("m", [])
    with pytest.raises(ConfigError, match="line break") as caught:
        Endpoint("m", ["http://host/v1"], "sk-1\nX-Evil: 1")
    assert "sk-1" not in str(caught.value)


def test_retry_after_reads_dates() -> None:
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True)
    assert 20 < retry_after_seconds(later) <= 30
    assert retry_after_seconds("Mon, 01 Jan 2001 00:00:00 GMT") == 0.0
    assert (
        retry_after_seconds(None) == retry_after_seconds("inf") == retry_after_seconds("nan") == 0
    )


def test_a_replica_that_works_again_rests_no_longer() -> None:
    replicas = Replicas(["a", "b"])
    replicas.failed("a", now=0.0)
    assert replicas.order(now=1.0) == ["b", "a"]
    replicas.answered("a")
    assert sorted([replicas.order(now=1.0)[0], replicas.order(now=1.0)[0]]) == ["a", "b"]
