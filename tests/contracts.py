"""Batteries: what every implementation of a protocol must pass.

A battery is a class of tests without a ``Test`` prefix, so that it is not collected by itself. A
test module subclasses it and provides its fixtures:

    class TestFolderRegistry(RegistryBattery):
        @pytest.fixture
        def registry(self, tmp_path): return FolderRegistry(tmp_path)

The batteries for Tier, Policy and Embedder belong here too.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cascade.errors import RegistryError
from cascade.registry import CHALLENGER, CHAMPION, Registry
from cascade.tiers.artifact import verify

MakeArtifact = Callable[[str], Path]
"""An intact artifact folder; other names, other digests."""


class RegistryBattery:
    """Needs the fixtures ``registry`` (empty), ``task`` (a name) and ``make_artifact``."""

    def test_saved_version_comes_back_byte_for_byte(
        self, registry: Registry, task: str, make_artifact: MakeArtifact, tmp_path: Path
    ) -> None:
        folder = make_artifact("a")
        version = registry.save(task, folder)
        loaded = registry.load(task, version, tmp_path / "live")
        assert verify(loaded) == verify(folder)
        assert contents(loaded) == contents(folder)

    def test_versions_count_upward(
        self, registry: Registry, task: str, make_artifact: MakeArtifact
    ) -> None:
        assert [registry.save(task, make_artifact(name)) for name in "abc"] == ["1", "2", "3"]

    def test_same_artifact_is_kept_once(
        self, registry: Registry, task: str, make_artifact: MakeArtifact
    ) -> None:
        first = registry.save(task, make_artifact("a"))
        registry.save(task, make_artifact("b"))
        assert registry.save(task, make_artifact("a")) == first

    def test_description_names_digest(
        self, registry: Registry, task: str, make_artifact: MakeArtifact
    ) -> None:
        folder = make_artifact("a")
        described = registry.describe(task, registry.save(task, folder))
        assert (described.task, described.version) == (task, "1")
        assert described.digest == verify(folder)

    def test_nothing_is_champion_at_first(
        self, registry: Registry, task: str, make_artifact: MakeArtifact
    ) -> None:
        assert registry.champion(task) is None
        registry.save(task, make_artifact("a"))
        assert registry.champion(task) is None

    def test_aliases_move_by_themselves(
        self, registry: Registry, task: str, make_artifact: MakeArtifact
    ) -> None:
        one, two = (registry.save(task, make_artifact(name)) for name in "ab")
        registry.promote(task, one)
        registry.promote(task, two, CHALLENGER)
        assert (registry.champion(task), registry.version(task, CHALLENGER)) == (one, two)
        assert registry.version(task, CHAMPION) == one

    def test_rollback_undoes_promotions_one_by_one(
        self, registry: Registry, task: str, make_artifact: MakeArtifact
    ) -> None:
        versions = [registry.save(task, make_artifact(name)) for name in "abc"]
        for version in versions:
            registry.promote(task, version)
        assert registry.rollback(task) == "2"
        assert registry.rollback(task) == "1"
        assert registry.champion(task) == "1"
        with pytest.raises(RegistryError, match="no earlier champion"):
            registry.rollback(task)
        assert registry.champion(task) == "1"

    def test_rollback_after_an_old_version_came_back(
        self, registry: Registry, task: str, make_artifact: MakeArtifact
    ) -> None:
        one, two = (registry.save(task, make_artifact(name)) for name in "ab")
        for version in (one, two, one):
            registry.promote(task, version)
        assert [registry.rollback(task), registry.rollback(task)] == [two, one]
        with pytest.raises(RegistryError, match="no earlier champion"):
            registry.rollback(task)

    def test_promoting_the_champion_again_keeps_its_history(
        self, registry: Registry, task: str, make_artifact: MakeArtifact
    ) -> None:
        one, two = (registry.save(task, make_artifact(name)) for name in "ab")
        for version in (one, two, two):
            registry.promote(task, version)
        assert registry.rollback(task) == one

    def test_rollback_of_nothing_is_refused(self, registry: Registry, task: str) -> None:
        with pytest.raises(RegistryError, match="no earlier champion"):
            registry.rollback(task)

    def test_unknown_version_is_refused_with_the_next_step(
        self, registry: Registry, task: str, make_artifact: MakeArtifact, tmp_path: Path
    ) -> None:
        registry.save(task, make_artifact("a"))
        with pytest.raises(RegistryError, match="no version 7 of .*cascade status"):
            registry.promote(task, "7")
        with pytest.raises(RegistryError, match="no version 7 of"):
            registry.load(task, "7", tmp_path / "live")
        assert registry.champion(task) is None

    def test_damaged_artifact_is_never_saved(
        self, registry: Registry, task: str, make_artifact: MakeArtifact
    ) -> None:
        folder = make_artifact("a")
        (folder / "answerer.onnx").write_bytes(b"something else")
        with pytest.raises(RegistryError):
            registry.save(task, folder)
        with pytest.raises(RegistryError):
            registry.describe(task, "1")

    def test_loading_twice_gives_the_same_folder(
        self, registry: Registry, task: str, make_artifact: MakeArtifact, tmp_path: Path
    ) -> None:
        version = registry.save(task, make_artifact("a"))
        first = registry.load(task, version, tmp_path / "live")
        assert registry.load(task, version, tmp_path / "live") == first

    def test_damaged_local_copy_is_replaced(
        self, registry: Registry, task: str, make_artifact: MakeArtifact, tmp_path: Path
    ) -> None:
        folder = make_artifact("a")
        version = registry.save(task, folder)
        loaded = registry.load(task, version, tmp_path / "live")
        (loaded / "answerer.onnx").write_bytes(b"half")
        assert contents(registry.load(task, version, tmp_path / "live")) == contents(folder)

    def test_loading_leaves_nothing_but_the_copy(
        self, registry: Registry, task: str, make_artifact: MakeArtifact, tmp_path: Path
    ) -> None:
        version = registry.save(task, make_artifact("a"))
        loaded = registry.load(task, version, tmp_path / "live")
        assert list(loaded.parent.iterdir()) == [loaded]

    def test_task_name_cannot_leave_its_place(
        self, registry: Registry, make_artifact: MakeArtifact
    ) -> None:
        for name in ("../up", "a/b", "", "Spam"):
            with pytest.raises(RegistryError, match="no task name"):
                registry.save(name, make_artifact("a"))

    def test_promotions_at_once_leave_one_whole_champion(
        self, registry: Registry, task: str, make_artifact: MakeArtifact, tmp_path: Path
    ) -> None:
        versions = [registry.save(task, make_artifact(name)) for name in "abc"]
        registry.promote(task, versions[0])
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda i: registry.promote(task, versions[1 + i % 2]), range(8)))
        champion = registry.champion(task)
        assert champion in versions[1:]
        assert registry.load(task, champion, tmp_path / "live").is_dir()
        assert registry.rollback(task) in versions

    def test_first_promotions_at_once_leave_one_champion(
        self, registry: Registry, task: str, make_artifact: MakeArtifact
    ) -> None:
        versions = [registry.save(task, make_artifact(name)) for name in "ab"]
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda i: registry.promote(task, versions[i % 2]), range(8)))
        assert registry.champion(task) in versions

    def test_loads_at_once_all_get_the_whole(
        self, registry: Registry, task: str, make_artifact: MakeArtifact, tmp_path: Path
    ) -> None:
        folder = make_artifact("a")
        version = registry.save(task, folder)
        with ThreadPoolExecutor(4) as pool:
            loaded = pool.map(lambda _: registry.load(task, version, tmp_path / "live"), range(8))
        assert [contents(one) for one in loaded] == [contents(folder)] * 8


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a folder by its name."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}
