"""A hub and a package index of our own, on loopback and in a folder."""

from __future__ import annotations

import hashlib
import threading
import zipfile
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from cascade.models.manifest import HubFile, Llm, ModelFile, PackagePart

REVISION = "0123456789abcdef0123456789abcdef01234567"


class TinyHub(ThreadingHTTPServer):
    """Serves ``content`` under every path, with Range. ``cut_after``: bytes before it hangs up."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.content = b""
        self.cut_after: int | None = None
        self.honours_range = True
        self.status = 200
        self.ranges: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Answer(BaseHTTPRequestHandler):
    server: TinyHub

    def do_GET(self) -> None:
        hub = self.server
        asked = self.headers["Range"]
        hub.ranges.append(asked)
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if hub.honours_range else 0
        status = 206 if hub.honours_range and hub.status == 200 else hub.status
        body = hub.content[start:]
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: hub.cut_after])

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def hub() -> Iterator[TinyHub]:
    server = TinyHub()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def content() -> bytes:
    """Three megabytes that do not compress and do not repeat."""
    return np.random.default_rng(0).bytes(3 << 20)


@pytest.fixture
def add_wheel(tmp_path: Path) -> Callable[[str, bytes], PackagePart]:
    """Put a wheel with one file into ``tmp_path / index``; returns the part it holds."""
    index = tmp_path / "index"
    index.mkdir()

    def add(name: str, piece: bytes) -> PackagePart:
        info = f"{name}-1.0.dist-info"
        with zipfile.ZipFile(index / f"{name}-1.0-py3-none-any.whl", "w") as wheel:
            wheel.writestr(f"{name}/part.bin", piece)
            wheel.writestr(
                f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n"
            )
            wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
            wheel.writestr(f"{info}/RECORD", "")
        return PackagePart(name, "1.0", f"{name}/part.bin")

    return add


@pytest.fixture
def llm(content: bytes) -> Callable[..., Llm]:
    """A manifest entry for ``content``."""

    def make(*packages: PackagePart, on_hub: bool = True, size: int | None = None) -> Llm:
        file = ModelFile(
            name="model.gguf",
            size=size or len(content),
            sha256=hashlib.sha256(content).hexdigest(),
            hub=HubFile("org/repo", REVISION, "file.gguf") if on_hub else None,
            packages=packages,
        )
        return Llm(name="tiny", about="", licence="MIT", origin="here", files=(file,), role="test")

    return make
