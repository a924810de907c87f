"""Artifact folders without models: a registry never looks into one."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture
def make_artifact(tmp_path: Path) -> Callable[[str], Path]:
    """Write an intact artifact folder; other names, other digests."""

    def make(name: str) -> Path:
        return write_artifact(tmp_path / "made" / name, name)

    return make


@pytest.fixture
def task(request: pytest.FixtureRequest) -> str:
    """A task of the test's own: the tests of one battery share a server."""
    name = f"{request.node.parent.name}-{request.node.name}".lower()
    return re.sub(r"[^a-z0-9]+", "-", name).strip("-")


def write_artifact(folder: Path, content: str) -> Path:
    """The files of a proxy with ``content`` in them, and their checksums."""
    folder.mkdir(parents=True, exist_ok=True)
    names = ("proxy.json", "answerer.onnx", "arrays.safetensors", "card.md")
    sums = {}
    for name in names:
        data = f"{name} of {content}".encode()
        (folder / name).write_bytes(data)
        sums[name] = hashlib.sha256(data).hexdigest()
    (folder / "checksums.json").write_text(json.dumps(sums))
    return folder
