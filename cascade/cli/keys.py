"""``cascade keys``: make a key for somebody who may ask the gateway."""

from __future__ import annotations

import json
from typing import Annotated

import msgspec
import typer

from cascade.api_keys import digest_of, new_key, written
from cascade.cli.options import AsJson
from cascade.cli.output import print_json
from cascade.config import ApiKey
from cascade.errors import UsageError

keys = typer.Typer(help="API keys: make one.", no_args_is_help=True)


def add_to(app: typer.Typer) -> None:
    """Register the group."""
    app.add_typer(keys, name="keys")


@keys.command()
def new(
    name: Annotated[str | None, typer.Option(help="The tenant, as the log calls it.")] = None,
    as_json: AsJson = False,
) -> None:
    """Make a random key. It is shown once and kept nowhere; gateway.yaml holds its digest.

    Example: cascade keys new --name acme
    """
    key = new_key()
    entry = _entry(written(digest_of(key.encode())), name)
    if as_json:
        print_json({"key": key, "entry": entry})
        return
    line = json.dumps(entry)  # JSON is YAML, and quotes a tenant called `no`
    typer.echo(f"{key}\n")
    typer.echo("It is shown this once. Give it to its holder, and put in gateway.yaml:\n")
    typer.echo(f"api_keys:\n  - {line}")


def _entry(digest: str, name: str | None) -> dict[str, str] | str:
    """An item of ``api_keys``."""
    if name is None:
        return digest
    entry = {"name": name, "key": digest}
    try:
        msgspec.convert(entry, ApiKey)
    except msgspec.ValidationError as exc:
        raise UsageError("a tenant's name is 1 to 64 letters, digits, dots, - or _") from exc
    return entry
