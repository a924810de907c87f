"""Embedded models from the command line; what is pulled already is only looked at."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cascade.errors import ModelError
from tests.cli.homes import invoke


@pytest.fixture
def nothing_pulled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CASCADE_MODELS", str(tmp_path))
    return tmp_path


def test_list_is_json_and_says_what_is_ready(nothing_pulled: Path) -> None:
    found = json.loads(invoke("models", "list", "--json").stdout)
    assert {"minilm-int8", "qwen2.5-coder-0.5b"} <= {one["name"] for one in found}
    assert not any(one["ready"] for one in found)
    assert all(one["licence"] and one["megabytes"] > 0 for one in found)


def test_list_for_people(nothing_pulled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert "minilm-int8" in invoke("models", "list").stdout


def test_verify_what_is_here(models_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CASCADE_MODELS", str(models_dir))
    shown = invoke("models", "verify", "minilm-int8")
    assert shown.exit_code == 0 and "minilm-int8 verified" in shown.stdout
    pulled = invoke("models", "pull", "minilm-int8")
    assert pulled.exit_code == 0 and "minilm-int8" in pulled.stderr


def test_verify_nothing(nothing_pulled: Path) -> None:
    assert invoke("models", "verify").stdout == ""
    refused = invoke("models", "verify", "minilm-int8")
    assert isinstance(refused.exception, ModelError)


@pytest.mark.parametrize("command", ["verify", "pull"])
def test_unknown_model_names_the_known_ones(nothing_pulled: Path, command: str) -> None:
    refused = invoke("models", command, "gpt-9")
    assert refused.exit_code == 1
    assert "minilm-int8" in str(refused.exception)
