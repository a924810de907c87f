"""The admin pages: a key of their own, the truth about every task, and the switches."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
import pytest

from cascade import config
from cascade.errors import RegistryError
from cascade.gateway.keys import Keys

from .conftest import Build, House, lane_of, on_two_rungs, send, typed, until

Call = Callable[..., Any]


@pytest.fixture
async def call(house: House) -> AsyncIterator[Call]:
    """``status, json = await call("GET", "/admin/status")`` with the admin key."""
    headers = {"authorization": "Bearer admin-secret"}
    async with aiohttp.ClientSession(headers=headers) as session:

        async def send(method: str, path: str, body: Any = None) -> tuple[int, Any]:
            async with session.request(method, house.url + path, json=body) as answer:
                assert answer.headers["x-request-id"]
                return answer.status, await answer.json()

        yield send


async def tier_of(house: House, text: str) -> tuple[str, str]:
    got = await send(f"{house.v1}/chat/completions", typed(text))
    return got.headers["x-cascade-tier"], got.headers["x-cascade-reason"]


@pytest.mark.parametrize("given", [None, "Bearer wrong", "Basic admin-secret"])
async def test_needs_the_admin_key(house: House, given: str | None) -> None:
    headers = {"authorization": given} if given else {}
    async with aiohttp.ClientSession(headers=headers) as session:
        for path in ("/admin", "/admin/status", "/admin/docs", "/admin/openapi.json"):
            async with session.get(house.url + path) as answer:
                assert answer.status == 401


async def test_is_off_without_an_admin_key(open_house: Build) -> None:
    with open_house() as house:
        house.services.admin_keys = Keys([])
        got = await send(house.url + "/admin/status", method="GET")
        assert got.status == 403 and "admin_key" in got.json["error"]["message"]


async def test_status_and_certificates(call: Call, house: House) -> None:
    await tier_of(house, "easy")
    status, body = await call("GET", "/admin/status")
    assert status == 200 and body["tiers"] == {"small": True, "large": True}
    mood = body["tasks"]["mood"]
    assert mood["in_use"] and mood["version"] == "1"
    promise = mood["promise"]
    assert promise["metric"] == "agreement" and promise["target"] == 0.9
    assert promise["thresholds"].keys() == {"proxy", "small"}
    assert mood["watch"]["requests"] == 1 and mood["watch"]["steps"] == []
    _, certificates = await call("GET", "/admin/certificates")
    assert certificates["mood"]["target"] == 0.9 and "evidence" not in certificates["mood"]


async def test_demote_and_reinstate(call: Call, house: House) -> None:
    status, body = await call("POST", "/admin/demote", {"task": "mood", "why": "odd answers"})
    assert status == 200 and body["reason"] == "demoted" and body["detail"] == "odd answers"
    assert await tier_of(house, "easy") == ("large", "demoted")
    await call("POST", "/admin/reinstate", {"task": "mood"})
    assert await tier_of(house, "easy") == ("proxy", "certified")


async def test_what_the_monitor_took_out_cannot_be_reinstated(call: Call, house: House) -> None:
    house.lanes.serve("mood", "1", None, "the monitor alarmed")
    status, body = await call("POST", "/admin/reinstate", {"task": "mood"})
    assert status == 409 and body["error"]["code"] == "needs_certificate"
    assert "cascade certify" in body["error"]["message"]
    assert await tier_of(house, "easy") == ("large", "demoted")


async def test_off_switch(call: Call, house: House) -> None:
    assert await call("POST", "/admin/off", {"why": "holiday"}) == (200, {"off": True})
    assert await tier_of(house, "easy") == ("large", "demoted")
    assert await call("POST", "/admin/on") == (200, {"off": False})
    assert await tier_of(house, "easy") == ("proxy", "certified")


async def test_decisions(call: Call, house: House) -> None:
    await tier_of(house, "easy")
    await tier_of(house, "hard")
    await asyncio.to_thread(until, lambda: len(house.store.decisions.recent(5)) == 2)
    _, found = await call("GET", "/admin/decisions?limit=5&task=mood")
    assert [one["tier"] for one in found] == ["large", "proxy"]
    _, one = await call("GET", f"/admin/decisions/{found[0]['id']}")
    assert one["reason"] == "below_threshold"
    status, _ = await call("GET", "/admin/decisions/none")
    assert status == 404


async def test_a_decision_is_replayed(call: Call, house: House) -> None:
    await tier_of(house, "hard")
    got = await send(f"{house.v1}/chat/completions", typed("easy"), x_cascade_tier="small")
    assert got.status == 503  # the small tier was forced, and has never heard of it
    await asyncio.to_thread(until, lambda: len(house.store.decisions.recent(5)) == 2)
    forced, climbed = (await call("GET", "/admin/decisions"))[1]
    _, told = await call("GET", f"/admin/decisions/{climbed['id']}")
    proxy, small, large = told["trail"]
    assert (proxy["tier"], proxy["label"], proxy["confidence"], proxy["needed"]) == (
        *("proxy", "no", 0.5),
        0.9,
    )
    assert (small["label"], small["confidence"], small["needed"]) == ("yes", 0.3, 0.8)
    assert large["label"] == "no" and "needed" not in large
    assert (told["reason"], told["label"], told["audit"]) == ("below_threshold", "no", None)
    [said] = forced["trail"]
    assert said == {"tier": "small", "reason": "tier_unavailable", **said}
    assert "easy" not in str(told) and "hard" not in str(told)


async def test_a_replay_has_the_thresholds_of_its_time(
    call: Call, house: House, certificate: Any
) -> None:
    """Not those of whatever champion serves when somebody looks."""
    two = on_two_rungs(lane_of(certificate, house.services.metrics))
    house.lanes.install(two)
    await tier_of(house, "easy")
    house.lanes.serve("mood", "1", 0, "one rung more careful")
    await tier_of(house, "easy")
    await asyncio.to_thread(until, lambda: len(house.store.decisions.recent(5)) == 2)
    careful, before = (await call("GET", "/admin/decisions"))[1]
    assert (before["trail"][0]["needed"], before["tier"]) == (0.9, "proxy")
    assert (careful["trail"][0]["needed"], careful["tier"]) == (0.99, "large")


async def test_a_replay_has_the_teachers_word(open_house: Build) -> None:
    with open_house(audit=config.Audit(rate=1.0, floor=1.0)) as house:
        await tier_of(house, "tricky")
        await asyncio.to_thread(until, lambda: len(house.store.decisions.recent(5)) == 2)
        [told] = [one for one in house.store.decisions.recent(5) if one.reason != "audit"]
        url = f"{house.url}/admin/decisions/{told.id}"
        got = await send(url, method="GET", authorization="Bearer admin-secret")
        assert (got.json["label"], got.json["audit"]["label"]) == ("yes", "no")


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code"),
    [
        ("GET", "/admin/nothing", None, 404, "not_found"),
        ("GET", "/admin/off", None, 405, "method_not_allowed"),
        ("POST", "/admin/demote", {"task": "none"}, 404, "model_not_found"),
        ("POST", "/admin/demote", {}, 400, "invalid_value"),
        ("POST", "/admin/promote", {"task": "mood", "version": "2"}, 409, "no_registry"),
        ("GET", "/admin/decisions?limit=0", None, 400, "invalid_value"),
    ],
)
async def test_errors_have_the_same_shape(
    call: Call, method: str, path: str, body: Any, status: int, code: str
) -> None:
    got, answer = await call(method, path, body)
    assert (got, answer["error"]["code"]) == (status, code)


async def test_promote_moves_the_alias_and_serves_it(
    call: Call, house: House, certificate: Any
) -> None:
    class Registry:
        def promote(self, task: str, version: str, alias: str) -> None:
            if version != "2":
                raise RegistryError(f"there is no version {version}")

    class Follower:
        def poll(self) -> None:
            house.lanes.install(lane_of(certificate, house.services.metrics, version="2"))

        def problems(self) -> dict[str, str]:
            return {}

        def stop(self) -> None: ...

    house.services.registry = Registry()  # type: ignore[assignment]
    house.services.follower = Follower()  # type: ignore[assignment]
    status, body = await call("POST", "/admin/promote", {"task": "mood", "version": "2"})
    assert status == 200 and body["version"] == "2" and body["in_use"]
    status, body = await call("POST", "/admin/promote", {"task": "mood", "version": "9"})
    assert status == 409 and "no version 9" in body["error"]["message"]


async def test_nothing_to_demote(call: Call, house: House, certificate: Any) -> None:
    blank = lane_of(certificate, house.services.metrics, version=None)  # type: ignore[arg-type]
    house.lanes.install(blank)
    status, body = await call("POST", "/admin/demote", {"task": "mood"})
    assert status == 409 and body["error"]["code"] == "no_champion"


async def test_a_gateway_without_store_has_no_decisions(call: Call, house: House) -> None:
    house.services.decisions = None
    assert (await call("GET", "/admin/decisions"))[0] == 404
