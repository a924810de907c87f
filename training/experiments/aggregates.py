"""How narrow is a share's interval for so many labels, and how often does it miss the truth?

    python training/experiments/aggregates.py --data DIR

Five synthetic tables and every CSV ``id,label,proxy_score`` in DIR/bargain. Ours fit the score on a
pilot, which is charged. The baselines label rows at random and know no score: ``uniform`` with the
normal approximation, ``uniform exact`` with the same bets as ours (without predictions).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from common import parser, read_csv, show
from numpy.typing import NDArray

from cascade.certify import Aggregate, MeanAudit, stratify
from cascade.certify.pilot import fit_platt, pilot_rows

Floats = NDArray[np.float64]

BUDGETS = (200, 400)
PILOT = 40
DELTA = 0.1
Z = 1.6449  # of the normal distribution, at DELTA
ROWS = 10_000


class Table(NamedTuple):
    """scores : (n,) the proxy's P(yes), calibrated or not. values : (n,) the teacher's 0 or 1."""

    name: str
    scores: Floats
    values: Floats


def tables(data: Path) -> Iterator[Table]:
    """Real ones first."""
    for path in sorted((data / "bargain").glob("*.csv")):
        rows = read_csv(path)
        yes = [row["label"].lower() in {"1", "true"} for row in rows]
        scores = [float(row["proxy_score"]) for row in rows]
        yield Table(path.stem, np.array(scores), np.array(yes, dtype=np.float64))
    rng = np.random.default_rng(0)
    common, rare, noise = rng.beta(0.5, 1.5, ROWS), rng.beta(0.1, 4, ROWS), rng.random(ROWS)
    yield Table("calibrated", common, _tossed(rng, common))
    yield Table("rare", rare, _tossed(rng, rare))
    yield Table("overconfident", common**2 / (common**2 + (1 - common) ** 2), _tossed(rng, common))
    yield Table("useless", noise, _tossed(rng, np.full(ROWS, 0.3)))
    yield Table("inverted", common, _tossed(rng, 1 - common))


def exact(table: Table, labels: int, rng: np.random.Generator) -> Aggregate:
    """Ours with a guarantee."""
    pilot = pilot_rows(table.scores, PILOT, rng)
    fitted = fit_platt(table.scores[pilot], table.values[pilot] == 1)(table.scores)
    known = dict(zip(pilot.tolist(), table.values[pilot].tolist(), strict=True))
    return _audited(fitted, table.values, labels - len(pilot), rng, known)


def stratified(table: Table, labels: int, rng: np.random.Generator) -> Aggregate:
    """Ours, asymptotic. The pilot only fits the scores."""
    pilot = pilot_rows(table.scores, PILOT, rng)
    fitted = fit_platt(table.scores[pilot], table.values[pilot] == 1)(table.scores)
    sample = stratify(fitted, labels - len(pilot), rng)
    return sample.interval(table.values[sample.rows], DELTA)


def uniform(table: Table, labels: int, rng: np.random.Generator) -> Aggregate:
    """Rows at random, normal approximation with the finite-population correction."""
    seen = rng.choice(table.values, labels, replace=False)
    mean, rows = float(seen.mean()), len(table.values)
    margin = Z * float(np.sqrt(seen.var(ddof=1) / labels * (1 - labels / rows)))
    return Aggregate(mean, mean - margin, mean + margin, DELTA, rows, labels)


def uniform_exact(table: Table, labels: int, rng: np.random.Generator) -> Aggregate:
    """Rows at random, betting without replacement (Waudby-Smith & Ramdas)."""
    blind = np.full(len(table.values), 0.5)
    return _audited(blind, table.values, labels, rng, {})


METHODS: dict[str, Callable[[Table, int, np.random.Generator], Aggregate]] = {
    "exact": exact,
    "uniform exact": uniform_exact,
    "stratified": stratified,
    "uniform": uniform,
}


def measured(table: Table, labels: int, seeds: int) -> Iterator[dict[str, Any]]:
    """One row a method. width : mean, of the interval for the share."""
    truth = float(table.values.mean())
    for name, method in METHODS.items():
        found = [method(table, labels, np.random.default_rng([labels, s])) for s in range(seeds)]
        yield {
            "table": table.name,
            "share": truth,
            "labels": labels,
            "method": name,
            "delta": DELTA,
            "misses": sum(not one.low <= truth <= one.high for one in found),
            "seeds": seeds,
            "width": float(np.mean([one.high - one.low for one in found])),
        }


def main() -> None:
    arguments = parser("Intervals for a share, by labels.", seeds=200).parse_args()
    rows = [
        row
        for table in tables(arguments.data)
        for labels in BUDGETS
        for row in measured(table, labels, arguments.seeds)
    ]
    show(rows, arguments.json)
    if arguments.plot:
        plot(rows, arguments.plot)


def plot(rows: list[dict[str, Any]], file: Path) -> None:
    """Mean widths at the largest budget, a group of bars for each table."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4), layout="constrained")
    axes = figure.subplots()
    names = list(dict.fromkeys(row["table"] for row in rows))
    for index, method in enumerate(METHODS):
        mine = [r for r in rows if r["method"] == method and r["labels"] == BUDGETS[-1]]
        axes.bar(np.arange(len(names)) + 0.2 * index, [row["width"] for row in mine], 0.18)
    axes.set_xticks(np.arange(len(names)) + 0.3, names)
    axes.set_ylabel(f"width at {BUDGETS[-1]} labels")
    axes.legend(METHODS)
    figure.savefig(file)


def _audited(
    predictions: Floats,
    values: Floats,
    labels: int,
    rng: np.random.Generator,
    known: dict[int, float],
) -> Aggregate:
    audit = MeanAudit(predictions, labels=labels, seed=int(rng.integers(2**63)), known=known)
    for _ in range(labels):
        if (draw := audit.draw()) is None:
            break
        audit.record(draw, float(values[draw.row]))
    return audit.interval(DELTA)


def _tossed(rng: np.random.Generator, chance: Floats) -> Floats:
    return (rng.random(len(chance)) < chance).astype(np.float64)


if __name__ == "__main__":
    main()
