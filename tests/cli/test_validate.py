"""``cascade validate``: every mistake at once, each with its place and the next step."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from cascade.cli import premises
from tests.cli.homes import Home, invoke

ROOT = Path(__file__).parents[2]


def lines(home: Home, *arguments: object) -> list[str]:
    """What it says of mistakes, less the folder; and that it exits with 2 if there is one."""
    ran = invoke("validate", *arguments, "-c", home.config)
    *mistakes, summary = ran.stdout.replace(f"{home.folder}/", "").splitlines()
    assert ran.exit_code == (2 if mistakes else 0)
    assert summary.startswith("gateway.yaml: ")
    return mistakes


def line_of(home: Home, **keys: Any) -> str:
    """The one mistake of a configuration with these keys."""
    home.change(home.config, **keys)
    (mistake,) = lines(home)
    return mistake


def test_good_names_the_tasks(home: Home, tmp_path: Path) -> None:
    assert invoke("validate", "-c", home.config).stdout.endswith("good; tasks: mood\n")
    other = tmp_path / "other.yaml"
    other.write_text(home.recipe.read_text())
    home.change(other, name="other")
    assert "mood, other" in invoke("validate", other, "-c", home.config).stdout
    home.recipe.unlink()
    assert invoke("validate", "-c", home.config).stdout.endswith("tasks: none\n")


def test_all_mistakes_of_all_files_are_told_at_once(home: Home) -> None:
    """Each of these alone used to hide the others."""
    home.config.write_text(
        f"""version: 1
tiers:
  small: {{model: qwen2.5-coder-0.6b, engine: embedded}}
  large:
    model: big
    replicas: ["gpu-1:8000/v1"]
    api_key: ${{CASCADE_TEST_NOT_SET}}
    price: {{inptu: 1, output: "2"}}
audit: {{rate: 0.001, floor: 0.01}}
listen: {{host: 0.0.0.0}}
store: mysql://x
registry: htp://mlflow
tasks: {home.recipe.parent}
api_kyes: [a]
"""
    )
    home.recipe.write_text(
        """name: Mood
