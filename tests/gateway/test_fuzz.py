"""Whatever a client sends, the gateway lives and the fault is never said to be its own."""

from __future__ import annotations

import contextlib
import json
import re
import socket
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serving.bench.processes import GatewayProcess

from .standing import standing
from .test_hostile_clients import CHAT, HEALTH, HOST, connect, hear

pytestmark = pytest.mark.slow

STATUS = re.compile(rb"HTTP/1\.1 (\d\d\d) ")
FUZZ = settings(
    max_examples=100,
    deadline=None,  # another process answers
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    """At the end of the module it must still run, and its log must know of no exception."""
    with standing(tmp_path_factory.mktemp("fuzz"), body_bytes=100_000) as (process, _):
        yield process


LAST = HEALTH.replace(b"host: x", b"connection: close\r\nhost: x")


def statuses(gateway: GatewayProcess, said: bytes) -> list[int]:
    """Of everything that is answered to a client who then hangs up."""
    with connect(gateway) as client:
        with contextlib.suppress(OSError):
            client.sendall(said + LAST)
            client.shutdown(socket.SHUT_WR)
        return read_statuses(client)


def read_statuses(client: socket.socket) -> list[int]:
    return [int(status) for status in STATUS.findall(hear(client, 20)[0])]


@FUZZ
@given(st.binary(max_size=400))
def test_random_bytes(gateway: GatewayProcess, said: bytes) -> None:
    assert all(status < 500 for status in statuses(gateway, said))


METHODS = st.sampled_from([b"GET", b"POST", b"HEAD", b"OPTIONS", b"PUT", b"TRACE", b"M-SEARCH"])
PATHS = st.one_of(
    st.sampled_from([b"/v1/chat/completions", b"/v1/models", b"/metrics", b"/admin/status", b"*"]),
    st.binary(max_size=40).map(lambda raw: b"/v1/tasks/" + raw + b"/predict"),
)
NAMES = st.sampled_from(
    b"content-length transfer-encoding host expect connection upgrade authorization "
    b"x-cascade-tier x-request-id x-tenant-id x-slo-ttft-ms x-session-id accept-encoding".split()
)
VALUES = st.one_of(
    st.sampled_from([b"0", b"2", b"chunked", b"close", b"100-continue", b"h2c", b"Bearer x"]),
    st.binary(max_size=20),
)
FIELDS = st.lists(st.tuples(NAMES, VALUES), max_size=6)


@FUZZ
@given(METHODS, PATHS, FIELDS, st.binary(max_size=40))
def test_requests_of_wild_parts(
    gateway: GatewayProcess,
    method: bytes,
    path: bytes,
    fields: list[tuple[bytes, bytes]],
    body: bytes,
) -> None:
    written = b"".join(b"%b: %b\r\n" % field for field in fields)
    said = b"%b %b HTTP/1.1\r\n" % (method, path) + HOST + written + b"\r\n" + body
    assert all(status < 500 for status in statuses(gateway, said))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=12,
)
MODELS = st.sampled_from(["task/even", "large", "task/none", "task/../even", "", 7, None])
MESSAGES = st.one_of(
    JSON,
    st.lists(st.fixed_dictionaries({"role": st.sampled_from(["user", "tool"]), "content": JSON})),
)
FIELD_NAMES = (
    "stream",
    "stream_options",
    "response_format",
    "n",
    "logprobs",
    "tools",
    "max_tokens",
    "seed",
    "stop",
)
OPTIONS = st.dictionaries(st.sampled_from(FIELD_NAMES), JSON, max_size=4)


def ask(gateway: GatewayProcess, head: bytes, body: bytes) -> list[int]:
    """The statuses of one whole request, and of one behind it that asks to be the last."""
    with connect(gateway) as client:
        client.sendall(head + b"content-length: %d\r\n\r\n" % len(body) + body + LAST)
        found = read_statuses(client)
    assert len(found) == 2 and found[1] == 200
    return found


@FUZZ
@given(MODELS, MESSAGES, OPTIONS)
def test_chat_requests_of_wild_parts(
    gateway: GatewayProcess, model: object, messages: object, options: dict[str, object]
) -> None:
    body = json.dumps({"model": model, "messages": messages, **options}).encode()
    assert all(status < 500 for status in ask(gateway, CHAT, body))


@FUZZ
@given(st.one_of(JSON, st.fixed_dictionaries({"inputs": JSON})))
def test_predict_requests_of_wild_parts(gateway: GatewayProcess, wild: object) -> None:
    head = b"POST /v1/tasks/even/predict HTTP/1.1\r\n" + HOST
    assert all(status < 500 for status in ask(gateway, head, json.dumps(wild).encode()))


@FUZZ
@given(st.data())
def test_damaged_requests(gateway: GatewayProcess, data: st.DataObject) -> None:
    """A right body with bytes overwritten: not UTF-8, not JSON, or something else that is."""
    message = {"role": "user", "content": "request 4 answers"}
    body = bytearray(json.dumps({"model": "large", "messages": [message]}).encode())
    for _ in range(data.draw(st.integers(1, 4))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    assert all(status < 500 for status in ask(gateway, CHAT, bytes(body)))
