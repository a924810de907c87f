"""The commands around a running gateway: serve, ask, ui, demo."""

from __future__ import annotations

import asyncio
import os
import subprocess
from pathlib import Path
from typing import Annotated, Any

import aiohttp
import typer

from cascade.cli.options import DEFAULT_CONFIG, AsJson, ConfigPath
from cascade.cli.output import print_json, progress
from cascade.config import load_config
from cascade.errors import TierRejected, TierUnavailable

ASK_SECONDS = 120


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    for command in (serve, ask, ui, demo):
        app.command()(command)


def serve(config: ConfigPath = DEFAULT_CONFIG) -> None:
    """Run the gateway until it is told to stop; requests that are under way are finished.

    Example: cascade serve --config serving/gateway.yaml
    """
    from cascade.gateway.run import serve as run

    run(load_config(config), path=config)


def ask(
    text: Annotated[str, typer.Argument(help="The text to ask about.")],
    model: Annotated[str, typer.Option(help="task/<name>, or a tier.")],
    tier: Annotated[str | None, typer.Option(help="Force a tier of the task.")] = None,
    base_url: Annotated[
        str, typer.Option(envvar="OPENAI_BASE_URL", help="The gateway.")
    ] = "http://127.0.0.1:8080/v1",
    as_json: AsJson = False,
) -> None:
    """Ask a running gateway, and see who answered and why.

    Example: cascade ask --model task/review-positive "Works like a charm."
    """
    body = {"model": model, "messages": [{"role": "user", "content": text}]}
    headers = {"authorization": f"Bearer {os.environ.get('OPENAI_API_KEY', 'none')}"}
    if tier is not None:
        headers["x-cascade-tier"] = tier
    found = asyncio.run(_post(f"{base_url.rstrip('/')}/chat/completions", body, headers))
    if as_json:
        print_json(found)
    else:
        why = ", ".join(f"{name} {value}" for name, value in found["cascade"].items())
        typer.echo(f"{found['answer']}\n  {why}")


def ui(config: ConfigPath = DEFAULT_CONFIG, port: int = 5000) -> None:
    """Open MLflow on the registry that the configuration names.

    Example: cascade ui
    """
    from cascade.registry.ui import ui_of

    found = ui_of(load_config(config).registry, port)
    typer.echo(found.address)
    if found.command:
        subprocess.run(found.command, env={**os.environ, **found.environment}, check=False)


def demo(
    config: ConfigPath = DEFAULT_CONFIG,
    recipe: Annotated[Path, typer.Option(help="The task to show.")] = Path(
        "training/recipes/review-positive.yaml"
    ),
    seconds: Annotated[
        float | None, typer.Option(help="Stop sending held-back requests after this long.")
    ] = None,
) -> None:
    """Distil, certify, promote and serve a proxy on real reviews, and measure it.

    Example: cascade demo
    """
    from cascade.demo import run

    run(config, recipe, progress, seconds)


async def _post(url: str, body: dict[str, Any], headers: dict[str, str]) -> dict[str, Any]:
    """The answer and the x-cascade headers."""
    timeout = aiohttp.ClientTimeout(total=ASK_SECONDS)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.post(url, json=body, headers=headers) as response,
        ):
            content = await response.json()
            prefix = "x-cascade-"
            told = {
                name.lower().removeprefix(prefix): value
                for name, value in response.headers.items()
                if name.lower().startswith(prefix)
            }
    except (aiohttp.ClientError, TimeoutError, ValueError) as exc:
        raise TierUnavailable(f"{url} does not answer ({exc}): is cascade serve running?") from exc
    return {"answer": _spoken(url, content, response.status), "cascade": told}


def _spoken(url: str, content: Any, status: int) -> str:
    """The text of a chat completion."""
    match content:
        case {"error": {"message": str(message)}}:
            raise TierRejected(message, status)
        case {"choices": [{"message": {"content": str(text)}}, *_]}:
            return text
    raise TierUnavailable(f"{url} answers, but not like a gateway: is cascade serve running there?")
