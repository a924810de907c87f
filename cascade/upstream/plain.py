"""HTTP/1.1 over plain TCP, on asyncio's protocols and llhttp: a seventh of aiohttp's CPU time.

One request at a time on a connection; never pipelined. A connection goes back to the idle ones
only after an answer that was read to its end and that said it would stay open.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping
from typing import cast
from weakref import WeakSet

import httptools

from cascade.upstream.trace import TRACE
from cascade.upstream.transport import CONNECT_SECONDS, IDLE_SECONDS, UpstreamFault

MOST_HEADER_BYTES = 64 * 1024
HIGH_WATER_BYTES = 256 * 1024
"""Unread bytes of a body after which the server is made to wait for its reader."""

BODILESS = frozenset({204, 304})


class Connection(asyncio.Protocol):
    """One TCP connection: callbacks of the event loop and of the parser on one side, a reader on
    the other."""

    def __init__(self) -> None:
        self.status = 0
        self.reusable = False  # the answer has ended, and another request may follow
        self.idle_since = 0.0
        self.closed = False
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self.fields: dict[str, str] = {}  # of the answer, by lower-case name
        self._barren_bytes = 0  # since the last piece of a body
        self._head: asyncio.Future[None] | None = None  # somebody waits for the headers
        self._more: asyncio.Future[None] | None = None  # somebody waits for a piece of the body
        self._chunks: deque[bytes] = deque()
        self._unread = 0
        self._paused = False
        self._begun = self._ended = True
        self._fault: UpstreamFault | None = None

    # the reader's side

    async def ask(self, request: bytes) -> None:
        """Send a whole request; return when the headers of its answer are there."""
        assert self._transport is not None
        self._begun = self._ended = self.reusable = False
        self.fields, self._barren_bytes, self._fault = {}, 0, None
        self._head = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        try:
            await self._head
        except BaseException:
            self.close()
            raise
        finally:
            self._head = None

    async def next_chunk(self) -> bytes:
        """The next bytes of the body; empty at its end. Raises ``UpstreamFault``."""
        while not self._chunks:
            if self._fault is not None:
                raise self._fault
            if self._ended:
                return b""
            self._more = asyncio.get_running_loop().create_future()
            try:
                await self._more
            finally:
                self._more = None
        chunk = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
        self._chunks.clear()
        self._unread = 0
        if self._paused and self._transport is not None:
            self._paused = False
            self._transport.resume_reading()
        return chunk

    @property
    def drained(self) -> bool:
        """The answer has come to its end, a good one, and every byte of it was read."""
        return self._ended and not self._chunks and self._fault is None

    def close(self) -> None:
        """Drop the connection at once: what the server still sends is of no use."""
        self.closed = True
        if self._transport is not None:
            self._transport.abort()

    # the event loop's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass of it

    def data_received(self, data: bytes) -> None:
        if self._ended:  # nobody has asked for anything
            self._fail("sent bytes that nobody asked for")
            return
        unread = self._unread
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as exc:
            said = exc.__context__ or exc  # what a callback below raised, or llhttp itself
            self._fail(f"does not speak HTTP/1.1: {said}")
            return
        self._barren_bytes = self._barren_bytes + len(data) if self._unread == unread else 0
        if self._barren_bytes > MOST_HEADER_BYTES:
            self._fail(f"sent more than {MOST_HEADER_BYTES} bytes of headers")
            return
        if self._unread > HIGH_WATER_BYTES and not self._paused and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()

    def eof_received(self) -> bool:
        return False  # half-closed is closed: we would never be answered on it

    def connection_lost(self, exc: Exception | None) -> None:
        left_by_us, self.closed, self.reusable = self.closed, True, False
        clean = exc is None and not left_by_us
        if self._begun and not self._ended and self._until_close and clean:
            self._end()
        elif not self._ended:
            self._fail(f"closed the connection before the answer was complete ({exc or 'EOF'})")

    # the parser's side

    def on_message_begin(self) -> None:
        if self._ended:
            raise httptools.HttpParserError("a second answer, which nobody asked for")

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._begun:  # afterwards they are trailers, which change nothing
            self.fields[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        self.status = self._parser.get_status_code()
        if self.status < 200:  # an interim answer, such as 100 Continue: the real one follows
            return
        if self.fields.get("content-encoding", "identity") != "identity":
            raise httptools.HttpParserError("a compressed body, which nobody asked for")
        self._begun = True
        _wake(self._head)

    def on_body(self, body: bytes) -> None:
        self._chunks.append(body)
        self._unread += len(body)
        _wake(self._more)

    def on_message_complete(self) -> None:
        if not self._begun:  # of an interim answer
            self.fields = {}
            return
        self.reusable = (
            self._parser.should_keep_alive()
            and not self._until_close
            and self._sent_everything  # or the server would take the rest for the next request
        )
        self._end()

    @property
    def _sent_everything(self) -> bool:
        return self._transport is not None and not self._transport.get_write_buffer_size()

    @property
    def _until_close(self) -> bool:
        """The body has neither a length nor chunks: only the end of the connection ends it."""
        framed = "content-length" in self.fields or "transfer-encoding" in self.fields
        return not framed and self.status not in BODILESS

    def _end(self) -> None:
        self._ended = True
        _wake(self._more)

    def _fail(self, what: str) -> None:
        self._fault = fault = UpstreamFault(f"the server {what}")
        self._ended, self.reusable = True, False
        if self._head is not None and not self._head.done():
            self._head.set_exception(fault)
        _wake(self._more)
        self.close()


class PlainIncoming:
    """See ``Incoming``. Forgets its connection once it has ended: closing it later hurts nobody."""

    __slots__ = ("_connection", "_fields", "_owner", "status")

    def __init__(self, connection: Connection, owner: PlainTransport) -> None:
        self.status = connection.status
        self._fields = connection.fields
        self._connection: Connection | None = connection
        self._owner = owner

    def header(self, name: str) -> str | None:
        """See ``Incoming``."""
        return self._fields.get(name)

    async def next_chunk(self) -> bytes:
        """See ``Incoming``."""
        if self._connection is None:
            return b""
        chunk = await self._connection.next_chunk()
        if self._connection.drained:
            self.close()
        return chunk

    def close(self) -> None:
        """See ``Incoming``."""
        connection, self._connection = self._connection, None
        if connection is not None:
            self._owner.give_back(connection)


class PlainTransport:
    """See ``Transport``.

    Parameters
    ----------
    host, port : of the origin.
    fields : sent with every request, beside ``host`` and ``content-length``.
    """

    def __init__(self, host: str, port: int, fields: Mapping[str, str]) -> None:
        self._host, self._port = host, port
        named = {"host": f"[{host}]:{port}" if ":" in host else f"{host}:{port}", **fields}
        self._fields = _lines(named)
        self._open: WeakSet[Connection] = WeakSet()
        self._idle: deque[Connection] = deque()  # the most recently used one last
        self._heads: dict[tuple[str, str], bytes] = {}

    async def open(self, method: str, path: str, body: bytes) -> PlainIncoming:
        """See ``Transport``."""
        connection = self._take() or await self._connect()
        head, trace = self._head(method, path), TRACE.get()
        extra = _lines(trace).encode("latin-1") if trace else b""
        await connection.ask(b"%b%d\r\n%b\r\n%b" % (head, len(body), extra, body))
        return PlainIncoming(connection, self)

    def give_back(self, connection: Connection) -> None:
        """Keep a connection for the next request, if it can serve one."""
        if not (connection.reusable and connection.drained) or connection.closed:
            connection.close()
            return
        now = asyncio.get_running_loop().time()
        connection.idle_since = now
        self._idle.append(connection)
        while self._idle[0].idle_since <= now - IDLE_SECONDS:  # of a crowd that has gone
            self._idle.popleft().close()

    async def close(self) -> None:
        """See ``Transport``."""
        self._idle.clear()
        for connection in list(self._open):
            connection.close()

    def _take(self) -> Connection | None:
        """The idle connection used last; those that waited too long, or were closed, go."""
        oldest = asyncio.get_running_loop().time() - IDLE_SECONDS
        while self._idle:
            connection = self._idle.pop()
            if not connection.closed and connection.idle_since > oldest:
                return connection
            connection.close()
        return None

    async def _connect(self) -> Connection:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                _, connection = await loop.create_connection(Connection, self._host, self._port)
        except TimeoutError as exc:
            raise UpstreamFault(f"no connection within {CONNECT_SECONDS:g} s") from exc
        except (OSError, UnicodeError) as exc:  # UnicodeError: a name that no DNS can hold
            raise UpstreamFault(f"cannot connect: {exc}") from exc
        self._open.add(connection)
        return connection

    def _head(self, method: str, path: str) -> bytes:
        """Everything before the length of the body; the same for every request to one path."""
        head = self._heads.get((method, path))
        if head is None:
            text = f"{method} {path} HTTP/1.1\r\n{self._fields}content-length: "
            head = self._heads[method, path] = text.encode("latin-1")
        return head


def _lines(fields: Mapping[str, str]) -> str:
    return "".join(f"{name}: {value}\r\n" for name, value in fields.items())


def _wake(waiting: asyncio.Future[None] | None) -> None:
    if waiting is not None and not waiting.done():
        waiting.set_result(None)
