"""Every mistake a caller can make has its own fate, and none of them is a 5xx."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Any

import aiohttp
import pytest

from cascade.certify import Certificate
from cascade.config import Listen
from cascade.gateway.lanes import Lanes
from cascade.gateway.observe import Metrics
from cascade.tasks import unusual
from cascade.types import Abstention, Answer, Query, Reply

from .conftest import Build, House, Post, lane_of, send, typed

CHAT = "/v1/chat/completions"
PREDICT = "/v1/tasks/mood/predict"
USER = [{"role": "user", "content": "easy"}]


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        (b"", "invalid_json", None),
        (b"{", "invalid_json", None),
        (b"\xff\xfe{}", "invalid_json", None),
        (b'{"model": "task/mood", "x": "\xff"}', "invalid_json", None),
        (b"[]", "invalid_value", ""),
        (b"[" * 100_000, "invalid_json", None),
        (b'{"model": "large", "x": ' + b"[" * 300 + b"]" * 300 + b"}", "invalid_json", None),
        ({"messages": USER}, "invalid_value", None),
        ({"model": 7, "messages": USER}, "invalid_value", "model"),
        ({"model": "task/mood"}, "invalid_value", None),
        ({"model": "task/mood", "messages": []}, "invalid_value", "messages"),
        ({"model": "task/mood", "messages": "hi"}, "invalid_value", "messages"),
        ({"model": "task/mood", "messages": ["hi"]}, "invalid_value", "messages[0]"),
        ({"model": "task/mood", "messages": [{}]}, "invalid_value", "messages[0].role"),
        (typed("easy", n=2), "unsupported_parameter", "n"),
        (typed("easy", logprobs=True), "unsupported_parameter", "logprobs"),
        (typed("easy", stream="yes"), "invalid_value", "stream"),
        (
            typed("easy", response_format={"type": "xml"}),
            "unsupported_response_format",
            "response_format",
        ),
        (
            typed("easy", response_format={"type": "json_schema", "json_schema": {"schema": {}}}),
            "unsupported_response_format",
            "response_format",
        ),
        (
            {"model": "large", "stream": True, "stream_options": 1},
            "invalid_value",
            "stream_options",
        ),
    ],
)
async def test_wrong_requests_are_400(post: Post, body: Any, code: str, param: str | None) -> None:
    status, answer, _ = await post(CHAT, body)
    assert status == 400
    assert set(answer["error"]) == {"message", "type", "param", "code"}
    assert answer["error"]["code"] == code
    assert answer["error"]["type"] == "invalid_request_error"
    if param:
        assert answer["error"]["param"] == param


@pytest.mark.parametrize(
    "body", [{"inputs": "easy"}, {"inputs": [1]}, {}, {"inputs": [], "threshold": 0.1}, b"\x00"]
)
async def test_wrong_predict_requests_are_400(post: Post, body: Any) -> None:
    assert (await post(PREDICT, body))[0] == 400


@pytest.mark.parametrize("name", ["task/none", "task/", "gpt-4", ""])
async def test_unknown_model_is_404_and_lists_what_there_is(post: Post, name: str) -> None:
    status, answer, _ = await post(CHAT, {"model": name, "messages": USER})
    assert status == 404 and answer["error"]["code"] == "model_not_found"
    assert "task/mood" in answer["error"]["message"] and "big-b" in answer["error"]["message"]


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"tools": [{"type": "function"}]}, "unsupported_input"),
        ({"messages": [{"role": "user", "content": "hard"}] * 2}, "multi_turn"),
        ({"messages": [{"role": "system", "content": "be kind"}, *USER]}, "unsupported_input"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "unsupported_input"),
        ({"messages": [{"role": "user", "content": "  "}]}, "unsupported_input"),
        ({"messages": [{"role": "user", "content": None}]}, "unsupported_input"),
    ],
)
async def test_unusual_requests_reach_the_tiers_as_they_are(
    open_house: Build, certificate: Any, fields: Any, reason: str
) -> None:
    """Whether a tier may answer them is the proxy's to say; here a double of its gate says no."""

    class Gated:
        name = "proxy"

        async def answer(self, queries: list[Query]) -> list[Reply]:
            return [Abstention("proxy", unusual(query) or "novel") for query in queries]

    class Large:
        name = "large"

        async def answer(self, queries: list[Query]) -> list[Reply]:
            return [Answer("large", "no", 1.0) for _ in queries]

    metrics = Metrics()
    lane = lane_of(certificate, metrics, proxy=Gated(), large=Large())
    with open_house(lanes=Lanes({"mood": lane}), metrics=metrics) as house:
        got = await send(house.url + CHAT, typed("easy", **fields))
        assert got.status == 200
        assert got.headers["x-cascade-tier"] == "large"
        assert got.headers["x-cascade-reason"] == reason


async def test_one_text_part_is_a_text(post: Post) -> None:
    _, _, headers = await post(CHAT, typed([{"type": "text", "text": "easy"}]))
    assert headers["x-cascade-tier"] == "proxy"


async def test_unknown_routes_and_methods(house: House) -> None:
    async with aiohttp.ClientSession() as session:
        async with session.get(house.url + "/v2") as answer:
            assert answer.status == 404
            assert (await answer.json())["error"]["code"] == "not_found"
        async with session.get(house.url + CHAT) as answer:
            assert answer.status == 405 and answer.headers["allow"] == "POST"
        async with session.post(house.url + "/health") as answer:
            assert answer.status == 405


