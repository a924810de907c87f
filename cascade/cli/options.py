"""Options that several commands share, named once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

DEFAULT_CONFIG = Path("gateway.yaml")
"""Where ``cascade init`` puts it."""

CHECKOUT_CONFIG = Path("serving/gateway.yaml")
"""Where it is in Cascade's own repository."""


def _find_config(path: Path) -> Path:
    default = path == DEFAULT_CONFIG and not path.exists()
    return CHECKOUT_CONFIG if default and CHECKOUT_CONFIG.exists() else path


ConfigPath = Annotated[
    Path,
    typer.Option(
        "--config",
        "-c",
        envvar="CASCADE_CONFIG",
        callback=_find_config,
        help="The gateway's configuration; in Cascade's repository serving/gateway.yaml.",
    ),
]
RecipePath = Annotated[Path, typer.Argument(help="A recipe, such as training/recipes/spam.yaml.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")]
TaskName = Annotated[str, typer.Argument(help="A task's name, such as spam.")]
