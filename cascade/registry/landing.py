"""How a fetched artifact lands on disk: verified first, then renamed. Knows no registry."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from cascade.errors import RegistryError
from cascade.registry.base import Registered
from cascade.tiers.artifact import verify

Fetch = Callable[[Path], None]
"""Puts an artifact's files into the empty folder it is given."""


def land(registered: Registered, into: Path, fetch: Fetch) -> Path:
    """A verified copy of a version below ``into``; ``fetch`` is only asked when there is none.

    The folder's name holds the digest: version 3 of a registry that was wiped and filled again is
    not version 3 of the old one.

    Raises
    ------
    RegistryError
        What was fetched does not verify, or is not what was registered.
    """
    target = into / registered.task / f"{registered.version}-{registered.digest[:12]}"
    if is_intact(target, registered.digest):
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".landing-") as work:
        draft = Path(work) / target.name
        draft.mkdir()
        fetch(draft)
        _check(draft, registered)
        _publish(draft, target, registered.digest)
    return target


def is_intact(folder: Path, digest: str) -> bool:
    """Whether ``folder`` is exactly the artifact with this digest."""
    try:
        return folder.is_dir() and verify(folder) == digest
    except RegistryError:
        return False


def _check(draft: Path, registered: Registered) -> None:
    found = verify(draft)
    if found != registered.digest:
        raise RegistryError(
            f"version {registered.version} of {registered.task} has digest {found[:12]}..., "
            f"registered was {registered.digest[:12]}...: roll back or train again"
        )


def _publish(draft: Path, target: Path, digest: str) -> None:
    """Rename into place. A folder that is intact is never moved: somebody may be reading it."""
    if target.exists() and not is_intact(target, digest):
        shutil.rmtree(target)
    try:
        draft.rename(target)
    except OSError:  # another process has just landed the same version
        if not is_intact(target, digest):
            raise
