"""Filters against BARGAIN, SUPG and LOTUS: a precision or recall target within a label budget.

For every CSV ``id,label,proxy_score`` of a folder, many seeds: how good the measure is that was not
promised, and how often the promised one is missed. Every row that the teacher sees counts against
the budget: pilot, teacher zone, audit and mending. Only ours and BARGAIN prove what they promise,
for any table; the line ``ceiling`` says how precise such a proof can be at the recall target at
best (``filters_ceiling.py``). The constants of our method were chosen on made tables only
(``tables_made.py``), never on these.

    python training/experiments/filters.py --data DIR --target .9 --delta .1 --budget 400 --json -
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from common import parser, show
from filters_ceiling import recall_ceiling
from filters_rivals import (
    Answer,
    bargain_precision,
    bargain_recall,
    lotus_precision,
    lotus_recall,
    supg_precision,
    supg_recall,
)
from tables import read_table
from tables_rivals import Table

from cascade.certify import Guarantee, Precision, Recall, certify_filter
from cascade.certify.aims import Aim

Method = Callable[[Table, Guarantee, int, int], Answer]


class Cell(NamedTuple):
    """One line of the result, before it is measured."""

    table: Table
    mode: str
    name: str
    method: Method


def ours_precision(table: Table, guarantee: Guarantee, budget: int, seed: int) -> Answer:
    """One call with a ``Precision``."""
    return _ours(table, Precision(guarantee), budget, seed)


def ours_recall(table: Table, guarantee: Guarantee, budget: int, seed: int) -> Answer:
    """One call with a ``Recall``."""
    return _ours(table, Recall(guarantee), budget, seed)


def _ours(table: Table, aim: Aim, budget: int, seed: int) -> Answer:
    rng = np.random.default_rng(seed)
    result = certify_filter(
        table.scores, table.labels.__getitem__, [aim], budget, rng=rng, table_digest=table.name
    )
    rows = np.zeros(len(table.scores), dtype=bool)
    rows[result.answer] = True
    return Answer(rows, len(result.labels))


METHODS: dict[str, dict[str, Method]] = {
    "precision": {
        "ours": ours_precision,
        "bargain": bargain_precision,
        "supg": supg_precision,
        "lotus": lotus_precision,
    },
    "recall": {
        "ours": ours_recall,
        "bargain": bargain_recall,
        "supg": supg_recall,
        "lotus": lotus_recall,
    },
}


def installed(name: str, table: Table) -> bool:
    """Whether a method's package is there; says so where it is not."""
    try:
        METHODS["recall"][name](table, Guarantee(0.9, 0.1), 50, 0)
    except ModuleNotFoundError:
        print(f"{name} is not installed: make baselines", file=sys.stderr)
        return False
    return True


def measure(cell: Cell, guarantee: Guarantee, budget: int, seeds: int) -> dict[str, Any]:
    """One line of the result: means over the seeds."""
    answers = [cell.method(cell.table, guarantee, budget, seed) for seed in range(seeds)]
    labels = cell.table.labels
    hits = np.array([float((answer.rows & labels).sum()) for answer in answers])
    sizes = np.array([float(answer.rows.sum()) for answer in answers])
    quality = {
        "precision": np.where(sizes > 0, hits / np.maximum(sizes, 1), 1.0),
        "recall": hits / max(int(labels.sum()), 1),
    }
    return {
        "table": cell.table.name,
        "method": cell.name,
        "mode": cell.mode,
        "target": guarantee.target,
        "delta": guarantee.delta,
        "budget": budget,
        "precision": float(quality["precision"].mean()),
        "recall": float(quality["recall"].mean()),
        "failures": float(np.mean(quality[cell.mode] < guarantee.target - 1e-9)),
        "labels": float(np.mean([answer.labels for answer in answers])),
        "seeds": seeds,
    }


def ceiling(table: Table, guarantee: Guarantee, budget: int) -> dict[str, Any]:
    """The line of the best that a method with a proof could do."""
    return {
        "table": table.name,
        "method": "ceiling",
        "mode": "recall",
        "target": guarantee.target,
        "delta": guarantee.delta,
        "budget": budget,
        "precision": recall_ceiling(table, guarantee, budget),
        "recall": guarantee.target,
        "failures": guarantee.delta,
        "labels": float(budget),
        "seeds": 0,
    }


def plot(rows: Sequence[dict[str, Any]], to: Path) -> None:
    """Two panels: recall at the precision target, precision at the recall target."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    tables, methods = (sorted({row[key] for row in rows}) for key in ("table", "method"))
    figure, axes = pyplot.subplots(1, 2, figsize=(9, 3.5), sharey=True)
    for axis, mode, other in zip(axes, METHODS, reversed(METHODS), strict=True):
        for place, method in enumerate(methods):
            bars = {
                row["table"]: row[other]
                for row in rows
                if row["mode"] == mode and row["method"] == method
            }
            at = np.arange(len(tables)) + place / (len(methods) + 1)
            axis.bar(at, [bars.get(name, 0) for name in tables], 0.8 / len(methods), label=method)
        axis.set_xticks(np.arange(len(tables)) + 0.3, tables)
        axis.set_title(f"{other} at the {mode} target")
    axes[0].legend()
    figure.savefig(to, bbox_inches="tight")


def main() -> None:
    arguments = parser(str(__doc__).splitlines()[0], seeds=50)
    arguments.add_argument("--target", type=float, nargs="+", default=[0.9])
    arguments.add_argument("--delta", type=float, nargs="+", default=[0.1])
    arguments.add_argument("--budget", type=int, nargs="+", default=[400])
    names = list(METHODS["recall"])
    arguments.add_argument("--method", nargs="+", choices=names, default=names)
    chosen = arguments.parse_args()

    tables = [table for path in sorted(chosen.data.glob("*.csv")) if (table := read_table(path))]
    if not tables:
        raise SystemExit(f"no CSV with the columns label and proxy_score in {chosen.data}")
    found = [name for name in chosen.method if installed(name, tables[0])]
    cells = [
        Cell(table, mode, name, METHODS[mode][name])
        for table in tables
        for mode in METHODS
        for name in found
    ]
    settings = [
        (Guarantee(target, delta), budget)
        for target in chosen.target
        for delta in chosen.delta
        for budget in chosen.budget
    ]
    rows = [measure(cell, *setting, chosen.seeds) for cell in cells for setting in settings]
    rows += [ceiling(table, *setting) for table in tables for setting in settings]
    show(rows, chosen.json)
    if chosen.plot:
        plot(rows, chosen.plot)


if __name__ == "__main__":
    main()
