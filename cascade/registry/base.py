"""What every registry promises. Knows versions, aliases and digests; never looks into a proxy.

A version is a whole, verified artifact folder and never changes. An alias is a pointer that moves
in one step. So a reader sees the old champion or the new one, and a crash at any moment leaves
one of the two. ``tests/contracts.py`` holds the battery that every implementation passes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from cascade.errors import RegistryError

CHAMPION: Final = "champion"  # the version that answers
CHALLENGER: Final = "challenger"  # the version that wants to

TASK_NAME = re.compile(r"[a-z0-9][a-z0-9-]*")


@dataclass(frozen=True, slots=True)
class Registered:
    """One version of a task's proxy.

    digest : sha256 of the artifact's ``checksums.json``.
    run : id of the tracking run that made it; None if it came from outside.
    """

    task: str
    version: str
    digest: str
    run: str | None = None


class Registry(Protocol):
    """Keeps the proxies of every task. Every method raises ``RegistryError`` when it cannot."""

    def save(self, task: str, folder: Path, *, run: str | None = None) -> str:
        """Keep a copy of a verified artifact folder; its version. The same digest is kept once."""
        ...

    def promote(self, task: str, version: str, alias: str = CHAMPION) -> None:
        """Point an alias at a version, in one step. Whether it may be is decided elsewhere."""
        ...

    def rollback(self, task: str) -> str:
        """Give the champion's place back to the version it was taken from; that version."""
        ...

    def version(self, task: str, alias: str) -> str | None:
        """The version an alias points at; None when there is no such alias or task."""
        ...

    def champion(self, task: str) -> str | None:
        """``version(task, CHAMPION)``."""
        ...

    def describe(self, task: str, version: str) -> Registered:
        """What is known about a version without fetching it."""
        ...

    def load(self, task: str, version: str, into: Path) -> Path:
        """A verified local copy in a folder of its own below ``into``; fetched once."""
        ...


def checked(task: str) -> str:
    """The task's name, if it can be a folder and a model name.

    >>> checked("review-positive")
    'review-positive'

    Raises
    ------
    RegistryError
        It holds something else than lower-case letters, digits and hyphens.
    """
    if not TASK_NAME.fullmatch(task):
        raise RegistryError(f"{task!r} is no task name: use lower-case letters, digits, hyphens")
    return task
