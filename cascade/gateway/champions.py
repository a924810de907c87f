"""Follow the registry's champions: look, fetch, verify, build, swap; else keep what works.

Runs in a thread of its own, because registries block. Knows a registry and how to install a lane;
knows no proxy's inside. A champion that cannot be fetched or built leaves the one before in place,
and the registry may be down at any time, at the start too.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Protocol

import msgspec

from cascade.artifacts import publish_bytes
from cascade.errors import CascadeError
from cascade.gateway.lanes import Lane
from cascade.registry import Registry

logger = logging.getLogger(__name__)

FIRST_LOOK_SECONDS = 15.0
"""How long a start waits for the registry; MLflow's client alone retries for minutes."""

POINTER = "serving.json"


class Serving(msgspec.Struct, frozen=True):
    """The pointer file: which local copy was last served."""

    version: str
    folder: str


class Builder(Protocol):
    """Makes lanes; ``gateway.builder.LaneBuilder`` is one."""

    def blank(self, task: str) -> Lane:
        """The lane of a task without champion."""
        ...

    def build(self, task: str, version: str, folder: Path) -> Lane:
        """The lane of a champion; raises CascadeError when the folder is not whole."""
        ...


class Champions:
    """The follower of every task's champion.

    Parameters
    ----------
    home : where local copies live, ``<home>/<task>/<version>-<digest>``; nothing half-written
        ever has such a name.
    install : swaps a lane in.
    """

    def __init__(
        self,
        tasks: Iterable[str],
        registry: Registry,
        home: Path,
        *,
        builder: Builder,
        install: Callable[[Lane], None],
        poll_seconds: float,
    ) -> None:
        self._registry = registry
        self._home = home
        self._builder = builder
        self._install = install
        self._poll_seconds = poll_seconds
        self._serving: dict[str, str | None] = dict.fromkeys(tasks)
        self._problems: dict[str, str] = {}
        self._polling = threading.Lock()
        self._looked = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="champions", daemon=True)

    def start(self) -> None:
        """Serve the last good copies, then follow; waits a little for the first look."""
        for task in self._serving:
            self._attempt(task, self._restore)
        self._thread.start()
        if None in self._serving.values():
            self._looked.wait(FIRST_LOOK_SECONDS)

    def stop(self) -> None:
        """Follow no longer. A look that hangs in the registry is left to end by itself."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(timeout=1.0)

    def poll(self) -> None:
        """Look at every task once, and return when what was found is in place."""
        with self._polling:
            for task in self._serving:
                self._attempt(task, self._follow)
        self._looked.set()

    def reseat(self, tasks: Iterable[str], builder: Builder) -> None:
        """Follow these tasks and no others, their lanes made by another builder.

        Every champion is built anew from its local copy before its lane is swapped; the registry
        is not asked. Waits while a look is going on.
        """
        with self._polling:
            self._builder = builder
            before, self._serving = self._serving, dict.fromkeys(tasks)
            for task in before.keys() - self._serving.keys():
                self._problems.pop(task, None)
            for task in self._serving:
                self._attempt(task, self._restore)
                if self._serving[task] is None:
                    self._install(builder.blank(task))

    def problems(self) -> dict[str, str]:
        """What is wrong with a task's champion now, in words."""
        return dict(self._problems)

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self.poll()
            except Exception:  # whatever a registry's library raises, the next look may succeed
                logger.exception("the champions could not be looked up")
            self._stopping.wait(self._poll_seconds)

    def _attempt(self, task: str, step: Callable[[str], None]) -> None:
        try:
            step(task)
        except (CascadeError, OSError, msgspec.MsgspecError) as exc:
            if self._problems.get(task) != str(exc):  # once, not at every look
                logger.warning("task %s keeps what it has: %s", task, exc)
            self._problems[task] = str(exc)
        else:
            self._problems.pop(task, None)

    def _restore(self, task: str) -> None:
        pointer = self._pointer(task)
        if pointer.exists():
            serving = msgspec.json.decode(pointer.read_bytes(), type=Serving)
            self._swap(task, serving.version, self._home / task / serving.folder)

    def _follow(self, task: str) -> None:
        version = self._registry.champion(task)
        if version == self._serving[task]:
            return
        if version is None:
            self._retire(task)
            return
        folder = self._registry.load(task, version, self._home)
        self._swap(task, version, folder)
        pointer = Serving(version, folder.name)
        publish_bytes(self._pointer(task), msgspec.json.encode(pointer))

    def _swap(self, task: str, version: str, folder: Path) -> None:
        self._install(self._builder.build(task, version, folder))
        self._serving[task] = version
        logger.info("task %s: version %s is in place", task, version)

    def _retire(self, task: str) -> None:
        self._install(self._builder.blank(task))
        self._pointer(task).unlink(missing_ok=True)
        self._serving[task] = None
        logger.info("task %s: the registry has no champion any more", task)

    def _pointer(self, task: str) -> Path:
        return self._home / task / POINTER
