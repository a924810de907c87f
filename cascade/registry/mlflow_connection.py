"""One MLflow, by its URI: its client, a task's experiment, its errors as ours.

Knows how to be quick about a server that is down, quiet and local. Knows no proxies and no runs.
"""

from __future__ import annotations

import os
import re
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy
from sqlalchemy.exc import SQLAlchemyError

from cascade.errors import MissingExtra, RegistryError
from cascade.registry.base import checked

if TYPE_CHECKING:
    from mlflow import MlflowClient

# MLflow reads these from the environment only. Its own defaults wait four minutes for a server
# that is down, draw progress bars and report usage over the network. What is set already stays.
MANNERS: Final = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",  # seconds
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # stdout is the program's own
}
PASSWORD = re.compile(r"//[^@/]*@")
QUIET = threading.RLock()  # `warnings.catch_warnings` is not thread-safe; packaging nests


class MlflowConnection:
    """Connects at first use, so a program can start while MLflow is down.

    Parameters
    ----------
    uri : of the server (``http://host:5000``) or of its database (``sqlite:///data/mlflow.db``,
        ``postgresql+psycopg://...``). Artifacts of a SQLite one lie in ``<name>-artifacts``
        beside it.

    Raises
    ------
    MissingExtra
        MLflow is not installed.
    """

    def __init__(self, uri: str) -> None:
        if find_spec("mlflow") is None:
            raise MissingExtra("MLflow", "train")
        self.uri = uri
        for name, value in MANNERS.items():
            os.environ.setdefault(name, value)

    @property
    def shown(self) -> str:
        """The URI without a password, for messages."""
        return PASSWORD.sub("//***@", self.uri)

    @cached_property
    def client(self) -> MlflowClient:
        """The MLflow client; opens (and makes) the database if the URI names one."""
        if not self.uri.startswith("http"):
            _try_database(self.uri)
        with quiet():
            from mlflow import MlflowClient

            return MlflowClient(tracking_uri=self.uri, registry_uri=self.uri)

    def experiment(self, task: str) -> str:
        """The id of the task's experiment, ``cascade.<task>``; makes it if there is none."""
        from mlflow.exceptions import MlflowException

        name = model_name(task)
        found = self.client.get_experiment_by_name(name)
        if found is not None:
            return str(found.experiment_id)
        try:
            return self.client.create_experiment(name, artifact_location=self._artifacts(name))
        except MlflowException:  # another process was quicker
            found = self.client.get_experiment_by_name(name)
            if found is None:
                raise
            return str(found.experiment_id)

    @contextmanager
    def asking(self, purpose: str) -> Iterator[MlflowClient]:
        """The client; whatever goes wrong becomes a ``RegistryError`` that names the purpose."""
        try:
            yield self.client
        except (SQLAlchemyError, OSError) as exc:
            raise self._refusal(purpose, exc) from exc
        except Exception as exc:
            if not _is_mlflow_error(exc):
                raise
            raise self._refusal(purpose, exc) from exc

    def _refusal(self, purpose: str, exc: Exception) -> RegistryError:
        reason = PASSWORD.sub("//***@", str(exc)).partition("\n")[0][:300]
        return RegistryError(
            f"MLflow at {self.shown} could not {purpose}: {reason}. "
            f"Check that it runs ('cascade ui' starts one) and try again"
        )

    def _artifacts(self, name: str) -> str | None:
        """Where an experiment's files go; a server decides that for itself."""
        folder = artifact_folder(self.uri)
        return None if folder is None else (folder / name).as_uri()


def model_name(task: str) -> str:
    """The name of a task's registered model and of its experiment.

    >>> model_name("spam")
    'cascade.spam'
    """
    return f"cascade.{checked(task)}"


def artifact_folder(uri: str) -> Path | None:
    """Where the files of a SQLite store lie; None for any other.

    MLflow's own default depends on the folder that each process was started in.

    >>> artifact_folder("sqlite:////srv/mlflow.db").as_posix()
    '/srv/mlflow-artifacts'
    >>> artifact_folder("http://127.0.0.1:5000")
    """
    path = database_file(uri)
    return None if path is None else path.with_name(f"{path.stem}-artifacts")


def database_file(uri: str) -> Path | None:
    """The file of a SQLite URI, absolute; None for any other URI."""
    if not uri.startswith("sqlite:///"):
        return None
    return Path(uri.removeprefix("sqlite:///")).absolute()


@contextmanager
def quiet() -> Iterator[None]:
    """Keep MLflow's advice, meant for whoever calls it, from people who cannot act on it."""
    with QUIET, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def is_missing(exc: Exception) -> bool:
    """Whether an MLflow error says that something does not exist."""
    return getattr(exc, "error_code", None) == "RESOURCE_DOES_NOT_EXIST"


def _try_database(uri: str) -> None:
    """Open the database once. MLflow itself would try for 100 seconds before it says no."""
    file = database_file(uri)
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
    engine = sqlalchemy.create_engine(uri)
    try:
        engine.connect().close()
    finally:
        engine.dispose()


def _is_mlflow_error(exc: Exception) -> bool:
    exceptions: Any = sys.modules.get("mlflow.exceptions")
    return exceptions is not None and isinstance(exc, exceptions.MlflowException)
