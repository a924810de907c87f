"""Servers that break off, lie, hang or talk nonsense: each ends in a fault, none in a guess."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable

import numpy as np
import pytest

from cascade.upstream import AiohttpTransport, PlainTransport, UpstreamFault, plain, secure

from .conftest import (
    CHUNKED,
    FIELDS,
    Connect,
    Got,
    Meet,
    Script,
    Wire,
    answering,
    closing,
    fetch,
    resetting,
    silent,
    whole,
    wrong_in_aiohttp,
)

Leaving = Callable[..., Script]
GOOD = answering(whole(b"good"))
LONG = b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n"


@pytest.mark.parametrize(
    "pieces",
    [
        [],
        [b"HTT"],
        [b"HTTP/1.1 200 OK\r\n"],
        [b"HTTP/1.1 200 OK\r\ncontent-len"],
        [b"HTTP/1.1 100 Continue\r\n\r\n"],
        [LONG],
        [LONG, b"hello"],
        [CHUNKED],
        [CHUNKED, b"5\r\nhel"],
        [CHUNKED, b"5\r\nhello\r\n"],
        [CHUNKED, b"5\r\nhello\r\n0\r\n"],
    ],
)
@pytest.mark.parametrize("leaving", [closing, resetting])
async def test_leaving_before_the_end(meet: Meet, leaving: Leaving, pieces: list[bytes]) -> None:
    async with meet(leaving(*pieces), GOOD) as pair:
        with pytest.raises(UpstreamFault):
            await pair.fetch()
        assert await pair.fetch() == Got(200, b"good")


@pytest.mark.parametrize("pieces", [[LONG, b"hello"], [CHUNKED, b"5\r\nhello\r\n"]])
@pytest.mark.parametrize("leaving", [closing, resetting])
async def test_leaving_before_anybody_has_read(
    meet: Meet, leaving: Leaving, pieces: list[bytes]
) -> None:
    """The last bytes and the end are there together: the body must not look complete."""
    async with meet(leaving(*pieces)) as pair:
        incoming = await pair.transport.open("POST", "/v1", b"{}")
        await asyncio.sleep(0.05)
        with pytest.raises(UpstreamFault):
            while await incoming.next_chunk():
                pass
        incoming.close()


@wrong_in_aiohttp("takes the bytes before a reset for a whole body")
async def test_a_reset_does_not_complete_a_body_without_a_length(meet: Meet) -> None:
    async with meet(resetting(b"HTTP/1.1 200 OK\r\n\r\nhel")) as pair:
        with pytest.raises(UpstreamFault):
            await pair.fetch()


async def test_half_closing_before_the_end(meet: Meet) -> None:
    async def half_close(wire: Wire) -> None:
        await wire.request()
        await wire.send(LONG, b"hello")
        wire.half_close()
        await wire.wait_until_left()

    async with meet(half_close, GOOD) as pair:
        with pytest.raises(UpstreamFault):
            await pair.fetch()
        await asyncio.wait_for(pair.peer.wires[0].left.wait(), 1)
        assert await pair.fetch() == Got(200, b"good")


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" * 20,
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"<html>hello</html>\n" * 3,
        b"\x00" * 200,
        b"HTTP/1.1 abc OK\r\n\r\n",
        b"HTTP/7.3 200 OK\r\ncontent-length: 0\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: -5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\ncontent-length: 5x\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\ncontent length: 5\r\n\r\nhello",
        CHUNKED + b"xyz\r\nhello\r\n0\r\n\r\n",
        CHUNKED + b"-5\r\nhello\r\n0\r\n\r\n",
        CHUNKED + b"ffffffffffffffffff\r\nhello\r\n0\r\n\r\n",
        CHUNKED + b"5\r\nhelloXX0\r\n\r\n",
        CHUNKED + b"5\r\nhello\r\n0\r\ncontent-length: 99\r\n\r\n",
    ],
)
async def test_what_is_not_http(meet: Meet, garbage: bytes) -> None:
    async def babble(wire: Wire) -> None:
        await wire.request()
        await wire.send(garbage)
        await wire.wait_until_left()

    async with meet(babble, GOOD) as pair:
        with pytest.raises(UpstreamFault):
            await asyncio.wait_for(pair.fetch(), 5)
        await asyncio.wait_for(pair.peer.wires[0].left.wait(), 1)
        assert await pair.fetch() == Got(200, b"good")


@wrong_in_aiohttp("gives a switch of protocols to its caller")
async def test_switching_protocols(meet: Meet) -> None:
    switch = b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n"
    async with meet(answering(switch)) as pair:
        with pytest.raises(UpstreamFault):
            await pair.fetch()


async def test_damaged_answers_never_hang_and_never_spoil_the_next_one(meet: Meet) -> None:
    """Bytes of a right answer overwritten, cut out or repeated; then FIN."""
    rng = np.random.default_rng(0)
    right = CHUNKED + b"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n"

    async def damage(wire: Wire) -> None:
        if b"good" in await wire.request():
            await wire.send(whole(b"good"))
            return
        at, size = (int(one) for one in rng.integers(0, len(right), 2))
        middle = [rng.bytes(size % 9), b"", right[at : at + size]][size % 3]
        await wire.send(right[:at] + middle + right[at + size % 7 :])

    async with meet(damage) as pair:
        for _ in range(30):
            with contextlib.suppress(UpstreamFault):
                await asyncio.wait_for(pair.fetch(), 5)
            await asyncio.sleep(0.005)  # for the FIN
            assert await pair.fetch(body=b'{"good": 1}') == Got(200, b"good")
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("line", [b"x-%d: y\r\n", b"%d" + b"y" * 50])
async def test_endless_headers(meet: Meet, line: bytes) -> None:
    """Many fields, or one that never ends: neither fills the memory."""
    async with meet(_endless(b"HTTP/1.1 200 OK\r\nx: y\r\nz: ", line), GOOD) as pair:
        with pytest.raises(UpstreamFault):
            await pair.fetch()
        await asyncio.wait_for(pair.peer.wires[0].left.wait(), 1)
        assert pair.peer.wires[0].sent < 10_000_000
        assert await pair.fetch() == Got(200, b"good")


@wrong_in_aiohttp("counts the bytes of the first headers only")
@pytest.mark.parametrize(
    ("begin", "line"),
    [
        (CHUNKED + b"5\r\nhello\r\n0\r\nx: ", b"%d" + b"y" * 50),
        (CHUNKED + b"5;x=", b"%d" + b"y" * 50),
        (b"", b"HTTP/1.1 100 %d\r\n\r\n"),
    ],
)
async def test_endless_nothing(meet: Meet, begin: bytes, line: bytes) -> None:
    """Trailers, extensions of a chunk, interim answers."""
    async with meet(_endless(begin, line)) as pair:
        with pytest.raises(UpstreamFault):
            await asyncio.wait_for(pair.fetch(), 0.5)
        await asyncio.wait_for(pair.peer.wires[0].left.wait(), 1)


def _endless(begin: bytes, line: bytes) -> Script:
    async def play(wire: Wire) -> None:
        await wire.request()
        await wire.send(begin)
        for i in range(100_000):
            await wire.send(b"".join(line % j for j in range(i * 100, i * 100 + 100)))

    return play


@pytest.mark.parametrize("extra", [b"x", b"xxxx}" * 10])
async def test_more_bytes_than_announced(meet: Meet, extra: bytes) -> None:
    """What is beyond the length belongs to nobody."""
    async with meet(answering(whole(b"hello") + extra), GOOD) as pair:
        with contextlib.suppress(UpstreamFault):
            assert await pair.fetch() == Got(200, b"hello")
        await asyncio.sleep(0.02)
        assert await pair.fetch() == Got(200, b"good")


async def test_fewer_bytes_than_announced_wait_for_the_caller_to_give_up(meet: Meet) -> None:
    async def announce_too_much(wire: Wire) -> None:
        await wire.request()
        await wire.send(LONG, b"hello")
        await wire.wait_until_left()

    async with meet(announce_too_much, GOOD) as pair:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(pair.fetch(), 0.1)
        await asyncio.wait_for(pair.peer.wires[0].left.wait(), 1)
        assert await pair.fetch() == Got(200, b"good")


async def test_nobody_listens(make: Connect) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    transport = make(port)
    with pytest.raises(UpstreamFault):
        await fetch(transport)
    await transport.close()


async def test_nobody_accepts(
    make: Connect, unanswering_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (plain, secure):
        monkeypatch.setattr(module, "CONNECT_SECONDS", 0.2)
    transport = make(unanswering_port)
    with pytest.raises(UpstreamFault):
        await asyncio.wait_for(fetch(transport), 3)
    await transport.close()


async def test_leaving_while_it_connects(make: Connect, unanswering_port: int) -> None:
    transport = make(unanswering_port)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(fetch(transport), 0.1)
    await transport.close()


@pytest.mark.parametrize("host", ["no-such-host.invalid", "a" * 64 + ".invalid"])
async def test_a_name_that_nobody_has(host: str) -> None:
    for transport in (
        PlainTransport(host, 8000, FIELDS),
        AiohttpTransport(f"http://{host}:8000", FIELDS),
    ):
        with pytest.raises(UpstreamFault):
            await asyncio.wait_for(fetch(transport), 20)
        await transport.close()


# who leaves


async def test_leaving_while_it_waits(meet: Meet) -> None:
    async with meet(silent, GOOD) as pair:
        asking = asyncio.create_task(pair.fetch())
        await asyncio.sleep(0.05)
        asking.cancel()
        await asyncio.wait_for(pair.peer.wires[0].left.wait(), 1)
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert await pair.fetch() == Got(200, b"good")
        assert len(pair.peer.wires) == 2


async def test_leaving_while_it_reads(meet: Meet) -> None:
    async def begin(wire: Wire) -> None:
        await wire.request()
        await wire.send(CHUNKED, b"5\r\nhello\r\n")
        await wire.wait_until_left()

    async with meet(begin, GOOD) as pair:
        asking = asyncio.create_task(pair.fetch())
        await asyncio.sleep(0.05)
        asking.cancel()
        await asyncio.wait_for(pair.peer.wires[0].left.wait(), 1)
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert await pair.fetch() == Got(200, b"good")


@pytest.mark.parametrize("complete", [b"", b"0\r\n\r\n"])
async def test_leaving_before_the_body_was_drained(meet: Meet, complete: bytes) -> None:
    """Whether or not its end has arrived: what was not read must not reach the next reader."""

    async def send_all(wire: Wire) -> None:
        await wire.request()
        await wire.send(CHUNKED + b"5\r\nhello\r\n" + complete)
        await wire.request()
        await wire.send(whole(b"good"))

    async with meet(send_all, GOOD) as pair:
        incoming = await pair.transport.open("POST", "/v1", b"{}")
        await asyncio.sleep(0.02)
        incoming.close()
        assert await pair.fetch() == Got(200, b"good")
        if not complete:  # aiohttp has taken a complete one in, and keeps the connection
            assert pair.peer.wires[0].left.is_set() and len(pair.peer.wires) == 2


async def test_a_slow_reader_makes_the_server_wait(meet: Meet) -> None:
    """The memory a body takes here is bounded, and nothing of it is lost."""
    piece, pieces = b"x" * 65536, 500

    async def pour(wire: Wire) -> None:
        wire.shrink()
        await wire.request()
        await wire.send(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % (len(piece) * pieces))
        await wire.send(*[piece] * pieces)

    async with meet(pour) as pair:
        incoming = await pair.transport.open("POST", "/v1", b"{}")
        (wire,) = pair.peer.wires
        taken = -1
        while taken < wire.sent:
            taken = wire.sent
            await asyncio.sleep(0.2)
        assert taken < 12_000_000  # most of it in the kernel's buffers
        read = 0
        while chunk := await incoming.next_chunk():
            read += len(chunk)
        assert read == len(piece) * pieces
        incoming.close()
