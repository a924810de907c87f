"""What of a changed configuration can be served without a restart. Pure: compares two values."""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

from cascade.config import GatewayConfig, LanguageModel, Tiers
from cascade.errors import ConfigError
from cascade.shapes import KeyPath, dotted

LIVE = ("tiers", "audit", "tasks", "api_keys", "admin_key")
"""The keys of the file that a running gateway can follow."""


class Reconciled(NamedTuple):
    """The configuration to run now, and what was kept of the old one.

    restart_for : keys whose new value waits for a restart, such as ``listen.port``.
    """

    config: GatewayConfig
    restart_for: tuple[str, ...]


def reconcile(running: GatewayConfig, written: GatewayConfig) -> Reconciled:
    """As much of ``written`` as a process that serves ``running`` can take over.

    Sockets, the store, the registry and embedded engines stay as they are.

    Raises
    ------
    ConfigError
        The two make no configuration: keys that are taken away from an address that stays public.
    """
    fixed = {name: getattr(running, name) for name in _names(running) if name not in LIVE}
    kept = [key for name in fixed for key in _differences(running, written, name)]
    tiers = {name: getattr(written.tiers, name) for name in _names(written.tiers)}
    for name in tiers:
        if not _can_change(getattr(running.tiers, name), tiers[name]):
            kept += [f"tiers.{key}" for key in _differences(running.tiers, written.tiers, name)]
            tiers[name] = getattr(running.tiers, name)
    try:
        config = msgspec.structs.replace(written, **fixed, tiers=Tiers(**tiers))
    except ValueError as exc:
        raise ConfigError(f"{exc}; restart for a change of: {', '.join(kept)}") from exc
    return Reconciled(config, tuple(kept))


def _can_change(running: Any, written: Any) -> bool:
    """An endpoint can, and so can any price; an engine's process and the proxy's threads stay."""
    if isinstance(running, LanguageModel) and isinstance(written, LanguageModel):
        price = written.price
        if msgspec.structs.replace(running, price=price) == written:
            return True
    tiers = [one for one in (running, written) if one is not None]
    return all(isinstance(one, LanguageModel) and one.engine == "openai" for one in tiers)


def _differences(running: Any, written: Any, name: str) -> list[str]:
    found = _differing(getattr(running, name), getattr(written, name), (name,))
    return [dotted(path) for path in found]


def _differing(running: Any, written: Any, path: KeyPath) -> list[KeyPath]:
    """Every key under which two values of one shape differ."""
    if isinstance(running, msgspec.Struct) and type(running) is type(written):
        return [
            key
            for name in _names(running)
            for key in _differing(getattr(running, name), getattr(written, name), (*path, name))
        ]
    return [] if running == written else [path]


def _names(struct: msgspec.Struct) -> tuple[str, ...]:
    return struct.__struct_fields__
