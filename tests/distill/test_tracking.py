"""Runs in a real MLflow: what is in them, and how they end."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cascade.distill.tracking import (
    KEY,
    NOTE,
    PROCESS,
    Tracker,
    is_orphan,
    metrics_of,
    process_is_alive,
    this_process,
)
from cascade.errors import RegistryError
from cascade.registry.mlflow_connection import MlflowConnection
from tests.distill.reports import make_report
from tests.mlflow_server import MlflowServer, free_port

KILLED_HERE = textwrap.dedent("""
    import os, signal, sys
    from cascade.distill.tracking import Tracker

    with Tracker(sys.argv[1]).run(sys.argv[2], sys.argv[3]) as run:
        print(run.id, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
""")


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One database for all, because MLflow takes seconds to make one."""
    return f"sqlite:///{tmp_path_factory.mktemp('tracking')}/mlflow.db"


@pytest.fixture
def task(request: pytest.FixtureRequest) -> str:
    """A task, and so an experiment, of the test's own."""
    name: str = request.node.name
    return name.replace("_", "-")


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    folder = tmp_path / "artifact"
    folder.mkdir()
    (folder / "card.md").write_text("# The card")
    (folder / "certificate.json").write_text("{}")
    return folder


def fetched(uri: str, run_id: str) -> Any:
    return MlflowConnection(uri).client.get_run(run_id)


def files(uri: str, run_id: str, folder: str) -> set[str]:
    listed = MlflowConnection(uri).client.list_artifacts(run_id, folder)
    return {Path(one.path).name for one in listed}


def test_everything_of_a_report_is_found_again(
    mlflow_server: MlflowServer, task: str, artifact: Path
) -> None:
    report = make_report()
    with Tracker(mlflow_server.uri).run(task, "key") as run:
        run.log(report)
        run.attach(artifact)
    found = fetched(mlflow_server.uri, run.id)
    assert found.info.status == "FINISHED"
    assert found.data.params["answerer"] == "logistic"
    assert found.data.metrics["agreement"] == report.agreement
    assert found.data.tags["cascade.prompt"] == report.identity.prompt
    assert found.data.tags["cascade.teacher"] == "qwen-1.5b"
    assert found.data.tags[NOTE] == "# The card"
    assert found.inputs.dataset_inputs[0].dataset.digest == report.dataset_digest[:36]
    plots = {"confusion.png", "reliability.png", "frontier.png"}
    assert files(mlflow_server.uri, run.id, "plots") == plots
    assert files(mlflow_server.uri, run.id, "proxy") == {"card.md", "certificate.json"}


def test_path_is_a_curve_over_the_rungs(uri: str, task: str) -> None:
    report = make_report()
    with Tracker(uri).run(task, "key") as run:
        run.log(report)
    history = MlflowConnection(uri).client.get_metric_history(run.id, "path.risk")
    assert [one.value for one in history] == [rung.risk for rung in report.path]


def test_one_experiment_a_task(uri: str, task: str) -> None:
    tracker = Tracker(uri)
    ids = []
    for name in (task, "topics", task):
        with tracker.run(name, "key") as run:
            ids.append(run.id)
    first, second, third = (fetched(uri, one).info.experiment_id for one in ids)
    assert first == third != second


def test_failure_and_interruption_are_told_apart(uri: str, task: str) -> None:
    tracker = Tracker(uri)
    with pytest.raises(ValueError, match="no"), tracker.run(task, "a") as failed:
        raise ValueError("no")
    with pytest.raises(KeyboardInterrupt), tracker.run(task, "b") as stopped:
        raise KeyboardInterrupt
    assert fetched(uri, failed.id).info.status == "FAILED"
    assert fetched(uri, stopped.id).info.status == "KILLED"


def test_killed_run_goes_on_with_the_same_key(uri: str, task: str) -> None:
    killed = run_and_kill(uri, task, "same")
    assert fetched(uri, killed).info.status == "RUNNING"
    with Tracker(uri).run(task, "same") as run:
        run.log(make_report())
    assert run.id == killed
    assert fetched(uri, killed).info.status == "FINISHED"


def test_killed_run_is_ended_by_other_work(uri: str, task: str) -> None:
    killed = run_and_kill(uri, task, "one")
    with Tracker(uri).run(task, "other") as run:
        pass
    assert run.id != killed
    assert fetched(uri, killed).info.status == "KILLED"


def test_run_of_a_living_process_is_left_alone(uri: str, task: str) -> None:
    tracker = Tracker(uri)
    with tracker.run(task, "same") as first, tracker.run(task, "same") as second:
        assert first.id != second.id
        assert fetched(uri, first.id).info.status == "RUNNING"


def test_logging_twice_changes_nothing(uri: str, task: str, artifact: Path) -> None:
    with Tracker(uri).run(task, "key") as run:
        for _ in range(2):
            run.log(make_report())
            run.attach(artifact)
    assert len(fetched(uri, run.id).inputs.dataset_inputs) == 1


def test_server_that_is_down_is_refused() -> None:
    tracker = Tracker(f"http://127.0.0.1:{free_port()}")
    with (
        pytest.raises(RegistryError, match="could not begin a run of spam"),
        tracker.run("spam", "k"),
    ):
        pass


def test_death_of_the_server_does_not_hide_why_the_work_failed(
    uri: str, task: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker = Tracker(uri)
    with pytest.raises(ValueError, match="the real reason"), tracker.run(task, "k"):
        monkeypatch.setattr(tracker, "_mlflow", MlflowConnection(f"http://127.0.0.1:{free_port()}"))
        raise ValueError("the real reason")


def test_process_of_this_machine_is_known_to_live_or_not() -> None:
    assert process_is_alive(this_process())
    assert process_is_alive("another-machine:1")
    with subprocess.Popen([sys.executable, "-c", ""]) as child:
        child.wait()
    assert not process_is_alive(this_process().replace(str(os.getpid()), str(child.pid)))


@given(st.booleans(), st.booleans())
def test_only_a_dead_process_of_ours_leaves_an_orphan(tagged: bool, alive: bool) -> None:
    tags = {KEY: "k", **({PROCESS: "host:1"} if tagged else {})}
    assert is_orphan(tags, lambda process: alive) == (tagged and not alive)


def test_unseen_label_has_no_recall() -> None:
    report = make_report()
    report.confusion[1] = 0
    assert "recall.no" not in metrics_of(report)
    assert metrics_of(report)["recall.yes"] > 0


def run_and_kill(uri: str, task: str, key: str) -> str:
    """A run whose process died by SIGKILL in the middle; its id."""
    command = [sys.executable, "-c", KILLED_HERE, uri, task, key]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False).stdout.strip()
