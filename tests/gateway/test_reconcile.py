"""What of a changed configuration a running gateway takes over, and what waits for a restart."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from cascade.config import GatewayConfig
from cascade.errors import ConfigError
from cascade.gateway.reconcile import reconcile

OPENAI = {"model": "big", "replicas": ["http://a/v1"]}
EMBEDDED = {"model": "tiny", "engine": "embedded"}


def config(**keys: Any) -> GatewayConfig:
    return msgspec.convert({"version": 1, "tiers": {"large": OPENAI}, **keys}, GatewayConfig)


def tiers(**named: Any) -> GatewayConfig:
    return config(tiers={"large": OPENAI, **named})


@pytest.mark.parametrize(
    "written",
    [
        config(),
        config(audit={"rate": 0.5, "floor": 0.1}),
        config(tasks="elsewhere"),
        config(api_keys=["a"], admin_key="b"),
        tiers(large={"model": "bigger", "replicas": ["http://b/v1"], "concurrency": 9}),
        tiers(small={**OPENAI, "price": {"input": 1.0}}),
    ],
)
def test_what_a_running_gateway_can_follow(written: GatewayConfig) -> None:
    assert reconcile(config(), written) == (written, ())
    assert reconcile(written, config()) == (config(), ())


@pytest.mark.parametrize(
    ("written", "waits"),
    [
        (config(listen={"port": 1, "body_bytes": 7}), ("listen.port", "listen.body_bytes")),
        (config(store="sqlite:///other.db"), ("store",)),
        (config(registry="other", models="other"), ("registry", "models")),
        (config(poll_seconds=1.0), ("poll_seconds",)),
        (tiers(proxy={"threads": 2}), ("tiers.proxy.threads",)),
        (tiers(small=EMBEDDED), ("tiers.small",)),
    ],
)
def test_what_waits_for_a_restart_is_kept_and_named(
    written: GatewayConfig, waits: tuple[str, ...]
) -> None:
    found = reconcile(config(), written)
    assert (found.config, set(found.restart_for)) == (config(), set(waits))


def test_an_engine_s_process_stays_and_its_price_does_not() -> None:
    running = tiers(small=EMBEDDED)
    dearer = tiers(small={**EMBEDDED, "price": {"input": 2.0}})
    assert reconcile(running, dearer) == (dearer, ())
    found = reconcile(running, tiers(small={"model": "tiny", "replicas": ["http://a/v1"]}))
    assert found == (running, ("tiers.small.engine", "tiers.small.replicas"))
    assert reconcile(running, tiers()) == (running, ("tiers.small",))


def test_both_kinds_of_change_in_one_file() -> None:
    written = config(listen={"port": 1}, audit={"rate": 0.5, "floor": 0.1})
    found = reconcile(config(), written)
    assert found.restart_for == ("listen.port",)
    assert found.config == config(audit={"rate": 0.5, "floor": 0.1})


def test_keys_are_not_taken_from_an_address_that_stays_public() -> None:
    """The file by itself is right: it says loopback. The socket is another one until a restart."""
    public = config(listen={"host": "0.0.0.0"}, api_keys=["a"])
    with pytest.raises(ConfigError, match="0.0.0.0 can be reached from outside.*listen.host"):
        reconcile(public, config())
