"""What every command says of itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import typer

from cascade.cli.app import app
from tests.cli.homes import invoke


def commands(group: Any, *path: str) -> Iterator[tuple[str, ...]]:
    """The path of every command; typer brings click along under another name."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, *path, name)
        else:
            yield (*path, name)


EVERY = list(commands(typer.main.get_command(app)))


@pytest.mark.parametrize("command", EVERY, ids=" ".join)
def test_help_has_an_example_that_calls_it(command: tuple[str, ...]) -> None:
    shown = invoke(*command, "--help")
    assert shown.exit_code == 0
    words = " ".join(shown.stdout.split())
    assert f"Example: cascade {' '.join(command)}" in words


def test_commands_are_the_ones_of_the_readme() -> None:
    named = {" ".join(one) for one in EVERY}
    assert {"label", "train", "certify", "promote", "rollback", "evaluate", "status"} < named
    assert {"serve", "ask", "validate", "ui", "demo", "certificate verify", "models pull"} < named
