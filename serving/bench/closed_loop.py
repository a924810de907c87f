"""Callers who each send their next request when the answer to the last one has ended.

Raw protocols: a client library would cost more than the gateways that it is to measure.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

STOP_SECONDS = 10.0  # for the answers that are still under way


@dataclass
class Tally:
    """What the callers saw. seconds : of each whole answer."""

    seconds: list[float] = field(default_factory=list)
    wrong: int = 0
    said: bytes = b""  # the last wrong one

    def quantile_us(self, share: float) -> float:
        """Microseconds within which such a share of the answers came."""
        ranked = sorted(self.seconds)
        return 1e6 * ranked[min(int(share * len(ranked)), len(ranked) - 1)]


class Caller(asyncio.Protocol):
    """One kept connection; ``done`` when it was told to stop and its last answer has ended."""

    def __init__(self, requests: Iterator[bytes], tally: Tally, until: float) -> None:
        self.done = asyncio.get_running_loop().create_future()
        self._requests, self._tally, self._until = requests, tally, until

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._ask()

    def data_received(self, data: bytes) -> None:
        self._held += data
        if self._ended():
            self._tally.seconds.append(time.perf_counter() - self._sent)
            if not self._held.startswith(b"HTTP/1.1 200"):
                self._tally.wrong += 1
                self._tally.said = self._held
            self._ask() if time.perf_counter() < self._until else self._stop()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self._tally.wrong += 1
            self.done.set_result(None)

    def _ask(self) -> None:
        self._held, self._sent = b"", time.perf_counter()
        self._transport.write(next(self._requests))  # type: ignore[attr-defined]

    def _stop(self) -> None:
        self.done.set_result(None)
        self._transport.close()  # type: ignore[attr-defined]

    def _ended(self) -> bool:
        head, found, body = self._held.partition(b"\r\n\r\n")
        length = head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0].strip()
        return bool(found) and (len(body) >= int(length) if length else body.endswith(b"0\r\n\r\n"))


async def load(
    url: str, bodies: Iterator[bytes], headers: Mapping[str, str], *, callers: int, seconds: float
) -> Tally:
    """Ask for so many seconds from so many connections, each at least once."""
    parts, tally, loop = urlsplit(url), Tally(), asyncio.get_running_loop()
    fields = {"host": parts.netloc, "content-type": "application/json", **headers}
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    head = f"POST {parts.path} HTTP/1.1\r\n{lines}content-length: "
    requests = (f"{head}{len(body)}\r\n\r\n".encode() + body for body in bodies)
    until = time.perf_counter() + seconds
    protocols = [
        (await loop.create_connection(
            lambda: Caller(requests, tally, until), parts.hostname, parts.port
        ))[1]
        for _ in range(callers)
    ]  # fmt: skip
    await asyncio.wait([one.done for one in protocols], timeout=seconds + STOP_SECONDS)
    tally.wrong += sum(not one.done.done() for one in protocols)
    return tally
