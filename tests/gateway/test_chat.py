"""Typed tasks and pass-through, as the official client and curl see them."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import aiohttp
import openai
import pytest
from openai import AsyncOpenAI, OpenAI

from .conftest import House, Post, typed

CHAT = "/v1/chat/completions"


def ask(client: OpenAI, text: str, **fields: Any) -> Any:
    messages: Any = [{"role": "user", "content": text}]
    return client.chat.completions.create(model="task/mood", messages=messages, **fields)


@pytest.mark.parametrize(
    ("text", "label", "tier", "reason"),
    [
        ("easy", "yes", "proxy", "certified"),
        ("middle", "no", "small", "certified"),
        ("hard", "no", "large", "below_threshold"),
    ],
)
def test_official_client_gets_the_label_and_its_story(
    house: House, text: str, label: str, tier: str, reason: str
) -> None:
    with OpenAI(base_url=house.v1, api_key="any", max_retries=0) as client:
        messages: Any = [{"role": "user", "content": text}]
        raw = client.chat.completions.with_raw_response.create(model="task/mood", messages=messages)
    answer = raw.parse()
    assert answer.choices[0].message.content == label
    assert answer.choices[0].finish_reason == "stop"
    assert answer.model == "task/mood"
    assert raw.headers["x-cascade-tier"] == tier
    assert raw.headers["x-cascade-reason"] == reason
    assert raw.headers["x-cascade-proxy-version"] == "1"
    assert raw.headers["x-cascade-model"] in ("mood@1", "half-b", "big-b")
    assert 0 <= float(raw.headers["x-cascade-confidence"]) <= 1
    assert 0 <= float(raw.headers["x-cascade-overhead-ms"]) < 1000
    assert raw.headers["x-request-id"].startswith("req_")


def test_usage_and_cost_are_the_sum_over_every_tier_that_was_asked(house: House) -> None:
    with OpenAI(base_url=house.v1, api_key="any") as client:
        messages: Any = [{"role": "user", "content": "hard"}]
        raw = client.chat.completions.with_raw_response.create(model="task/mood", messages=messages)
    usage = raw.parse().usage
    assert usage.prompt_tokens == 200 and usage.completion_tokens == 2
    assert usage.prompt_tokens_details.cached_tokens == 160
    assert float(raw.headers["x-cascade-cost-usd"]) == pytest.approx(6e-5)


def test_typed_stream(house: House) -> None:
    with OpenAI(base_url=house.v1, api_key="any") as client:
        plain = list(ask(client, "easy", stream=True))
        counted = list(ask(client, "hard", stream=True, stream_options={"include_usage": True}))
    assert plain[0].choices[0].delta.role == "assistant"
    assert "".join(one.choices[0].delta.content or "" for one in plain) == "yes"
    assert plain[-1].choices[0].finish_reason == "stop"
    assert counted[-1].choices == [] and counted[-1].usage.total_tokens == 202
    assert all(one.usage is None for one in counted[:-1])
    assert len({one.id for one in counted}) == 1


async def test_async_client(house: House) -> None:
    async with AsyncOpenAI(base_url=house.v1, api_key="any") as client:
        messages: Any = [{"role": "user", "content": "easy"}]
        asks = [
            client.chat.completions.create(model="task/mood", messages=messages) for _ in range(20)
        ]
        answers = await asyncio.gather(*asks)
        stream = await client.chat.completions.create(model="large", messages=messages, stream=True)
        words = [chunk.choices[0].delta.content async for chunk in stream]
    assert {one.choices[0].message.content for one in answers} == {"yes"}
    assert "".join(words) == "one two three"


@pytest.mark.parametrize("name", ["large", "big-b"])
def test_passthrough_by_tier_and_by_model(house: House, name: str) -> None:
    with OpenAI(base_url=house.v1, api_key="any") as client:
        messages: Any = [{"role": "user", "content": "hello"}]
        raw = client.chat.completions.with_raw_response.create(
            model=name, messages=messages, temperature=0.5, extra_body={"own_field": [1]}
        )
    assert raw.parse().choices[0].message.content == "from big-b"
    assert json.loads(raw.text)["timings"] == {"own": True}
    assert house.engine.bodies[-1]["temperature"] == 0.5
    assert house.engine.bodies[-1]["own_field"] == [1]
    assert raw.headers["x-cascade-tier"] == "large"
    assert raw.headers["x-cascade-reason"] == "passthrough"
    # 4 fresh, 6 cached, 2 written
    assert float(raw.headers["x-cascade-cost-usd"]) == pytest.approx((4 + 0.6 + 4) / 1e6)


def test_passthrough_stream_knows_its_price_but_tells_only_who_asks(house: House) -> None:
    with OpenAI(base_url=house.v1, api_key="any") as client:
        messages: Any = [{"role": "user", "content": "hello"}]
        create = client.chat.completions.create
        plain = list(create(model="large", messages=messages, stream=True))
        asked: Any = {"include_usage": True}
        counted = list(create(model="large", messages=messages, stream=True, stream_options=asked))
    assert len(plain) == 3 and len(counted) == 4
    assert counted[-1].usage is not None and counted[-1].usage.total_tokens == 12
    assert house.metric("dollars_total", task="", tier="large") == pytest.approx(2 * 8.6e-6)
    assert house.metric("time_to_first_token_seconds_count", tier="large", replica="") == 2


async def test_force_a_tier(post: Post) -> None:
    _, body, headers = await post(CHAT, typed("hard"), x_cascade_tier="small")
    assert body["choices"][0]["message"]["content"] == "yes"
    assert (headers["x-cascade-tier"], headers["x-cascade-reason"]) == ("small", "forced")
    through = {**typed("hi"), "model": "small"}
    _, body, headers = await post(CHAT, through, x_cascade_tier="large")
    assert body["model"] == "big-b" and headers["x-cascade-reason"] == "forced"
    for model in ("small", "task/mood"):
        status, body, _ = await post(CHAT, {**through, "model": model}, x_cascade_tier="huge")
        assert status == 400 and body["error"]["code"] == "tier_not_found"


@pytest.mark.parametrize(
    ("asked", "content"),
    [
        ({"type": "text"}, "yes"),
        ({"type": "json_object"}, '{"label":"yes"}'),
        (
            {
                "type": "json_schema",
                "json_schema": {
                    "name": "x",
                    "schema": {
                        "type": "object",
                        "properties": {"mood": {"type": "string", "enum": ["no", "yes"]}},
                        "required": ["mood"],
                        "additionalProperties": False,
                    },
                },
            },
            '{"mood":"yes"}',
        ),
    ],
)
async def test_response_format(post: Post, asked: Any, content: str) -> None:
    _, body, _ = await post(CHAT, typed("easy", response_format=asked))
    assert body["choices"][0]["message"]["content"] == content


async def test_request_id_is_echoed_if_it_is_harmless(post: Post) -> None:
    _, _, headers = await post(CHAT, typed("easy"), x_request_id="trace-7")
    assert headers["x-request-id"] == "trace-7"
    _, _, headers = await post(CHAT, typed("easy"), x_request_id="a b" * 99)
    assert headers["x-request-id"].startswith("req_")


async def test_predict_answers_each_in_order(post: Post) -> None:
    inputs = ["hard", "easy", "unheard of", "middle"]
    status, body, _ = await post("/v1/tasks/mood/predict", {"inputs": inputs})
    assert status == 200
    assert [one["label"] for one in body["data"]] == ["no", "yes", None, "no"]
    assert [one["tier"] for one in body["data"]] == ["large", "proxy", None, "small"]
    assert body["data"][2]["error"]["code"] == "tier_unavailable"
    assert body["data"][0]["reason"] == "below_threshold"
    assert len({one["decision_id"] for one in body["data"]}) == 4
    status, body, _ = await post("/v1/tasks/mood/predict", {"inputs": ["easy"] * 1001})
    assert status == 400 and "1000" in body["error"]["message"]
    status, body, _ = await post("/v1/tasks/none/predict", {"inputs": []})
    assert status == 404 and body["error"]["code"] == "model_not_found"


async def test_a_caller_who_leaves_stops_the_engine(house: House) -> None:
    house.engine.pause_seconds = 5.0
    request = {**typed("hi"), "model": "large", "stream": True}
    async with (
        aiohttp.ClientSession() as session,
        session.post(house.url + CHAT, json=request) as answer,
    ):
        await answer.content.readany()
    for _ in range(200):
        if house.engine.left:
            break
        await asyncio.sleep(0.01)
    assert house.engine.left == 1
    assert house.metric("inflight", tier="large", replica="") == 0


def test_models_lists_tasks_tiers_and_models(house: House) -> None:
    with OpenAI(base_url=house.v1, api_key="any") as client:
        assert [one.id for one in client.models.list()] == [
            "task/mood",
            "small",
            "large",
            "half-b",
            "big-b",
        ]


def test_the_client_raises_its_own_errors(house: House) -> None:
    with OpenAI(base_url=house.v1, api_key="any", max_retries=0) as client:
        with pytest.raises(openai.NotFoundError, match="task/mood"):
            client.chat.completions.create(model="task/none", messages=[])
        with pytest.raises(openai.InternalServerError) as caught:
            ask(client, "unheard of")
    assert caught.value.status_code == 503 and caught.value.code == "tier_unavailable"


async def test_a_latency_budget_leaves_the_small_tier_out(post: Post, house: House) -> None:
    house.services.metrics.latencies.add("small", 5.0)
    budget = {"x-slo-ttft-ms": "300"}
    _, _, hurried = await post(CHAT, typed("middle"), **budget)
    assert (hurried["x-cascade-tier"], hurried["x-cascade-reason"]) == ("large", "slo")
    _, _, sure = await post(CHAT, typed("easy"), **budget)
    assert (sure["x-cascade-tier"], sure["x-cascade-reason"]) == ("proxy", "certified")
    _, _, patient = await post(CHAT, typed("middle"), **{"x-slo-ttft-ms": "60000"})
    assert (patient["x-cascade-tier"], patient["x-cascade-reason"]) == ("small", "certified")
    _, batch, _ = await post("/v1/tasks/mood/predict", {"inputs": ["middle", "easy"]}, **budget)
    assert [one["reason"] for one in batch["data"]] == ["slo", "certified"]


@pytest.mark.parametrize("budget", ["0", "-1", "1.5", "soon", "9" * 12])
async def test_a_budget_that_is_no_time_is_400(post: Post, budget: str) -> None:
    status, answer, _ = await post(CHAT, typed("easy"), **{"x-slo-ttft-ms": budget})
    assert status == 400 and answer["error"]["param"] == "x-slo-ttft-ms"
