"""A distillation in a process of its own, that may be killed at any moment.

Processes come from a fork server which has the heavy libraries loaded, so that a child starts in
milliseconds and dies without taking anything along.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
from dataclasses import dataclass
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path

from cascade.distill import pipeline
from cascade.registry import CHAMPION
from cascade.registry.folder import FolderRegistry
from tests.distill.workshops import (
    Opinion,
    large_tier,
    lean,
    recipe_of,
    small_tier,
    teach,
    workshop,
)

SUCCESS = 0


class MortalRegistry(FolderRegistry):
    """Kills its process at one moment: just before or after its n-th write.

    moment : 0 is before the first write, 1 after it, 2 before the second, and so on.
    """

    def __init__(self, root: Path, moment: int) -> None:
        super().__init__(root)
        self._left = moment

    def save(self, task: str, folder: Path, *, run: str | None = None) -> str:
        self._live()
        version = super().save(task, folder, run=run)
        self._live()
        return version

    def promote(self, task: str, version: str, alias: str = CHAMPION) -> None:
        self._live()
        super().promote(task, version, alias)
        self._live()

    def _live(self) -> None:
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        self._left -= 1


@dataclass(frozen=True)
class Scene:
    """A folder with ``t.csv`` in which distillations run one after the other.

    moment : when the registry kills the process; never, by default.
    """

    folder: Path
    moment: int = -1

    @property
    def diary(self) -> Path:
        """Every text that was asked, of whom, in order."""
        return self.folder / "asked"

    def asked(self) -> list[tuple[str, str]]:
        """(tier, text), whole lines only: the last one may be half written."""
        if not self.diary.exists():
            return []
        lines = self.diary.read_text().split("\n")[:-1]
        return [(tier, text) for tier, _, text in (line.partition(": ") for line in lines)]

    def run(self) -> None:
        """Distil, certify and promote; this process is one to be killed."""

        def heard(tier: str, opinion: Opinion, text: str) -> Opinion:
            with self.diary.open("a") as file:
                file.write(f"{tier}: {text}\n")
            return opinion

        large = large_tier(lambda text: heard("big-model", teach(text), text))
        small = small_tier(lambda text: heard("small-model", lean(text), text))
        registry = MortalRegistry(self.folder / "registry", self.moment)
        recipe = recipe_of(self.folder / "t.csv")
        with workshop(self.folder, recipe, large, small, registry=registry) as shop:
            asyncio.run(pipeline.promote(shop))

    def start(self, server: ForkServerContext) -> ForkServerProcess:
        """``run`` in a process of its own."""
        process = server.Process(target=self.run)
        process.start()
        return process


def fork_server() -> ForkServerContext:
    """A server that has everything imported after its first child."""
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload([__name__])
    return server
