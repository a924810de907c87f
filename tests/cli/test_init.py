"""``cascade init``: what it writes is good, answers, and replaces nothing."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import subprocess
import sys
import tomllib
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cascade.config import load_config
from cascade.errors import ConfigError, UsageError
from cascade.recipes import load_recipe
from tests.cli.homes import invoke
from tests.gateway.conftest import Engine, Served, until

ROOT = Path(__file__).parents[2]
WRITTEN = [
    ".env.example",
    ".gitignore",
    "gateway.yaml",
    "training/recipes/review-positive.yaml",
    "training/recipes/reviews.csv",
]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, and the working one."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def files(folder: Path) -> list[str]:
    return sorted(str(one.relative_to(folder)) for one in folder.rglob("*") if one.is_file())


def test_a_workspace_and_the_next_three_commands(here: Path) -> None:
    ran = invoke("init")
    assert files(here) == WRITTEN
    *_, pull, validate, serve = ran.stdout.splitlines()
    llms = "qwen2.5-coder-0.5b qwen2.5-coder-1.5b"
    assert pull.strip() == f"cascade models pull minilm-int8 {llms}"
    assert (validate.strip(), serve.strip()) == ("cascade validate", "cascade serve")


def test_validate_finds_the_file_and_only_misses_models(here: Path) -> None:
    invoke("init")
    told = json.loads(invoke("validate", "--json").stdout)
    assert told["tasks"] == ["review-positive"] and len(told["mistakes"]) == 3
    assert all("run 'cascade models pull" in one["message"] for one in told["mistakes"])


def test_an_own_endpoint_needs_the_embedder_only(here: Path) -> None:
    model = 'Qwen/"32": B'
    ran = invoke("init", "my work", "--endpoint", "http://gpu-1:8000/v1", "--model", model)
    assert "cd 'my work' && cascade models pull minilm-int8\n" in ran.stdout
    config = load_config(here / "my work" / "gateway.yaml", {})
    assert config.tiers.small is None and config.tiers.large.model == model
    assert config.tiers.large.replicas == ("http://gpu-1:8000/v1",)
    embedded = load_config(ROOT / "serving" / "gateway.yaml", {})
    assert (config.audit, config.store, config.listen) == (
        embedded.audit,
        embedded.store,
        embedded.listen,
    )


def test_nothing_is_overwritten(here: Path) -> None:
    (here / "training" / "recipes").mkdir(parents=True)
    for name in (".gitignore", "training/recipes/reviews.csv"):
        (here / name).write_text("mine")
    refused = invoke("init").exception
    assert isinstance(refused, UsageError)
    assert "training/recipes/reviews.csv, .gitignore already" in str(refused)
    assert files(here) == [".gitignore", "training/recipes/reviews.csv"]
    assert (here / ".gitignore").read_text() == "mine"


def test_a_folder_that_is_none_is_a_sentence(here: Path) -> None:
    (here / "taken").write_text("a file")
    refused = invoke("init", "taken").exception
    assert isinstance(refused, UsageError) and "name another folder" in str(refused)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--endpoint", "http://a/v1"], "give both"),
        (["--model", "m"], "give both"),
        (["--endpoint", "gpu:8000", "--model", "m"], "is not an address"),
    ],
)
def test_half_an_endpoint_writes_nothing(here: Path, options: list[str], told: str) -> None:
    refused = invoke("init", *options).exception
    assert isinstance(refused, UsageError | ConfigError) and told in str(refused)
    assert files(here) == []


def test_there_is_one_text_of_each_file() -> None:
    """The repository's own are links to what the wheel carries; an editor may have replaced one."""
    templates = ROOT / "cascade" / "templates"
    for own, carried in {
        "serving/gateway.yaml": templates / "gateway.yaml",
        "data/samples/reviews.csv": templates / "reviews.csv",
        "models/manifest.yaml": ROOT / "cascade" / "models" / "manifest.yaml",
    }.items():
        assert (ROOT / own).is_symlink() and (ROOT / own).samefile(carried)


def test_the_wheel_carries_what_is_no_module() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    data: dict[str, list[str]] = project["tool"]["setuptools"]["package-data"]
    carried = {
        file
        for package, patterns in data.items()
        for pattern in patterns
        for file in (ROOT / package.replace(".", "/")).glob(pattern)
    }
    others = {
        file
        for file in (ROOT / "cascade").rglob("*")
        if file.is_file() and file.suffix != ".py" and "__pycache__" not in file.parts
    }
    assert carried == others


def test_secrets_and_what_is_bought_stay_out_of_git(here: Path) -> None:
    invoke("init")
    for name in ("data", "models"):
        (here / name).mkdir()
        (here / name / "x").write_text("x")
    (here / ".env").write_text("KEY=1")
    subprocess.run(["git", "init", "-q"], check=True)
    listing = ["git", "ls-files", "--others", "--exclude-standard"]
    shown = subprocess.run(listing, capture_output=True, text=True, check=True)
    assert sorted(shown.stdout.split()) == WRITTEN


def test_the_recipe_s_numbers_fit_its_table(here: Path) -> None:
    invoke("init")
    recipe = load_recipe(here / "training" / "recipes" / "review-positive.yaml")
    rows = (here / recipe.source.table).read_text().splitlines()[1:]
    assert len(rows) >= recipe.buy.train + recipe.buy.certify + recipe.buy.evaluate
    assert recipe.source.column.column in (here / recipe.source.table).read_text().splitlines()[0]


class Positive(Engine):
    """An engine that likes everything."""

    def _completion(self, body: dict[str, Any]) -> dict[str, Any]:
        completion = super()._completion(body)
        completion["choices"][0]["message"]["content"] = "positive"
        return completion


@pytest.fixture
def engine() -> Iterator[Served]:
    with Served(Positive()) as served:
        yield served


@pytest.mark.slow
def test_the_workspace_serves(here: Path, models_dir: Path, engine: Served) -> None:
    invoke("init", "--endpoint", f"{engine.url}/v1", "--model", "big")
    shutil.copytree(models_dir / "minilm-int8", here / "models" / "minilm-int8")
    assert invoke("validate").stdout == "gateway.yaml: good; tasks: review-positive\n"
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    config = here / "gateway.yaml"
    text = config.read_text().replace("port: 8080", f"port: {port}")
    # a new MLflow database alone takes ten seconds
    config.write_text(text.replace("sqlite:///data/mlflow.db", "data/registry"))
    serving = subprocess.Popen([sys.executable, "-m", "cascade", "serve"], stderr=subprocess.PIPE)

    def ready() -> Any:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/ready", timeout=2) as answer:
                return json.loads(answer.read())
        except OSError:
            return None

    try:
        until(ready, seconds=60)
        assert ready()["tasks"] == ["review-positive"]
        url = f"http://127.0.0.1:{port}/v1"
        asked = invoke("ask", "Lovely.", "--model", "task/review-positive", "--base-url", url)
        assert asked.stdout.startswith("positive\n  tier large")
        serving.send_signal(signal.SIGTERM)
        assert serving.wait(30) == 0
    finally:
        serving.kill()
        serving.communicate()


def test_the_example_environment_can_be_loaded(here: Path) -> None:
    invoke("init")
    shell = "set -a; . ./.env.example; set +a; echo $CASCADE_ADMIN_KEY-$LARGE_API_KEY"
    assert subprocess.run(["sh", "-c", shell], capture_output=True, text=True).stdout == "-\n"
