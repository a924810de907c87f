"""Send held-back texts through a running gateway, as a stranger would: the openai client.

Knows HTTP and a clock; knows nothing of proxies, labels or certificates.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import uvicorn

from cascade.config import GatewayConfig
from cascade.errors import MissingExtra, TierUnavailable
from cascade.gateway.asgi import create_app
from cascade.gateway.run import bind
from cascade.gateway.wiring import build_services

if TYPE_CHECKING:
    import openai

START_SECONDS = 120.0


@dataclass(frozen=True)
class Reply:
    """One request's answer, and what it took. seconds : as the client saw it."""

    text: str
    label: str
    tier: str
    reason: str
    seconds: float
    dollars: float


@contextmanager
def gateway(config: GatewayConfig) -> Iterator[str]:
    """A gateway in this process; its base URL. Stopped and drained at the end."""
    with ExitStack() as stack:
        listener = stack.enter_context(bind(config.listen))
        services = build_services(config, stack)
        server = uvicorn.Server(uvicorn.Config(create_app(services), log_level="warning"))
        thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
        thread.start()
        try:
            _wait_for(server, thread)
            host, port = listener.getsockname()[:2]
            yield f"http://{host}:{port}/v1"
        finally:
            server.should_exit = True
            thread.join()


def send(
    base_url: str,
    model: str,
    texts: Sequence[str],
    *,
    tier: str | None = None,
    seconds: float = float("inf"),
) -> Iterator[Reply]:
    """One request after another, until the texts or the seconds are used up.

    Parameters
    ----------
    tier : forces a tier; None lets the gateway decide.
    """
    try:
        import openai
    except ImportError as exc:
        raise MissingExtra("the demo's client", "demo") from exc

    headers = {"x-cascade-tier": tier} if tier else {}
    end = time.monotonic() + seconds
    with openai.OpenAI(base_url=base_url, api_key="unused", default_headers=headers) as client:
        for text in texts:
            if time.monotonic() > end:
                return
            yield _ask(client, model, text)


def _ask(client: openai.OpenAI, model: str, text: str) -> Reply:
    started = time.perf_counter()
    raw = client.chat.completions.with_raw_response.create(
        model=model, messages=[{"role": "user", "content": text}]
    )
    seconds = time.perf_counter() - started
    told = raw.headers
    return Reply(
        text=text,
        label=raw.parse().choices[0].message.content or "",
        tier=told["x-cascade-tier"],
        reason=told["x-cascade-reason"],
        seconds=seconds,
        dollars=float(told.get("x-cascade-cost-usd", "0")),
    )


def _wait_for(server: uvicorn.Server, thread: threading.Thread) -> None:
    end = time.monotonic() + START_SECONDS
    while not server.started:
        if not thread.is_alive() or time.monotonic() > end:
            raise TierUnavailable("the gateway did not start: run `cascade serve` to see why")
        time.sleep(0.02)
