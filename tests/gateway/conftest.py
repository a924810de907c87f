"""A gateway on loopback with doubles behind it: fake tiers for tasks, a small real HTTP engine."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import pytest
import uvicorn

from cascade import config
from cascade.certify import Certificate, Guarantee, Rung, certify_stream
from cascade.config import ApiKey
from cascade.gateway.asgi import create_app
from cascade.gateway.audit import Auditor
from cascade.gateway.decisions import Outbox
from cascade.gateway.keys import Keys
from cascade.gateway.lanes import Lane, Lanes
from cascade.gateway.observe import Metrics, observed
from cascade.gateway.passthrough import NamedModel
from cascade.gateway.services import Services
from cascade.gateway.spending import Spending
from cascade.gateway.tenants import Tenants
from cascade.policies import Ladder
from cascade.router import Router
from cascade.store import Store, open_store
from cascade.tasks import Task
from cascade.testing import FakeTier
from cascade.tiers.endpoint import Endpoint
from cascade.types import Price, Query, Reply, Usage

TASK = Task("mood", "filter", "Is it positive?", ("yes", "no"))
PRICE = Price(input=1.0, cached_input=0.1, output=2.0)
SPENT = Usage(prompt_tokens=100, cached_tokens=80, output_tokens=1, seconds=0.001, dollars=3e-5)


@dataclass
class Served:
    """An application behind a real uvicorn, in a thread, on a free port of loopback."""

    app: Any
    port: int = 0
    server: uvicorn.Server = field(init=False)

    def __enter__(self) -> Served:
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        settings = uvicorn.Config(self.app, log_level="warning", timeout_graceful_shutdown=10)
        self.server = uvicorn.Server(settings)
        self.thread = threading.Thread(target=self.server.run, args=([self.socket],), daemon=True)
        self.thread.start()
        until(lambda: self.server.started)
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Shut down as SIGTERM does, and wait for it."""
        self.server.should_exit = True
        self.thread.join(20)
        self.socket.close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


