"""Answers that are right, however oddly they are framed and cut."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from .conftest import CHUNKED, UNTIL_CLOSE, Got, Meet, Wire, answering, closing, fetch, whole

SSE = [b"data: %d\n\n" % i for i in range(5)]


def chunk(data: bytes, extension: bytes = b"") -> bytes:
    return b"%x%b\r\n%b\r\n" % (len(data), extension, data)


LAST = b"0\r\n\r\n"


@pytest.mark.parametrize(
    ("pieces", "body"),
    [
        ([whole(b"hello")], b"hello"),
        ([whole(b"")], b""),
        ([b"HTTP/1.1 200 OK\r\nContent-Length:5\r\n\r\nhello"], b"hello"),
        ([b"HTTP/1.1 200\r\ncontent-length: 5\r\n\r\nhello"], b"hello"),
        ([CHUNKED, chunk(b"hello"), LAST], b"hello"),
        ([CHUNKED + LAST], b""),
        ([CHUNKED, b"00005\r\nhello\r\n", b"0000\r\n\r\n"], b"hello"),
        ([CHUNKED, b"5;name=value\r\nhello\r\n0;end\r\n\r\n"], b"hello"),
        ([CHUNKED, b"A\r\n0123456789\r\na\r\nabcdefghij\r\n", LAST], b"0123456789abcdefghij"),
        ([CHUNKED, chunk(b"hi"), b"0\r\nx-sum: 1\r\nretry-after: 9\r\n\r\n"], b"hi"),
        ([b"HTTP/1.1 100 Continue\r\n\r\n", whole(b"hello")], b"hello"),
        ([b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n" + whole(b"hello")], b"hello"),
        ([b"HTTP/1.1 100 \r\n\r\n" * 3 + whole(b"hello")], b"hello"),
    ],
)
async def test_a_framed_answer_leaves_the_connection_usable(
    meet: Meet, pieces: list[bytes], body: bytes
) -> None:
    async with meet(answering(*pieces)) as pair:
        for _ in range(3):
            assert await pair.fetch() == Got(200, body)
        assert len(pair.peer.wires) == 1


@pytest.mark.parametrize("ending", [b"connection: close", b"Connection: Close"])
async def test_a_server_that_says_close_is_asked_on_a_new_connection(
    meet: Meet, ending: bytes
) -> None:
    async with meet(answering(whole(b"hello", ending))) as pair:
        assert await pair.fetch() == await pair.fetch() == Got(200, b"hello")
        assert len(pair.peer.wires) == 2


@pytest.mark.parametrize(
    "pieces",
    [
        [UNTIL_CLOSE, b"hel", b"lo"],
        [UNTIL_CLOSE + b"hello"],
        [b"HTTP/1.0 200 OK\r\n\r\nhello"],
        [b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n", b"hello"],
    ],
)
async def test_a_body_that_ends_with_the_connection(meet: Meet, pieces: list[bytes]) -> None:
    async with meet(closing(*pieces)) as pair:
        assert await pair.fetch() == await pair.fetch() == Got(200, b"hello")
        assert len(pair.peer.wires) == 2


@pytest.mark.parametrize("status", [b"204 No Content", b"304 Not Modified"])
async def test_answers_without_a_body(meet: Meet, status: bytes) -> None:
    async with meet(answering(b"HTTP/1.1 " + status + b"\r\n\r\n")) as pair:
        assert await pair.fetch() == await pair.fetch() == Got(int(status[:3]), b"")
        assert len(pair.peer.wires) == 1


@pytest.mark.parametrize(
    "answer", [whole(b"hello"), CHUNKED + chunk(b"hel", b";x=y") + chunk(b"lo") + LAST]
)
async def test_byte_by_byte(meet: Meet, answer: bytes) -> None:
    async with meet(answering(*[bytes([one]) for one in answer])) as pair:
        assert await pair.fetch() == await pair.fetch() == Got(200, b"hello")
        assert len(pair.peer.wires) == 1


async def test_any_cut_into_chunks_and_segments_reads_the_same(meet: Meet) -> None:
    rng = np.random.default_rng(0)

    def cut(data: bytes) -> list[bytes]:
        at = [0, *sorted(rng.integers(0, len(data), 7)), len(data)]
        return [data[a:b] for a, b in zip(at, at[1:], strict=False) if b > a]

    async def play(wire: Wire) -> None:
        while True:
            body = (await wire.request()).partition(b"\r\n\r\n")[2]
            await wire.send(*cut(CHUNKED + b"".join(map(chunk, cut(body))) + LAST))

    async with meet(play) as pair:
        for _ in range(30):
            body = rng.bytes(int(rng.integers(1, 5000)))
            assert await pair.fetch(body=body) == Got(200, body)
        assert len(pair.peer.wires) == 1


async def test_large_bodies_both_ways(meet: Meet) -> None:
    async def echo(wire: Wire) -> None:
        while True:
            await wire.send(whole((await wire.request()).partition(b"\r\n\r\n")[2]))

    body = np.random.default_rng(1).bytes(3_000_000)
    async with meet(echo) as pair:
        assert await pair.fetch(body=body) == Got(200, body)
        assert await pair.fetch(body=b"small") == Got(200, b"small")
        assert len(pair.peer.wires) == 1


async def test_an_event_is_passed_on_before_the_next_one_exists(meet: Meet) -> None:
    seen = asyncio.Event()

    async def one_after_the_other(wire: Wire) -> None:
        await wire.request()
        await wire.send(CHUNKED)
        for event in SSE:
            await wire.send(chunk(event))
            await seen.wait()
            seen.clear()
        await wire.send(LAST)

    async with meet(one_after_the_other) as pair:
        incoming = await pair.transport.open("POST", "/v1", b"{}")
        for event in SSE:
            assert await incoming.next_chunk() == event
            seen.set()
        assert await incoming.next_chunk() == b""
        incoming.close()


async def test_what_the_server_sees_and_what_the_reader_sees(meet: Meet) -> None:
    async with meet(answering(whole(b"x", b"Retry-After: 7"))) as pair:
        incoming = await pair.transport.open("POST", "/v1/chat", b'{"a": 1}')
        assert incoming.header("retry-after") == "7"
        assert incoming.header("absent") is None
        assert await incoming.next_chunk() == b"x"
        assert await incoming.next_chunk() == await incoming.next_chunk() == b""
        incoming.close()
        incoming.close()
        (request,) = pair.peer.wires[0].requests
    lines = request.lower().split(b"\r\n")
    assert lines[0] == b"post /v1/chat http/1.1" and lines[-1] == b'{"a": 1}'
    assert b"host: 127.0.0.1:%d" % pair.peer.port in lines
    assert b"content-type: application/json" in lines and b"content-length: 8" in lines


async def test_every_one_of_a_crowd_gets_its_own_answer(meet: Meet) -> None:
    """Callers who leave at any moment never leave their answer to the next one."""
    rng = np.random.default_rng(2)

    async def echo_path(wire: Wire) -> None:
        while True:
            path = (await wire.request()).split(b" ")[1]
            await asyncio.sleep(float(rng.uniform(0, 0.004)))
            await wire.send(CHUNKED, chunk(path[:3]), chunk(path[3:]) + LAST)

    async with meet(echo_path) as pair:

        async def ask(i: int) -> bool:
            await asyncio.sleep(float(rng.uniform(0, 0.3)))
            asking = asyncio.create_task(fetch(pair.transport, f"/request-{i}"))
            if i % 3 == 0:
                await asyncio.sleep(float(rng.uniform(0, 0.005)))
                asking.cancel()
            await asyncio.wait({asking})
            if asking.cancelled():
                return False
            assert asking.result() == Got(200, b"/request-%d" % i)
            return True

        answered = await asyncio.gather(*(ask(i) for i in range(300)))
    assert 200 <= sum(answered) < 300