kind: filtr
prompt: ' '
source: {table: nowhere.csv, txt: text, text: text}
guarantee: {target: 2, delta: 0.9}
labels: [yes, no]
embedder: toi
"""
    )
    gateway = [
        "3:3: tiers.small: without a price nobody knows what is saved",
        "3:11: tiers.small.model: no embedded model is called 'qwen2.5-coder-0.6b': did you mean",
        "6:16: tiers.large.replicas[0]: 'gpu-1:8000/v1' is not an address: write http://",
        "7:5: tiers.large.api_key: ${CASCADE_TEST_NOT_SET} is not set in the environment: export",
        "8:13: tiers.large.price.inptu: unknown key: did you mean `input`?",
        "8:23: tiers.large.price.output: expected a number, got a text",
        "9:22: audit.floor: 0 < floor <= rate <= 1",
        "10:10: listen.host: 0.0.0.0 can be reached from outside: set `api_keys`",
        "11:1: store: a store cannot be kept in 'mysql': write sqlite:///",
        "12:1: registry: htp:// is no registry: did you mean `http`?",
        "14:1: api_kyes: unknown key: did you mean `api_keys`?",
    ]
    recipe = [
        "1:1: name: name 'Mood': use lower-case letters",
        "2:1: kind: kind 'filtr' is none of filter, classify",
        "3:1: prompt: prompt is empty",
        "4:10: source.table: nowhere.csv does not exist",
        "4:30: source.txt: unknown key: did you mean `text`?",
        "5:13: guarantee.target: 0.5 <= target < 1",
        "5:24: guarantee.delta: 0 < delta < 0.5",
        "6:10: labels[0]: expected a text, got true or false: put it in quotes",
        "6:15: labels[1]: expected a text, got true or false: put it in quotes",
        "7:1: embedder: no embedder in",
    ]
    expected = [f"gateway.yaml:{one}" for one in gateway]
    expected += [f"recipes/mood.yaml:{one}" for one in recipe]
    found = lines(home)
    assert len(found) == len(expected)
    for line, start in zip(found, expected, strict=True):
        assert line.startswith(start)


def test_another_version_hides_no_place_that_is_unusable(home: Home) -> None:
    home.change(home.config, version=2, store="mysql://x")
    store, version = lines(home)
    assert "store: a store cannot be kept" in store and "version: expected 1" in version


def test_json_has_the_same(home: Home) -> None:
    home.change(home.config, colour="red")
    ran = invoke("validate", "-c", home.config, "--json")
    told = json.loads(ran.stdout)
    assert ran.exit_code == 2 and told["tasks"] == ["mood"]
    (mistake,) = told["mistakes"]
    assert mistake["file"] == str(home.config) and mistake["column"] == 1
    assert home.config.read_text().splitlines()[mistake["line"] - 1] == "colour: red"
    assert mistake["message"].startswith("colour: unknown key")


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"store": "postgresql://u:hunter2@h:x/d"}, "store: the store is not a database URL"),
        ({"store": "sqlite://"}, "store: labels in 'sqlite://' would be lost"),
        ({"store": "sqlite:////proc/version/a.db"}, "/proc/version is a file"),
        ({"registry": "/proc/version/r"}, "registry: /proc/version is a file"),
        ({"registry": "sqlite:////proc/version/m.db"}, "registry: /proc/version is a file"),
        ({"tasks": "/nowhere"}, "tasks: /nowhere is no folder of recipes: make it"),
    ],
)
def test_unusable_places(home: Home, keys: dict[str, Any], told: str) -> None:
    line = line_of(home, **keys)
    assert told in line and "hunter2" not in line


def test_a_store_in_a_server_and_a_registry_of_mlflow_are_good(home: Home) -> None:
    home.change(home.config, store="postgresql+psycopg://u@h/d", registry="http://mlflow:5000")
    assert lines(home) == []


def test_folders_that_cannot_be_written(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK)  # root may write anywhere
    assert ["cannot be written" in line for line in lines(home)] == [True, True]


def test_what_is_not_installed(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(premises, "find_spec", lambda name: None)
    tiers = {"large": {"model": "smollm2-135m", "engine": "embedded", "price": {"input": 1.0}}}
    places = {"store": "postgresql://u@h/d", "registry": "http://mlflow:5000"}
    home.change(home.config, tiers=tiers, tracing={"endpoint": "http://collector:4318"}, **places)
    extras = [line.rpartition("cascade-router")[2] for line in lines(home)]
    assert {"[postgres]'", "[train]'", "[embedded]'", "[otel]'"} < set(extras)


def test_a_key_that_may_ask_what_is_not_there(home: Home) -> None:
    key = {"key": "k", "name": "acme", "tasks": ["task/mood", "task/moon", "larg"]}
    home.change(home.config, api_keys=["other", key])
    moon, large = lines(home)
    assert "api_keys[1].tasks[1]: acme: there is no 'task/moon': did you mean `task/mood`?" in moon
    assert "api_keys[1].tasks[2]: acme: there is no 'larg': did you mean `large`?" in large


def test_a_model_that_is_not_pulled(home: Home) -> None:
    tiers = {"large": {"model": "smollm2-135m", "engine": "embedded", "price": {"input": 1.0}}}
    line = line_of(home, tiers=tiers)
    assert "smollm2-135m is not here: run 'cascade models pull smollm2-135m'" in line
    (home.folder / "models" / "smollm2-135m.gguf").write_bytes(b"GGUF")
    assert lines(home) == []


def test_a_key_that_no_header_can_carry(home: Home) -> None:
    tier = {"model": "m", "replicas": ["http://a/v1"], "price": {"input": 1.0}}
    assert "api_key has a line break" in line_of(home, tiers={"large": {**tier, "api_key": "a\nb"}})


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ({"text": "txt"}, "source.text: {table} has no column 'txt'; it has 'text'"),
        ({"gold": "golf"}, "source.gold: {table} has no column 'golf'"),
        ({"table": "t.xlsx"}, "source.table: t.xlsx: a table is a .csv"),
    ],
)
def test_a_table_without_the_column(home: Home, source: dict[str, str], told: str) -> None:
    home.change(home.recipe, source={"table": str(home.folder / "t.csv"), "text": "text", **source})
    (line,) = lines(home)
    assert told.format(table="t.csv") in line


def test_a_table_that_may_not_be_read(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied", "t.csv")

    monkeypatch.setattr(premises, "look_at", refuse)  # root may read anything
    (line,) = lines(home)
    assert "source.text: [Errno 13] Permission denied: 't.csv'" in line


def test_two_recipes_of_one_name(home: Home) -> None:
    (home.recipe.parent / "twin.yaml").write_text("\n" + home.recipe.read_text())
    name = home.recipe.read_text().splitlines().index("name: mood") + 1
    (line,) = lines(home)
    assert line.startswith(f"recipes/twin.yaml:{name + 1}:1: name: mood is the name in")
    assert f"recipes/mood.yaml:{name} too: rename one" in line


def test_no_price_is_fine_where_no_saving_is_told(home: Home) -> None:
    tiers = {"large": {"model": "m", "replicas": ["http://a/v1"]}}
    assert "tiers.large: without a price" in line_of(home, tiers=tiers)
    home.recipe.unlink()
    assert lines(home) == []


def test_models_of_the_environment_are_looked_for(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CASCADE_MODELS", str(home.folder / "elsewhere"))
    (line,) = lines(home)
    assert "no embedder in elsewhere/toy: run 'cascade models pull toy'" in line


@pytest.mark.parametrize("text", ["", "- a\n", "a: [\n", "version: 1\ntiers: {}\n"])
def test_what_is_no_configuration_at_all(
    home: Home, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    home.config.write_text(text)
    monkeypatch.chdir(home.folder)
    assert len(lines(home)) == 1


def test_missing_files_are_named(home: Home) -> None:
    ran = invoke("validate", "-c", home.folder / "nowhere.yaml")
    assert ran.exit_code == 2 and "nowhere.yaml:1:1: cannot be read: No such file" in ran.stdout
    (line,) = lines(home, home.folder / "no.yaml")
    assert line.startswith("no.yaml:1:1: cannot be read")


def test_nothing_is_made(home: Home) -> None:
    home.change(home.config, store=f"sqlite:///{home.folder}/new/cascade.db")
    before = sorted(home.folder.rglob("*"))
    assert lines(home) == []
    assert sorted(home.folder.rglob("*")) == before


def test_the_repository_s_own_files_only_miss_what_is_not_fetched(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(ROOT)
    ran = invoke("validate", "--json")
    missing = ("does not exist: run python data/fetch.py", "run 'cascade models pull")
    told = json.loads(ran.stdout)
    assert told["config"] == "serving/gateway.yaml" and "spam" in told["tasks"]
    assert all(any(one in row["message"] for one in missing) for row in told["mistakes"])
