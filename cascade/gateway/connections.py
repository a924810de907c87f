"""The server's side of a connection: uvicorn's, with the limits that it leaves to a proxy in front.

Knows bytes, clocks and HTTP's framing; knows no route, no key and no tier. llhttp itself refuses
what smuggles requests: two lengths, a length beside chunks, bare line feeds, folded lines.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterable
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from cascade.config import Listen
from cascade.gateway.refusals import Refusal

MOST_HEAD_BYTES = 64 * 1024
"""Of a request line and headers. At most one read of the socket more gets in."""

SWEEP_SECONDS = 1
NEVER = math.inf


class Connection(HttpToolsProtocol):
    """Refuses endless headers, and knows since when it has been waiting for its caller.

    asking_since, stalled_since : on the event loop's clock; ``inf`` while a whole request is there,
        and while the caller takes what is sent.
    """

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.asking_since = self.loop.time()
        self.stalled_since = NEVER
        self._in_head = True
        self._head_bytes = 0

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._in_head:
            self._head_bytes += len(data)
            if self._head_bytes > MOST_HEAD_BYTES:
                message = f"more than {MOST_HEAD_BYTES} bytes of headers"
                self.refuse(Refusal(431, "headers_too_large", message))

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.asking_since = self.loop.time()
        self._in_head = True
        self._head_bytes = 0

    def on_headers_complete(self) -> None:
        self._in_head = False
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self.asking_since = NEVER

    def pause_writing(self) -> None:
        self.stalled_since = self.loop.time()
        super().pause_writing()

    def resume_writing(self) -> None:
        self.stalled_since = NEVER
        super().resume_writing()

    def send_400_response(self, msg: str) -> None:
        """uvicorn's word for what is not HTTP, in the shape of our other errors."""
        self.refuse(Refusal(400, "invalid_http", msg))

    def _unsupported_upgrade_warning(self) -> None:
        """Nothing: any caller could fill the log with it."""

    def close_if_slow(self, since: float) -> None:
        """Let go of a caller that has kept us waiting from before ``since``."""
        if self.stalled_since < since:
            self.transport.abort()
        elif self.asking_since < since:
            self.refuse(Refusal(408, "request_timeout", "the request did not arrive in time"))

    def refuse(self, refusal: Refusal) -> None:
        """Say why, unless something else is being said already, and close."""
        self._in_head = False
        busy = self.cycle is not None and not self.cycle.response_complete
        if not (busy and self.cycle.response_started):
            self.transport.write(_written(refusal))
        if busy:
            self.cycle.disconnected = True  # whatever is being made for it has no reader
        self.transport.close()


def _written(refusal: Refusal) -> bytes:
    body = refusal.body
    fields = b"content-type: application/json\r\nconnection: close\r\ncontent-length: %d\r\n\r\n"
    return STATUS_LINE[refusal.status] + fields % len(body) + body


def close_slow(connections: Iterable[Any], since: float) -> None:
    """Let go of every caller that has kept us waiting from before ``since``.

    A slow loris sends a byte now and then: what counts is the whole request, not its last byte.
    """
    for connection in list(connections):
        if isinstance(connection, Connection):
            connection.close_if_slow(since)


def guarded_server(app: Any, listen: Listen) -> uvicorn.Server:
    """An HTTP server for ``app`` that strangers may reach."""
    settings = uvicorn.Config(
        app,
        http=Connection,
        ws="none",
        log_config=None,  # the log is the process's, not the server's
        log_level="error",  # its warnings are about bytes that any caller may send
        access_log=False,
        server_header=False,
        proxy_headers=False,
        # half of the drain time is the requests', half the audits' and records' after them
        timeout_graceful_shutdown=max(1, int(listen.drain_seconds / 2)),
        timeout_notify=SWEEP_SECONDS,
    )
    server = uvicorn.Server(settings)

    async def sweep() -> None:
        now = asyncio.get_running_loop().time()
        close_slow(server.server_state.connections, now - listen.request_seconds)

    settings.callback_notify = sweep
    return server
