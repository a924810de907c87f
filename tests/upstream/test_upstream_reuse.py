"""When a connection serves the next request, and when it must not."""

from __future__ import annotations

import asyncio
import contextlib

import numpy as np
import pytest

from cascade.upstream import UpstreamFault, plain, secure

from .conftest import (
    CHUNKED,
    Connect,
    Got,
    Meet,
    Peer,
    Wire,
    answering,
    closing,
    fetch,
    whole,
    wrong_in_aiohttp,
)


async def test_requests_in_turn_share_a_connection(meet: Meet) -> None:
    async with meet(answering(whole(b"hello"))) as pair:
        for _ in range(20):
            assert await pair.fetch() == Got(200, b"hello")
        assert len(pair.peer.wires) == 1


async def test_requests_at_once_have_one_each(meet: Meet) -> None:
    async with meet(answering(whole(b"hello"), pause=0.02)) as pair:
        await asyncio.gather(*(pair.fetch() for _ in range(10)))
        assert len(pair.peer.wires) == 10
        await asyncio.gather(*(pair.fetch() for _ in range(10)))
        assert len(pair.peer.wires) == 10


async def test_a_connection_closed_while_idle_is_not_used(meet: Meet) -> None:
    async with meet(closing(whole(b"hello"))) as pair:
        for i in range(1, 5):
            assert await pair.fetch() == Got(200, b"hello")
            await asyncio.sleep(0.01)
            assert len(pair.peer.wires) == i


async def test_a_half_closed_idle_connection_is_not_used(meet: Meet) -> None:
    """A server that said FIN and goes on reading would take the request and never answer."""

    async def answer_and_half_close(wire: Wire) -> None:
        await wire.request()
        await wire.send(whole(b"hello"))
        wire.half_close()
        await wire.wait_until_left()

    async with meet(answer_and_half_close) as pair:
        for _ in range(3):
            assert await pair.fetch() == Got(200, b"hello")
            await asyncio.sleep(0.01)
        assert [len(wire.requests) for wire in pair.peer.wires] == [1, 1, 1]


async def test_racing_a_server_that_closes(meet: Meet) -> None:
    """Whoever wins: the right answer or a fault, and never a request that is sent twice."""
    rng = np.random.default_rng(0)

    async def answer_and_close_soon(wire: Wire) -> None:
        await wire.request()
        await wire.send(whole(b"hello"))
        await asyncio.sleep(float(rng.uniform(0, 0.002)))

    answered = 0
    async with meet(answer_and_close_soon) as pair:
        for _ in range(100):
            try:
                assert await pair.fetch() == Got(200, b"hello")
                answered += 1
            except UpstreamFault:
                pass
            await asyncio.sleep(float(rng.uniform(0, 0.002)))
        seen = sum(len(wire.requests) for wire in pair.peer.wires)
    assert answered >= 50 and seen <= 100


