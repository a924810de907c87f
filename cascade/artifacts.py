"""Files that are what they claim to be: sha256, and publishing that cannot be seen half done.

Knows nothing of models, networks or proxies. Whoever loads a file that decides something checks
it here first; whoever writes one publishes it here, so a crash leaves the old file or the new one.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path

from cascade.errors import ChecksumMismatch, ModelUnavailable


def sha256_of(path: Path) -> str:
    """Hex sha256 of a file's bytes (about 1 GB/s; read in blocks, never whole)."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest(*parts: str) -> str:
    """A short, stable name for a tuple of strings; no two different tuples are joined alike.

    >>> digest("ab", "c") == digest("a", "bc")
    False
    >>> len(digest("model", "tokenizer"))
    16
    """
    joined = b"".join(len(part.encode()).to_bytes(8, "big") + part.encode() for part in parts)
    return hashlib.sha256(joined).hexdigest()[:16]


def check(path: Path, sha256: str) -> None:
    """Raise unless ``path`` holds exactly the promised bytes.

    Raises
    ------
    ModelUnavailable
        The file does not exist.
    ChecksumMismatch
        It exists and is something else.
    """
    if not path.is_file():
        raise ModelUnavailable(f"{path} is missing: run 'cascade models pull'")
    found = sha256_of(path)
    if found != sha256:
        raise ChecksumMismatch(
            f"{path} has sha256 {found[:12]}..., promised was {sha256[:12]}...: "
            f"delete it and run 'cascade models pull'"
        )


def check_folder(folder: Path, sha256s: Mapping[str, str]) -> None:
    """``check`` every file of a folder: ``{"model.onnx": sha256, ...}``, names relative to it."""
    for name, sha256 in sha256s.items():
        check(folder / name, sha256)


def publish_bytes(path: Path, content: bytes) -> None:
    """Write ``content`` to ``path`` so that readers see the old file or the new one, whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with draft.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def publish_folder(draft: Path, target: Path) -> None:
    """Give a finished folder its final name; one that is there already is replaced.

    A folder cannot be renamed over another, so a crash between the two renames leaves no folder
    at all (never half of one): the next pull builds it again. Both must be on one file system.
    """
    old = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists():
        target.replace(old)
    draft.replace(target)
    shutil.rmtree(old, ignore_errors=True)
