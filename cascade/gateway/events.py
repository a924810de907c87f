"""Server-sent events of an engine: find their ends, read their usage. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

END = re.compile(rb"\r?\n\r?\n")
MOST_BYTES = 16 * 1024 * 1024
"""An engine that never ends an event is broken: what it sent is passed on as it is."""


class EventSplitter:
    """Cut a byte stream into whole events, whatever the pieces it arrives in.

    >>> splitter = EventSplitter()
    >>> list(splitter.feed(b"data: a")), list(splitter.feed(b"\\n\\ndata: b"))
    ([], [b'data: a\\n\\n'])
    >>> splitter.rest()
    b'data: b'
    """

    def __init__(self) -> None:
        self._pending = b""

    def feed(self, piece: bytes) -> Iterator[bytes]:
        """Every event that ``piece`` completes, its blank line included."""
        self._pending += piece
        while found := END.search(self._pending):
            event, self._pending = self._pending[: found.end()], self._pending[found.end() :]
            yield event
        if len(self._pending) > MOST_BYTES:
            yield self.rest()

    def rest(self) -> bytes:
        """What came after the last whole event."""
        pending, self._pending = self._pending, b""
        return pending


class Chunk(msgspec.Struct, frozen=True):
    """The part of a ``chat.completion.chunk`` that the gateway reads."""

    choices: list[msgspec.Raw] = []
    usage: dict[str, Any] | None = None


def usage_in(event: bytes) -> Mapping[str, Any] | None:
    """The usage that an event reports; None for an event that reports none.

    >>> usage_in(b'data: {"choices": [], "usage": {"prompt_tokens": 3}}\\n\\n')
    {'prompt_tokens': 3}
    """
    chunk = _chunk(event)
    return chunk.usage if chunk else None


def only_usage(event: bytes) -> bool:
    """Whether an event exists for its usage alone.

    >>> only_usage(b'data: {"choices": [], "usage": {"prompt_tokens": 3}}')
    True
    """
    chunk = _chunk(event)
    return bool(chunk and chunk.usage and not chunk.choices)


def _chunk(event: bytes) -> Chunk | None:
    """The chunk inside an event that mentions usage; most events do not and are not parsed."""
    _, found, data = event.partition(b"data:")
    if not found or b'"usage"' not in data:
        return None
    try:
        return msgspec.json.decode(data, type=Chunk)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
