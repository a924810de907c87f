"""The registry in MLflow: the battery over a server and over a database, and MLflow being down."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from cascade.errors import RegistryError
from cascade.registry import open_registry
from cascade.registry.folder import FolderRegistry
from cascade.registry.mlflow_registry import MlflowRegistry
from tests.contracts import RegistryBattery
from tests.mlflow_server import MlflowServer, free_port


class TestServer(RegistryBattery):
    @pytest.fixture
    def registry(self, mlflow_server: MlflowServer) -> MlflowRegistry:
        return MlflowRegistry(mlflow_server.uri)


class TestDatabase(RegistryBattery):
    @pytest.fixture
    def registry(self, database: str) -> MlflowRegistry:
        return MlflowRegistry(database)


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The URI of a database in a folder that does not exist yet."""
    return f"sqlite:///{tmp_path_factory.mktemp('database')}/data/mlflow.db"


def test_server_that_was_never_there_is_refused_quickly() -> None:
    registry = open_registry(f"http://127.0.0.1:{free_port()}")
    begin = time.perf_counter()
    with pytest.raises(RegistryError, match="could not look up the champion of spam.*cascade ui"):
        registry.champion("spam")
    assert time.perf_counter() - begin < 10


def test_database_that_cannot_be_opened_is_refused_quickly(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    registry = open_registry(f"sqlite:///{tmp_path}/file/mlflow.db")
    begin = time.perf_counter()
    with pytest.raises(RegistryError, match="could not look up"):
        registry.champion("spam")
    assert time.perf_counter() - begin < 10


def test_password_is_not_shown() -> None:
    registry = open_registry(f"http://me:secret@127.0.0.1:{free_port()}")
    with pytest.raises(RegistryError, match=r"//\*\*\*@") as refusal:
        registry.champion("spam")
    assert "secret" not in str(refusal.value)


def test_copy_goes_on_when_the_server_dies(
    tmp_path: Path, make_artifact: Callable[[str], Path]
) -> None:
    server = MlflowServer.start(tmp_path)
    registry, copy = MlflowRegistry(server.uri), FolderRegistry(tmp_path / "copy")
    version = registry.save("spam", make_artifact("a"))
    registry.promote("spam", version)
    loaded = registry.load("spam", version, tmp_path / "live")
    copy.promote("spam", copy.save("spam", loaded))
    server.kill()
    for ask in (registry.champion, registry.rollback, lambda task: registry.promote(task, version)):
        with pytest.raises(RegistryError, match="MLflow at http"):
            ask("spam")
    champion = copy.champion("spam")
    assert champion is not None
    assert copy.load("spam", champion, tmp_path / "other").is_dir()


def test_version_names_its_run(
    mlflow_server: MlflowServer, make_artifact: Callable[[str], Path], task: str
) -> None:
    registry = MlflowRegistry(mlflow_server.uri)
    registry.save(task, make_artifact("a"))
    run = registry.describe(task, "1").run
    registry.save(task, make_artifact("b"), run=run)
    assert run is not None
    assert registry.describe(task, "2").run == run
