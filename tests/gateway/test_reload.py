"""gateway.yaml changes while the gateway runs: no request is dropped, and no mistake gets in."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import pytest
import uvicorn
import yaml

from cascade.certify import Certificate
from cascade.config import GatewayConfig, load_config
from cascade.embed import Embedder
from cascade.errors import ModelUnavailable
from cascade.gateway import wiring
from cascade.gateway.asgi import create_app
from cascade.gateway.observe import Metrics
from cascade.gateway.reload import Reload
from cascade.gateway.services import Services
from cascade.gateway.watched import Watched
from cascade.recipes import load_recipe
from cascade.registry.folder import FolderRegistry
from cascade.store import Store, open_store
from cascade.tiers.endpoint import Endpoint
from tests.distill.workshops import make_embedder
from tests.tiny_proxy import tiny_proxy

from .conftest import Engine, Served, until

RECIPE = {
    "name": "mood",
    "kind": "filter",
    "prompt": "Is it positive?",
    "source": {"table": "none.csv", "text": "text"},
    "embedder": "toy",
}
ADMIN = {"authorization": "Bearer admin-secret"}
TEXTS = [f"{word} w{i}" for i in range(40) for word in ("lovely", "awful")]


class Labelling(Engine):
    """Says "yes" to every task."""

    def _completion(self, body: dict[str, Any]) -> dict[str, Any]:
        completion = super()._completion(body)
        completion["choices"][0]["message"]["content"] = "yes"
        return completion


@dataclass
class Yard:
    """A folder with a configuration, and the engines that it may name."""

    folder: Path
    first: Served
    second: Served

    @property
    def path(self) -> Path:
        return self.folder / "gateway.yaml"

    @property
    def recipes(self) -> Path:
        return self.folder / "recipes"

    def tier(self, engine: Served, **keys: Any) -> dict[str, Any]:
        price = {"input": 1.0, "output": 1.0}
        return {"model": "big", "replicas": [f"{engine.url}/v1"], "price": price, **keys}

    def write(self, **keys: Any) -> None:
        """The configuration, with these keys instead."""
        config = {
            "version": 1,
            "tiers": {"large": self.tier(self.first)},
            "tasks": str(self.recipes),
            "store": f"sqlite:///{self.folder}/cascade.db",
            "registry": str(self.folder / "registry"),
            "models": str(self.folder / "models"),
            "admin_key": "admin-secret",
            "poll_seconds": 0.05,
            **keys,
        }
        self.path.write_text(yaml.safe_dump(config))

    def add(self, name: str, **keys: Any) -> None:
        (self.recipes / f"{name}.yaml").write_text(yaml.safe_dump({**RECIPE, "name": name, **keys}))


@pytest.fixture
def yard(tmp_path: Path) -> Iterator[Yard]:
    (tmp_path / "recipes").mkdir()
    make_embedder(tmp_path / "models")
    with Served(Labelling()) as first, Served(Labelling()) as second:
        one = Yard(tmp_path, first, second)
        one.write()
        one.add("mood")
        yield one


@dataclass
class Open:
    """A gateway that listens in this very event loop, and looks only when it is told to."""

    services: Services
    reload: Reload
    url: str
    session: aiohttp.ClientSession

    async def chat(self, model: str, **fields: Any) -> tuple[int, str]:
        """Status, and everything that came."""
        key = fields.pop("key", "none")
        body = {"model": model, "messages": [{"role": "user", "content": "lovely"}], **fields}
        headers = {"authorization": f"Bearer {key}"}
        url = f"{self.url}/v1/chat/completions"
        async with self.session.post(url, json=body, headers=headers) as answer:
            return answer.status, await answer.text()

    async def status(self) -> Any:
        async with self.session.get(f"{self.url}/admin/status", headers=ADMIN) as answer:
            return await answer.json()

    def sample(self, counter: str, **labels: str) -> float:
        registry = self.services.metrics.registry
        return registry.get_sample_value(f"cascade_{counter}_total", labels) or 0.0


@asynccontextmanager
async def opened(yard: Yard) -> AsyncIterator[Open]:
    config = load_config(yard.path)
    with ExitStack() as stack, socket.create_server(("127.0.0.1", 0)) as listener:
        services = wiring.build_services(config, stack, yard.path)
        reload, services.reload = services.reload, None
        assert isinstance(reload, Reload)
        server = uvicorn.Server(uvicorn.Config(create_app(services), log_level="warning"))
        serving = asyncio.create_task(server.serve([listener]))
        while not server.started:
            await asyncio.sleep(0.01)
        services.reload = reload
        async with aiohttp.ClientSession() as session:
            yield Open(services, reload, f"http://127.0.0.1:{listener.getsockname()[1]}", session)
        server.should_exit = True
        await serving


def bodies(engine: Served) -> int:
    return len(engine.app.bodies)


async def test_endpoint_and_price_change(yard: Yard) -> None:
    async with opened(yard) as gateway:
        assert (await gateway.chat("large"))[0] == 200
        yard.write(
            tiers={"large": yard.tier(yard.second, price={"input": 50.0, "cached_input": 50.0})}
        )
        await gateway.reload.look()
        before = bodies(yard.first)
        assert (await gateway.chat("large"))[0] == (await gateway.chat("task/mood"))[0] == 200
        assert (bodies(yard.first), bodies(yard.second)) == (before, 2)
        spent = gateway.sample("dollars", task="mood", tier="large")
        assert spent == pytest.approx(50e-6 * 10)
        assert gateway.sample("config_reloads", result="applied") == 1


async def test_a_tier_s_queue_is_one_as_long_as_its_endpoint_is(yard: Yard) -> None:
    async with opened(yard) as gateway:
        (before,) = gateway.services.models
        yard.write(tiers={"large": yard.tier(yard.first, price={"input": 9.0})})
        await gateway.reload.look()
        (dearer,) = gateway.services.models
        assert dearer.price.input == 9.0 and dearer.gate is before.gate
        yard.write(tiers={"large": yard.tier(yard.second)})
        await gateway.reload.look()
        assert gateway.services.models[0].gate is not before.gate


async def test_a_request_under_way_ends_where_it_began(yard: Yard) -> None:
    """Closing a replaced endpoint at once would cut it off."""
    yard.first.app.pause_seconds = 0.5
    async with opened(yard) as gateway:
        whole = asyncio.create_task(gateway.chat("large"))
        stream = asyncio.create_task(gateway.chat("large", stream=True))
        await asyncio.sleep(0.2)
        yard.write(tiers={"large": yard.tier(yard.second)})
        await gateway.reload.look()
        await gateway.reload.look()
        assert (await whole)[0] == 200
        status, events = await stream
        assert status == 200 and events.endswith("data: [DONE]\n\n")
        assert (bodies(yard.first), bodies(yard.second)) == (2, 0)
        assert yard.first.server.server_state.connections
        await gateway.reload.look()
        await asyncio.sleep(0.1)
        assert not yard.first.server.server_state.connections


async def test_an_endpoint_is_idle_when_nobody_waits_for_it(yard: Yard) -> None:
    """Not when it has no connection: aiohttp's close would end the requests on it."""
    yard.first.app.pause_seconds = 0.2
    async with Endpoint("big", [f"{yard.first.url}/v1"]) as endpoint:
        assert endpoint.idle
        asking = asyncio.create_task(endpoint.chat({"messages": []}))
        await asyncio.sleep(0.05)
        assert not endpoint.idle
        await asking
        assert endpoint.idle


