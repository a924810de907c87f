"""One MLflow experiment per task, one run per distillation. Knows how to log; decides nothing.

A run that was killed stays RUNNING in MLflow for ever, so every run carries the process it belongs
to. The next distillation of the same task on the same machine goes on with it if it is the same
work (same key), and otherwise ends it as KILLED.
"""

from __future__ import annotations

import os
import socket
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from cascade.distill.plots import TEACHER, write_plots
from cascade.distill.report import DistillReport
from cascade.errors import RegistryError
from cascade.registry.mlflow_connection import MlflowConnection
from cascade.tiers.artifact import CARD

if TYPE_CHECKING:
    from mlflow.entities import Run

KEY: Final = "cascade.key"
PROCESS: Final = "cascade.process"
NOTE: Final = "mlflow.note.content"  # what the UI shows as the run's description
MOST_TAG_CHARACTERS: Final = 5000  # MLflow's limit


class Tracker:
    """Where distillations are written down.

    uri : see ``MlflowConnection``.
    """

    def __init__(self, uri: str) -> None:
        self._mlflow = MlflowConnection(uri)

    @contextmanager
    def run(self, task: str, key: str) -> Iterator[TrackedRun]:
        """A run that ends as FINISHED, FAILED or, when interrupted, KILLED.

        Parameters
        ----------
        key : digest of everything that makes this distillation the same work as another one. A
            run with the same key that was killed goes on here.

        Raises
        ------
        RegistryError
            MLflow cannot be reached.
        """
        run_id = self._begin(task, key)
        try:
            yield TrackedRun(self._mlflow, run_id)
        except BaseException as exc:
            with suppress(RegistryError):  # why the work failed matters more
                self._end(run_id, "FAILED" if isinstance(exc, Exception) else "KILLED")
            raise
        self._end(run_id, "FINISHED")

    def _begin(self, task: str, key: str) -> str:
        with self._mlflow.asking(f"begin a run of {task}") as client:
            experiment = self._mlflow.experiment(task)
            open_runs = client.search_runs([experiment], "attributes.status = 'RUNNING'")
            left = [run for run in open_runs if is_orphan(run.data.tags, process_is_alive)]
            resumed = next((run for run in left if run.data.tags.get(KEY) == key), None)
            for run in left:
                if run is not resumed:
                    client.set_terminated(run.info.run_id, status="KILLED")
            if resumed is not None:
                client.set_tag(resumed.info.run_id, PROCESS, this_process())
                return str(resumed.info.run_id)
            tags = {KEY: key, PROCESS: this_process()}
            return _id(client.create_run(experiment, tags=tags, run_name=f"distil {task}"))

    def _end(self, run_id: str, status: str) -> None:
        with self._mlflow.asking("end a run") as client:
            client.set_terminated(run_id, status=status)


class TrackedRun:
    """A run that is going on. Logging the same thing twice changes nothing."""

    def __init__(self, mlflow: MlflowConnection, run_id: str) -> None:
        self._mlflow = mlflow
        self.id = run_id

    def log(self, report: DistillReport) -> None:
        """Parameters, metrics, tags, data set and plots."""
        with self._mlflow.asking(f"log a run of {report.task}") as client:
            self._log_values(report)
            client.log_inputs(self.id, [_dataset(report)])
            with tempfile.TemporaryDirectory(prefix="cascade-") as work:
                write_plots(report, Path(work))
                client.log_artifacts(self.id, work, "plots")

    def attach(self, folder: Path) -> None:
        """The artifact folder, certificate and card in it; the card is the run's description."""
        card = (folder / CARD).read_text(encoding="utf-8")
        with self._mlflow.asking("attach an artifact") as client:
            client.log_artifacts(self.id, str(folder), "proxy")
            client.set_tag(self.id, NOTE, card[:MOST_TAG_CHARACTERS])

    def _log_values(self, report: DistillReport) -> None:
        from mlflow.entities import Metric, Param, RunTag

        now = int(time.time() * 1000)
        metrics = [Metric(*one, now, 0) for one in metrics_of(report).items()]
        for step, rung in enumerate(report.path):  # drawn by MLflow as curves over the rungs
            share = 1 - rung.shares.get(TEACHER, 0.0)
            metrics.append(Metric("path.share_below_teacher", share, now, step))
            metrics.append(Metric("path.risk", rung.risk, now, step))
        self._mlflow.client.log_batch(
            self.id,
            metrics=metrics,
            params=[Param(name, str(value)) for name, value in params_of(report).items()],
            tags=[RunTag(name, value) for name, value in tags_of(report).items()],
        )


def params_of(report: DistillReport) -> dict[str, str | int | float]:
    """What was chosen, the guarantee included."""
    return {**report.params, "target": report.target, "labels": len(report.identity.labels)}


def metrics_of(report: DistillReport) -> dict[str, float]:
    """What was measured. MLflow has no NaN on SQLite: the recall of an unseen label is left out."""
    recalls = {f"recall.{_plain(k)}": v for k, v in report.recalls.items() if v == v}
    counts = {f"train_labels.{_plain(k)}": float(v) for k, v in report.label_counts.items()}
    return {"agreement": report.agreement, **recalls, **counts, **report.metrics}


def tags_of(report: DistillReport) -> dict[str, str]:
    """What the proxy hangs on: searchable in MLflow, ``tags.`cascade.teacher` = '...'``."""
    one = report.identity
    return {
        "cascade.task": report.task,
        "cascade.kind": one.kind,
        "cascade.teacher": one.teacher,
        "cascade.embedder": one.embedder,
        "cascade.prompt": one.prompt,
        "cascade.dataset": report.dataset_digest,
        "cascade.window": str(one.window),
    }


def this_process() -> str:
    """Machine and process id, as a run's tag."""
    return f"{socket.gethostname()}:{os.getpid()}"


def process_is_alive(process: str) -> bool:
    """Whether that process is running; a process of another machine is taken to be."""
    host, _, pid = process.rpartition(":")
    if host != socket.gethostname():
        return True
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's, so it exists
        return True
    return True


def is_orphan(tags: Mapping[str, str], alive: Callable[[str], bool]) -> bool:
    """Whether a RUNNING run was begun here and nobody works on it any more.

    >>> is_orphan({"cascade.process": "host:1"}, alive=lambda process: False)
    True
    >>> is_orphan({}, alive=lambda process: False)
    False
    """
    return PROCESS in tags and not alive(tags[PROCESS])


def _plain(label: str) -> str:
    """A label with what MLflow forbids in a metric's name replaced."""
    return "".join(one if one.isalnum() or one in "-_. /" else "_" for one in label)


def _dataset(report: DistillReport) -> Any:
    from mlflow.entities import Dataset, DatasetInput, InputTag

    dataset = Dataset(
        name=report.dataset,
        digest=report.dataset_digest[:36],  # MLflow's limit
        source_type="local",
        source=report.dataset,
    )
    return DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])


def _id(run: Run) -> str:
    return str(run.info.run_id)
