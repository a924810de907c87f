"""``cascade validate``: every mistake of a configuration at once, each with its place."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from cascade.cli.options import DEFAULT_CONFIG, AsJson, ConfigPath
from cascade.cli.output import print_json


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command()(validate)


def validate(
    config: ConfigPath = DEFAULT_CONFIG,
    recipes: Annotated[list[Path] | None, typer.Argument(help="Recipes besides its tasks.")] = None,
    as_json: AsJson = False,
) -> None:
    """Explain everything that is wrong with the configuration and its recipes; start nothing.

    Prints FILE:LINE:COLUMN and the next step of each mistake, and exits with 2 if there is one.

    Example: cascade validate --config serving/gateway.yaml
    """
    from cascade.cli.examine import examine

    found = examine(config, recipes or [], os.environ)
    if as_json:
        mistakes = [
            {"file": one.file, **one.place._asdict(), "message": one.message}
            for one in found.mistakes
        ]
        print_json({"config": str(config), "tasks": found.tasks, "mistakes": mistakes})
    else:
        for mistake in found.mistakes:
            typer.echo(mistake)
        tasks = ", ".join(found.tasks) or "none"
        typer.echo(
            f"{config}: {_count(len(found.mistakes))}"
            if found.mistakes
            else f"{config}: good; tasks: {tasks}"
        )
    if found.mistakes:
        raise typer.Exit(2)


def _count(mistakes: int) -> str:
    return f"{mistakes} mistake{'s' if mistakes > 1 else ''}"
