"""A real, small proxy as MLflow sees it: loaded without pickle, in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

from cascade import reasons
from cascade.embed import Embedder, load_embedder
from cascade.embed.static import build_static_embedder
from cascade.errors import ModelUnavailable, RegistryError
from cascade.registry import open_registry
from cascade.registry.served import ESCALATE, NEVER, PROXY, Outcome, ServedProxy, outcome
from cascade.tasks import Task, Window
from cascade.tiers.artifact import Artifact
from cascade.types import Abstention, Answer
from tests.mlflow_server import MlflowServer
from tests.tiny_proxy import tiny_proxy

TASK = Task("mood", "filter", "Good?", ("yes", "no"), window=Window(8))
GOOD, BAD = ["good", "great", "fine", "lovely", "nice"], ["bad", "awful", "poor", "nasty", "ugly"]
DIM = 16

PREDICT = textwrap.dedent("""
    import sys, mlflow, pandas

    def no_pickle(event, arguments):
        if event == "pickle.find_class":
            raise RuntimeError(f"unpickled {arguments}")

    uri, models = sys.argv[1:]
    sys.addaudithook(no_pickle)
    model = mlflow.pyfunc.load_model(uri, model_config={"models": models})
    frame = pandas.DataFrame({"text": ["good great fine", "bad awful poor", "  "]})
    print(model.predict(frame).to_json(orient="records"))
""")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A models folder whose embedder averages the vectors of ten words."""
    work = tmp_path_factory.mktemp("models")
    words = [*GOOD, *BAD, "[UNK]"]
    rng = np.random.default_rng(0)
    table = rng.normal(size=(len(words), DIM)).astype(np.float32)
    table[:, 0] += [4.0] * len(GOOD) + [-4.0] * len(BAD) + [0.0]
    save_file({"table": table}, work / "table.safetensors")
    tokenizer = Tokenizer(WordLevel({word: i for i, word in enumerate(words)}, "[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.save(str(work / "tokenizer.json"))
    build_static_embedder(
        work / "table.safetensors",
        work / "tokenizer.json",
        work / "tiny",
        name="tiny",
        max_tokens=6,
    )
    return work


@pytest.fixture(scope="module")
def folder(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The artifact of a proxy that was trained on 600 short texts and holds a threshold."""
    artifact = train(load_embedder("tiny", models))
    target = tmp_path_factory.mktemp("artifact") / "mood"
    artifact.save(target)
    return target


def texts_and_labels(rng: np.random.Generator, rows: int) -> tuple[list[str], np.ndarray]:
    y = rng.integers(0, 2, rows)
    return [" ".join(rng.choice([GOOD, BAD][label], 3)) for label in y], y


def train(embedder: Embedder) -> Artifact:
    texts, y = texts_and_labels(np.random.default_rng(1), 600)
    identity = TASK.identity("large", f"{embedder.name}@{embedder.version}")
    return tiny_proxy(TASK, identity, embedder, texts, y, thresholds={"proxy": 0.8})


def labels_of(outcomes: Sequence[Outcome]) -> list[str]:
    return [one.label for one in outcomes]


def test_sure_answers_are_certified(folder: Path, models: Path) -> None:
    outcomes = ServedProxy(folder, models).outcomes(["good great fine", "bad awful poor"])
    assert labels_of(outcomes) == ["yes", "no"]
    assert {(one.tier, one.reason) for one in outcomes} == {(PROXY, reasons.CERTIFIED)}
    assert all(0.8 <= one.confidence <= 1 for one in outcomes)


def test_what_it_cannot_judge_is_passed_on_with_the_reason(folder: Path, models: Path) -> None:
    outcomes = ServedProxy(folder, models).outcomes(["  ", "good " * 7])
    assert [one.reason for one in outcomes] == [reasons.UNSUPPORTED_INPUT, reasons.TRUNCATED]
    assert {one.tier for one in outcomes} == {ESCALATE}


def test_window_of_the_task_is_applied(folder: Path, models: Path) -> None:
    served = ServedProxy(folder, models)
    inside, beyond = served.outcomes(
        ["good great fine " + "." * 5, "good great fine" + " bad" * 50]
    )
    assert inside.reason != reasons.TRUNCATED
    assert beyond.reason == reasons.TRUNCATED  # the window holds 8 words, the embedder sees 6


async def test_it_works_where_an_event_loop_runs_already(folder: Path, models: Path) -> None:
    assert labels_of(ServedProxy(folder, models).outcomes(["good great fine"])) == ["yes"]


def test_uncertified_answer_is_passed_on() -> None:
    reply = Answer("proxy", "yes", 0.99)
    assert outcome(reply, {"proxy": NEVER}) == ("yes", 0.99, ESCALATE, reasons.BELOW_THRESHOLD)
    assert outcome(reply, {"proxy": 0.995}).tier == ESCALATE
    assert outcome(reply, {"proxy": NEVER, "proxy:yes": 0.9}).tier == PROXY
    novel = outcome(Abstention("proxy", reasons.NOVEL), {"proxy": 0.5})
    assert novel == ("", 0.0, ESCALATE, reasons.NOVEL)


def test_embedder_that_is_missing_names_the_command(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailable, match="cascade models pull"):
        ServedProxy(folder, tmp_path)


def test_embedder_of_another_version_is_refused(folder: Path, models: Path, tmp_path: Path) -> None:
    build_static_embedder(
        models / "table.safetensors",
        models / "tokenizer.json",
        tmp_path / "tiny",
        name="tiny",
        max_tokens=7,
    )
    with pytest.raises(RegistryError, match="needs embedder tiny@"):
        ServedProxy(folder, tmp_path)


def test_mlflow_loads_and_runs_the_champion(
    folder: Path, models: Path, mlflow_server: MlflowServer
) -> None:
    registry = open_registry(mlflow_server.uri)
    registry.promote("mood", registry.save("mood", folder))
    command = [sys.executable, "-c", PREDICT, "models:/cascade.mood@champion", str(models)]
    environment = {
        **os.environ,
        "MLFLOW_TRACKING_URI": mlflow_server.uri,
        "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    }
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    assert [row["label"] for row in rows] == ["yes", "no", ""]
    assert [row["tier"] for row in rows] == [PROXY, PROXY, ESCALATE]
    assert rows[2]["reason"] == reasons.UNSUPPORTED_INPUT
