"""The connection to MLflow: what is asked for, what is refused, and what stays as it was."""

from __future__ import annotations

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cascade.errors import MissingExtra, RegistryError
from cascade.registry.mlflow_connection import MlflowConnection, artifact_folder


def test_missing_mlflow_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)  # what Python holds for "cannot be imported"
    with pytest.raises(MissingExtra, match=r"cascade-router\[train\]"):
        MlflowConnection("http://127.0.0.1:5000")


def test_what_the_user_set_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "7")
    MlflowConnection("http://127.0.0.1:5000")
    assert os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "7"
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"


def test_artifacts_lie_beside_the_database_wherever_a_process_was_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert artifact_folder("sqlite:///data/mlflow.db") == tmp_path / "data" / "mlflow-artifacts"


@pytest.fixture(scope="module")
def connection(tmp_path_factory: pytest.TempPathFactory) -> MlflowConnection:
    return MlflowConnection(f"sqlite:///{tmp_path_factory.mktemp('connection')}/mlflow.db")


def test_experiment_that_several_want_at_once_is_one(connection: MlflowConnection) -> None:
    assert connection.client is connection.client
    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(connection.experiment, ["wanted"] * 8))) == 1


def test_errors_that_are_not_mlflows_pass_through(connection: MlflowConnection) -> None:
    with pytest.raises(ZeroDivisionError), connection.asking("divide") as client:
        assert client is connection.client
        raise ZeroDivisionError


def test_refusal_of_mlflow_itself_is_ours(connection: MlflowConnection) -> None:
    with (
        pytest.raises(RegistryError, match="could not find a run: Run with id=0 not found"),
        connection.asking("find a run") as client,
    ):
        client.get_run("0")


def test_deleted_experiment_is_a_refusal_and_not_a_second_one(connection: MlflowConnection) -> None:
    with connection.asking("delete") as client:
        first = connection.experiment("spam")
        assert connection.experiment("spam") == first
        client.delete_experiment(first)
    with pytest.raises(RegistryError, match="deleted"), connection.asking("run") as client:
        client.create_run(connection.experiment("spam"))