async def test_one_that_waited_too_long_is_not_used(
    make: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (plain, secure):
        monkeypatch.setattr(module, "IDLE_SECONDS", 0.1)
    async with Peer(answering(whole(b"hello"))).listening() as peer:
        transport = make(peer.port)
        await asyncio.gather(*(fetch(transport) for _ in range(5)))
        await asyncio.sleep(0.15)
        await fetch(transport)
        assert len(peer.wires) == 6
        await transport.close()


async def test_those_of_a_crowd_that_has_gone_are_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one used last is used next: the others would otherwise stay open for ever."""
    monkeypatch.setattr(plain, "IDLE_SECONDS", 0.1)
    lasting = answering(whole(b"hello"), pause=0.01)
    async with Peer(lasting).listening() as peer:
        transport = plain.PlainTransport("127.0.0.1", peer.port, {})
        await asyncio.gather(*(fetch(transport) for _ in range(5)))
        for _ in range(6):
            await asyncio.sleep(0.03)
            await fetch(transport)
        assert len(peer.wires) == 5
        assert len(transport._idle) == 1
        await transport.close()


@wrong_in_aiohttp("ends a body without a length in good order when its session is closed")
async def test_closing_the_transport_closes_what_is_under_way(meet: Meet) -> None:
    """A body without an end must then not look complete."""

    async def begin(wire: Wire) -> None:
        await wire.request()
        await wire.send(b"HTTP/1.1 200 OK\r\n\r\nhel")
        await wire.wait_until_left()

    async with meet(begin, answering(whole(b"hello"))) as pair:
        incoming = await pair.transport.open("POST", "/v1", b"{}")
        assert await incoming.next_chunk() == b"hel"
        await pair.transport.close()
        with pytest.raises(UpstreamFault):
            await incoming.next_chunk()
        incoming.close()
        assert await pair.fetch() == Got(200, b"hello")
        await asyncio.wait_for(pair.peer.wires[0].left.wait(), 1)


GLUED = whole(b"first") + whole(b"stolen", status=b"500 Oh")


async def test_two_answers_in_one_piece(meet: Meet) -> None:
    """The second one is nobody's; seen together, where the first one ends is uncertain too."""
    async with meet(answering(GLUED), answering(whole(b"second"))) as pair:
        with contextlib.suppress(UpstreamFault):
            assert await pair.fetch() == Got(200, b"first")
        assert await pair.fetch() == Got(200, b"second")


@wrong_in_aiohttp("gives the second answer to the next caller")
@pytest.mark.parametrize("cut", [len(whole(b"first")), len(whole(b"first")) + 20])
async def test_two_answers_in_two_pieces(meet: Meet, cut: int) -> None:
    script = answering(GLUED[:cut], GLUED[cut:], pause=0.005)
    async with meet(script, answering(whole(b"second"))) as pair:
        with contextlib.suppress(UpstreamFault):
            assert await pair.fetch() == Got(200, b"first")
        await asyncio.sleep(0.02)
        assert await pair.fetch() == Got(200, b"second")


@wrong_in_aiohttp("takes them for the beginning of the next answer")
@pytest.mark.parametrize("junk", [whole(b"stolen"), b"H", b"\r\n\r\n"])
async def test_bytes_on_an_idle_connection(meet: Meet, junk: bytes) -> None:
    async def answer_and_babble(wire: Wire) -> None:
        await wire.request()
        await wire.send(whole(b"first"))
        await asyncio.sleep(0.01)
        await wire.send(junk)
        await wire.wait_until_left()

    async with meet(answer_and_babble, answering(whole(b"second"))) as pair:
        assert await pair.fetch() == Got(200, b"first")
        await asyncio.sleep(0.03)
        assert await asyncio.wait_for(pair.fetch(), 0.5) == Got(200, b"second")


async def test_an_answer_left_in_the_middle_frees_nobody_elses_connection(meet: Meet) -> None:
    """Closed before its end, then closed again when its connection could be somebody else's."""
    async with meet(answering(CHUNKED + b"5\r\nhello\r\n0\r\n\r\n")) as pair:
        first = await pair.transport.open("POST", "/v1", b"{}")
        assert await first.next_chunk() == b"hello"
        assert await first.next_chunk() == b""
        second = await pair.transport.open("POST", "/v1", b"{}")
        first.close()
        assert await second.next_chunk() == b"hello"
        second.close()


async def test_an_early_answer_to_a_large_request(meet: Meet) -> None:
    """The server answers from the head and never reads the body: the connection is spoilt."""
    large = b"x" * 8_000_000

    async def answer_early(wire: Wire) -> None:
        await wire.head()
        await wire.send(whole(b"too large", status=b"413 Too Large"))
        await asyncio.sleep(10)

    async with meet(answer_early, answering(whole(b"second"))) as pair:
        assert await pair.fetch(body=large) == Got(413, b"too large")
        assert await asyncio.wait_for(pair.fetch(), 5) == Got(200, b"second")


async def test_an_early_answer_and_a_closed_door(meet: Meet) -> None:
    """With bytes unread the kernel resets, and the answer may be lost: a fault then, no hang."""

    async def answer_early(wire: Wire) -> None:
        await wire.head()
        await wire.send(whole(b"too large", b"connection: close", status=b"413 Too Large"))

    async with meet(answer_early, answering(whole(b"second"))) as pair:
        with contextlib.suppress(UpstreamFault):
            assert await pair.fetch(body=b"x" * 8_000_000) == Got(413, b"too large")
        assert await pair.fetch() == Got(200, b"second")
