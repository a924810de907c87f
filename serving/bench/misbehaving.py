"""An OpenAI-like engine on loopback that does to each request what its text says, byte by byte.

A text is ``request <number> <deed>``; the right answer to it follows from its number alone, so
that a wrong answer, or one that belongs to somebody else, shows. Knows no gateway.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import socket
import struct
import time
from collections.abc import AsyncIterator, Awaitable, Callable

from serving.bench.listener import listening

ASKED = re.compile(rb"request (\d+) (\w+)")
LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
TYPED = b"Is the number even?"
IDLE_SECONDS = 2.0
TOKENS = 6  # pieces of a streamed answer
WORK_SECONDS = 0.05
SLOW_SECONDS = 0.02  # between two pieces of an answer that is ten times slower than the others


def right_answer(number: int, typed: bool) -> str:
    """What the engine must be seen to have said."""
    if typed:
        return "yes" if number % 2 == 0 else "no"
    return "".join(_words(number))


def _words(number: int) -> list[str]:
    return [f"answer {number}, "] + [f"word {i} " for i in range(TOKENS - 1)]


class Wire:
    """One connection, and the request that was read from it last."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.body = b""
        self._reader, self._writer = reader, writer

    async def request(self) -> None:
        """Read one; the connection ends if none comes."""
        async with asyncio.timeout(IDLE_SECONDS):
            head = await self._reader.readuntil(b"\r\n\r\n")
        found = LENGTH.search(head)
        self.body = await self._reader.readexactly(int(found[1])) if found else b""

    async def send(self, *pieces: bytes, pause: float = 0.0) -> None:
        """Write; with a pause, each piece on its own."""
        for piece in pieces:
            self._writer.write(piece)
            if pause:
                await asyncio.sleep(pause)
            await self._writer.drain()

    async def left(self) -> None:
        """Return when the other side has closed."""
        with contextlib.suppress(ConnectionError):
            while await self._reader.read(65536):
                pass

    def reset(self) -> None:
        """Close with RST."""
        linger = struct.pack("ii", 1, 0)
        self._writer.get_extra_info("socket").setsockopt(
            socket.SOL_SOCKET, socket.SO_LINGER, linger
        )
        self._writer.close()

    @property
    def answer(self) -> list[bytes]:
        """The right answer to the request, in pieces; the first one is the head."""
        found = ASKED.search(self.body)
        number = int(found[1]) if found else 0
        words = [right_answer(number, True)] if TYPED in self.body else _words(number)
        return _stream(words) if b'"stream":true' in self.body else _whole(words)


def _whole(words: list[str]) -> list[bytes]:
    message = {"role": "assistant", "content": "".join(words)}
    choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
    usage = {"prompt_tokens": 9, "completion_tokens": len(words), "total_tokens": 9 + len(words)}
    body = json.dumps({"object": "chat.completion", "choices": choices, "usage": usage}).encode()
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
    middle = len(body) // 2
    return [head + b"content-length: %d\r\n\r\n" % len(body), body[:middle], body[middle:]]


def _stream(words: list[str]) -> list[bytes]:
    deltas = [{"choices": [{"index": 0, "delta": {"content": word}}]} for word in words]
    events = [b"data: " + json.dumps(one).encode() + b"\n\n" for one in deltas]
    chunks = [b"%x\r\n%b\r\n" % (len(one), one) for one in [*events, b"data: [DONE]\n\n"]]
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n"
    return [head + b"\r\n", *chunks, b"0\r\n\r\n"]


class Closed(Exception):
    """The deed has ended the connection."""


Deed = Callable[[Wire], Awaitable[None]]


async def answers(wire: Wire) -> None:
    await wire.send(*wire.answer)


async def resets(wire: Wire) -> None:
    wire.reset()
    raise Closed


async def hangs(wire: Wire) -> None:
    await wire.left()
    raise Closed


async def breaks_in_head(wire: Wire) -> None:
    await wire.send(wire.answer[0][:30])
    raise Closed


