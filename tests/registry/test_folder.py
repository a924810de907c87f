"""The registry of plain files: the battery, and what happens to it on a bad day."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from cascade.errors import RegistryError
from cascade.registry.folder import FolderRegistry
from cascade.tiers.artifact import verify
from tests.contracts import RegistryBattery

WRITER = textwrap.dedent("""
    import sys
    from pathlib import Path
    from cascade.registry.folder import FolderRegistry

    registry = FolderRegistry(Path(sys.argv[1]))
    print("ready", flush=True)
    while True:
        for folder in sorted(Path(sys.argv[2]).iterdir()):
            registry.promote("spam", registry.save("spam", folder))
""")


class TestFolderRegistry(RegistryBattery):
    @pytest.fixture
    def registry(self, tmp_path: Path) -> FolderRegistry:
        return FolderRegistry(tmp_path / "registry")


def test_killed_writer_leaves_a_whole_champion(
    tmp_path: Path, make_artifact: Callable[[str], Path]
) -> None:
    for i in range(60):
        make_artifact(f"proxy{i:02}")
    rng = random.Random(0)
    registry = FolderRegistry(tmp_path / "registry")
    for round in range(6):
        kill_in_the_middle(tmp_path, rng.uniform(0, 0.06))
        champion = registry.champion("spam")
        if champion is not None:
            assert registry.load("spam", champion, tmp_path / "live").is_dir()
        assert registry.save("spam", make_artifact(f"after{round}"))  # the dead one holds no lock
    assert (tmp_path / "live").is_dir()  # at least one of the rounds came as far as a champion
    assert not list((tmp_path / "registry").rglob(".draft"))


def kill_in_the_middle(tmp_path: Path, seconds: float) -> None:
    command = [sys.executable, "-c", WRITER, str(tmp_path / "registry"), str(tmp_path / "made")]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"ready\n"
        time.sleep(seconds)
        writer.send_signal(signal.SIGKILL)


def test_run_is_remembered(tmp_path: Path, make_artifact: Callable[[str], Path]) -> None:
    registry = FolderRegistry(tmp_path / "registry")
    registry.save("spam", make_artifact("a"), run="0123")
    assert registry.describe("spam", "1").run == "0123"


def test_version_that_was_changed_on_disk_is_neither_promoted_nor_loaded(
    tmp_path: Path, make_artifact: Callable[[str], Path]
) -> None:
    registry = FolderRegistry(tmp_path / "registry")
    registry.save("spam", make_artifact("a"))
    stored = tmp_path / "registry" / "spam" / "versions" / "1" / "artifact"
    (stored / "answerer.onnx").write_bytes(b"something else")
    with pytest.raises(RegistryError):
        registry.promote("spam", "1")
    with pytest.raises(RegistryError):
        registry.load("spam", "1", tmp_path / "live")


def test_version_that_was_replaced_on_disk_is_noticed(
    tmp_path: Path, make_artifact: Callable[[str], Path]
) -> None:
    registry = FolderRegistry(tmp_path / "registry")
    versions = tmp_path / "registry" / "spam" / "versions"
    for name in "ab":
        registry.save("spam", make_artifact(name))
    (versions / "2" / "artifact").rename(tmp_path / "b")
    (versions / "1" / "artifact").rename(versions / "2" / "artifact")
    with pytest.raises(RegistryError, match="changed on disk"):
        registry.promote("spam", "2")
    with pytest.raises(RegistryError, match="registered was"):
        registry.load("spam", "2", tmp_path / "live")


def test_unreadable_alias_file_names_the_next_step(
    tmp_path: Path, make_artifact: Callable[[str], Path]
) -> None:
    registry = FolderRegistry(tmp_path / "registry")
    registry.promote("spam", registry.save("spam", make_artifact("a")))
    (tmp_path / "registry" / "spam" / "aliases.json").write_text("{")
    with pytest.raises(RegistryError, match="delete it and promote again"):
        registry.champion("spam")


def test_place_that_cannot_be_written_is_a_registry_error(
    tmp_path: Path, make_artifact: Callable[[str], Path]
) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(RegistryError, match="cannot be used"):
        FolderRegistry(tmp_path / "file").save("spam", make_artifact("a"))


def test_other_content_under_the_same_number_is_another_folder(
    tmp_path: Path, make_artifact: Callable[[str], Path]
) -> None:
    """A registry that was wiped counts from 1 again; the live copy of the old 1 must not win."""
    live = []
    for name in "ab":
        registry = FolderRegistry(tmp_path / f"registry-{name}")
        registry.save("spam", make_artifact(name))
        live.append(registry.load("spam", "1", tmp_path / "live"))
    assert verify(live[0]) != verify(live[1])
