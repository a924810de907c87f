"""gateway.yaml and its recipes as files: have they changed? Reads no YAML, knows no gateway."""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Callable
from pathlib import Path

SETTLE_SECONDS = 0.2
"""How long a changed file must stay as it is: editors write in pieces, and a configuration that
ends before its ``api_keys`` is a valid one."""

Stamp = tuple[tuple[str, int, int], ...]
"""Of every file its name, its time of change (ns) and its size."""


class Watched:
    """A file, and the recipes of a folder, compared with what they were at the last look.

    Make it before the files are read: a change that comes while engines start is then not lost.

    Parameters
    ----------
    folder : of the recipes; it may be replaced, and need not exist.
    sleep : lets seconds pass.
    """

    def __init__(
        self, path: Path, folder: Path, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self.path = path
        self.folder = folder
        self._sleep = sleep
        self._stamp = self._stat()
        self._digest = self._read()

    def look(self) -> bool:
        """Whether something else is in the files than at the last look. Blocks a moment if so.

        Files that are being written have not changed yet: the next look will tell.
        """
        stamp = self._stat()
        if stamp == self._stamp:
            return False
        digest = self._read()
        self._sleep(SETTLE_SECONDS)
        if self._read() != digest:
            return False
        changed = digest != self._digest
        self._stamp, self._digest = stamp, digest
        return changed

    def _files(self) -> list[Path]:
        return [self.path, *sorted(self.folder.glob("*.yaml"))]

    def _stat(self) -> Stamp:
        found = []
        for file in self._files():
            with contextlib.suppress(OSError):  # gone since it was listed, or not there at all
                stat = file.stat()
                found.append((str(file), stat.st_mtime_ns, stat.st_size))
        return tuple(found)

    def _read(self) -> str:
        whole = hashlib.sha256()
        for file in self._files():
            with contextlib.suppress(OSError):
                content = hashlib.sha256(file.read_bytes()).hexdigest()
                whole.update(f"{file}={content}\n".encode())
        return whole.hexdigest()