async def breaks_in_body(wire: Wire) -> None:
    head, *body = wire.answer
    await wire.send(head, *body[: len(body) // 2], pause=0.001)
    raise Closed


async def babbles(wire: Wire) -> None:
    await wire.send(b"\x16\x03\x01 this is no HTTP \x00\xff\r\n\r\n" * 3)
    await wire.left()
    raise Closed


async def sends_away(wire: Wire) -> None:
    said = b'{"error": {"message": "too many requests"}}'
    head = b"HTTP/1.1 429 Too Many Requests\r\nretry-after: 1\r\ncontent-length: %d\r\n\r\n"
    await wire.send(head % len(said) + said)


async def fails(wire: Wire) -> None:
    said = b'{"error": {"message": "out of memory"}}'
    await wire.send(b"HTTP/1.1 500 Oh\r\ncontent-length: %d\r\n\r\n" % len(said) + said)


async def dawdles(wire: Wire) -> None:
    await wire.send(*wire.answer, pause=SLOW_SECONDS)


async def works(wire: Wire) -> None:
    """An honest answer that takes its time."""
    await asyncio.sleep(WORK_SECONDS)
    await wire.send(*wire.answer)


async def announces_too_much(wire: Wire) -> None:
    body = b"".join(_unframed(wire.answer))
    await wire.send(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % (len(body) + 50) + body)
    await wire.left()
    raise Closed


async def announces_too_little(wire: Wire) -> None:
    first, *rest = _unframed(wire.answer)
    head = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(first)
    await wire.send(head + first, *rest, pause=0.002)  # what is beyond the length comes later


async def floods(wire: Wire) -> None:
    """An answer of 60 MB; right, but more than any buffer on its way."""
    head, word, *_, end = wire.answer
    await wire.send(head, *[word * 1000] * 1000, end)


def _unframed(answer: list[bytes]) -> list[bytes]:
    """Its body, without the lengths of chunks."""
    head, *body = answer
    if b"chunked" not in head:
        return body
    return [chunk.partition(b"\r\n")[2].removesuffix(b"\r\n") for chunk in body[:-1]]


FAULTS: dict[str, Deed] = {
    deed.__name__: deed
    for deed in (
        resets,
        hangs,
        breaks_in_head,
        breaks_in_body,
        babbles,
        sends_away,
        fails,
        dawdles,
        announces_too_much,
        announces_too_little,
    )
}
DEEDS: dict[str, Deed] = {
    "answers": answers,
    "floods": floods,
    "works": works,
    **FAULTS,
}
TRANSIENT = "once_"
"""Before a deed: only the first attempt at this request meets it."""


class Engine:
    """Plays the deeds. ``left_at`` says when, on the loop's clock, a hung request was given up."""

    def __init__(self) -> None:
        self.port = 0
        self.left_at: dict[int, float] = {}
        self._seen: set[int] = set()

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator[Engine]:
        """On a free port of loopback."""
        async with listening(self._meet) as self.port:
            yield self

    async def _meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        wire = Wire(reader, writer)
        with contextlib.suppress(
            Closed, ConnectionError, asyncio.IncompleteReadError, TimeoutError
        ):
            while True:
                await wire.request()
                await self._play(wire)

    async def _play(self, wire: Wire) -> None:
        found = ASKED.search(wire.body)
        if not wire.body:  # a look at /v1/models
            await wire.send(b'HTTP/1.1 200 OK\r\ncontent-length: 21\r\n\r\n{"data":[{"id":"m"}]}')
            return
        number, name = (int(found[1]), found[2].decode()) if found else (0, "answers")
        seen, _ = number in self._seen, self._seen.add(number)
        if name.startswith(TRANSIENT):
            name = "answers" if seen else name.removeprefix(TRANSIENT)
        try:
            await DEEDS.get(name, answers)(wire)
        finally:
            self.left_at[number] = time.monotonic()
