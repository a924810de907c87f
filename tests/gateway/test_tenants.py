"""Keys, tenants and their limits over HTTP, as callers meet them."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import aiohttp
import openai
import pytest

from cascade.api_keys import digest_of, new_key, written
from cascade.config import ApiKey, GatewayConfig, LanguageModel, Tiers
from cascade.errors import ConfigError
from cascade.gateway.refusals import Refusal
from cascade.gateway.spending import Spending
from cascade.gateway.tenants import Tenants, check_tasks

from .conftest import Build, Got, House, send, typed, until

CHAT = "/v1/chat/completions"
PREDICT = "/v1/tasks/mood/predict"
DOLLARS = 3e-5
"""What the doubles say that the small tier's or the teacher's answer costs."""


def through(model: str, **fields: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": "hi"}], **fields}


async def ask(house: House, key: str | None, body: Any, path: str = CHAT, **headers: str) -> Got:
    if key is not None:
        headers["authorization"] = f"Bearer {key}"
    return await send(house.url + path, body, "GET" if body is None else "POST", **headers)


def tenants_in_log(house: House, records: int) -> list[str]:
    until(lambda: len(house.store.decisions.recent(100)) == records)
    return [one.tenant for one in reversed(house.store.decisions.recent(100))]


async def test_a_digest_in_the_file_opens_to_its_key_and_not_to_itself(open_house: Build) -> None:
    key = new_key()
    digest = written(digest_of(key.encode()))
    with open_house(keys=[digest, "plain"]) as house:
        for given, status in [
            (key, 200),
            ("plain", 200),
            (f" {key} ", 200),
            (digest, 401),
            (digest.removeprefix("sha256:"), 401),
            (key[:-1], 401),
            (key + "x", 401),
            (key.upper(), 401),
            ("", 401),
            (None, 401),
        ]:
            assert (await ask(house, given, None, "/v1/models")).status == status, given


async def test_a_key_of_other_letters(open_house: Build) -> None:
    """aiohttp sends UTF-8, and what a file says is UTF-8 too: nothing in between may guess."""
    with open_house(keys=["ключ-é"]) as house:
        assert (await ask(house, "ключ-é", None, "/v1/models")).status == 200


async def test_the_admin_key_asks_nothing_and_a_callers_key_administers_nothing(
    open_house: Build,
) -> None:
    with open_house(keys=["one"]) as house:
        assert (await ask(house, "admin-secret", None, "/v1/models")).status == 401
        assert (await ask(house, "one", None, "/admin/status")).status == 401
        assert (await ask(house, "admin-secret", None, "/admin/status")).status == 200


async def test_nobody_can_write_into_anothers_log(open_house: Build) -> None:
    keys = [ApiKey("k1", "acme"), ApiKey("k2", "zeta"), "k3"]
    with open_house(keys=keys) as house:
        for key, claim in [("k1", ""), ("k1", "zeta"), ("k1", "team"), ("k2", "acme/team")]:
            assert (await ask(house, key, typed("easy"), x_tenant_id=claim)).status == 200
        await ask(house, "k3", through("large"), x_tenant_id="acme")
        nameless = f"key-{digest_of(b'k3').hex()[:8]}/acme"
        logged = ["acme", "acme/zeta", "acme/team", "zeta/acme/team", nameless]
        assert await asyncio.to_thread(tenants_in_log, house, 5) == logged
        found = await ask(house, "admin-secret", None, "/admin/decisions?tenant=acme")
        assert {one["tenant"] for one in found.json} == {"acme", "acme/zeta", "acme/team"}
        found = await ask(house, "admin-secret", None, "/admin/decisions?tenant=acme/team")
        assert [one["tenant"] for one in found.json] == ["acme/team"]


async def test_a_claim_without_end_is_cut(open_house: Build) -> None:
    with open_house(keys=[ApiKey("k1", "acme")]) as house:
        await ask(house, "k1", typed("easy"), x_tenant_id="x" * 5000)
        assert await asyncio.to_thread(tenants_in_log, house, 1) == [f"acme/{'x' * 128}"]


@pytest.fixture
def narrow(open_house: Build) -> Any:
    """``typed`` may ask the task, ``raw`` the large model; each nothing else."""
    return open_house(
        keys=[
            ApiKey("typed", "typed", ("task/mood",)),
            ApiKey("raw", "raw", ("large",)),
            ApiKey("all", "all"),
        ]
    )


async def test_each_key_sees_what_it_may_ask(narrow: Any) -> None:
    with narrow as house:
        for key, names in [
            ("typed", ["task/mood"]),
            ("raw", ["large", "big-b"]),
            ("all", ["task/mood", "small", "large", "half-b", "big-b"]),
        ]:
            listed = (await ask(house, key, None, "/v1/models")).json["data"]
            assert [one["id"] for one in listed] == names


async def test_what_it_may_not_ask_does_not_exist(narrow: Any) -> None:
    """A forbidden name and one that is not there get the same words, and none that it may not see.

    A 403 would tell names apart, and so lists every task of every other tenant to whoever guesses.
    """
    with narrow as house:
        for key, body, path in [
            ("raw", typed("easy"), CHAT),
            ("raw", {"inputs": ["easy"]}, PREDICT),
            ("raw", through("small"), CHAT),
            ("raw", through("half-b", stream=True), CHAT),
            ("typed", through("large"), CHAT),
            ("typed", through("big-b"), CHAT),
        ]:
            got = await ask(house, key, body, path)
            assert (got.status, got.json["error"]["code"]) == (404, "model_not_found")
            asked = body.get("model", "mood")
            absent = {**body, "model": "gone"} if "model" in body else body
            gone = await ask(house, key, absent, path.replace("mood", "gone"))
            assert gone.text == got.text.replace(f"'{asked}'", "'gone'")
            seen = got.json["error"]["message"].partition("There are:")[2]
            assert ("mood" in seen) == (key == "typed") and ("big-b" in seen) == (key == "raw")
        assert house.engine.bodies == []


async def test_a_forced_tier_is_no_way_around(narrow: Any) -> None:
    with narrow as house:
        got = await ask(house, "raw", through("large"), x_cascade_tier="small")
        assert (got.status, got.json["error"]["code"]) == (400, "tier_not_found")
        assert "half-b" not in got.text and "small;" not in got.text
        assert got.json["error"]["message"].endswith("there are: large")
        assert house.engine.bodies == []
        allowed = await ask(house, "all", through("large"), x_cascade_tier="small")
        assert allowed.status == 200 and house.engine.bodies[-1]["model"] == "half-b"


async def test_a_model_may_be_asked_by_either_name(narrow: Any) -> None:
    with narrow as house:
        for name in ("large", "big-b"):
            assert (await ask(house, "raw", through(name))).status == 200


async def test_rate_limit_as_openai_has_it(open_house: Build) -> None:
    with open_house(keys=[ApiKey("k1", "acme", rate=2), ApiKey("k2", "zeta")]) as house:
        for left in ("1", "0"):
            got = await ask(house, "k1", typed("easy"))
            assert got.status == 200
            assert got.headers["x-ratelimit-limit-requests"] == "2"
            assert got.headers["x-ratelimit-remaining-requests"] == left
        assert got.headers["x-ratelimit-reset-requests"].endswith("s")
        refused = await ask(house, "k1", typed("easy"))
        assert refused.status == 429
        assert refused.json["error"]["code"] == "rate_limit_exceeded"
        assert refused.json["error"]["type"] == "rate_limit_error"
        assert 0 < int(refused.headers["retry-after"]) <= 30
        assert refused.headers["x-ratelimit-remaining-requests"] == "0"
        other = await ask(house, "k2", typed("easy"))
        assert other.status == 200 and "x-ratelimit-limit-requests" not in other.headers
        assert house.metric("errors_total", status="429", code="rate_limit_exceeded") == 1


def test_who_waits_as_long_as_told_gets_in() -> None:
    now = [0.0]
    tenants = Tenants(
        [ApiKey("k1", "acme", rate=7)], Spending(lambda since, until: {}), lambda: now[0]
    )
    acme = tenants.find({"authorization": "Bearer k1"})
    for _ in range(7):
        tenants.admit(acme)
    with pytest.raises(Refusal) as refused:
        tenants.admit(acme)
    assert refused.value.headers["x-ratelimit-reset-requests"] == "1m0s"
    now[0] += int(refused.value.headers["retry-after"])
    assert tenants.admit(acme)["x-ratelimit-remaining-requests"] == "0"


async def test_mistakes_and_streams_count_and_tell_the_rate_too(open_house: Build) -> None:
    with open_house(keys=[ApiKey("k1", "acme", rate=3)]) as house:
        wrong = await ask(house, "k1", b"{")
        assert (wrong.status, wrong.headers["x-ratelimit-remaining-requests"]) == (400, "2")
        stream = await ask(house, "k1", through("large", stream=True))
        assert (stream.status, stream.headers["x-ratelimit-remaining-requests"]) == (200, "1")


async def test_a_refused_stranger_takes_no_token(open_house: Build) -> None:
    with open_house(keys=[ApiKey("k1", "acme", rate=1)]) as house:
        for _ in range(5):
            assert (await ask(house, "guess", typed("easy"))).status == 401
        assert (await ask(house, "k1", typed("easy"))).status == 200


async def test_the_openai_client_understands(open_house: Build) -> None:
    with open_house(keys=[ApiKey("k1", "acme", rate=1), ApiKey("k2", "zeta", spend=1e-9)]) as house:

        async def chat(key: str) -> Any:
            async with openai.AsyncOpenAI(base_url=house.v1, api_key=key, max_retries=0) as client:
                body = typed("hard")
                return await client.chat.completions.create(**body)

        await chat("k1")
        await chat("k2")
        for key, code in [("k1", "rate_limit_exceeded"), ("k2", "insufficient_quota")]:
            with pytest.raises(openai.RateLimitError) as raised:
                await chat(key)
            assert raised.value.code == code
            assert int(raised.value.response.headers["retry-after"]) > 0


@pytest.mark.parametrize("path", ["typed", "predict", "whole", "stream"])
async def test_spent_is_spent_whichever_way_it_was_spent(open_house: Build, path: str) -> None:
    price = 1e-6 * (4 * 1.0 + 6 * 0.1 + 2 * 2.0)  # of the engine's 10 tokens, 6 of them cached
    body, where, dollars = {
        "typed": (typed("hard"), CHAT, 2 * DOLLARS),  # small and large were asked
        "predict": ({"inputs": ["hard"] * 4}, PREDICT, 8 * DOLLARS),
        "whole": (through("large"), CHAT, price),
        "stream": (through("large", stream=True), CHAT, price),
    }[path]
    with open_house(keys=[ApiKey("k1", "acme", spend=1.5 * dollars), "other"]) as house:
        tenants: Tenants = house.services.tenants
        for answered in (1, 2):
            assert (await ask(house, "k1", body, where, x_tenant_id="team")).status == 200
            assert tenants.spending.today("acme") == pytest.approx(answered * dollars)
        refused = await ask(house, "k1", body, where)
        assert (refused.status, refused.json["error"]["code"]) == (429, "insufficient_quota")
        seconds = int(refused.headers["retry-after"])
        assert abs(seconds - (86_400 - time.time() % 86_400)) < 5
        assert (await ask(house, "k1", None, "/v1/models")).status == 429
        assert (await ask(house, "other", body, where)).status == 200


async def test_who_leaves_a_stream_before_its_usage_pays_for_what_was_sent(
    open_house: Build,
) -> None:
    """Else a limit is no limit: read all but the last event, and go."""
    with open_house(keys=[ApiKey("k1", "acme", spend=1e-12)]) as house:
        house.engine.pause_seconds = 0.3
        headers = {"authorization": "Bearer k1"}
        async with aiohttp.ClientSession(headers=headers) as session:
            body = through("large", stream=True)
            async with session.post(house.url + CHAT, json=body) as answer:
                assert b"one" in await answer.content.readuntil(b"\n\n")
        spending = house.services.tenants.spending
        await asyncio.to_thread(until, lambda: spending.today("acme") > 0)
        assert (await ask(house, "k1", through("large"))).status == 429


async def test_a_stream_that_never_began_costs_nothing(open_house: Build) -> None:
    with open_house(keys=[ApiKey("k1", "acme", spend=1e-12)]) as house:
        house.engine.status = 500
        for _ in range(2):
            assert (await ask(house, "k1", through("large", stream=True))).status == 503
        assert house.services.tenants.spending.today("acme") == 0.0


async def test_a_restart_gives_no_money_back(open_house: Build) -> None:
    keys = [ApiKey("k1", "acme", spend=1.5 * 2 * DOLLARS)]
    for status in (200, 200, 429):
        with open_house(keys=keys) as house:
            assert (await ask(house, "k1", typed("hard"), x_tenant_id="team")).status == status


async def test_pages_for_machines_need_no_key_and_no_token(open_house: Build) -> None:
    with open_house(keys=[ApiKey("k1", "acme", rate=1)]) as house:
        async with aiohttp.ClientSession() as session:
            for path in ("/health", "/ready", "/metrics") * 2:
                async with session.get(house.url + path) as answer:
                    assert answer.status == 200
                    page = await answer.text()
        assert "acme" not in page  # no metric has a tenant for a label


async def test_new_keys_take_over_at_once_and_what_was_used_stays_used(open_house: Build) -> None:
    first = [ApiKey("k1", "acme", rate=2, spend=1.0), ApiKey("k2", "zeta", rate=2)]
    with open_house(keys=first) as house:
        for key in ("k1", "k2"):
            assert (await ask(house, key, typed("hard"))).status == 200
        second = [ApiKey("k3", "acme", rate=2, spend=1.0), ApiKey("k2", "zeta", rate=9)]
        await asyncio.to_thread(house.services.tenants.install, second)
        assert (await ask(house, "k1", typed("easy"))).status == 401
        got = await ask(house, "k3", typed("easy"))
        assert got.headers["x-ratelimit-remaining-requests"] == "0"
        assert house.services.tenants.spending.today("acme") == pytest.approx(2 * DOLLARS)
        got = await ask(house, "k2", typed("easy"))
        assert got.headers["x-ratelimit-remaining-requests"] == "8"


def test_a_key_for_what_is_not_there_is_a_sentence() -> None:
    large = LanguageModel("big-b", replicas=("http://127.0.0.1:1/v1",))

    def config(*tasks: str) -> GatewayConfig:
        return GatewayConfig(1, Tiers(large), api_keys=(ApiKey("k", "acme", tasks),))

    check_tasks(config("task/mood", "large", "big-b"), ["mood"])
    for wrong in ("mood", "task/gone", "small"):
        with pytest.raises(ConfigError, match=f"tasks.1.: acme: .*'{wrong}': .*task/mood"):
            check_tasks(config("large", wrong), ["mood"])


async def test_the_admin_sees_limits_and_todays_dollars(open_house: Build) -> None:
    keys = [ApiKey("k1", "acme", ("task/mood",), rate=5, spend=2.0), ApiKey("k2", "zeta")]
    with open_house(keys=keys) as house:
        await ask(house, "k1", typed("hard"))
        found = (await ask(house, "admin-secret", None, "/admin/tenants")).json
        assert found.keys() == {"acme", "zeta"}
        assert found["acme"].pop("dollars_today") == pytest.approx(2 * DOLLARS)
        assert found["acme"] == {
            "tasks": ["task/mood"],
            "requests_a_minute": 5,
            "dollars_a_day": 2.0,
        }
        assert set(found["zeta"].values()) == {None, 0.0}
