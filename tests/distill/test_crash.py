"""kill -9 at any moment: the next run completes, buys nothing twice, and no champion is broken."""

from __future__ import annotations

import time
from multiprocessing.context import ForkServerContext
from pathlib import Path

import numpy as np
import pytest

from cascade.registry.folder import FolderRegistry
from cascade.store import LabelKey, open_store
from cascade.tiers.artifact import Artifact
from tests.distill.crashing import SUCCESS, Scene, fork_server
from tests.distill.workshops import make_embedder, recipe_of, reviews, write_table

WRITES = 3  # of a promotion: a version, the challenger's alias, the champion's
KILLED = -9
SECONDS = 60.0


@pytest.fixture(scope="module")
def server() -> ForkServerContext:
    return fork_server()


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    write_table(tmp_path / "t.csv", reviews(800))
    make_embedder(tmp_path / "models")
    return Scene(tmp_path)


def stored(scene: Scene) -> set[tuple[str, str]]:
    """(model, text) of every label that survived."""
    if not (scene.folder / "cascade.db").exists():
        return set()
    task = recipe_of(scene.folder / "t.csv").task
    keys = {LabelKey.of(task, model, text): (model, text) for model, text in scene.asked()}
    with open_store(f"sqlite:///{scene.folder}/cascade.db") as store:
        return {keys[key] for key in store.labels.get_many(keys)}


def champion(scene: Scene) -> Artifact | None:
    """The champion, every byte of it verified."""
    registry = FolderRegistry(scene.folder / "registry")
    version = registry.champion("mood")
    if version is None:
        return None
    return Artifact.load(registry.load("mood", version, scene.folder / "in"))


def run_to_the_end(scene: Scene, server: ForkServerContext) -> float:
    """Seconds of a run that nobody kills."""
    started = time.monotonic()
    process = scene.start(server)
    process.join(SECONDS)
    assert process.exitcode == SUCCESS
    return time.monotonic() - started


def check_the_end(scene: Scene) -> None:
    found = champion(scene)
    assert found is not None and found.certificate is not None
    versions = [one.name for one in (scene.folder / "registry/mood/versions").iterdir()]
    assert [name for name in versions if not name.startswith(".")] == ["1"]


@pytest.mark.parametrize("moment", range(2 * WRITES))
def test_killed_between_the_writes_of_a_promotion(
    scene: Scene, server: ForkServerContext, moment: int
) -> None:
    process = Scene(scene.folder, moment).start(server)
    process.join(SECONDS)
    assert process.exitcode == KILLED
    assert (champion(scene) is not None) == (moment == 2 * WRITES - 1)
    asked = len(scene.asked())
    run_to_the_end(scene, server)
    check_the_end(scene)
    assert len(scene.asked()) == asked


@pytest.mark.slow
def test_killed_at_random_moments(
    scene: Scene, server: ForkServerContext, tmp_path_factory: pytest.TempPathFactory
) -> None:
    rehearsal = Scene(tmp_path_factory.mktemp("rehearsal"))
    write_table(rehearsal.folder / "t.csv", reviews(800))
    make_embedder(rehearsal.folder / "models")
    run_to_the_end(rehearsal, server)  # the first child also waits for the imports
    expected = {*rehearsal.asked()}
    whole = run_to_the_end(rehearsal, server) + 0.5
    rng, killed = np.random.default_rng(0), 0
    for _ in range(12):
        before, known = len(scene.asked()), stored(scene)
        process = scene.start(server)
        process.join(rng.uniform(0.1, whole))
        process.kill()
        process.join()
        killed += process.exitcode == KILLED
        champion(scene)  # raises if it is not whole
        assert not known & {*scene.asked()[before:]}
    assert killed >= 3
    run_to_the_end(scene, server)
    check_the_end(scene)
    assert {*scene.asked()} == expected == stored(scene)


def test_two_at_once_leave_a_whole_champion(scene: Scene, server: ForkServerContext) -> None:
    both = [scene.start(server), scene.start(server)]
    for process in both:
        process.join(SECONDS)
    assert [process.exitcode for process in both] == [SUCCESS, SUCCESS]
    assert champion(scene) is not None
