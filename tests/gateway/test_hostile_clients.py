"""Clients that mean harm: every one is refused in words, let go of in time, and hurts nobody else.

Raw sockets against ``cascade serve`` as a process, for what is tested is where bytes are read.
"""

from __future__ import annotations

import json
import re
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any
from urllib.parse import urlsplit

import pytest

from serving.bench.processes import GatewayProcess

from .standing import standing

pytestmark = pytest.mark.slow

HOST = b"host: x\r\n"
CHAT = b"POST /v1/chat/completions HTTP/1.1\r\n" + HOST
HEALTH = b"GET /health HTTP/1.1\r\n" + HOST + b"\r\n"
HIDDEN = b"GET /ready HTTP/1.1\r\nhost: x\r\n\r\n"
BODY_BYTES = 100_000
REQUEST_SECONDS = 1.0


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    folder = tmp_path_factory.mktemp("hostile")
    limits = {"request_seconds": REQUEST_SECONDS, "body_bytes": BODY_BYTES}
    with standing(folder, **limits) as (process, _):
        yield process


def connect(gateway: GatewayProcess) -> socket.socket:
    found = urlsplit(gateway.url)
    return socket.create_connection((str(found.hostname), int(found.port or 0)), timeout=5)


def hear(client: socket.socket, seconds: float = 5.0) -> tuple[bytes, bool]:
    """What comes within ``seconds``, and whether the server has closed."""
    heard, deadline = b"", time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        client.settimeout(left)
        try:
            piece = client.recv(65536)
        except TimeoutError:
            break
        except ConnectionError:
            return heard, True
        if not piece:
            return heard, True
        heard += piece
    return heard, False


def say(gateway: GatewayProcess, *pieces: bytes, seconds: float = 5.0) -> tuple[bytes, bool]:
    """What a client hears who says this."""
    with connect(gateway) as client:
        try:
            for piece in pieces:
                client.sendall(piece)
        except ConnectionError:  # closed before it had said everything
            pass
        return hear(client, seconds)


def error_in(answer: bytes) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(answer.partition(b"\r\n\r\n")[2])["error"]
    assert set(found) == {"message", "type", "param", "code"}
    return found


@pytest.mark.parametrize(
    "fields",
    [
        b"content-length: 4\r\ntransfer-encoding: chunked\r\n",
        b"transfer-encoding: chunked\r\ncontent-length: 4\r\n",
        b"content-length: 2\r\ncontent-length: 30\r\n",
        b"content-length: 3\r\ncontent-length: 3\r\n",
        b"content-length: 3, 3\r\n",
        b"content-length: +3\r\n",
        b"content-length: 0x3\r\n",
        b"content-length: -3\r\n",
        b"content-length: 99999999999999999999999\r\n",
        b"content-length : 3\r\n",
        b"content-length: 3\n",
        b"x: y\ncontent-length: 3\r\n",
        b"x: y\rcontent-length: 3\r\n",
        b"x: a\x00b\r\n",
        b"transfer-encoding: xchunked\r\n",
        b"transfer-encoding: identity\r\n",
        b"transfer-encoding: chunked, identity\r\n",
        b"transfer-encoding: \x0bchunked\r\n",
        b"transfer-encoding:\r\n chunked\r\n",
        b"transfer-encoding : chunked\r\n",
        b"transfer-encoding: chunked\r\ntransfer-encoding: identity\r\n",
    ],
)
def test_two_opinions_about_where_a_request_ends(gateway: GatewayProcess, fields: bytes) -> None:
    """Request smuggling: refused at the first sight, and what follows is not looked at."""
    heard, closed = say(gateway, CHAT + fields + b"\r\n0\r\n\r\n" + HIDDEN)
    assert heard.startswith(b"HTTP/1.1 400 ") and closed
    assert error_in(heard)["code"] == "invalid_http"