async def test_no_request_is_dropped_while_the_file_changes(yard: Yard) -> None:
    answers: list[tuple[int, str]] = []
    over = asyncio.Event()

    async def ask(gateway: Open, model: str, **fields: Any) -> None:
        while not over.is_set():
            answers.append(await gateway.chat(model, key="k", **fields))

    async with opened(yard) as gateway:
        kinds = [("large", {}), ("large", {"stream": True}), ("task/mood", {}), ("big", {})]
        asking = [asyncio.create_task(ask(gateway, model, **more)) for model, more in kinds]
        for turn in range(8):
            engine = yard.second if turn % 2 == 0 else yard.first
            yard.add("other", prompt=f"Is it {turn}?")
            yard.write(
                tiers={"large": yard.tier(engine, concurrency=4 + turn)},
                api_keys=["k", f"k{turn}"],
                audit={"rate": 0.1 + turn / 100, "floor": 0.1},
            )
            await gateway.reload.look()
        over.set()
        await asyncio.gather(*asking)
        assert gateway.sample("config_reloads", result="applied") == 8
    assert len(answers) > 40
    assert {status for status, _ in answers} == {200}
    assert bodies(yard.first) and bodies(yard.second)


async def test_keys_change(yard: Yard) -> None:
    async with opened(yard) as gateway:
        assert (await gateway.chat("large", key="k"))[0] == 200
        yard.write(api_keys=["other"], admin_key="admin-secret")
        await gateway.reload.look()
        assert (await gateway.chat("large", key="k"))[0] == 401
        assert (await gateway.chat("large", key="other"))[0] == 200
        yard.write(admin_key="new")
        await gateway.reload.look()
        assert (await gateway.chat("large"))[0] == 200
        assert (await gateway.status())["error"]["code"] == "invalid_api_key"


