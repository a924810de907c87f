"""``cascade serve``: engines first, then a server that drains when it is told to stop."""

from __future__ import annotations

import gc
import ipaddress
import logging
import resource
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from types import FrameType

from rich.console import Console

from cascade.config import GatewayConfig, Listen
from cascade.errors import ConfigError
from cascade.gateway.asgi import create_app
from cascade.gateway.connections import guarded_server
from cascade.gateway.logs import form_of, logging_to
from cascade.gateway.services import Services
from cascade.gateway.wiring import build_services

logger = logging.getLogger(__name__)

BACKLOG = 1024
SWITCH_SECONDS = 0.0005
YOUNG_OBJECTS = 50_000
"""Container objects made before the collector looks for cycles among them; Python's 700 are there
after a few requests."""


def serve(config: GatewayConfig, console: Console | None = None, path: Path | None = None) -> None:
    """Run the gateway until SIGINT or SIGTERM, then let requests end and stop what was started.

    Parameters
    ----------
    path : of the file that ``config`` was read from, to be followed; None follows none.

    Raises
    ------
    CascadeError
        What the user can correct: a port in use, a missing model, a wrong recipe.
    """
    console = console or Console(stderr=True)
    say = _announcer(config, console)
    before = signal.signal(signal.SIGTERM, _leave)
    try:
        with logging_to(console.file, config), _interrupted(say), ExitStack() as stack:
            listener = stack.enter_context(bind(config.listen))
            say(f"starting: {_engines(config)}")
            services = build_services(config, stack, path)
            say(_greeting(config, services))
            _raise_open_files()
            _spare_the_collector()
            _favour_the_loop()
            guarded_server(create_app(services), config.listen).run([listener])
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _interrupted(say: Callable[[str], None]) -> Iterator[None]:
    """Ctrl-C is how one stops it, and no failure."""
    try:
        yield
    except KeyboardInterrupt:
        say("stopped")


def bind(listen: Listen) -> socket.socket:
    """The listening socket, taken before anything slow starts.

    Raises
    ------
    ConfigError
        The address is taken or is not this machine's.
    """
    family = socket.AF_INET6 if ":" in listen.host else socket.AF_INET
    try:
        server = socket.create_server((listen.host, listen.port), family=family, backlog=BACKLOG)
    except OSError as exc:
        raise ConfigError(
            f"cannot listen on {listen.host}:{listen.port}: {exc.strerror}; set listen.port"
        ) from exc
    with ExitStack() as unless_good:
        unless_good.callback(server.close)
        check_reach(listen, server.getsockname()[0])
        unless_good.pop_all()
    return server


def check_reach(listen: Listen, address: str) -> None:
    """Refuse a ``localhost`` that is no such thing: it was let in without keys for its name.

    Parameters
    ----------
    address : the name's, as this machine resolved it.

    Raises
    ------
    ConfigError
        Others can reach it.
    """
    if listen.loopback and not ipaddress.ip_address(address).is_loopback:
        raise ConfigError(
            f"listen.host {listen.host} is {address} here, which others can reach: "
            "correct /etc/hosts, or write 127.0.0.1"
        )


def _raise_open_files() -> None:
    """As many sockets as the system lets us have: many a shell starts with 1,024."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _spare_the_collector() -> None:
    """What is there now stays to the end: the collector need not look at it for every request."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS)


def _favour_the_loop() -> None:
    """A thread that writes records or embeds gives the interpreter back soon: the event loop asks
    for it after every wait, and would stand still for Python's 5 ms each time."""
    sys.setswitchinterval(SWITCH_SECONDS)


def _announcer(config: GatewayConfig, console: Console) -> Callable[[str], None]:
    """Between lines of JSON, a greeting is one of them."""
    if form_of(config, console.file) == "json":
        return logger.info
    return partial(console.print, highlight=False, soft_wrap=True)


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
