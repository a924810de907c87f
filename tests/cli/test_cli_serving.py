"""Commands around a running gateway, and those that only look."""

from __future__ import annotations

import json
from typing import Any

import pytest

from cascade.errors import TierRejected, TierUnavailable, UsageError
from tests.cli.homes import Home, LoopbackServer, Reply, as_json, invoke

TOLD = {"x-cascade-tier": "proxy", "x-cascade-reason": "certified"}


def gateway(body: dict[str, Any]) -> Reply:
    """Answers "yes" to what is a task, as the gateway does."""
    if not body["model"].startswith("task/"):
        return as_json({"error": {"message": "no such model", "type": "x"}}, 404)
    message = {"role": "assistant", "content": "yes"}
    return as_json({"choices": [{"message": message}]}, headers=TOLD)


def test_ask_says_who_answered_and_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    with LoopbackServer(gateway) as server:
        asked = invoke("ask", "--model", "task/mood", "Nice.", "--base-url", server.url)
        assert asked.stdout == "yes\n  tier proxy, reason certified\n"
        assert server.headers["authorization"] == "Bearer secret"
        assert "x-cascade-tier" not in server.headers
        assert server.bodies[0]["messages"] == [{"role": "user", "content": "Nice."}]


def test_ask_can_force_a_tier_and_print_json() -> None:
    with LoopbackServer(gateway) as server:
        url = server.url + "/"
        arguments = ("--model", "task/mood", "--tier", "large", "--base-url", url, "--json")
        asked = json.loads(invoke("ask", "Nice.", *arguments).stdout)
        assert asked == {"answer": "yes", "cascade": {"tier": "proxy", "reason": "certified"}}
        assert server.headers["x-cascade-tier"] == "large"


def test_ask_tells_what_the_gateway_refused() -> None:
    with LoopbackServer(gateway) as server:
        refused = invoke("ask", "Nice.", "--model", "gpt", "--base-url", server.url)
    assert isinstance(refused.exception, TierRejected)
    assert str(refused.exception) == "no such model" and refused.exception.status == 404


@pytest.mark.parametrize(
    "reply",
    [
        (200, {"content-type": "text/html"}, b"<html>It works!</html>"),
        (200, {"content-type": "application/json"}, b"no json"),
        as_json({"detail": "Not Found"}, 404),
        as_json({"error": "not found"}, 404),
        as_json(["error"]),
        as_json({"choices": []}),
    ],
    ids=["page", "broken", "other api", "bare error", "list", "no choice"],
)
def test_what_is_no_gateway_is_not_believed(reply: Reply) -> None:
    with LoopbackServer(lambda body: reply) as server:
        refused = invoke("ask", "Nice.", "--model", "task/mood", "--base-url", server.url)
    assert isinstance(refused.exception, (TierUnavailable, TierRejected))
    assert "127.0.0.1" in str(refused.exception)


@pytest.mark.parametrize("url", ["not a url", "http://", "ftp://127.0.0.1/v1"])
def test_address_that_is_none(url: str) -> None:
    refused = invoke("ask", "Nice.", "--model", "task/mood", "--base-url", url)
    assert isinstance(refused.exception, TierUnavailable)


def test_ui_of_a_server_is_its_address(home: Home) -> None:
    home.change(home.config, registry="http://mlflow.example:5000")
    assert invoke("ui", "-c", home.config).stdout == "http://mlflow.example:5000\n"


def test_ui_of_a_folder_does_not_exist(home: Home) -> None:
    refused = invoke("ui", "-c", home.config)
    assert isinstance(refused.exception, UsageError)
    assert "MLflow URI" in str(refused.exception)
