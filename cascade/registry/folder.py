"""A registry of plain files: no server, no database. Knows folders, a lock and one pointer file.

    <root>/<task>/versions/<n>/artifact/      the proxy, as it was saved
    <root>/<task>/versions/<n>/version.json   its digest and the run that made it
    <root>/<task>/aliases.json                alias -> versions it has pointed at, newest first

A version appears by a rename and an alias moves by a rename, so whoever reads needs no lock.
Writers take turns; the kernel frees a dead writer's lock. Local file systems only (``flock``).
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from cascade.artifacts import publish_bytes
from cascade.errors import RegistryError
from cascade.registry.base import CHAMPION, Registered, checked
from cascade.registry.history import History, promoted, rolled_back
from cascade.registry.landing import land
from cascade.tiers.artifact import verify

Aliases = dict[str, History]

DRAFT = ".draft"  # a version that is being written; whoever holds the lock may delete it


class FolderRegistry:
    """``Registry`` in a folder. Several processes may use it at once.

    >>> import tempfile
    >>> FolderRegistry(Path(tempfile.mkdtemp())).champion("spam")
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    def save(self, task: str, folder: Path, *, run: str | None = None) -> str:
        """Copy a verified artifact folder; its version. The same digest is kept once."""
        digest = verify(folder)
        with self._writing(task) as home:
            known = [one for one in self._all(task) if one.digest == digest]
            if known:
                return known[-1].version
            newest = max((int(one.version) for one in self._all(task)), default=0)
            registered = Registered(task, str(newest + 1), digest, run)
            _write_version(home / "versions", registered, folder)
            return registered.version

    def promote(self, task: str, version: str, alias: str = CHAMPION) -> None:
        """Point an alias at a version that is still intact."""
        with self._writing(task) as home:
            self._intact(task, version)
            aliases = _aliases(home)
            _point(home, aliases, alias, promoted(aliases.get(alias, ()), version))

    def rollback(self, task: str) -> str:
        """Give the champion's place back to the version it was taken from; that version."""
        with self._writing(task) as home:
            aliases = _aliases(home)
            earlier = rolled_back(aliases.get(CHAMPION, ()))
            self._intact(task, earlier[0])
            _point(home, aliases, CHAMPION, earlier)
            return earlier[0]

    def version(self, task: str, alias: str) -> str | None:
        """The version an alias points at; None when there is none."""
        history = _aliases(self._home(task)).get(alias, ())
        return history[0] if history else None

    def champion(self, task: str) -> str | None:
        """The version that answers; None when nothing is promoted."""
        return self.version(task, CHAMPION)

    def describe(self, task: str, version: str) -> Registered:
        """What is known about a version."""
        path = self._home(task) / "versions" / version / "version.json"
        try:
            return msgspec.json.decode(path.read_bytes(), type=Registered)
        except (OSError, ValueError) as exc:
            raise RegistryError(
                f"there is no version {version} of {task} in {self._root}: "
                f"'cascade status' lists what there is"
            ) from exc

    def load(self, task: str, version: str, into: Path) -> Path:
        """A verified copy in a folder of its own below ``into``."""
        registered = self.describe(task, version)
        with _disk_errors(self._root):
            return land(registered, into, lambda draft: _copy(self._artifact(registered), draft))

    def _home(self, task: str) -> Path:
        return self._root / checked(task)

    def _artifact(self, registered: Registered) -> Path:
        return self._home(registered.task) / "versions" / registered.version / "artifact"

    def _all(self, task: str) -> list[Registered]:
        """Every version, oldest first."""
        folders = (self._home(task) / "versions").glob("[0-9]*")
        return [self.describe(task, str(n)) for n in sorted(int(one.name) for one in folders)]

    def _intact(self, task: str, version: str) -> None:
        """Refuse a version whose files are not the ones that were saved."""
        registered = self.describe(task, version)
        if verify(self._artifact(registered)) != registered.digest:
            raise RegistryError(f"version {version} of {task} was changed on disk: train it again")

    @contextmanager
    def _writing(self, task: str) -> Iterator[Path]:
        """The task's folder, with every other writer of the task kept out."""
        home = self._home(task)
        with _disk_errors(self._root):
            home.mkdir(parents=True, exist_ok=True)
            with (home / ".lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                yield home


def _write_version(versions: Path, registered: Registered, folder: Path) -> None:
    """Copy, make durable, and only then give the version its name."""
    draft = versions / DRAFT
    shutil.rmtree(draft, ignore_errors=True)  # of a writer that died
    _copy(folder, draft / "artifact")
    (draft / "version.json").write_bytes(msgspec.json.encode(registered))
    for path in (*draft.rglob("*"), draft):
        _sync(path)
    draft.rename(versions / registered.version)
    _sync(versions)


def _copy(source: Path, target: Path) -> None:
    shutil.copytree(source, target, dirs_exist_ok=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _aliases(home: Path) -> Aliases:
    path = home / "aliases.json"
    try:
        return msgspec.json.decode(path.read_bytes(), type=Aliases)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as exc:
        raise RegistryError(f"{path} cannot be read: delete it and promote again") from exc


def _point(home: Path, aliases: Aliases, alias: str, history: History) -> None:
    publish_bytes(home / "aliases.json", msgspec.json.encode({**aliases, alias: history}))


@contextmanager
def _disk_errors(root: Path) -> Iterator[None]:
    """A full or read-only disk as the registry's own error."""
    try:
        yield
    except OSError as exc:
        raise RegistryError(f"the registry in {root} cannot be used: {exc}") from exc