async def test_large_bodies_are_413_announced_or_not(open_house: Build) -> None:
    with open_house(listen=Listen(body_bytes=1000)) as house:
        async with aiohttp.ClientSession() as session:
            async with session.post(house.url + CHAT, data=b"x" * 2000) as answer:
                assert answer.status == 413
                assert (await answer.json())["error"]["code"] == "body_too_large"

            async def pieces() -> Any:
                for _ in range(20):
                    yield b"x" * 100

            async with session.post(house.url + CHAT, data=pieces()) as answer:
                assert answer.status == 413


async def test_keys(open_house: Build) -> None:
    with open_house(keys=["one", "two"]) as house:
        async with aiohttp.ClientSession() as session:
            for given, status in [
                ("Bearer two", 200),
                ("Bearer three", 401),
                ("two", 401),
                ("", 401),
            ]:
                headers = {"authorization": given} if given else {}
                async with session.get(house.v1 + "/models", headers=headers) as answer:
                    assert answer.status == status
                    if status == 401:
                        assert (await answer.json())["error"]["code"] == "invalid_api_key"
            async with session.get(house.url + "/health") as answer:
                assert answer.status == 200
            async with session.get(house.url + "/metrics") as answer:
                assert "cascade_requests_total" in await answer.text()


@pytest.mark.parametrize(
    ("status", "seen", "code"),
    [
        (400, 400, "unsupported_input"),
        (413, 400, "unsupported_input"),
        (401, 503, "tier_unavailable"),
        (500, 503, "tier_unavailable"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_an_engines_refusal(
    house: House, post: Post, status: int, seen: int, code: str, stream: bool
) -> None:
    house.engine.status = status
    got, answer, _ = await post(CHAT, {"model": "large", "messages": USER, "stream": stream})
    assert (got, answer["error"]["code"]) == (seen, code)
    assert "engine says no" in answer["error"]["message"]
    assert house.metric("requests_total", task="", tier="", reason=code) == 1


async def test_a_stream_that_breaks_off_says_so(house: House) -> None:
    house.engine.breaks_off = True
    request = {"model": "large", "messages": USER, "stream": True}
    lines = (await send(house.url + CHAT, request)).text.strip().split("\n\n")
    assert json.loads(lines[-2].removeprefix("data: "))["error"]["code"] == "tier_unavailable"
    assert lines[-1] == "data: [DONE]"


async def test_unreadable_teacher_is_502(open_house: Build, certificate: Any) -> None:

    class Mumbling:
        name = "large"

        async def answer(self, queries: list[Query]) -> list[Reply]:
            return [Abstention("large", "unreadable", detail="'well...'") for _ in queries]

    metrics = Metrics()
    lanes = Lanes({"mood": lane_of(certificate, metrics, large=Mumbling())})
    with open_house(lanes=lanes, metrics=metrics) as house:
        got = await send(house.url + CHAT, typed("hard"))
    assert got.status == 502 and got.json["error"]["code"] == "unreadable"
    assert got.headers["x-cascade-reason"] == "unreadable"


async def test_a_bug_is_500_without_its_secrets(
    open_house: Build, certificate: Any, caplog: pytest.LogCaptureFixture
) -> None:

    class Broken:
        name = "proxy"

        async def answer(self, queries: Any) -> Any:
            raise RuntimeError("password is hunter2")

    metrics = Metrics()
    lanes = Lanes({"mood": lane_of(certificate, metrics, proxy=Broken())})
    with open_house(lanes=lanes, metrics=metrics) as house:
        got = await send(house.url + CHAT, typed("hard"))
    assert got.status == 500 and "hunter2" not in got.text
    assert got.headers["x-request-id"] in got.text
    assert "hunter2" in caplog.text


async def test_half_a_body_harms_nobody(house: House) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", house.served.port)
    writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 99\r\n\r\n{")
    await writer.drain()
    writer.close()
    await writer.wait_closed()
    async with aiohttp.ClientSession() as session, session.get(house.url + "/health") as answer:
        assert answer.status == 200


async def test_a_number_that_few_json_readers_keep_goes_through_as_it_came(
    post: Post, house: House
) -> None:
    status, _, _ = await post(CHAT, {"model": "large", "messages": USER, "seed": 10**30})
    assert status == 200 and house.engine.bodies[-1]["seed"] == 10**30


async def test_websockets_are_refused(house: House) -> None:
    async with aiohttp.ClientSession() as session:
        with pytest.raises(aiohttp.WSServerHandshakeError):
            await session.ws_connect(house.url + CHAT)


async def test_header_values_cannot_break_out(open_house: Build, certificate: Certificate) -> None:
    metrics = Metrics()
    lane = replace(lane_of(certificate, metrics), models={"proxy": "mod\r\nset-cookie: x\u00e9"})
    with open_house(lanes=Lanes({"mood": lane}), metrics=metrics) as house:
        got = await send(house.url + CHAT, typed("easy"))
    assert "set-cookie" not in got.headers
    assert got.headers["x-cascade-model"] == "mod\\r\\nset-cookie: x\\xe9"
