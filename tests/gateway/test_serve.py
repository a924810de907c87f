"""``cascade serve`` as a process: it starts, answers, drains on SIGTERM, and says what is wrong."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import msgspec
import pytest

from cascade.config import ApiKey, GatewayConfig, Listen, load_config
from cascade.errors import ConfigError, ModelUnavailable, RecipeError
from cascade.gateway.run import bind, check_reach, serve
from cascade.gateway.wiring import build_services
from cascade.store import DecisionRecord, open_store

from .conftest import Engine, Served, until

PROGRAM = """
import sys, msgspec
from cascade.config import GatewayConfig
from cascade.gateway.run import serve
serve(msgspec.json.decode(sys.argv[1], type=GatewayConfig))
"""
ROOT = Path(__file__).parents[2]


@pytest.fixture
def engine() -> Iterator[Served]:
    with Served(Engine()) as served:
        yield served


@pytest.fixture
def config(engine: Served, tmp_path: Path) -> GatewayConfig:
    """No recipe, one tier behind a real socket."""
    tier = {"model": "big-b", "replicas": [f"{engine.url}/v1"], "attempts": 1}
    written = {
        "version": 1,
        "tiers": {"large": tier},
        "tasks": str(tmp_path / "recipes"),
        "store": f"sqlite:///{tmp_path}/cascade.db",
        "registry": str(tmp_path / "registry"),
        "models": str(tmp_path / "models"),
        "listen": {"port": free_port(), "drain_seconds": 4},
        "poll_seconds": 0.05,
    }
    return msgspec.convert(written, GatewayConfig)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


def get(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def ask(url: str) -> None:
    message = {"model": "large", "messages": [{"role": "user", "content": "hi"}]}
    request = urllib.request.Request(f"{url}/v1/chat/completions", json.dumps(message).encode())
    with urllib.request.urlopen(request) as answer:
        said = json.loads(answer.read())
    assert said["choices"][0]["message"]["content"] == "from big-b"


def test_process_answers_and_drains_on_sigterm(config: GatewayConfig) -> None:
    arguments = [sys.executable, "-c", PROGRAM, msgspec.json.encode(config).decode()]
    process = subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True, cwd=ROOT)
    url = f"http://127.0.0.1:{config.listen.port}"
    try:
        until(lambda: get(f"{url}/ready"), seconds=60)
        ask(url)
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=20)
    finally:
        process.kill()
    assert process.returncode == 0
    assert url in said and "none needed" in said and "Traceback" not in said
    with open_store(config.store) as store:
        assert [one.reason for one in store.decisions.recent(5)] == ["passthrough"]


def test_interrupt_in_this_process(config: GatewayConfig) -> None:
    """The same path without a process of its own: SIGINT ends it like Ctrl-C."""
    url = f"http://127.0.0.1:{config.listen.port}"
    waiter = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys, time, urllib.request, os, signal\n"
            "for _ in range(600):\n"
            "    try:\n"
            "        urllib.request.urlopen(sys.argv[1]); break\n"
            "    except OSError:\n"
            "        time.sleep(0.05)\n"
            "os.kill(int(sys.argv[2]), signal.SIGINT)",
            f"{url}/ready",
            str(os.getpid()),
        ]
    )
    before = signal.getsignal(signal.SIGTERM)
    serve(config)
    waiter.wait(10)
    assert signal.getsignal(signal.SIGTERM) is before
    assert not get(f"{url}/health")


def test_a_port_in_use_is_a_sentence(engine: Served) -> None:
    with pytest.raises(ConfigError, match=rf"{engine.port}.*listen.port"):
        bind(Listen(port=engine.port))


def test_ipv6_loopback() -> None:
    with bind(Listen(host="::1", port=0)) as listener:
        assert listener.family == socket.AF_INET6


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST", "127.0.0.1", "127.9.9.9"])
def test_loopback_by_any_name(host: str) -> None:
    with bind(Listen(host=host, port=0)) as listener:
        assert listener.getsockname()[0].startswith("127.")


def test_a_localhost_that_others_can_reach_is_refused() -> None:
    """Whoever writes /etc/hosts must not open a gateway that has no keys."""
    for address in ("0.0.0.0", "10.0.0.5", "::", "2001:db8::1"):
        with pytest.raises(ConfigError, match=f"localhost is {address} here"):
            check_reach(Listen(host="localhost"), address)
    check_reach(Listen(host="0.0.0.0"), "0.0.0.0")  # has keys: the configuration saw to it


def test_a_missing_model_is_a_sentence(config: GatewayConfig) -> None:
    (Path(config.models)).mkdir()
    tiers = {"large": {"model": "qwen2.5-coder-0.5b", "engine": "embedded"}}
    embedded = msgspec.convert({**msgspec.to_builtins(config), "tiers": tiers}, GatewayConfig)
    with ExitStack() as stack, pytest.raises(ModelUnavailable, match="cascade models pull"):
        build_services(embedded, stack)


def test_a_wrong_recipe_is_a_sentence(config: GatewayConfig) -> None:
    Path(config.tasks).mkdir()
    (Path(config.tasks) / "x.yaml").write_text("name: x")
    with ExitStack() as stack, pytest.raises(RecipeError, match=r"x\.yaml"):
        build_services(config, stack)


def test_every_part_is_wired(config: GatewayConfig, models_dir: Path) -> None:
    Path(config.tasks).mkdir()
    recipe = {
        "name": "spam",
        "kind": "filter",
        "prompt": "Is it spam?",
        "source": {"table": "none.csv", "text": "text"},
    }
    (Path(config.tasks) / "spam.yaml").write_text(json.dumps(recipe))
    wired = msgspec.structs.replace(config, models=str(models_dir), admin_key="a")
    with ExitStack() as stack:
        services = build_services(wired, stack)
        lane = services.lanes.get("spam")
        assert lane is not None and lane.reason == "no_champion"
        assert lane.models == {"large": "big-b"} and list(lane.router.tiers) == ["large"]
        assert services.admin_keys.hold("a") and not [*services.tenants]


def test_keys_are_wired_with_what_they_spent_today(config: GatewayConfig) -> None:
    with open_store(config.store) as store:
        now = time.time()
        spent = DecisionRecord("d1", now, "mood", "certified", tenant="acme/team", dollars=0.5)
        store.decisions.append([spent])
    key = ApiKey("k", "acme", ("large",), rate=5, spend=1.0)
    with ExitStack() as stack:
        services = build_services(msgspec.structs.replace(config, api_keys=(key, "plain")), stack)
        [acme, plain] = services.tenants
        assert (acme.name, acme.tasks, acme.spend) == ("acme", frozenset({"large"}), 1.0)
        assert services.tenants.spending.today("acme") == 0.5
        assert plain.name.startswith("key-") and services.books.spending.today(plain.name) == 0.0


def test_a_key_for_a_task_that_is_not_there_stops_the_start(config: GatewayConfig) -> None:
    wrong = msgspec.structs.replace(config, api_keys=(ApiKey("k", "acme", ("task/sapm",)),))
    with ExitStack() as stack, pytest.raises(ConfigError, match="acme.*task/sapm.*large"):
        build_services(wrong, stack)


def test_the_default_configuration_is_valid() -> None:
    config = load_config(ROOT / "serving" / "gateway.yaml")
    assert config.tiers.small is not None and config.tiers.small.price.cached_input == 0.06
    assert config.tiers.large.price.output == 1.20
