"""The proxy on disk: one folder of JSON, ONNX and arrays, each under a checksum.

Knows names, bytes and digests; knows nothing of what the numbers mean and never unpickles.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from uuid import uuid4

import msgspec
import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load as parse_arrays
from safetensors.numpy import save as format_arrays

from cascade.errors import RegistryError
from cascade.shapes import Strict
from cascade.tasks import Identity
from cascade.tiers.agreement import AgreementModel
from cascade.tiers.novelty import NoveltyGate
from cascade.tiers.stacked import Stack

FORMAT: Final = 2
"""Version of the folder's layout. Raise it when an older reader would misread a newer folder: a
field changes its meaning, a feature its formula. A new optional file needs no new number. Folders
of another format are refused, not converted: retraining from stored labels takes seconds."""

MANIFEST: Final = "proxy.json"
ANSWERER: Final = "answerer.onnx"
ARRAYS: Final = "arrays.safetensors"
CARD: Final = "card.md"
CERTIFICATE: Final = "certificate.json"
CHECKSUMS: Final = "checksums.json"
REQUIRED: Final = (MANIFEST, ANSWERER, ARRAYS, CARD)


class Rung(Strict, frozen=True):
    """One policy of the path: the least confidence at which each tier may answer.

    thresholds : by tier, cheapest first; above 1 means never. ``tier:label`` is for that answer
        only and goes before the tier's own.
    shares : predicted share of the requests that each tier answers, the teacher ("large") included.
    risk : predicted share of all requests answered below the teacher and differently from it.
    """

    thresholds: dict[str, float]
    shares: dict[str, float]
    risk: float


class Manifest(Strict, frozen=True):
    """proxy.json: everything about a proxy that is not a matrix.

    path : rungs from the most conservative upward; frozen before the first certification draw.
    thresholds : those of the certified rung; None for a challenger without certificate.
    created : ISO 8601 time, handed in.
    """

    task: str
    identity: Identity
    labels: tuple[str, ...]
    agreement: AgreementModel
    gate: NoveltyGate
    path: tuple[Rung, ...]
    training_digest: str
    created: str
    label_counts: dict[str, int]
    stack: Stack | None = None
    thresholds: dict[str, float] | None = None
    format: int = FORMAT

    def __post_init__(self) -> None:
        if self.format != FORMAT:
            raise ValueError(f"format {self.format}, but this version reads format {FORMAT}")
        if self.labels != self.identity.labels:
            raise ValueError("labels differ from those of the identity")


@dataclass(frozen=True)
class Artifact:
    """A proxy as it lies on disk.

    answerer : an ONNX model, "embedding" (n, dim) to "probabilities" (n, L), both float32.
    arrays : the neighbourhood of the training embeddings, by name.
    card : Markdown for people.
    certificate : the certificate's JSON as its own module wrote it; None before certification.
    """

    manifest: Manifest
    answerer: bytes
    arrays: Mapping[str, NDArray[np.generic]]
    card: str
    certificate: bytes | None = None

    @property
    def digest(self) -> str:
        """sha256 of checksums.json, which names the whole content."""
        return _sha256(_checksums(self._files()))

    def save(self, folder: Path) -> str:
        """Write everything, read it back, and only then give it its name.

        Returns
        -------
        The digest.

        Raises
        ------
        RegistryError
            The folder exists, cannot be written, or did not read back as it was written.
        """
        if folder.exists():
            raise RegistryError(f"{folder} exists: a proxy is never overwritten, name a new folder")
        partial = folder.with_name(f".{folder.name}.{uuid4().hex}.partial")
        try:
            self._write(partial)
            Artifact.load(partial)
            partial.rename(folder)
            _sync(folder.parent)
        except OSError as exc:
            raise RegistryError(f"{folder} could not be written: {exc.strerror}") from exc
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        return self.digest

    @classmethod
    def load(cls, folder: Path) -> Artifact:
        """Read a folder; not a byte is parsed before its checksum matched.

        Raises
        ------
        RegistryError
            A file is missing, changed or malformed, or of another format.
        """
        files = _verified(folder)
        try:
            return cls(
                manifest=msgspec.json.decode(files[MANIFEST], type=Manifest),
                answerer=files[ANSWERER],
                arrays=parse_arrays(files[ARRAYS]),
                card=files[CARD].decode(),
                certificate=files.get(CERTIFICATE),
            )
        except Exception as exc:  # safetensors raises an exception class of its own making
            raise RegistryError(f"{folder} is not a proxy of this version: {exc}") from exc

    def _files(self) -> dict[str, bytes]:
        files = {
            MANIFEST: msgspec.json.format(msgspec.json.encode(self.manifest)),
            ANSWERER: self.answerer,
            ARRAYS: format_arrays(
                {name: np.ascontiguousarray(a) for name, a in self.arrays.items()}
            ),
            CARD: self.card.encode(),
        }
        if self.certificate is not None:
            files[CERTIFICATE] = self.certificate
        return files

    def _write(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        files = self._files()
        # the checksums are written last: without them nothing in the folder can be read
        for name, content in [*files.items(), (CHECKSUMS, _checksums(files))]:
            with (folder / name).open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        _sync(folder)


def verify(folder: Path) -> str:
    """The digest of a folder of which every byte is as promised; nothing but checksums is parsed.

    Raises
    ------
    RegistryError
        A file is missing or changed, or the folder holds no proxy.
    """
    _verified(folder)
    return _sha256((folder / CHECKSUMS).read_bytes())


def _verified(folder: Path) -> dict[str, bytes]:
    """The bytes of every file named in checksums.json; files beside them are ignored."""
    try:
        promised = msgspec.json.decode((folder / CHECKSUMS).read_bytes(), type=dict[str, str])
    except OSError as exc:
        raise RegistryError(f"{folder} holds no proxy: no readable {CHECKSUMS}") from exc
    except msgspec.DecodeError as exc:
        raise RegistryError(f"{folder}/{CHECKSUMS} is malformed: {exc}; fetch it again") from exc
    missing = set(REQUIRED) - set(promised)
    unknown = set(promised) - {*REQUIRED, CERTIFICATE}
    if missing or unknown:
        names = ", ".join(sorted(missing | unknown))
        raise RegistryError(f"{folder}/{CHECKSUMS} lacks or adds {names}: not a proxy")
    return {name: _read(folder / name, sha256) for name, sha256 in promised.items()}


def _read(path: Path, sha256: str) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as exc:
        raise RegistryError(f"{path} cannot be read: {exc.strerror}; fetch it again") from exc
    if _sha256(content) != sha256:
        raise RegistryError(f"{path} is not what its checksum promises; fetch it again or retrain")
    return content


def _checksums(files: Mapping[str, bytes]) -> bytes:
    return msgspec.json.encode({name: _sha256(files[name]) for name in sorted(files)})


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _sync(folder: Path) -> None:
    """Make a rename or a new name in ``folder`` survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
