"""The teacher's top k of a table for a part of its price: certified recall, and what it costs.

Two made tables (a good proxy, a poor one); 1,500 product reviews, graded by how much surer of
"positive" than of "negative" the large embedded LLM is, with the small one as the proxy; and SMS
messages with gold labels as grades, 0 or 1, so that nearly all of the top k is tied, with a proxy
trained on 300 of them. All grades are charged: those of the pilot and of training, too. Where
nothing is certified, the teacher grades the whole table.

    python training/experiments/ranking.py --data DIR --seeds 100
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from common import embeddings, parser, read_csv, show
from numpy.typing import NDArray

from cascade.certify import Guarantee, RankingAudit, audit_ranking
from cascade.certify.pilot import fit_platt
from cascade.distill.fit import fit_answerer

Floats = NDArray[np.float64]

PILOT = 150  # grades from which P(in the top k) is learnt
TRAIN = 300  # grades from which the SMS proxy is learnt


class Table(NamedTuple):
    """grades : (n,) the teacher's, at least 0. scores : (n,) the proxy's. known : rows graded."""

    grades: Floats
    scores: Floats
    known: NDArray[np.int64]


Source = Callable[[np.random.Generator], Table]


def made(noise: float, rows: int = 2000) -> Source:
    """Normal grades, and a proxy that sees them through noise."""

    def draw(rng: np.random.Generator) -> Table:
        grades = rng.normal(size=rows)
        scores = grades + noise * rng.normal(size=rows)
        return Table(grades - grades.min(), scores, pilot(rng, rows))

    return draw


def reviews(folder: Path) -> Source:
    """Log-odds of "positive" by two LLMs."""
    rows = read_csv(folder / "reviews" / "embedded_models.csv")
    large, small = (
        np.array(
            [
                float(row[f"{llm}_logp_positive"]) - float(row[f"{llm}_logp_negative"])
                for row in rows
            ]
        )
        for llm in ("large", "small")
    )
    return lambda rng: Table(large - large.min(), small, pilot(rng, len(rows)))


def messages(folder: Path) -> Source:
    """1 for spam, 0 for the rest."""
    lines = (folder / "gold/sms_spam/sms.tsv").read_text(encoding="utf-8").splitlines()
    rows = [line.split("\t", 1) for line in lines]
    spam, X = (
        np.array([int(row[0] == "spam") for row in rows]),
        embeddings([row[1] for row in rows]),
    )

    def draw(rng: np.random.Generator) -> Table:
        known = rng.choice(len(rows), TRAIN, replace=False)
        fitted = fit_answerer(X[known], spam[known], 2, rng=rng)
        scores = fitted.probabilities(X)[:, 1]
        # out of fold: a proxy is too sure of the rows that it was trained on
        scores[known] = fitted.out_of_fold[:, 1]
        return Table(spam.astype(float), scores, known)

    return draw


def pilot(rng: np.random.Generator, rows: int) -> NDArray[np.int64]:
    """Uniform rows."""
    return rng.choice(rows, PILOT, replace=False)


def chances(table: Table, k: int, rng: np.random.Generator) -> Floats:
    """(n,) P(in the top k): logistic in the proxy's rank, fitted on the known rows."""
    rows = len(table.scores)
    place = np.empty(rows)
    place[np.argsort(table.scores, kind="stable")] = (np.arange(rows) + 0.5) / rows
    grades = table.grades[table.known]
    best_first = np.lexsort((rng.random(len(grades)), -grades))
    top = np.isin(np.arange(len(grades)), best_first[: round(len(grades) * k / rows)])
    return fit_platt(place[table.known], top)(place)


def true_top(audit: RankingAudit, grades: Floats) -> NDArray[np.int64]:
    """(k,) the teacher's top k, equal grades in the order that the audit's seed has fixed."""
    ties = np.random.Generator(np.random.PCG64([audit.plan.seed, 0])).random(len(grades))
    return np.lexsort((ties, grades))[: -audit.plan.k - 1 : -1]


def run(source: Source, k: int, guarantee: Guarantee, seed: int) -> dict[str, float]:
    """One audit, and what it found."""
    rng = np.random.default_rng(seed)
    table = source(rng)
    known = {int(row): float(table.grades[row]) for row in table.known}
    audit = RankingAudit(chances(table, k, rng), k, guarantee, rng=rng, known=known)
    rows = len(table.grades)
    result = audit_ranking(audit, lambda row: float(table.grades[row]), rows, "0" * 64)
    if result.certificate is None:
        return {"certified": 0.0, "graded": 1.0, "failures": 0.0}
    truth = true_top(audit, table.grades)
    recall = float(np.isin(truth, result.top).mean())
    discount = 1 / np.log2(np.arange(2, k + 2))
    return {
        "certified": 1.0,
        "graded": len(result.grades) / rows,
        "failures": float(recall < result.certificate.bound - 1e-9),
        "bound": result.certificate.bound,
        "recall": recall,
        "ndcg": float(table.grades[result.top] @ discount / (table.grades[truth] @ discount)),
        "ndcg estimate": result.ndcg,
    }


FIGURES = ("certified", "graded", "failures", "bound", "recall", "ndcg", "ndcg estimate")


def measure(name: str, source: Source, k: int, goal: Guarantee, seeds: int) -> dict[str, Any]:
    """One line of the result."""
    runs = [run(source, k, goal, seed) for seed in range(seeds)]
    row: dict[str, Any] = {"table": name, "k": k, "target": goal.target, "delta": goal.delta}
    for figure in FIGURES:
        values = [one[figure] for one in runs if figure in one]
        row[figure] = float(np.mean(values)) if values else None
    return {**row, "seeds": seeds}


def plot(rows: Sequence[dict[str, Any]], file: Path) -> None:
    """Share of the rows that the teacher graded; at each bar, the recall that was certified."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 0.4 * len(rows) + 1), layout="constrained")
    axes = figure.subplots()
    bars = axes.barh(
        [f"{row['table']}, {row['target']:g}" for row in rows], [row["graded"] for row in rows]
    )
    axes.bar_label(bars, ["" if row["bound"] is None else f"{row['bound']:.3f}" for row in rows])
    axes.set(xlabel="rows graded by the teacher", xlim=(0, 1.15))
    figure.savefig(file, dpi=150)


def main() -> None:
    arguments = parser(str(__doc__).splitlines()[0], seeds=100)
    arguments.add_argument("--target", type=float, nargs="+", default=[0.8, 0.9])
    arguments.add_argument("--delta", type=float, default=0.1)
    chosen = arguments.parse_args()
    tables: dict[str, tuple[Source, int]] = {
        "made, good proxy": (made(0.3), 200),
        "made, poor proxy": (made(1.5), 200),
        "reviews, LLM grades": (reviews(chosen.data), 150),
        "sms, gold grades": (messages(chosen.data), 500),
    }
    rows = [
        measure(name, source, k, Guarantee(target, chosen.delta), chosen.seeds)
        for name, (source, k) in tables.items()
        for target in chosen.target
    ]
    show(rows, chosen.json)
    if chosen.plot:
        plot(rows, chosen.plot)


if __name__ == "__main__":
    main()
