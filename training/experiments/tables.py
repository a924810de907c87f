"""Tables against BARGAIN, SUPG and LOTUS: teacher calls avoided at a guaranteed agreement.

For every CSV ``id,label,proxy_score`` of a folder, every target and delta, many seeds: the share of
rows that the teacher never sees, *all* labels bought on the way subtracted, and how often the final
answers miss the target. The constants of our method were chosen on made tables only
(``tables_made.py``), never on these.

    python training/experiments/tables.py --data DIR --target .9 .95 --delta .1 .01 --json -
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from common import parser, read_csv, show
from tables_rivals import Outcome, Table, bargain, lotus, supg

from cascade.certify import Guarantee, certify_table

TRUE = {"1", "1.0", "true", "yes"}
FALSE = {"0", "0.0", "false", "no"}

Method = Callable[[Table, Guarantee, int], Outcome]


def read_table(path: Path) -> Table | None:
    """None where the file is not of this form."""
    rows = read_csv(path)
    if not rows or not {"label", "proxy_score"} <= set(rows[0]):
        return None
    scores = np.array([float(row["proxy_score"]) for row in rows])
    return Table(path.stem, scores, np.array([read_label(row["label"]) for row in rows]))


def read_label(text: str) -> bool:
    """Whether a label is positive, however it is written."""
    word = text.strip().lower()
    if word not in TRUE | FALSE:
        raise SystemExit(f"{text!r} is no label: write 0/1, true/false or yes/no")
    return word in TRUE


def ours(table: Table, guarantee: Guarantee, seed: int) -> Outcome:
    """One call, with scores, a teacher and a seed."""
    rng, labels = np.random.default_rng(seed), table.labels.astype(np.int64)
    result = certify_table(table.scores, labels.__getitem__, guarantee, rng=rng)
    return Outcome(float(np.mean(result.answers == labels)), result.avoided, result.labels)


METHODS: dict[str, Method] = {"ours": ours, "bargain": bargain, "supg": supg, "lotus": lotus}


def installed(methods: dict[str, Method], table: Table) -> dict[str, Method]:
    """Those whose package is there; the others are named."""
    found = {}
    for name, method in methods.items():
        try:
            method(table, Guarantee(0.9, 0.1), 0)
            found[name] = method
        except ModuleNotFoundError:
            print(f"{name} is not installed: make baselines", file=sys.stderr)
    return found


def measure(
    name: str, method: Method, table: Table, guarantee: Guarantee, seeds: int
) -> dict[str, Any]:
    """One line of the result."""
    runs = [method(table, guarantee, seed) for seed in range(seeds)]
    return {
        "table": table.name,
        "method": name,
        "target": guarantee.target,
        "delta": guarantee.delta,
        "avoided": float(np.mean([run.avoided for run in runs])),
        "failures": float(np.mean([run.agreement < guarantee.target - 1e-9 for run in runs])),
        "labels": float(np.mean([run.labels for run in runs])),
        "seeds": seeds,
    }


def plot(rows: Sequence[dict[str, Any]], to: Path) -> None:
    """One panel a target and delta: bars of calls avoided, a group for every table."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    cells = sorted({(row["target"], row["delta"]) for row in rows})
    tables, methods = (sorted({row[key] for row in rows}) for key in ("table", "method"))
    figure, axes = pyplot.subplots(1, len(cells), figsize=(4 * len(cells), 3.5), sharey=True)
    for axis, cell in zip(np.atleast_1d(axes), cells, strict=True):
        for place, method in enumerate(methods):
            bars = {
                row["table"]: row["avoided"]
                for row in rows
                if (row["target"], row["delta"]) == cell and row["method"] == method
            }
            at = np.arange(len(tables)) + place / (len(methods) + 1)
            axis.bar(at, [bars[name] for name in tables], 1 / (len(methods) + 1), label=method)
        axis.set_xticks(np.arange(len(tables)) + 0.3, tables)
        axis.set_title(f"target {cell[0]}, delta {cell[1]}")
    axis.legend()
    figure.savefig(to, bbox_inches="tight")


def main() -> None:
    arguments = parser(str(__doc__).splitlines()[0], seeds=200)
    arguments.add_argument("--target", type=float, nargs="+", default=[0.9, 0.95])
    arguments.add_argument("--delta", type=float, nargs="+", default=[0.1, 0.01])
    arguments.add_argument("--method", nargs="+", choices=METHODS, default=list(METHODS))
    chosen = arguments.parse_args()

    tables = [table for path in sorted(chosen.data.glob("*.csv")) if (table := read_table(path))]
    if not tables:
        raise SystemExit(f"no CSV with the columns label and proxy_score in {chosen.data}")
    methods = installed({name: METHODS[name] for name in chosen.method}, tables[0])
    rows = [
        measure(name, method, table, Guarantee(target, delta), chosen.seeds)
        for table in tables
        for target in chosen.target
        for delta in chosen.delta
        for name, method in methods.items()
    ]
    show(rows, chosen.json)
    if chosen.plot:
        plot(rows, chosen.plot)


if __name__ == "__main__":
    main()
