"""How to look at MLflow: which program to start, if any, and the address to open."""

from __future__ import annotations

import sys
from dataclasses import dataclass

from cascade.errors import UsageError
from cascade.registry.mlflow_connection import artifact_folder


@dataclass(frozen=True, slots=True)
class Ui:
    """Where the MLflow UI is.

    command : what starts it, with ``environment`` added; empty if it is being served already.
    """

    address: str
    command: tuple[str, ...] = ()

    @property
    def environment(self) -> dict[str, str]:
        """Variables for the command: no telemetry, and none of the ten job runners (2.4 GB)."""
        return {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}


def ui_of(uri: str, port: int = 5000) -> Ui:
    """The UI of the MLflow at ``uri``, on this machine's loopback unless it is served elsewhere.

    >>> ui_of("http://mlflow.example:5000").command
    ()
    >>> ui_of("sqlite:///data/mlflow.db", 5001).address
    'http://127.0.0.1:5001'

    Raises
    ------
    UsageError
        ``uri`` is a folder registry, which MLflow does not know.
    """
    if uri.startswith(("http://", "https://")):
        return Ui(uri)
    if "://" not in uri:
        raise UsageError(f"{uri} is a folder of plain files: set `registry` to an MLflow URI")
    return Ui(f"http://127.0.0.1:{port}", ui_command(uri, port))


def ui_command(uri: str, port: int = 5000) -> tuple[str, ...]:
    """The program that serves a database's UI on loopback."""
    options = ["--backend-store-uri", uri, "--host", "127.0.0.1", "--port", str(port)]
    folder = artifact_folder(uri)
    if folder is not None:  # new experiments of the server's clients go beside ours
        options += ["--artifacts-destination", str(folder)]
    return (sys.executable, "-m", "mlflow", "server", *options, "--workers", "1")
