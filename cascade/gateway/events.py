"""Server-sent events of an engine: pass whole ones on, note their usage. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec

END = re.compile(rb"\r?\n\r?\n")
BLANK_LINES = (b"\n\n", b"\r\n\r\n", b"\n\r\n", b"\r\n\n")
LAST_EVENTS = tuple(
    b"data:" + space + b"[DONE]" + end
    for space in (b" ", b"")
    for end in (b"\n\n", b"\r\n\r\n", b"\n", b"")
)
MOST_BYTES = 16 * 1024 * 1024
"""An engine that never ends an event is broken: what it sent is passed on as it is."""


class UsageFilter:
    """Whole events out of pieces that may end anywhere; the usage is noted on the way.

    An event that exists for its usage alone is kept back from a caller who did not ask for it.
    Bytes that mention no usage are not looked into: there may be a thousand events a second.

    usage : as the engine said it; empty until then. events : how many there were so far.

    >>> events = UsageFilter(wanted=False)
    >>> events.feed(b"data: {}"), events.feed(b"\\n\\ndata: "), events.rest()
    (b'', b'data: {}\\n\\n', b'data: ')
    >>> events.feed(b'data: {"choices": [], "usage": {"prompt_tokens": 3}}\\n\\n'), events.usage
    (b'', {'prompt_tokens': 3})
    """

    def __init__(self, *, wanted: bool) -> None:
        self.usage: Mapping[str, Any] = {}
        self.events = 0
        self.ended = False  # the engine said so; a body that merely stops may be half of one
        self._wanted = wanted
        self._pending = b""

    def feed(self, piece: bytes) -> bytes:
        """The events that ``piece`` completes, as they are to be sent; often nothing."""
        held = self._pending + piece if self._pending else piece
        end = _end_of_events(held)
        if not end and len(held) > MOST_BYTES:
            end = len(held)
        self._pending = held[end:]
        return self._passed(held[:end])

    def rest(self) -> bytes:
        """What came after the last whole event."""
        pending, self._pending = self._pending, b""
        return self._passed(pending)

    def _passed(self, events: bytes) -> bytes:
        self.events += events.count(b"data:")
        if events.endswith(LAST_EVENTS):
            self.ended = True
        kept, done = list[bytes](), 0
        while (at := events.find(b'"usage"', done)) >= 0:
            start = done + _end_of_events(events[done:at])
            found = END.search(events, at)
            end = found.end() if found else len(events)
            passed = self._is_passed(events[start:end])
            kept.append(events[done : end if passed else start])
            done = end
        return b"".join([*kept, events[done:]]) if kept else events

    def _is_passed(self, event: bytes) -> bool:
        chunk = _chunk(event)
        if chunk is None or not chunk.usage:
            return True
        self.usage = chunk.usage
        return self._wanted or bool(chunk.choices)


def _end_of_events(held: bytes) -> int:
    """Where the last whole event ends; 0 without one."""
    if held.endswith(b"\n\n"):  # as nearly always
        return len(held)
    ends = (held.rfind(mark) + len(mark) for mark in BLANK_LINES if mark in held)
    return max(ends, default=0)


class Chunk(msgspec.Struct, frozen=True):
    """The part of a ``chat.completion.chunk`` that the gateway reads."""

    choices: list[msgspec.Raw] = []
    usage: dict[str, Any] | None = None


def _chunk(event: bytes) -> Chunk | None:
    """The chunk inside an event; None where there is none."""
    _, found, data = event.partition(b"data:")
    if not found:
        return None
    try:
        return msgspec.json.decode(data, type=Chunk)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