def until(true: Callable[[], Any], seconds: float = 10.0) -> None:
    """Wait for something that another thread does."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


class Engine:
    """A small OpenAI-like server: a real socket, no model. What it saw is in ``bodies``."""

    def __init__(self) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.status = 200
        self.pause_seconds = 0.0
        self.left = 0
        self.breaks_off = False

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            return
        raw = b""
        while True:
            message = await receive()
            raw += message.get("body", b"")
            if not message.get("more_body"):
                break
        if scope["path"] == "/v1/models":
            await self._json(send, 200, {"object": "list", "data": [{"id": "m"}]})
            return
        body = json.loads(raw)
        self.bodies.append(body)
        if self.status != 200:
            await self._json(send, self.status, {"error": {"message": "engine says no"}})
        elif body.get("stream"):
            await self._stream(body, receive, send)
        else:
            await asyncio.sleep(self.pause_seconds)
            await self._json(send, 200, self._completion(body))

    def _completion(self, body: dict[str, Any]) -> dict[str, Any]:
        message = {"role": "assistant", "content": f"from {body['model']}"}
        return {
            "id": "c1",
            "object": "chat.completion",
            "created": 1,
            "model": body["model"],
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            "usage": self._usage(),
            "timings": {"own": True},
        }

    @staticmethod
    def _usage() -> dict[str, Any]:
        cached = {"cached_tokens": 6}
        return {
            "prompt_tokens": 10,
            "completion_tokens": 2,
            "total_tokens": 12,
            "prompt_tokens_details": cached,
        }

    async def _stream(self, body: dict[str, Any], receive: Any, send: Any) -> None:
        await send(_start(200, b"text/event-stream"))
        head = {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": body["model"]}
        gone = asyncio.ensure_future(receive())
        for word in ("one ", "two ", "three"):
            delta = {"index": 0, "delta": {"content": word}, "finish_reason": None}
            await self._event(send, {**head, "choices": [delta]})
            await asyncio.wait({gone}, timeout=self.pause_seconds)
            if gone.done():
                self.left += 1
                return
            if self.breaks_off:
                raise ConnectionResetError("the engine dies")
        if body.get("stream_options", {}).get("include_usage"):
            await self._event(send, {**head, "choices": [], "usage": self._usage()})
        gone.cancel()
        await send({"type": "http.response.body", "body": b"data: [DONE]\n\n"})

    @staticmethod
    async def _event(send: Any, chunk: dict[str, Any]) -> None:
        data = b"data: " + json.dumps(chunk).encode() + b"\n\n"
        # in two pieces, as networks do
        for piece in (data[:9], data[9:]):
            await send({"type": "http.response.body", "body": piece, "more_body": True})

    @staticmethod
    async def _json(send: Any, status: int, body: Any) -> None:
        await send(_start(status, b"application/json"))
        await send({"type": "http.response.body", "body": json.dumps(body).encode()})


def _start(status: int, kind: bytes) -> dict[str, Any]:
    return {"type": "http.response.start", "status": status, "headers": [(b"content-type", kind)]}


class SlowTier:
    """A tier that takes its time, and knows whether it was interrupted."""

    def __init__(self, tier: FakeTier, seconds: float) -> None:
        self.name = tier.name
        self.seconds = seconds
        self.cancelled = 0
        self._tier = tier

    async def answer(self, queries: list[Query]) -> list[Reply]:
        try:
            await asyncio.sleep(self.seconds)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return await self._tier.answer(queries)


@pytest.fixture(scope="session")
def certificate() -> Certificate:
    """Real, and won: 200 draws, none wrong."""
    answered = np.ones((200, 1), dtype=bool)
    rungs = [Rung({"proxy": 0.9, "small": 0.8}, 0.9)]
    won = certify_stream(answered, np.zeros_like(answered), rungs, Guarantee(0.9, 0.05))
    assert won is not None
    return won


TEACHER = {"easy": ("yes", 1.0), "middle": ("no", 1.0), "hard": ("no", 1.0), "tricky": ("no", 1.0)}


def lane_of(certificate: Certificate, metrics: Metrics, version: str = "1", **tiers: Any) -> Lane:
    """Proxy sure of "easy" and "tricky" (and wrong there), small of "middle", large of all."""
    proxy = {"easy": ("yes", 0.95), "tricky": ("yes", 0.97), "middle": ("no", 0.6)}
    doubles: dict[str, Any] = {
        "proxy": FakeTier("proxy", {**proxy, "hard": ("no", 0.5)}),
        "small": FakeTier("small", {"middle": ("no", 0.9), "hard": ("yes", 0.3)}, SPENT),
        "large": FakeTier("large", TEACHER, SPENT),
        **tiers,
    }
    return Lane(
        task=TASK,
        router=Router(observed(doubles, metrics), Ladder({"proxy": 0.9, "small": 0.8}, "large")),
        teacher="large",
        models={"proxy": f"mood@{version}", "small": "half-b", "large": "big-b"},
        version=version,
        certificate=certificate,
    )


def on_two_rungs(lane: Lane) -> Lane:
    """The same lane with a more careful rung, on which the proxy answers nothing that it knows."""
    careful = Ladder({"proxy": 0.99, "small": 0.8}, "large")
    return replace(lane, rungs=(careful, lane.router.policy), rung=1)


@dataclass
class House:
    """Everything a test may want to touch."""

    services: Services
    engine: Engine
    store: Store
    url: str = ""
    served: Any = None

    @property
    def v1(self) -> str:
        return f"{self.url}/v1"

    @property
    def lanes(self) -> Lanes:
        return self.services.lanes

    def metric(self, name: str, **labels: str) -> float:
        return self.services.metrics.registry.get_sample_value(f"cascade_{name}", labels) or 0.0


Build = Callable[..., Any]


@pytest.fixture
def open_house(certificate: Certificate, tmp_path: Path) -> Build:
    """``with open_house(...) as house``: a gateway that listens, as the test wants it."""

    @contextmanager
    def build(
        *,
        lanes: Lanes | None = None,
        metrics: Metrics | None = None,
        audit: config.Audit | None = None,
        address: str = "",
        keys: Sequence[ApiKey | str] = (),
        **services: Any,
    ) -> Iterator[House]:
        engine, metrics = Engine(), metrics or Metrics()
        lanes = lanes or Lanes({"mood": lane_of(certificate, metrics)})
        with open_store(f"sqlite:///{tmp_path}/cascade.db") as store, Served(engine) as behind:
            outbox = Outbox(store.decisions.append, metrics)
            auditor = Auditor(
                lanes,
                metrics,
                audit or config.Audit(rate=1e-9, floor=1e-9),
                rng=np.random.default_rng(0),
                keep=outbox.put,
                log=store,
                sleep=lambda seconds: asyncio.sleep(seconds / 100),
            )
            urls = [address or f"{behind.url}/v1"]
            models = [
                NamedModel("small", "half-b", Endpoint("half-b", urls, attempts=1), PRICE),
                NamedModel("large", "big-b", Endpoint("big-b", urls, attempts=1), PRICE),
            ]
            parts = Services(
                lanes=lanes,
                models=models,
                metrics=metrics,
                outbox=outbox,
                auditor=auditor,
                tenants=Tenants(
                    [ApiKey(one) if isinstance(one, str) else one for one in keys],
                    Spending(store.decisions.spent),
                ),
                decisions=store.decisions,
                audits=store.audits,
                admin_keys=Keys(["admin-secret"]),
                **services,
            )
            house = House(parts, engine, store)
            with Served(create_app(parts)) as served:
                house.url, house.served = served.url, served
                yield house

    return build


@pytest.fixture
def house(open_house: Build) -> Iterator[House]:
    """A gateway with one certified task, no keys, and audits all but off."""
    with open_house() as one:
        yield one


@dataclass(frozen=True)
class Got:
    """A whole HTTP answer; header names in lower case."""

    status: int
    text: str
    headers: dict[str, str]

    @property
    def json(self) -> Any:
        return json.loads(self.text)


async def send(url: str, body: Any = None, method: str = "POST", **headers: str) -> Got:
    """One request on a connection of its own; bytes are sent as they are."""
    data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    async with (
        aiohttp.ClientSession() as session,
        session.request(method, url, data=data, headers=named) as answer,
    ):
        lower = {name.lower(): value for name, value in answer.headers.items()}
        return Got(answer.status, await answer.text(), lower)


Post = Callable[..., Awaitable[tuple[int, Any, dict[str, str]]]]


@pytest.fixture
def post(house: House) -> Post:
    """``status, json, headers = await post(path, body)`` to the house."""

    async def ask(path: str, body: Any, **headers: str) -> tuple[int, Any, dict[str, str]]:
        got = await send(house.url + path, body, **headers)
        return got.status, got.json, got.headers

    return ask


def typed(text: Any, **fields: Any) -> dict[str, Any]:
    """A chat request to the task."""
    return {"model": "task/mood", "messages": [{"role": "user", "content": text}], **fields}
