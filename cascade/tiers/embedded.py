"""An LLM engine of our own: llama.cpp in a child process, on loopback, behind a random key.

Knows processes; knows no task and no HTTP client. What it starts is just such an address and key
as ``Endpoint`` takes.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import secrets
import select
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import IO

import msgspec

from cascade.errors import MissingExtra, ModelError, ModelUnavailable

STOP_SECONDS = 5.0
LAST_LOG_LINES = 5

WAIT_ASLEEP = {"OMP_WAIT_POLICY": "PASSIVE"}
"""How llama.cpp's threads wait for one another. By default they spin, and beside any other busy
process they burn the time slices they are waiting for: on 2 shared cores a label took 3 to 4 times
the CPU time and 2 to 5 times as long."""


class EmbeddedEngine:
    """One model file, served until ``stop`` or until this process ends, however it ends.

    Parameters
    ----------
    model_path : a GGUF file that was verified before.
    slots : requests computed at the same time; each slot keeps its own copy of a prefix.
    slot_tokens : context of one slot; a longer prompt is refused with a 400. All of it is allocated
        at the start: 4 x 4,096 tokens are 0.2 GB for the 0.5B model, 0.5 GB for the 1.5B.
    threads : by default one for every core.
    log_path : where the engine writes; a temporary file by default.
    ready_seconds : how long loading may take.

    >>> with EmbeddedEngine(Path("models/qwen.gguf")) as engine:  # doctest: +SKIP
    ...     endpoint = Endpoint("qwen", [engine.base_url], engine.api_key)
    """

    def __init__(
        self,
        model_path: Path,
        *,
        slots: int = 4,
        slot_tokens: int = 4096,
        threads: int | None = None,
        log_path: Path | None = None,
        ready_seconds: float = 120.0,
    ) -> None:
        self.model_path = model_path
        self.api_key = secrets.token_urlsafe(32)
        self.base_url = ""
        self.log_path = log_path or _temporary_log(model_path)
        self._slots = slots
        self._slot_tokens = slot_tokens
        self._threads = threads or os.cpu_count() or 1
        self._ready_seconds = ready_seconds
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> EmbeddedEngine:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def process_id(self) -> int | None:
        """Id of the engine's process while it runs."""
        alive = self._process is not None and self._process.poll() is None
        return self._process.pid if self._process is not None and alive else None

    def start(self) -> None:
        """Load the model; returns when the engine listens.

        Raises
        ------
        MissingExtra
            xllamacpp is not installed.
        ModelUnavailable
            There is no such file.
        ModelError
            The engine ended or was not ready in time; the message quotes its log.
        """
        if importlib.util.find_spec("xllamacpp") is None:
            raise MissingExtra("the embedded engine", "embedded")
        if not self.model_path.is_file():
            raise ModelUnavailable(f"{self.model_path} does not exist; run: cascade models pull")
        self._process = self._spawn()
        self.base_url = self._first_line(self._process)
        if not self.base_url:
            self.stop()
            raise ModelError(self._why_not_ready())

    def stop(self) -> None:
        """End the process; does nothing when it does not run."""
        process, self._process = self._process, None
        if process is None:
            return
        _pipe(process.stdin).close()
        _pipe(process.stdout).close()
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _spawn(self) -> subprocess.Popen[bytes]:
        """Start the child and hand it its settings."""
        with self.log_path.open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "cascade.tiers.engine_process"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                bufsize=0,
                stderr=log,
                env={**os.environ, **WAIT_ASLEEP},
                # Ctrl-C reaches our whole process group: we stop the engine, after the last request
                start_new_session=True,
            )
        with contextlib.suppress(BrokenPipeError):  # it died at once: its log says why
            _pipe(process.stdin).write(msgspec.json.encode(self._settings()) + b"\n")
        return process

    def _settings(self) -> dict[str, str | int]:
        """``EngineSettings`` of the child, which alone imports the engine."""
        return {
            "model_path": str(self.model_path),
            "model_name": self.model_path.stem,
            "api_key": self.api_key,
            "slots": self._slots,
            "slot_tokens": self._slot_tokens,
            "threads": self._threads,
        }

    def _first_line(self, process: subprocess.Popen[bytes]) -> str:
        """What the child reports; empty when it ended or was too slow."""
        stdout = _pipe(process.stdout)
        ready, _, _ = select.select([stdout], [], [], self._ready_seconds)
        return stdout.readline().decode().strip() if ready else ""

    def _why_not_ready(self) -> str:
        log = self.log_path.read_text(encoding="utf-8", errors="replace").splitlines()
        last = " | ".join(log[-LAST_LOG_LINES:]) or "its log is empty"
        return (
            f"the engine for {self.model_path.name} was not ready in {self._ready_seconds:g} s; "
            f"{self.log_path} ends: {last}. Run: cascade models verify"
        )


def _temporary_log(model_path: Path) -> Path:
    handle, name = tempfile.mkstemp(prefix=f"cascade-{model_path.stem}-", suffix=".log")
    os.close(handle)
    return Path(name)


def _pipe(stream: IO[bytes] | None) -> IO[bytes]:
    assert stream is not None, "opened with PIPE"
    return stream
