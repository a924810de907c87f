"""An engine that answers at once: 600 bytes, or 100 events in one burst. Knows no gateway."""

from __future__ import annotations

import asyncio
import json

EVENTS = 101  # of a stream: 100 with content and [DONE]
USAGE = {"prompt_tokens": 200, "completion_tokens": 100, "total_tokens": 300}


def _models() -> bytes:
    return _framed(json.dumps({"object": "list", "data": [{"id": "quick"}]}))


def _whole() -> bytes:
    message = {"role": "assistant", "content": "All is well. " * 24}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    body = json.dumps(
        {"id": "c1", "object": "chat.completion", "created": 1, "model": "quick"}
        | {"choices": [choice], "usage": USAGE}
    )
    return _framed(body)


def _framed(body: str) -> bytes:
    return _head("application/json") + f"content-length: {len(body)}\r\n\r\n{body}".encode()


def _burst() -> bytes:
    head = {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "quick"}
    choices = [{"index": 0, "delta": {"content": f" word{i:03d}"}} for i in range(EVENTS - 1)]
    events = [f"data: {json.dumps(head | {'choices': [one]})}\n\n" for one in choices]
    chunks = (f"{len(event):x}\r\n{event}\r\n" for event in [*events, "data: [DONE]\n\n"])
    body = "".join([*chunks, "0\r\n\r\n"])
    return _head("text/event-stream") + f"transfer-encoding: chunked\r\n\r\n{body}".encode()


def _head(kind: str) -> bytes:
    return f"HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\n".encode()


class QuickEngine(asyncio.Protocol):
    """One connection; requests with a content-length, one after the other."""

    models, whole, burst = _models(), _whole(), _burst()

    def __init__(self) -> None:
        self._held = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._held += data
        head, found, body = self._held.partition(b"\r\n\r\n")
        if not found:
            return
        size = int(_after(head.lower(), b"content-length:") or 0)
        if len(body) < size:
            return
        self._held = body[size:]
        if head.startswith(b"GET"):
            self._transport.write(self.models)  # type: ignore[attr-defined]
            return
        streamed = b'"stream":true' in body[:size].replace(b'": ', b'":')
        self._transport.write(self.burst if streamed else self.whole)  # type: ignore[attr-defined]


def _after(head: bytes, name: bytes) -> bytes:
    return head.partition(name)[2].partition(b"\r\n")[0].strip()