@pytest.mark.parametrize(
    "body", [b"3\nabc\n0\n\n", b"3;a\nb\r\nabc\r\n0\r\n\r\n", b"-3\r\n", b"g\r\n", b"3\r\nabcXX0"]
)
def test_broken_chunks(gateway: GatewayProcess, body: bytes) -> None:
    heard, closed = say(gateway, CHAT + b"transfer-encoding: chunked\r\n\r\n" + body + HIDDEN)
    assert heard.startswith(b"HTTP/1.1 400 ") and closed
    assert error_in(heard)["code"] == "invalid_http"


def test_a_request_inside_a_body_stays_a_body(gateway: GatewayProcess) -> None:
    length = b"content-length: %d\r\n\r\n" % len(HIDDEN)
    heard, _ = say(gateway, CHAT + length + HIDDEN, seconds=0.5)
    assert heard.count(b"HTTP/1.1 ") == 1 and b'"ready"' not in heard


def test_requests_in_a_row_are_answered_in_their_order(gateway: GatewayProcess) -> None:
    heard, _ = say(gateway, HEALTH + CHAT + b"content-length: 2\r\n\r\n{}" + HEALTH, seconds=1)
    assert re.findall(rb"HTTP/1\.1 (\d+)", heard) == [b"200", b"400", b"200"]


@pytest.mark.parametrize(
    "line",
    [
        b"GET /a b HTTP/1.1",
        b"GET /\x00 HTTP/1.1",
        b"GET /\xc3\xa9 HTTP/1.1",
        b"PRI * HTTP/2.0",
        b"CONNECT a:80 HTTP/1.1",
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"G\x00T / HTTP/1.1",
        b"GET http://[::1 HTTP/1.1",
    ],
)
def test_what_is_not_http(gateway: GatewayProcess, line: bytes) -> None:
    heard, closed = say(gateway, line + b"\r\n" + HOST + b"\r\n")
    assert heard.startswith(b"HTTP/1.1 400 ") and closed


@pytest.mark.parametrize(
    "path",
    [
        "/v1/tasks/../../etc/passwd/predict",
        "/v1/tasks/%2e%2e%2f%2e%2e%2fetc%2fpasswd/predict",
        "/v1/tasks/even%00/predict",
        "/v1/tasks/even/../even/predict",
        "/v1/tasks//predict",
        "/v1/tasks/%ff%fe/predict",
        "/v1/tasks/even%0d%0aset-cookie:%20x/predict",
        "/v1/tasks/" + "a" * 5000 + "/predict",
        "//v1/chat/completions",
        "/v1/chat/completions/",
        "/V1/chat/completions",
        "/v1/./chat/completions",
        "/adm%69n%2f..",
        "*",
    ],
)
def test_paths_that_are_no_paths(gateway: GatewayProcess, path: str) -> None:
    body = b'{"inputs": ["x"]}'
    head = b"POST %b HTTP/1.1\r\n" % path.encode() + HOST
    heard, _ = say(gateway, head + b"content-length: %d\r\n\r\n" % len(body) + body, seconds=0.3)
    assert heard.startswith((b"HTTP/1.1 404 ", b"HTTP/1.1 403 ", b"HTTP/1.1 400 ")), heard
    assert b"root:" not in heard and b"\r\nset-cookie" not in heard


@pytest.mark.parametrize(
    "bomb",
    [
        b"".join(b"x-%d: y\r\n" % i for i in range(60_000)),
        b"x: " + b"y" * 1_000_000 + b"\r\n",
    ],
)
def test_header_bombs(gateway: GatewayProcess, bomb: bytes) -> None:
    before = gateway.rss_mib
    for _ in range(10):
        heard, closed = say(gateway, b"GET /health HTTP/1.1\r\n" + HOST + bomb + b"\r\n")
        assert closed and b"200 OK" not in heard  # RST may overtake the words
    assert gateway.rss_mib < before + 20
    heard, closed = say(gateway, b"GET /health HTTP/1.1\r\n" + HOST + bomb[:80_000])
    assert closed and heard.startswith(b"HTTP/1.1 431 ")
    assert error_in(heard)["code"] == "headers_too_large"


