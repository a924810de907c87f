"""The command line's root: which commands there are, and how a failure is told.

Exit codes: 0 done, 1 failed (one sentence and the next step on stderr), 2 wrong use.
"""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

import cascade
from cascade.cli import distilling, init, keys, models, serving, validate
from cascade.errors import CascadeError, UsageError

app = typer.Typer(
    name="cascade",
    help="Answer every request with the cheapest model that is provably good enough.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "auto_envvar_prefix": "CASCADE"},
)
init.add_to(app)
models.add_to(app)
keys.add_to(app)
distilling.add_to(app)
validate.add_to(app)
serving.add_to(app)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"cascade {cascade.__version__}")
        raise typer.Exit


@app.callback()
def root(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Answer every request with the cheapest model that is provably good enough."""


def main() -> None:
    """Run the command line; a user's mistake is one sentence, not a traceback."""
    try:
        app()
    except CascadeError as exc:
        if "--debug" in sys.argv or os.environ.get("CASCADE_DEBUG", "0") != "0":
            raise
        sys.stderr.write(f"cascade: {exc}\n")
        sys.exit(2 if isinstance(exc, UsageError) else 1)
