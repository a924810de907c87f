"""Where the UI is: a command that really starts it on the store that was written to."""

from __future__ import annotations

import subprocess
import urllib.request
from pathlib import Path

import pytest

from cascade.errors import UsageError
from cascade.registry.ui import ui_command, ui_of
from tests.mlflow_server import MlflowServer


def test_database_is_served_on_loopback_with_its_own_artifacts(tmp_path: Path) -> None:
    command = ui_command(f"sqlite:///{tmp_path}/mlflow.db", 5001)
    assert command[command.index("--host") + 1] == "127.0.0.1"
    assert command[command.index("--artifacts-destination") + 1] == f"{tmp_path}/mlflow-artifacts"


def test_database_of_another_kind_keeps_its_own_artifacts() -> None:
    assert "--artifacts-destination" not in ui_command("postgresql://localhost/mlflow")


def test_command_is_one_that_mlflow_understands(tmp_path: Path) -> None:
    ui = ui_of(f"sqlite:///{tmp_path}/mlflow.db")
    done = subprocess.run([*ui.command, "--help"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_server_is_its_own_ui(mlflow_server: MlflowServer) -> None:
    ui = ui_of(mlflow_server.uri)
    assert ui.command == ()
    with urllib.request.urlopen(ui.address, timeout=10) as page:
        assert b"MLflow" in page.read()


def test_folder_registry_has_no_ui() -> None:
    with pytest.raises(UsageError, match="set `registry` to an MLflow URI"):
        ui_of("data/registry")