async def test_an_audit_may_outlive_its_task(yard: Yard) -> None:
    async with opened(yard) as gateway:
        lanes = gateway.services.lanes
        lanes.remove("mood")
        lanes.remove("mood")
        lanes.serve("mood", "1", None, "too late")
        assert lanes.names() == [] and (await gateway.chat("task/mood"))[0] == 404


async def test_tasks_come_and_go(yard: Yard) -> None:
    async with opened(yard) as gateway:
        assert (await gateway.chat("task/spam"))[0] == 404
        yard.add("spam")
        await gateway.reload.look()
        assert (await gateway.chat("task/spam"))[0] == (await gateway.chat("task/mood"))[0] == 200
        (yard.recipes / "spam.yaml").unlink()
        await gateway.reload.look()
        assert (await gateway.chat("task/spam"))[0] == 404
        assert list((await gateway.status())["tasks"]) == ["mood"]


class Noting:
    """Takes note of what it is asked to serve."""

    def __init__(self) -> None:
        self.asked: list[GatewayConfig] = []
        self.refuses = False

    async def fit(self, config: GatewayConfig) -> None:
        if self.refuses:
            raise ModelUnavailable("no embedder: pull it")
        self.asked.append(config)

    async def tidy(self) -> None:
        """Nothing was replaced."""

    async def close(self) -> None:
        """Nothing was replaced."""


def at_once(seconds: float) -> None:
    """No time passes."""


@pytest.fixture
def noting() -> Noting:
    return Noting()


@pytest.fixture
def following(yard: Yard, noting: Noting) -> Reload:
    watched = Watched(yard.path, yard.recipes, sleep=at_once)
    return Reload(watched, load_config(yard.path), noting, Metrics())


Case = tuple[Callable[[Yard], None], str]


@pytest.mark.parametrize(
    "case",
    [
        (lambda yard: yard.path.write_text("version: 1\n\ttiers: {}\n"), "gateway.yaml:2:1: .*tab"),
        (lambda yard: yard.write(api_kyes=["a"]), "gateway.yaml:2:1: .*api_keys"),
        (lambda yard: yard.path.unlink(), "cannot be read"),
    ],
    ids=["tab", "unknown", "gone"],
)
async def test_a_mistake_is_told_once(
    case: Case, yard: Yard, noting: Noting, following: Reload, caplog: pytest.LogCaptureFixture
) -> None:
    wrong, told = case
    wrong(yard)
    await following.look()
    await following.look()
    errors = [one.message for one in caplog.records if one.levelname == "ERROR"]
    assert len(errors) == 1 and re.search(told, errors[0])
    assert noting.asked == [] and str(following.status()["error"]) in errors[0]
    yard.write(poll_seconds=9.0)
    await following.look()
    assert len(noting.asked) == 1 and following.status()["error"] is None


