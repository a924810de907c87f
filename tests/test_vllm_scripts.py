"""The launch scripts of ``serving/vllm``, run with doubles of ``vllm`` and its router."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.programs import program, run

VLLM = Path(__file__).parents[1] / "serving/vllm"
SCRIPTS = sorted(VLLM.glob("*.sh"))
LAUNCHERS = [path for path in SCRIPTS if path.read_text().startswith("#!")]

FAKE_ENGINE = """#!/usr/bin/env bash
name=$(basename "$0")
trap 'echo "$name stopped" >> "$SAID"; kill $!; exit 0' TERM
sleep 30 &
echo "$name ${CUDA_VISIBLE_DEVICES:--} ${VLLM_NIXL_SIDE_CHANNEL_PORT:--} $*" >> "$SAID"
if [[ "$*" == *"--port ${BROKEN:-none}"* ]]; then
    until (($(wc -l < "$SAID") == GPUS)); do sleep 0.05; done  # everybody else is there
    kill $!
    exit 3
fi
wait
"""


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_scripts_are_sound(path: Path) -> None:
    run("bash", "-n", path)


def test_scripts_pass_shellcheck() -> None:
    run(program("shellcheck"), "--external-sources", f"--source-path={VLLM}", *SCRIPTS)


@pytest.fixture
def said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """What engines and routers say of themselves, doubles of which are on the path."""
    for name in ("vllm", "vllm-router"):
        double = tmp_path / name
        double.write_text(FAKE_ENGINE)
        double.chmod(0o755)
    path = tmp_path / "said"
    path.touch()
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("SAID", str(path))
    monkeypatch.setenv("MODEL", "org/model")
    yield path


def started(name: str, said: Path, engines: int, **environment: str) -> subprocess.Popen[bytes]:
    process = subprocess.Popen([VLLM / name], env={**os.environ, **environment})
    for _ in range(200):
        if len(said.read_text().splitlines()) >= engines:
            return process
        try:
            process.wait(0.05)
        except subprocess.TimeoutExpired:
            continue
    process.kill()
    raise AssertionError(said.read_text())


def stopped(process: subprocess.Popen[bytes]) -> int:
    process.send_signal(signal.SIGTERM)
    return process.wait(10)


def test_replicas_have_a_gpu_and_a_port_each(said: Path) -> None:
    process = started("replicas.sh", said, 2, GPUS="2", KV_EVENTS_PORT="5557")
    first, second = sorted(said.read_text().splitlines())
    assert first.startswith("vllm 0 - serve org/model ") and "--port 8000 " in first
    assert second.startswith("vllm 1 - serve org/model ") and "--port 8001 " in second
    assert json.loads(_flag(second, "--kv-events-config"))["endpoint"] == "tcp://*:5559"
    assert stopped(process) == 0
    assert said.read_text().count("vllm stopped") == 2


def _flag(line: str, name: str) -> str:
    """The JSON after a flag."""
    text = line.partition(f"{name} ")[2]
    return text[: text.index("}") + 1]


def test_when_a_replica_ends_all_end_and_the_failure_is_told(said: Path) -> None:
    process = started("replicas.sh", said, 3, GPUS="3", BROKEN="8001")
    assert process.wait(10) == 3
    assert said.read_text().count("vllm stopped") == 2


def test_without_a_port_for_events_none_are_sent(said: Path) -> None:
    process = started("one-gpu.sh", said, 1)
    assert "kv-events" not in said.read_text() and "--host 127.0.0.1 " in said.read_text()
    assert stopped(process) == 0


def test_tensor_parallel_is_one_engine_on_all_gpus(said: Path) -> None:
    process = started("tensor-parallel.sh", said, 1, GPUS="4")
    assert said.read_text().startswith("vllm - - ")
    assert "--tensor-parallel-size 4" in said.read_text()
    assert stopped(process) == 0


def test_pools_have_gpus_and_side_channels_of_their_own(said: Path) -> None:
    pools = {"PREFILL_GPUS": "0 1", "DECODE_GPUS": "3"}
    process = started("prefill-decode.sh", said, 4, **pools)
    lines = said.read_text().splitlines()
    router = next(line for line in lines if line.startswith("vllm-router"))
    assert "--prefill http://127.0.0.1:8100 --prefill http://127.0.0.1:8101 " in router
    assert "--decode http://127.0.0.1:8102 " in router and router.endswith("--port 8000")
    engines = sorted(line.split()[1:3] for line in lines if line != router)
    assert engines == [["0", "5600"], ["1", "5601"], ["3", "5602"]]
    assert stopped(process) == 0


@pytest.mark.parametrize("path", LAUNCHERS, ids=lambda path: path.name)
def test_a_launcher_says_what_is_missing(path: Path) -> None:
    done = subprocess.run([path], capture_output=True, text=True, timeout=10, env={"PATH": "/bin"})
    assert done.returncode == 1 and "set MODEL" in done.stderr
