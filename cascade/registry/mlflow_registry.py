"""The registry in MLflow: model ``cascade.<task>``, aliases, and one tag that makes rollback safe.

Knows MLflow's model registry; knows nothing of what a proxy is, save for the file that lets
``mlflow.pyfunc`` open one.

Why nothing is ever half promoted: files are uploaded before their version exists, and the alias
is set last, in one statement. The versions that the champion took the place of are a tag *on the
champion's version*, written before the alias moves. It is only ever read of the version that the
alias points at, so a crash between the two changes nothing.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from cascade.errors import RegistryError
from cascade.registry.base import CHAMPION, Registered
from cascade.registry.history import History, promoted, rolled_back
from cascade.registry.landing import land
from cascade.registry.mlflow_connection import MlflowConnection, is_missing, model_name
from cascade.registry.mlflow_packaging import ARTIFACT_PATH, package
from cascade.tiers.artifact import CARD, verify

if TYPE_CHECKING:
    from mlflow import MlflowClient

DIGEST: Final = "cascade.digest"
HISTORY: Final = "cascade.history"  # + ".<alias>": versions, newest first, by commas


class MlflowRegistry:
    """``Registry`` in an MLflow server or database. Threads and processes may use it at once.

    uri : see ``MlflowConnection``.
    """

    def __init__(self, uri: str) -> None:
        self._mlflow = MlflowConnection(uri)

    def save(self, task: str, folder: Path, *, run: str | None = None) -> str:
        """Upload a verified artifact folder as a model; its version. The same digest is kept once.

        ``mlflow.pyfunc.load_model("models:/cascade.<task>/<version>")`` opens it.
        """
        digest = verify(folder)
        with self._mlflow.asking(f"save a version of {task}") as client:
            known = _with_digest(client, model_name(task), digest)
            if known is not None:
                return known
            _ensure_model(client, model_name(task))
            run_id = run or self._import_run(client, task)
            model = self._upload(client, task, folder, run_id)
            return str(
                client.create_model_version(
                    model_name(task),
                    source=model.artifact_location,
                    run_id=run_id,
                    model_id=model.model_id,
                    tags={DIGEST: digest},
                    description=(folder / CARD).read_text(encoding="utf-8"),
                    await_creation_for=0,
                ).version
            )

    def promote(self, task: str, version: str, alias: str = CHAMPION) -> None:
        """Point an alias at a version."""
        self.describe(task, version)
        with self._mlflow.asking(f"promote version {version} of {task}") as client:
            history = _history(client, model_name(task), alias)
            _point(client, model_name(task), alias, promoted(history, version))

    def rollback(self, task: str) -> str:
        """Give the champion's place back to the version it was taken from; that version."""
        with self._mlflow.asking(f"roll back {task}") as client:
            earlier = rolled_back(_history(client, model_name(task), CHAMPION))
            _point(client, model_name(task), CHAMPION, earlier)
            return earlier[0]

    def version(self, task: str, alias: str) -> str | None:
        """The version an alias points at; None when there is none."""
        with self._mlflow.asking(f"look up the {alias} of {task}") as client:
            return _aliased(client, model_name(task), alias)

    def champion(self, task: str) -> str | None:
        """The version that answers; None when nothing is promoted."""
        return self.version(task, CHAMPION)

    def describe(self, task: str, version: str) -> Registered:
        """What is known about a version."""
        found = self._found(task, version)
        return Registered(task, version, found.tags[DIGEST], found.run_id or None)

    def load(self, task: str, version: str, into: Path) -> Path:
        """A verified copy in a folder of its own below ``into``; downloaded once."""
        found = self._found(task, version)
        registered = Registered(task, version, found.tags[DIGEST], found.run_id or None)

        def fetch(draft: Path) -> None:
            self._download(f"{found.source}/{ARTIFACT_PATH}", draft)

        with self._mlflow.asking(f"load version {version} of {task}"):
            return land(registered, into, fetch)

    def _found(self, task: str, version: str) -> Any:
        """MLflow's record of a version that Cascade registered."""
        with self._mlflow.asking(f"find version {version} of {task}") as client:
            found = _or_none(client.get_model_version, model_name(task), version)
        if found is None or DIGEST not in found.tags:
            raise RegistryError(
                f"there is no version {version} of {task} in MLflow at {self._mlflow.shown}: "
                f"'cascade status' lists what there is"
            )
        return found

    def _upload(self, client: MlflowClient, task: str, folder: Path, run_id: str) -> Any:
        """Upload the packaged folder; the logged model, which nobody looks for by name."""
        with tempfile.TemporaryDirectory(prefix="cascade-") as work:
            packaged = package(folder, Path(work))
            model = client.create_logged_model(
                self._mlflow.experiment(task), name="proxy", source_run_id=run_id
            )
            client.log_model_artifacts(model.model_id, str(packaged))
        return client.finalize_logged_model(model.model_id, "READY")

    def _import_run(self, client: MlflowClient, task: str) -> str:
        """A run for an artifact that came from outside: MLflow's versions hang on one."""
        run = client.create_run(self._mlflow.experiment(task), run_name="import")
        client.set_terminated(run.info.run_id)
        return str(run.info.run_id)

    def _download(self, source: str, draft: Path) -> None:
        from mlflow.artifacts import download_artifacts

        with tempfile.TemporaryDirectory(prefix="cascade-") as work:
            fetched = download_artifacts(
                artifact_uri=source, dst_path=work, tracking_uri=self._mlflow.uri
            )
            shutil.copytree(fetched, draft, dirs_exist_ok=True)


def _ensure_model(client: MlflowClient, name: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name)
    except MlflowException as exc:
        if exc.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _with_digest(client: MlflowClient, name: str, digest: str) -> str | None:
    found = client.search_model_versions(f"name = '{name}' and tags.`{DIGEST}` = '{digest}'")
    return max((str(one.version) for one in found), key=int, default=None)


def _aliased(client: MlflowClient, name: str, alias: str) -> str | None:
    model = _or_none(client.get_registered_model, name)
    version = None if model is None else model.aliases.get(alias)
    return None if version is None else str(version)


def _history(client: MlflowClient, name: str, alias: str) -> History:
    """The versions an alias has pointed at, as the version it points at remembers them."""
    current = _aliased(client, name, alias)
    if current is None:
        return ()
    earlier = client.get_model_version(name, current).tags.get(f"{HISTORY}.{alias}", "")
    return (current, *(one for one in earlier.split(",") if one))


def _point(client: MlflowClient, name: str, alias: str, history: History) -> None:
    tag, earlier = f"{HISTORY}.{alias}", ",".join(history[1:])
    _write(lambda: client.set_model_version_tag(name, history[0], tag, earlier))
    _write(lambda: client.set_registered_model_alias(name, alias, history[0]))


def _write(write: Callable[[], None]) -> None:
    """Do it, and once more if it fails: MLflow looks whether there is such a row and then inserts
    it, so of two first writers of one key the slower gets an IntegrityError."""
    from mlflow.exceptions import MlflowException

    try:
        write()
    except MlflowException:
        write()


def _or_none(ask: Any, *names: str) -> Any:
    """What MLflow knows, or None where it says that there is no such thing."""
    from mlflow.exceptions import MlflowException

    try:
        return ask(*names)
    except MlflowException as exc:
        if is_missing(exc):
            return None
        raise
