"""The language tier against a scripted endpoint on loopback."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from aiohttp import web

from cascade import reasons
from cascade.tasks import Example, Task, Window
from cascade.tiers.endpoint import Endpoint
from cascade.tiers.language import LanguageTier, most_tokens
from cascade.tiers.teacher import Teacher
from cascade.types import Abstention, Answer, Price, Query

TASK = Task(
    "review",
    "filter",
    "Is it positive?",
    ("yes", "no"),
    examples=(Example("Lovely thing", "yes"),),
    window=Window(head_tokens=3),
)
PRICE = Price(input=1.0, cached_input=0.1, output=2.0)
USAGE = {
    "prompt_tokens": 40,
    "completion_tokens": 2,
    "prompt_tokens_details": {"cached_tokens": 30},
}

Reply = tuple[int, dict[str, Any]]
Respond = Callable[[dict[str, Any]], Reply]


def says(text: str, *top: tuple[str, float]) -> dict[str, Any]:
    choice: dict[str, Any] = {"message": {"content": text}}
    if top:
        listed = [{"token": token, "logprob": logprob} for token, logprob in top]
        choice["logprobs"] = {"content": [{**listed[0], "top_logprobs": listed}]}
    return {"choices": [choice], "usage": USAGE}


def always(status: int, body: dict[str, Any]) -> Respond:
    return lambda _: (status, body)


@contextlib.asynccontextmanager
async def tier(
    respond: Respond, task: Task = TASK
) -> AsyncIterator[tuple[LanguageTier, list[Any]]]:
    """A tier in front of a server, and the bodies that the server saw."""
    seen: list[Any] = []

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        seen.append(await request.json())
        status, body = respond(seen[-1])
        return web.json_response(body, status=status)

    runner = web.ServerRunner(web.Server(handle))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    async with Endpoint("m", [f"http://{host}:{port}/v1"], attempts=1) as endpoint:
        yield LanguageTier("small", task, endpoint, PRICE), seen
    await runner.cleanup()


async def test_asks_with_the_stable_prefix_first_and_thinking_off() -> None:
    async with tier(always(200, says("yes"))) as (small, seen):
        query = Query("q", ({"role": "user", "content": "Good, but late."},), {"temperature": 1})
        await small.answer([query])
    (body,) = seen
    assert body["messages"] == [*TASK.prefix, {"role": "user", "content": "Good, but"}]
    assert body["chat_template_kwargs"] == {"enable_thinking": False}
    assert body["temperature"] == 0  # what the caller asked for would make it another teacher
    assert (body["max_tokens"], body["logprobs"], body["top_logprobs"]) == (3, True, 20)


async def test_answers_in_order_with_scores_confidence_and_usage() -> None:
    def respond(body: dict[str, Any]) -> Reply:
        good = body["messages"][-1]["content"] == "good"
        return 200, says("Yes", ("Yes", -0.1), ("no", -2.4)) if good else says("no", ("no", -0.1))

    async with tier(respond) as (small, _):
        replies = await small.answer([Query.from_text(text) for text in ("bad", "good", "bad")])
    assert [reply.text for reply in replies if isinstance(reply, Answer)] == ["no", "yes", "no"]
    yes = replies[1]
    assert isinstance(yes, Answer)
    assert sum(yes.scores) == pytest.approx(1.0)
    assert yes.confidence == yes.scores[0] == pytest.approx(0.909, abs=1e-3)
    assert yes.usage.dollars == pytest.approx((10 + 3 + 4) / 1e6)
    assert yes.usage.cached_tokens == 30 and yes.usage.seconds > 0


async def test_without_log_probabilities_nothing_is_claimed() -> None:
    async with tier(always(200, says("yes"))) as (small, _):
        (reply,) = await small.answer([Query.from_text("good")])
    assert isinstance(reply, Answer) and (reply.scores, reply.confidence) == ((), 0.0)


async def test_an_unreadable_completion_abstains_and_is_paid_for() -> None:
    async with tier(always(200, says("I think yes"))) as (small, _):
        (reply,) = await small.answer([Query.from_text("good")])
    assert isinstance(reply, Abstention) and reply.reason == reasons.UNREADABLE
    assert "I think yes" in reply.detail and reply.usage.dollars > 0


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (400, reasons.UNSUPPORTED_INPUT),
        (413, reasons.UNSUPPORTED_INPUT),
        (401, reasons.TIER_UNAVAILABLE),
        (404, reasons.TIER_UNAVAILABLE),
        (500, reasons.TIER_UNAVAILABLE),
    ],
)
async def test_trouble_becomes_an_abstention(status: int, reason: str) -> None:
    async with tier(always(status, {"error": {"message": "because"}})) as (small, _):
        replies = await small.answer([Query.from_text("good"), Query.from_text("bad")])
    for reply in replies:
        assert isinstance(reply, Abstention) and reply.reason == reason
        assert "because" in reply.detail


async def test_one_bad_query_does_not_spoil_the_others() -> None:
    def respond(body: dict[str, Any]) -> Reply:
        bad = body["messages"][-1]["content"] == "bad"
        return (400, {"error": {"message": "too long"}}) if bad else (200, says("yes"))

    async with tier(respond) as (small, _):
        half = Query("half", ({"role": "user", "content": "\ud800"},))
        replies = await small.answer([Query.from_text("good"), Query.from_text("bad"), half])
    assert [type(reply) for reply in replies] == [Answer, Abstention, Abstention]


async def test_fields_an_endpoint_refuses_are_left_out_from_then_on() -> None:
    def strict(body: dict[str, Any]) -> Reply:
        refused = "chat_template_kwargs" in body
        return (400, {"error": {"message": "unknown field"}}) if refused else (200, says("yes"))

    async with tier(strict) as (small, seen):
        for _ in range(3):
            (reply,) = await small.answer([Query.from_text("good")])
            assert isinstance(reply, Answer)
    assert ["chat_template_kwargs" in body for body in seen] == [True, False, False, False]
    assert all(body["logprobs"] for body in seen)


async def test_a_reasoning_model_gets_room_and_no_temperature() -> None:
    def reasoning(body: dict[str, Any]) -> Reply:
        refused = "max_tokens" in body or "temperature" in body or "logprobs" in body
        return (400, {"error": {"message": "unsupported"}}) if refused else (200, says("yes"))

    async with tier(reasoning) as (small, seen):
        await small.answer([Query.from_text("good")])
        (reply,) = await small.answer([Query.from_text("good")])
    assert isinstance(reply, Answer) and reply.text == "yes"
    assert len(seen) == 4 and seen[-1]["max_completion_tokens"] > 1000


async def test_once_a_form_is_accepted_a_refusal_is_about_the_query() -> None:
    def respond(body: dict[str, Any]) -> Reply:
        bad = body["messages"][-1]["content"] == "bad"
        return (400, {"error": {"message": "too long"}}) if bad else (200, says("yes"))

    async with tier(respond) as (small, seen):
        await small.answer([Query.from_text("good")])
        await small.answer([Query.from_text("bad")])
    assert len(seen) == 2


async def test_several_turns_are_put_behind_the_prefix() -> None:
    turns = tuple({"role": role, "content": "a"} for role in ("user", "assistant", "user"))
    async with tier(always(200, says("yes"))) as (small, seen):
        await small.answer([Query("q", turns)])
    assert seen[0]["messages"] == [*TASK.prefix, *turns]


async def test_the_teacher_is_certain_and_may_still_abstain() -> None:
    def respond(body: dict[str, Any]) -> Reply:
        return 200, says("no" if body["messages"][-1]["content"] == "bad" else "?")

    async with tier(respond) as (small, _):
        teacher = Teacher(small)
        answer, abstention = await teacher.answer([Query.from_text("bad"), Query.from_text("odd")])
    assert isinstance(answer, Answer) and (answer.text, answer.confidence) == ("no", 1.0)
    assert isinstance(abstention, Abstention) and teacher.name == "small"


def test_room_for_codes_in_any_script() -> None:
    assert most_tokens(["AA"]) == 2
    assert most_tokens(["положительный", "нет"]) >= 8
