"""One HTTP exchange as values: a request with its whole body, and the two kinds of answer.

Knows ASGI messages; knows no route, no JSON and no tier.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, MutableMapping
from contextlib import aclosing
from typing import Any

import msgspec

from cascade.gateway.refusals import Refusal
from cascade.gateway.tenants import ANYONE, Tenant

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

REQUEST_ID = re.compile(r"[A-Za-z0-9._:/+=@-]{1,128}")
JSON = "application/json"
EVENTS = "text/event-stream; charset=utf-8"


PATIENCE_SECONDS = 0.05
"""For so long a caller who leaves is not noticed."""


class Disconnected(Exception):
    """The caller went away; there is nobody to answer."""


class Request(msgspec.Struct, frozen=True):
    """What was asked.

    headers : lower-case names; of a repeated header the last one counts.
    started : ``time.perf_counter()`` when all of it had been read: a slow caller's upload is not
        our time.
    """

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    id: str
    tenant: Tenant = ANYONE
    started: float = msgspec.field(default_factory=time.perf_counter)


class Response(msgspec.Struct, frozen=True):
    """A whole answer."""

    body: bytes
    status: int = 200
    headers: Mapping[str, str] = msgspec.field(default_factory=dict)
    content_type: str = JSON


class Stream(msgspec.Struct, frozen=True):
    """An answer in server-sent events; ``events`` is closed in the end, however it comes."""

    events: AsyncGenerator[bytes]
    headers: Mapping[str, str] = msgspec.field(default_factory=dict)


Reply = Response | Stream


def read_headers(scope: Scope) -> dict[str, str]:
    """Header fields by lower-case name."""
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}


def given_id(headers: Mapping[str, str]) -> str | None:
    """The caller's own ``x-request-id``, if it is harmless to log and to echo.

    >>> given_id({"x-request-id": "abc-1"}), given_id({"x-request-id": "a b"}), given_id({})
    ('abc-1', None, None)
    """
    given = headers.get("x-request-id")
    return given if given and REQUEST_ID.fullmatch(given) else None


async def read_body(receive: Receive, headers: Mapping[str, str], most_bytes: int) -> bytes:
    """The whole body.

    Raises
    ------
    Refusal
        413, before reading on, as soon as it is announced or found to be too large.
    Disconnected
        The caller left in the middle.
    """
    announced = headers.get("content-length", "")
    if announced.isdigit() and int(announced) > most_bytes:
        raise _too_large(most_bytes)
    chunks: list[bytes] = []
    size, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Disconnected
        chunk = message.get("body", b"")
        size += len(chunk)
        if size > most_bytes:
            raise _too_large(most_bytes)
        chunks.append(chunk)
        more = message.get("more_body", False)
    return b"".join(chunks)


def _too_large(most_bytes: int) -> Refusal:
    message = f"the body is larger than {most_bytes} bytes (listen.body_bytes)"
    return Refusal(413, "body_too_large", message)


async def disconnected(receive: Receive) -> None:
    """Return when the caller has gone; the body must have been read."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def send_response(send: Send, response: Response, headers: Mapping[str, str]) -> None:
    """Send a whole answer with ``headers`` beside its own."""
    fields = {"content-type": response.content_type, "content-length": str(len(response.body))}
    await send(_start(response.status, {**headers, **response.headers, **fields}))
    await send({"type": "http.response.body", "body": response.body})


async def send_stream(send: Send, stream: Stream, headers: Mapping[str, str]) -> None:
    """Send events as they come. The first one is awaited before the status line is written, so
    that a tier that fails at once still gets an error status."""
    fields = {"content-type": EVENTS, "cache-control": "no-cache", "x-accel-buffering": "no"}
    async with aclosing(stream.events) as events:
        first = await anext(events, b"")
        await send(_start(200, {**headers, **stream.headers, **fields}))
        await send(_chunk(first))
        async for event in events:
            await send(_chunk(event))
    await send({"type": "http.response.body", "body": b""})


def _chunk(data: bytes) -> dict[str, Any]:
    return {"type": "http.response.body", "body": data, "more_body": True}


def _start(status: int, headers: Mapping[str, str]) -> dict[str, Any]:
    fields = [(name.encode(), _field(value)) for name, value in headers.items()]
    return {"type": "http.response.start", "status": status, "headers": fields}


def _field(value: str) -> bytes:
    """A header value may hold no line break and only ASCII: anything else is written escaped."""
    if value.isascii() and value.isprintable():
        return value.encode()
    return value.encode("ascii" if value.isprintable() else "unicode_escape", "backslashreplace")


async def unless_gone(work: Awaitable[None], receive: Receive) -> None:
    """Do the work in this task; cancel it when the caller goes, and let it clean up.

    Nobody listens before ``PATIENCE_SECONDS``: most answers are there by then, and a timer costs a
    twentieth of a task.

    Raises
    ------
    Disconnected
        The caller went first.
    """
    task = asyncio.current_task()
    assert task is not None
    watch = Watch(task, receive)
    timer = asyncio.get_running_loop().call_later(PATIENCE_SECONDS, watch.begin)
    try:
        await work
    except asyncio.CancelledError:
        if watch.gone and task.uncancel() == 0:
            raise Disconnected from None
        raise
    finally:
        timer.cancel()
        watch.end()


class Watch:
    """Cancels a task when the caller of its request goes."""

    def __init__(self, task: asyncio.Task[Any], receive: Receive) -> None:
        self.gone = False
        self._task = task
        self._receive = receive
        self._listening: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Start to listen."""
        self._listening = asyncio.ensure_future(disconnected(self._receive))
        self._listening.add_done_callback(self._heard)

    def end(self) -> None:
        """The work is done: nobody is to be cancelled any more."""
        if self._listening is not None:
            self._listening.remove_done_callback(self._heard)
            self._listening.cancel()

    def _heard(self, listening: asyncio.Task[None]) -> None:
        self.gone = True
        self._task.cancel()
