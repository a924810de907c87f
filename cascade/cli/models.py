"""``cascade models``: the embedded models, and how to get them."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from cascade.cli.options import AsJson
from cascade.cli.output import print_json, print_table
from cascade.models import open_store

models = typer.Typer(help="Embedded models: list, pull, verify, export.", no_args_is_help=True)

Names = Annotated[list[str] | None, typer.Argument(help="Models; all of them by default.")]


def add_to(app: typer.Typer) -> None:
    """Register the group."""
    app.add_typer(models, name="models")


@models.command("list")
def list_models(as_json: AsJson = False) -> None:
    """What there is, and what is already here.

    Example: cascade models list --json
    """
    found = [
        {
            "name": one.model.name,
            "about": one.model.about,
            "licence": one.model.licence,
            "megabytes": round(one.model.size / 1e6),
            "ready": one.ready,
        }
        for one in open_store().list()
    ]
    if as_json:
        print_json(found)
    else:
        rows = [[*row.values()] for row in found]
        print_table("models", ["name", "about", "licence", "MB", "ready"], rows)


@models.command()
def pull(names: Names = None) -> None:
    """Fetch models, verify their checksums, and put them in place. What is here stays.

    Example: cascade models pull minilm-int8 qwen2.5-coder-0.5b
    """
    store = open_store()
    for name in names or [one.model.name for one in store.list()]:
        with pulling() as progress:
            typer.echo(f"{name}: {store.pull(name, progress)}", err=True)


@models.command()
def verify(names: Names = None) -> None:
    """Read every byte of the models that are here and compare the checksums.

    Example: cascade models verify
    """
    store = open_store()
    for name in names or [one.model.name for one in store.list() if one.ready]:
        typer.echo(f"{name}: {store.verify(name)} verified")


@models.command()
def export(
    model: Annotated[str, typer.Argument(help="A sentence-transformers model: name or folder.")],
    name: Annotated[str, typer.Argument(help="What recipes will call it: `embedder: <name>`.")],
) -> None:
    """Turn a sentence-transformers model into an embedder folder (ONNX, parity-checked).

    Example: cascade models export sentence-transformers/all-mpnet-base-v2 mpnet
    """
    from cascade.embed.export import export as export_embedder

    folder = open_store().folder / name
    embedder = export_embedder(model, folder)
    typer.echo(f"{folder}: {embedder.dim} dimensions, version {embedder.version}")


class pulling:
    """A download bar on a terminal, nothing elsewhere."""

    def __init__(self) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
        console = Console(stderr=True)
        self._bar = Progress(
            *columns, TransferSpeedColumn(), console=console, disable=not console.is_terminal
        )

    def __enter__(self) -> pulling:
        self._bar.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._bar.stop()

    def __call__(self, name: str, done: int, total: int) -> None:
        """Show how far a file is."""
        known = {task.description: task.id for task in self._bar.tasks}
        line = known[name] if name in known else self._bar.add_task(name, total=total)
        self._bar.update(line, completed=done, total=total)
