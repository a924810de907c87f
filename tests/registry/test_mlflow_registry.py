"""The registry in MLflow: the battery over a server and over a database, and MLflow being down."""

from __future__ import annotations

import random
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from cascade.errors import RegistryError
from cascade.registry import open_registry
from cascade.registry.folder import FolderRegistry
from cascade.registry.mlflow_connection import MlflowConnection, model_name
from cascade.registry.mlflow_registry import HISTORY, MlflowRegistry
from tests.contracts import RegistryBattery
from tests.mlflow_server import MlflowServer, free_port

WRITER = textwrap.dedent("""
    import sys
    from pathlib import Path
    from cascade.registry import open_registry

    uri, task, made = sys.argv[1:]
    registry = open_registry(uri)
    for folder in sorted(Path(made).iterdir()):
        registry.promote(task, registry.save(task, folder))
        print("promoted", flush=True)
""")


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
    assert time.perf_counter() - begin < 60  # MLflow by itself tries for minutes


def test_database_that_cannot_be_opened_is_refused_quickly(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    registry = open_registry(f"sqlite:///{tmp_path}/file/mlflow.db")
    begin = time.perf_counter()
    with pytest.raises(RegistryError, match="could not look up"):
        registry.champion("spam")
    assert time.perf_counter() - begin < 60  # MLflow by itself tries for minutes


def test_password_is_not_shown() -> None:
    registry = open_registry(f"http://me:secret@127.0.0.1:{free_port()}")
    with pytest.raises(RegistryError, match=r"//\*\*\*@") as refusal:
        registry.champion("spam")
    assert "secret" not in str(refusal.value)


def test_promotion_that_died_before_the_alias_moved_never_happened(
    database: str, make_artifact: Callable[[str], Path], task: str, tmp_path: Path
) -> None:
    registry = MlflowRegistry(database)
    one, two, three = (registry.save(task, make_artifact(name)) for name in "abc")
    registry.promote(task, one)
    registry.promote(task, two)
    client = MlflowConnection(database).client
    client.set_model_version_tag(model_name(task), three, f"{HISTORY}.champion", f"{two},{one}")
    client.set_model_version_tag(model_name(task), one, f"{HISTORY}.champion", three)
    assert registry.champion(task) == two
    assert registry.rollback(task) == one
    with pytest.raises(RegistryError, match="no earlier champion"):
        registry.rollback(task)


def test_version_that_cascade_did_not_register_is_refused(database: str, task: str) -> None:
    client = MlflowConnection(database).client
    client.create_registered_model(model_name(task))
    client.create_model_version(model_name(task), source="/somewhere", await_creation_for=0)
    with pytest.raises(RegistryError, match="no version 1 of"):
        MlflowRegistry(database).promote(task, "1")


@pytest.mark.slow
def test_killed_writer_leaves_a_whole_champion(
    mlflow_server: MlflowServer, make_artifact: Callable[[str], Path], task: str, tmp_path: Path
) -> None:
    for i in range(40):
        make_artifact(f"proxy{i:02}")
    rng = random.Random(0)
    registry = MlflowRegistry(mlflow_server.uri)
    for round in range(3):
        command = [sys.executable, "-c", WRITER, mlflow_server.uri, task, str(tmp_path / "made")]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as writer:
            assert writer.stdout is not None
            assert writer.stdout.readline() == b"promoted\n"
            time.sleep(rng.uniform(0, 1))
            writer.kill()
        champion = registry.champion(task)
        assert champion is not None
        assert registry.load(task, champion, tmp_path / "live").is_dir()
        assert registry.save(task, make_artifact(f"after{round}"))


@pytest.mark.slow
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
