"""A real MLflow server on loopback, one for the whole session. Offline; about 10 s to start."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from cascade.registry.ui import Ui, ui_command


@dataclass
class MlflowServer:
    """A server process over a SQLite file in ``folder``."""

    uri: str
    process: subprocess.Popen[bytes]
    log: Path

    @classmethod
    def start(cls, folder: Path) -> MlflowServer:
        """Start one and wait until it answers."""
        port = free_port()
        ui = Ui(f"http://127.0.0.1:{port}", ui_command(f"sqlite:///{folder}/mlflow.db", port))
        log = folder / "server.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                ui.command,
                cwd=folder,
                env={**os.environ, **ui.environment},
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # the server has children; they end with its group
            )
        server = cls(ui.address, process, log)
        server.wait_ready(seconds=60)
        return server

    def wait_ready(self, seconds: float) -> None:
        """Until ``/health`` answers."""
        for _ in range(int(seconds * 5)):
            if self.process.poll() is not None:
                break
            try:
                with urllib.request.urlopen(f"{self.uri}/health", timeout=2):
                    return
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                time.sleep(0.2)
        raise RuntimeError(f"MLflow did not start: {self.log.read_text()[-2000:]}")

    def kill(self) -> None:
        """End it without a goodbye, and all its children."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def free_port() -> int:
    """A loopback port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="session")
def mlflow_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    """The server that every test may use; nobody kills this one."""
    server = MlflowServer.start(tmp_path_factory.mktemp("mlflow"))
    yield server
    server.kill()
