"""``cascade serve``: engines first, then a server that drains when it is told to stop."""

from __future__ import annotations

import logging
import signal
import socket
from contextlib import ExitStack
from types import FrameType

import uvicorn
from rich.console import Console

from cascade.config import GatewayConfig, Listen
from cascade.errors import ConfigError
from cascade.gateway.asgi import create_app
from cascade.gateway.services import Services
from cascade.gateway.wiring import build_services

logger = logging.getLogger(__name__)

BACKLOG = 1024


def serve(config: GatewayConfig, console: Console | None = None) -> None:
    """Run the gateway until SIGINT or SIGTERM, then let requests end and stop what was started.

    Raises
    ------
    CascadeError
        What the user can correct: a port in use, a missing model, a wrong recipe.
    """
    console = console or Console(stderr=True)
    before = signal.signal(signal.SIGTERM, _leave)
    try:
        with ExitStack() as stack:
            listener = stack.enter_context(bind(config.listen))
            console.print(f"starting: {_engines(config)}", highlight=False, soft_wrap=True)
            services = build_services(config, stack)
            console.print(_greeting(config, services), highlight=False, soft_wrap=True)
            uvicorn.Server(_settings(services)).run([listener])
    except KeyboardInterrupt:
        console.print("stopped")
    finally:
        signal.signal(signal.SIGTERM, before)


def bind(listen: Listen) -> socket.socket:
    """The listening socket, taken before anything slow starts.

    Raises
    ------
    ConfigError
        The address is taken or is not this machine's.
    """
    family = socket.AF_INET6 if ":" in listen.host else socket.AF_INET
    try:
        return socket.create_server((listen.host, listen.port), family=family, backlog=BACKLOG)
    except OSError as exc:
        raise ConfigError(
            f"cannot listen on {listen.host}:{listen.port}: {exc.strerror}; set listen.port"
        ) from exc


def _settings(services: Services) -> uvicorn.Config:
    # half of the drain time is the requests', half the audits' and records' after them
    return uvicorn.Config(
        create_app(services),
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=max(1, int(services.listen.drain_seconds / 2)),
    )


def _engines(config: GatewayConfig) -> str:
    tiers = {"small": config.tiers.small, "large": config.tiers.large}
    return ", ".join(f"{tier} = {one.model} ({one.engine})" for tier, one in tiers.items() if one)


def _greeting(config: GatewayConfig, services: Services) -> str:
    tasks = ", ".join(f"task/{name}" for name in services.lanes.names())
    keys = f"{len(config.api_keys)} accepted" if config.api_keys else "none needed (loopback only)"
    admin = "on" if config.admin_key else "off (set admin_key)"
    return "\n".join(
        [
            f"http://{config.listen.host}:{config.listen.port}/v1",
            f"  models  {tasks or f'no recipe in {config.tasks}'}, and every tier by its name",
            f"  keys    {keys}",
            f"  admin   {admin}",
        ]
    )


def _leave(signum: int, frame: FrameType | None) -> None:
    """uvicorn drains on SIGTERM and then raises it again: the engines must still be stopped."""
    raise SystemExit(0)