async def test_what_cannot_be_fitted_leaves_everything_as_it_is(yard: Yard) -> None:
    wrongs: dict[str, Callable[[], None]] = {
        "spam.yaml:2:1: .*ranking": lambda: yard.add("spam", kind="rank"),
        "cascade models pull nowhere": lambda: yard.add("spam", embedder="nowhere"),
        "'x' is not an address": lambda: yard.write(
            tiers={"large": yard.tier(yard.first, replicas=["x"])}
        ),
        "there is no 'task/x'": lambda: yard.write(api_keys=[{"key": "a", "tasks": ["task/x"]}]),
    }
    async with opened(yard) as gateway:
        for told, make_wrong in wrongs.items():
            make_wrong()
            await gateway.reload.look()
            (yard.recipes / "spam.yaml").unlink(missing_ok=True)
            yard.write()
            status = await gateway.status()
            assert re.search(told, status["configuration"]["error"])
            assert list(status["tasks"]) == ["mood"]
            assert (await gateway.chat("large"))[0] == (await gateway.chat("task/mood"))[0] == 200
        assert gateway.sample("config_reloads", result="refused") == len(wrongs)
        assert gateway.sample("config_reloads", result="applied") == 0
        assert bodies(yard.second) == 0


def promote(yard: Yard, certificate: Certificate, embedder: Embedder) -> None:
    """A champion of "mood" for the model "big"."""
    task = load_recipe(yard.recipes / "mood.yaml").task
    identity = task.identity("big", f"{embedder.name}@{embedder.version}")
    labels = np.array([text.startswith("awful") for text in TEXTS], dtype=int)
    artifact = tiny_proxy(
        task,
        identity,
        embedder,
        TEXTS,
        labels,
        thresholds=certificate.thresholds,
        certificate=certificate,
    )
    artifact.save(yard.folder / "trained")
    registry = FolderRegistry(yard.folder / "registry")
    registry.promote("mood", registry.save("mood", yard.folder / "trained"))


async def test_a_champion_stays_where_the_task_is_the_same(
    yard: Yard, certificate: Certificate
) -> None:
    promote(yard, certificate, make_embedder(yard.folder / "models"))
    async with opened(yard) as gateway:

        async def mood() -> tuple[Any, ...]:
            told = (await gateway.status())["tasks"]["mood"]
            return told["version"], told["in_use"], told["reason"]

        while await mood() != ("1", True, ""):
            await asyncio.sleep(0.02)
        docket = gateway.services.auditor.docket("mood")
        yard.write(tiers={"large": yard.tier(yard.second)})
        await gateway.reload.look()
        assert await mood() == ("1", True, "")
        assert gateway.services.auditor.docket("mood") is docket  # its audits go on
        yard.write(audit={"rate": 0.5, "floor": 0.4})
        await gateway.reload.look()
        again = gateway.services.auditor.docket("mood")
        assert again is not None and again.watch.monitor.rate == 0.5
        gateway.services.lanes.demote("mood", "odd answers")
        yard.write(audit={"rate": 0.6, "floor": 0.4})
        await gateway.reload.look()
        assert await mood() == ("1", False, "demoted")
        gateway.services.lanes.reinstate("mood")
        yard.write(tiers={"large": yard.tier(yard.first, model="bigger")})
        await gateway.reload.look()
        assert (await mood())[1:] == (False, "identity_mismatch")
        (yard.folder / "models" / "live" / "mood" / "serving.json").write_text("{")
        yard.write()
        await gateway.reload.look()
        while await mood() != ("1", True, ""):  # fetched from the registry once more
            await asyncio.sleep(0.02)


async def test_half_a_file_is_not_taken(yard: Yard, noting: Noting) -> None:
    """A file that ends before its keys is valid, and would let everybody in."""
    config, before = load_config(yard.path), yard.path.read_text()
    yard.write(api_keys=["a"])
    whole = yard.path.read_text()
    yard.path.write_text(before)

    def go_on_writing(seconds: float) -> None:
        yard.path.write_text(whole)

    following = Reload(
        Watched(yard.path, yard.recipes, sleep=go_on_writing), config, noting, Metrics()
    )
    yard.path.write_text(f"{before}# and\n")
    await following.look()
    assert noting.asked == []
    await following.look()
    assert [one.api_keys for one in noting.asked] == [("a",)]


