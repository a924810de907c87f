"""Servers that misbehave byte for byte, and the two transports that have to live with them.

Every test here runs four times: each transport on asyncio's own loop and on uvloop. After every one
of them the process must hold as many sockets and tasks as before.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import socket
import struct
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass

import pytest
import uvloop

from cascade.upstream import AiohttpTransport, PlainTransport, Transport
from serving.bench.listener import listening

FIELDS = {"content-type": "application/json"}
LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The loop of ``cascade serve`` is uvloop where it is installed; its sockets differ."""
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


class Wire:
    """The server's end of one connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.requests: list[bytes] = []
        self.sent = 0  # bytes that the kernel or our buffer took
        self.left = asyncio.Event()  # the client has closed its end
        self._reader, self._writer = reader, writer

    async def head(self) -> bytes:
        """The next request up to its blank line; the connection ends if none comes."""
        return await self._reader.readuntil(b"\r\n\r\n")

    async def request(self) -> bytes:
        """The next request with its body."""
        request = await self.head()
        if found := LENGTH.search(request):
            request += await self._reader.readexactly(int(found[1]))
        self.requests.append(request)
        return request

    async def send(self, *pieces: bytes, pause: float = 0.0) -> None:
        """Write each piece on its own; ``pause`` seconds between two."""
        for piece in pieces:
            self._writer.write(piece)
            await self._writer.drain()
            self.sent += len(piece)
            await asyncio.sleep(pause)

    async def wait_until_left(self) -> None:
        """Read, and forget, until the client closes."""
        with contextlib.suppress(ConnectionError):
            while await self._reader.read(65536):
                pass
        self.left.set()

    def half_close(self) -> None:
        """Send FIN; go on reading."""
        self._writer.write_eof()

    def shrink(self) -> None:
        """Let the kernel take little, so that a reader who waits is felt soon."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)

    def reset(self) -> None:
        """Close with RST instead of FIN."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.close()

    @property
    def _socket(self) -> socket.socket:
        found: socket.socket = self._writer.get_extra_info("socket")
        return found


Script = Callable[[Wire], Awaitable[None]]


class Peer:
    """Plays one script on every connection; the last one on all that follow."""

    def __init__(self, *scripts: Script) -> None:
        self.wires: list[Wire] = []
        self.port = 0
        self._scripts = scripts

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator[Peer]:
        """On a free port of loopback."""
        async with listening(self._meet) as self.port:
            yield self

    async def _meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        wire = Wire(reader, writer)
        self.wires.append(wire)
        script = self._scripts[min(len(self.wires), len(self._scripts)) - 1]
        try:
            await script(wire)
        except (ConnectionError, asyncio.IncompleteReadError):
            wire.left.set()


def answering(*pieces: bytes, pause: float = 0.0) -> Script:
    """The same answer to every request of a connection that stays open."""

    async def play(wire: Wire) -> None:
        while True:
            await wire.request()
            await wire.send(*pieces, pause=pause)

    return play


def closing(*pieces: bytes) -> Script:
    """One answer, or a part of one, and FIN."""

    async def play(wire: Wire) -> None:
        await wire.request()
        await wire.send(*pieces)

    return play


def resetting(*pieces: bytes) -> Script:
    """One answer, or a part of one, and RST."""

    async def play(wire: Wire) -> None:
        await wire.request()
        await wire.send(*pieces, pause=0.02)  # RST may overtake what was not read yet
        wire.reset()

    return play


async def silent(wire: Wire) -> None:
    """Take the request, say nothing, notice when the client leaves."""
    await wire.request()
    await wire.wait_until_left()


def whole(body: bytes, *fields: bytes, status: bytes = b"200 OK") -> bytes:
    """An answer with a content-length."""
    named = b"".join(field + b"\r\n" for field in fields)
    length = b"content-length: %d\r\n" % len(body)
    return b"HTTP/1.1 " + status + b"\r\n" + named + length + b"\r\n" + body


CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
UNTIL_CLOSE = b"HTTP/1.1 200 OK\r\n\r\n"


@dataclass(frozen=True)
class Got:
    """A whole answer."""

    status: int
    body: bytes


async def fetch(transport: Transport, path: str = "/v1", body: bytes = b"{}") -> Got:
    """Ask, and read to the end."""
    incoming = await transport.open("POST", path, body)
    try:
        read = b""
        while chunk := await incoming.next_chunk():
            read += chunk
        return Got(incoming.status, read)
    finally:
        incoming.close()


Connect = Callable[[int], Transport]


def plain(port: int) -> Transport:
    return PlainTransport("127.0.0.1", port, FIELDS)


def by_aiohttp(port: int) -> Transport:
    return AiohttpTransport(f"http://127.0.0.1:{port}", FIELDS)


@pytest.fixture(params=[plain, by_aiohttp], ids=["plain", "aiohttp"])
def make(request: pytest.FixtureRequest) -> Connect:
    """A transport to a port of loopback."""
    found: Connect = request.param
    return found


def wrong_in_aiohttp(what: str) -> pytest.MarkDecorator:
    """For a test that aiohttp fails, and how; the day it passes, the mark has to go."""
    known = pytest.mark.xfail(reason=f"aiohttp {what}", strict=True)
    makes = [plain, pytest.param(by_aiohttp, marks=known)]
    return pytest.mark.parametrize("make", makes, ids=["plain", "aiohttp"])


@dataclass
class Pair:
    """A server with its script, and a client."""

    peer: Peer
    transport: Transport

    async def fetch(self, path: str = "/v1", body: bytes = b"{}") -> Got:
        return await fetch(self.transport, path, body)


Meet = Callable[..., contextlib.AbstractAsyncContextManager[Pair]]


@pytest.fixture
def meet(make: Connect) -> Meet:
    """``async with meet(script, ...) as pair``: both ends, closed in the end."""

    @contextlib.asynccontextmanager
    async def both(*scripts: Script) -> AsyncIterator[Pair]:
        async with Peer(*scripts).listening() as peer, asyncio.timeout(20):
            transport = make(peer.port)
            try:
                yield Pair(peer, transport)
            finally:
                await transport.close()

    return both


def open_sockets() -> int:
    """File descriptors of this process that are sockets."""
    return sum(_target(fd).startswith("socket:") for fd in os.listdir("/proc/self/fd"))


def _target(fd: str) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{fd}")
    except OSError:  # the one that listed the folder
        return ""


@pytest.fixture(autouse=True)
async def nothing_is_left() -> AsyncIterator[None]:
    """Fails a test that leaves a socket or a task behind."""
    sockets, tasks = open_sockets(), asyncio.all_tasks()
    yield
    deadline = time.monotonic() + 2
    while open_sockets() > sockets and time.monotonic() < deadline:
        await asyncio.sleep(0.01)  # a close is carried out by the next turn of the loop
    assert open_sockets() <= sockets
    assert not {task for task in asyncio.all_tasks() - tasks if task is not asyncio.current_task()}


@pytest.fixture
def unanswering_port() -> Iterator[int]:
    """A port whose queue of connections is full: SYNs are dropped, nobody is refused."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        port = listener.getsockname()[1]
        for _ in range(8):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", port))
        yield port
