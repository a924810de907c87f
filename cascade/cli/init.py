"""``cascade init``: a folder in which every other command works."""

from __future__ import annotations

import json
import shlex
from importlib.resources import files
from pathlib import Path
from typing import Annotated

import typer

from cascade.errors import UsageError

TEMPLATES = files("cascade") / "templates"

EMBEDDER = "minilm-int8"
LLMS = ("qwen2.5-coder-0.5b", "qwen2.5-coder-1.5b")


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command()(init)


def init(
    folder: Annotated[Path, typer.Argument(help="Made where it is missing.")] = Path("."),
    endpoint: Annotated[
        str | None, typer.Option(help="Your own OpenAI-compatible server, ending in /v1.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="The model's name at the endpoint.")] = None,
) -> None:
    """Write a workspace: gateway.yaml, a recipe with a few texts, .gitignore, .env.example.

    Without --endpoint two embedded models answer. What is there is never overwritten.

    Example: cascade init reviews --endpoint http://gpu-1:8000/v1 --model Qwen/Qwen3-32B
    """
    texts = {
        "gateway.yaml": _gateway(endpoint, model),
        "training/recipes/review-positive.yaml": _template("recipe.yaml"),
        "training/recipes/reviews.csv": _template("reviews.csv"),
        ".gitignore": _template("gitignore"),
        ".env.example": _template("env.example"),
    }
    there = [name for name in texts if (folder / name).exists()]
    if there:
        names = ", ".join(there)
        raise UsageError(f"{folder} has {names} already: move that away, or name another folder")
    for name, text in texts.items():
        _write(folder / name, text)
        typer.echo(f"wrote {folder / name}")
    typer.echo("next:")
    for command in _next_steps(folder, [EMBEDDER] if endpoint else [EMBEDDER, *LLMS]):
        typer.echo(f"  {command}")


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as exc:
        raise UsageError(f"{path} cannot be written ({exc.strerror}): name another folder") from exc


def _next_steps(folder: Path, models: list[str]) -> list[str]:
    enter = "" if folder == Path(".") else f"cd {shlex.quote(str(folder))} && "
    return [f"{enter}cascade models pull {' '.join(models)}", "cascade validate", "cascade serve"]


def _gateway(endpoint: str | None, model: str | None) -> str:
    """The commented configuration; with an endpoint, its tiers are that one."""
    text = _template("gateway.yaml")
    if endpoint is None and model is None:
        return text
    if endpoint is None or model is None:
        raise UsageError("--endpoint and --model belong to each other: give both, or none")
    _check(endpoint, model)
    before, _, others = text.partition("tiers:")
    _, _, after = others.partition("\naudit:")
    # JSON's strings are YAML's too, whatever is in them
    tiers = _template("endpoint.yaml").replace("ENDPOINT", json.dumps(endpoint))
    return f"{before}{tiers.replace('MODEL', json.dumps(model))}\naudit:{after}"


def _check(endpoint: str, model: str) -> None:
    from cascade.tiers.endpoint import Endpoint

    Endpoint(model, [endpoint])


def _template(name: str) -> str:
    return (TEMPLATES / name).read_text(encoding="utf-8")