async def test_a_file_that_says_the_same_is_no_change(
    yard: Yard, noting: Noting, following: Reload
) -> None:
    yard.path.write_text(yard.path.read_text())
    await following.look()
    assert noting.asked == []
    await following.look(anyway=True)
    assert len(noting.asked) == 1


async def test_what_waits_for_a_restart_is_told(
    yard: Yard, noting: Noting, following: Reload, caplog: pytest.LogCaptureFixture
) -> None:
    yard.write(listen={"port": 1})
    await following.look()
    assert following.status()["restart_needed_for"] == ["listen.port"]
    assert "restart needed for: listen.port" in caplog.text
    assert noting.asked[0].listen.port == 8080


async def test_what_was_missing_and_came_is_found_by_asking(
    yard: Yard, noting: Noting, following: Reload
) -> None:
    noting.refuses = True
    yard.write(poll_seconds=9.0)
    await following.look()
    assert following.status()["error"] == "no embedder: pull it"
    noting.refuses = False
    await following.look()
    assert noting.asked == []
    await following.look(anyway=True)
    assert len(noting.asked) == 1 and following.status()["error"] is None


async def test_recipes_of_a_new_folder_are_followed(
    yard: Yard, noting: Noting, following: Reload
) -> None:
    other = yard.folder / "other"
    other.mkdir()
    yard.write(tasks=str(other))
    await following.look()
    (other / "spam.yaml").write_text("name: spam")
    await following.look()
    assert len(noting.asked) == 2


async def test_a_change_while_the_engines_start_is_not_lost(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    def open_slowly(url: str) -> Store:
        yard.add("spam")
        return open_store(url)

    monkeypatch.setattr(wiring, "open_store", open_slowly)
    with ExitStack() as stack:
        services = wiring.build_services(load_config(yard.path), stack, yard.path)
        assert isinstance(services.reload, Reload) and services.lanes.names() == ["mood"]
        await services.reload.look()
        assert services.lanes.names() == ["mood", "spam"]


class Breaking(Noting):
    """Has a bug."""

    async def fit(self, config: GatewayConfig) -> None:
        await super().fit(config)
        raise ZeroDivisionError


async def test_a_bug_does_not_end_the_following(
    yard: Yard, caplog: pytest.LogCaptureFixture
) -> None:
    broken, watched = Breaking(), Watched(yard.path, yard.recipes, sleep=at_once)
    config = load_config(yard.path)
    following = Reload(watched, config, broken, Metrics(), look_seconds=0.01)
    task = asyncio.create_task(following.run())
    for turn in range(2):
        yard.write(poll_seconds=1.0 + turn)
        while len(broken.asked) <= turn:
            await asyncio.sleep(0.01)
    task.cancel()
    assert "could not be followed" in caplog.text


@pytest.mark.slow
def test_process_follows_its_file_and_sighup(yard: Yard) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    listen = {"port": port, "drain_seconds": 2}
    yard.write(listen=listen)
    command = [sys.executable, "-m", "cascade", "serve", "--config", str(yard.path)]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)

    def configuration() -> Any:
        request = urllib.request.Request(f"http://127.0.0.1:{port}/admin/status", headers=ADMIN)
        try:
            with urllib.request.urlopen(request, timeout=5) as answer:
                return json.loads(answer.read())["configuration"]
        except OSError:
            return None

    try:
        until(configuration, seconds=60)
        started_at = configuration()["loaded_at"]
        yard.write(listen={**listen, "port": 1})
        until(lambda: configuration()["restart_needed_for"] == ["listen.port"], seconds=20)
        followed_at = configuration()["loaded_at"]
        assert followed_at > started_at
        process.send_signal(signal.SIGHUP)
        until(lambda: configuration()["loaded_at"] > followed_at)
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=20)
    finally:
        process.kill()
    assert process.returncode == 0 and "Traceback" not in said
    assert "restart needed for: listen.port" in said