def test_an_address_without_end(gateway: GatewayProcess) -> None:
    heard, closed = say(gateway, b"GET /" + b"a" * 1_000_000)
    assert closed and b"200 OK" not in heard


def test_oversized_bodies_announced_or_not(gateway: GatewayProcess) -> None:
    heard, _ = say(gateway, CHAT + b"content-length: 100000000\r\n\r\n", seconds=0.5)
    assert heard.startswith(b"HTTP/1.1 413 ")
    chunk = b"%x\r\n%b\r\n" % (BODY_BYTES, b"x" * BODY_BYTES)
    heard, closed = say(gateway, CHAT + b"transfer-encoding: chunked\r\n\r\n", chunk, chunk)
    assert heard.startswith(b"HTTP/1.1 413 ")
    assert closed, "whoever goes on sending is let go of in the end"


@pytest.mark.parametrize(
    ("beginning", "drop"),
    [
        (b"", b""),
        (b"GET /", b"a"),
        (CHAT, b"x: y\r\n"),
        (CHAT + b"x: ", b"y"),
        (CHAT + b"content-length: 50\r\n\r\n{", b" "),
        (CHAT + b"transfer-encoding: chunked\r\n\r\n", b"1\r\n \r\n"),
    ],
)
def test_slow_loris(gateway: GatewayProcess, beginning: bytes, drop: bytes) -> None:
    """A byte now and then keeps no connection: the whole request counts. Others are served."""
    with ExitStack() as stack:
        clients = [stack.enter_context(connect(gateway)) for _ in range(10)]
        started = time.monotonic()
        for client in clients:
            client.sendall(beginning)
        while clients and time.monotonic() < started + 4 * REQUEST_SECONDS:
            time.sleep(0.1)
            assert say(gateway, HEALTH, seconds=0.05)[0].startswith(b"HTTP/1.1 200 ")
            clients = [one for one in clients if _drip(one, drop)]
        assert not clients
        assert time.monotonic() - started > 0.9 * REQUEST_SECONDS


def _drip(client: socket.socket, drop: bytes) -> bool:
    """Whether the server still listens; if it let go, it said 408 first."""
    heard, closed = hear(client, 0.001)
    if heard:
        assert heard.startswith(b"HTTP/1.1 408 ")
        assert error_in(heard)["code"] == "request_timeout"
    elif not closed:
        client.sendall(drop)
    return not (heard or closed)


def test_a_reader_who_does_not_read(gateway: GatewayProcess) -> None:
    """An answer of 60 MB fills no memory, and nobody may hold it for ever."""
    message = {"role": "user", "content": "request 7 floods"}
    body = json.dumps({"model": "large", "messages": [message], "stream": True}).encode()
    before = gateway.rss_mib
    with connect(gateway) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        client.sendall(CHAT + b"content-length: %d\r\n\r\n" % len(body) + body)
        time.sleep(3 * REQUEST_SECONDS)
        assert gateway.rss_mib < before + 20
        heard, closed = hear(client, 5)
    assert closed and b"200 OK" in heard and not heard.endswith(b"0\r\n\r\n")


def test_websockets(gateway: GatewayProcess) -> None:
    upgrade = (
        b"GET /v1/chat/completions HTTP/1.1\r\n" + HOST + b"connection: upgrade\r\n"
        b"upgrade: websocket\r\nsec-websocket-version: 13\r\n"
        b"sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    assert say(gateway, upgrade, seconds=0.3)[0].startswith(b"HTTP/1.1 405 ")


def test_garbage_behind_a_request_does_not_get_into_its_answer(gateway: GatewayProcess) -> None:
    message = {"role": "user", "content": "request 8 dawdles"}
    body = json.dumps({"model": "large", "messages": [message], "stream": True}).encode()
    request = CHAT + b"content-length: %d\r\n\r\n" % len(body) + body
    with connect(gateway) as client:
        client.sendall(request)
        heard = client.recv(65536)
        client.sendall(b"\x00\x01 garbage\r\n\r\n")
        more, closed = hear(client)
    assert closed and heard.startswith(b"HTTP/1.1 200 ")
    assert b"400" not in heard + more
