"""The command line as people meet it: a process, its exit code and its two outputs."""

from __future__ import annotations

import json
import re

import pytest

import cascade as package
from tests.cli.homes import Home, LoopbackServer, cascade
from tests.mlflow_server import free_port


def test_done_is_0_and_says_it_on_standard_output(home: Home) -> None:
    ran = cascade("validate", "--config", home.config)
    assert (ran.code, ran.err) == (0, "")
    assert ran.out == f"{home.config}: good; tasks: mood\n"


def test_failure_is_1_and_one_sentence(home: Home) -> None:
    ran = cascade("certificate", "show", "mood", "-c", home.config)
    assert (ran.code, ran.out) == (1, "")
    assert ran.err == "cascade: mood has no champion: cascade train <recipe> --promote\n"


def test_debug_shows_where_it_failed(home: Home) -> None:
    ran = cascade("--debug", "certificate", "show", "mood", "-c", home.config)
    assert ran.code == 1
    assert "Traceback" in ran.err and "CertificateError: mood has no champion" in ran.err


def test_wrong_configuration_is_2(home: Home) -> None:
    home.change(home.config, tasks_folder="here")
    ran = cascade("status", "-c", home.config)
    assert ran.code == 2
    assert re.fullmatch(r"cascade: .*tasks_folder: unknown key.*\n", ran.err)


@pytest.mark.parametrize("wrong", [("nonsense",), ("train",), ("status", "--jsno")])
def test_wrong_use_is_2(wrong: tuple[str, ...]) -> None:
    ran = cascade(*wrong)
    assert ran.code == 2
    assert "Traceback" not in ran.err and "Usage: " in ran.err


def test_nobody_listens() -> None:
    url = f"http://127.0.0.1:{free_port()}/v1"
    ran = cascade("ask", "--model", "task/mood", "Nice.", "--base-url", url)
    assert ran.code == 1
    assert "is cascade serve running?" in ran.err
    assert len(ran.err.splitlines()) == 1


def test_train_in_a_pipe_is_json_on_one_output_and_progress_on_the_other(
    home: Home, engine: LoopbackServer
) -> None:
    before = len(engine.bodies)
    ran = cascade("train", home.recipe, "-c", home.config, "--json")
    assert ran.code == 0
    assert json.loads(ran.out)["version"] == "1"
    assert "labels from big-model: 100/100 $0.0042" in ran.err
    assert len(engine.bodies) == before + 200


def test_version() -> None:
    assert cascade("--version").out == f"cascade {package.__version__}\n"
