"""How commands talk: tables and bars on a terminal, plain lines elsewhere, JSON for programs."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import orjson
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

Report = Callable[[int, int, float], None]
"""Called with (done, total, dollars so far)."""


def print_json(value: object) -> None:
    """One JSON document on standard output."""
    sys.stdout.write(orjson.dumps(value, option=orjson.OPT_INDENT_2).decode() + "\n")


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """A table on a terminal, numbers to the right; lines with tabs elsewhere."""
    if not sys.stdout.isatty():
        for row in [columns, *rows]:
            sys.stdout.write("\t".join(map(str, row)) + "\n")
        return
    table = Table(title=title, title_justify="left")
    for name in columns:
        table.add_column(name, justify="left" if name == columns[0] else "right")
    for row in rows:
        table.add_row(*(str(cell) for cell in row))
    Console().print(table)


def print_fields(fields: Mapping[str, object]) -> None:
    """``name: value`` lines."""
    for name, value in fields.items():
        sys.stdout.write(f"{name}: {value}\n")


@contextmanager
def progress(title: str) -> Iterator[Report]:
    """A bar on a terminal; elsewhere one plain line at every tenth of the work. On stderr."""
    if sys.stderr.isatty():
        yield from _bar(title)
    else:
        yield _plain_lines(title)


def _bar(title: str) -> Iterator[Report]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    money = TextColumn("${task.fields[dollars]:.4f}")
    with Progress(*columns, money, TimeRemainingColumn(), console=Console(stderr=True)) as bar:
        line = bar.add_task(title, total=None, dollars=0.0)
        yield lambda done, total, dollars: bar.update(
            line, completed=done, total=total, dollars=dollars
        )


def _plain_lines(title: str) -> Report:
    told: set[int] = set()

    def tell(done: int, total: int, dollars: float) -> None:
        tenth = 10 * done // total if total else 10
        if tenth not in told:
            told.add(tenth)
            sys.stderr.write(f"{title}: {done}/{total} ${dollars:.4f}\n")

    return tell
