"""Options that several commands share, named once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

ConfigPath = Annotated[
    Path,
    typer.Option("--config", "-c", envvar="CASCADE_CONFIG", help="The gateway's configuration."),
]
RecipePath = Annotated[Path, typer.Argument(help="A recipe, such as training/recipes/spam.yaml.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")]
TaskName = Annotated[str, typer.Argument(help="A task's name, such as spam.")]

DEFAULT_CONFIG = Path("serving/gateway.yaml")
