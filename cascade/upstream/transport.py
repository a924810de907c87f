"""What an endpoint needs of an HTTP client: send one request, read its answer piece by piece."""

from __future__ import annotations

from typing import Protocol

CONNECT_SECONDS = 5.0
IDLE_SECONDS = 4.0
"""How long an unused connection is kept: less than the 5 s of uvicorn and llama.cpp, or we would
now and then write into a connection that the server is closing."""


class UpstreamFault(Exception):
    """The server could not be reached, left in the middle, or does not speak HTTP."""


class Incoming(Protocol):
    """An answer whose headers have arrived. Read it to its end, or close it.

    Read to the end, its connection serves the next request; closed before, it is dropped, and a
    server that is still writing notices.
    """

    status: int

    def header(self, name: str) -> str | None:
        """A field by its lower-case name; None where it is absent."""
        ...

    async def next_chunk(self) -> bytes:
        """The next bytes of the body as they arrive; empty at its end.

        Raises
        ------
        UpstreamFault
            The body breaks off.
        """
        ...

    def close(self) -> None:
        """Let go of the connection; may be called at any time, and twice."""
        ...


class Transport(Protocol):
    """Keeps connections to one origin, such as ``http://gpu-1:8000``.

    Belongs to the event loop it is first used in. How many requests may run at the same time is the
    caller's affair. Nothing is ever sent twice, no redirect followed, no cookie kept.
    """

    async def open(self, method: str, path: str, body: bytes) -> Incoming:
        """Send a request, wait for the headers of its answer. Cancelled, it drops the connection.

        Raises
        ------
        UpstreamFault
            No answer can come any more.
        """
        ...

    async def close(self) -> None:
        """Close every connection; the next request opens new ones."""
        ...
