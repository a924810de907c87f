"""Commands around a running gateway, and those that only look."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cascade.cli.serving import validate
from cascade.errors import ConfigError, RecipeError, TierRejected, TierUnavailable, UsageError
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


def test_validate_names_the_tasks(home: Home, tmp_path: Path) -> None:
    assert invoke("validate", "-c", home.config).stdout.endswith("good; tasks: mood\n")
    other = tmp_path / "other.yaml"
    other.write_text(home.recipe.read_text())
    home.change(other, name="other")
    assert "mood, other" in invoke("validate", other, "-c", home.config).stdout


def test_validate_without_tasks(home: Home) -> None:
    home.recipe.unlink()
    assert invoke("validate", "-c", home.config).stdout.endswith("tasks: none\n")


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"kind": "rank"}, "no gateway serves a ranking"),
        ({"labels": ["a", "a"]}, "labels occur twice"),
        ({"colour": "red"}, "unknown field `colour`"),
        ({"prompt": " "}, "prompt is empty"),
        ({"guarantee": {"target": 1.5}}, "target < 1"),
    ],
)
def test_validate_says_what_is_wrong_with_a_recipe(
    home: Home, keys: dict[str, Any], told: str
) -> None:
    home.change(home.recipe, **keys)
    refused = invoke("validate", "-c", home.config)
    assert isinstance(refused.exception, RecipeError)
    assert told in str(refused.exception) and "mood.yaml" in str(refused.exception)


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"version": 2}, "version"),
        ({"tiers": {}}, "large"),
        ({"store": "${CASCADE_TEST_NOT_SET}"}, "CASCADE_TEST_NOT_SET"),
        ({"listen": {"host": "0.0.0.0"}}, "api_keys"),
    ],
)
def test_validate_says_what_is_wrong_with_the_configuration(
    home: Home, keys: dict[str, Any], told: str
) -> None:
    home.change(home.config, **keys)
    refused = invoke("validate", "-c", home.config)
    assert isinstance(refused.exception, ConfigError)
    assert told in str(refused.exception) and "gateway.yaml" in str(refused.exception)


def test_missing_files_are_named(home: Home) -> None:
    nowhere = invoke("validate", "-c", home.folder / "nowhere.yaml").exception
    assert isinstance(nowhere, ConfigError) and "nowhere.yaml" in str(nowhere)
    recipe = invoke("validate", home.folder / "no.yaml", "-c", home.config).exception
    assert isinstance(recipe, RecipeError) and "no.yaml" in str(recipe)


def test_repository_s_own_configuration_is_good() -> None:
    validate(Path("serving/gateway.yaml"), None)


def test_ui_of_a_server_is_its_address(home: Home) -> None:
    home.change(home.config, registry="http://mlflow.example:5000")
    assert invoke("ui", "-c", home.config).stdout == "http://mlflow.example:5000\n"


def test_ui_of_a_folder_does_not_exist(home: Home) -> None:
    refused = invoke("ui", "-c", home.config)
    assert isinstance(refused.exception, UsageError)
    assert "MLflow URI" in str(refused.exception)
