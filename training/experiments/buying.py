"""Does it pay to choose whose labels to buy? Uniform rows against the curriculum, label for label.

Spam among text messages as it is (13%) and thinned to 3%, and hate speech as GPT-3.5 sees it. A
proxy is fitted on the rows that were bought and calibrated with their weights; "unweighted" shows
what happens without. On rows that nobody looked at: F1 of the positive label; the share that the
proxy could handle at 95% agreement; how many answers are really wrong where 4% are promised; and
how far P(agree) is off (expected calibration error).

    python training/experiments/buying.py --data DIR --seeds 8
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from common import ROOT, parser, show
from numpy.typing import NDArray
from quality import Data, f1, hatespeech, sms
from quality_lesson import Table, learn

from cascade.distill.curriculum import Curriculum, Sample
from cascade.distill.learning_curve import handled_share
from cascade.distill.sample import CANDIDATES_A_LABEL
from cascade.embed import load_embedder
from cascade.errors import NotEnoughSignal

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]

LABELS = (150, 400)
TARGET, PROMISED = 0.95, 0.04
TEST_ROWS = 3000
EMBEDDER = "minilm-int8"


@dataclass(frozen=True)
class Market:
    """A table whose labels are for sale. question : (d,) embedding of the task's question."""

    name: str
    table: Table
    question: NDArray[np.float32]


Bought = tuple[Indices, Floats | None]
"""Rows of the table, and what each stands for."""


def load(folder: Path) -> Iterator[Market]:
    """The three tables."""
    spam = market(sms(folder), "Is this message spam? yes")
    yield spam
    yield thinned(spam, 0.03)
    yield market(hatespeech(folder), "Is this hate speech? yes")


def market(data: Data, question: str) -> Market:
    asked = load_embedder(EMBEDDER, ROOT / "models").encode([question])[0]
    return Market(data.name, data.table(EMBEDDER), asked)


def thinned(whole: Market, positive: float) -> Market:
    """With so few positives, chosen at random."""
    table, rng = whole.table, np.random.default_rng(0)
    negatives, positives = np.flatnonzero(table.y == 0), np.flatnonzero(table.y == 1)
    few = rng.choice(positives, int(positive / (1 - positive) * len(negatives)), replace=False)
    rows = np.sort(np.concatenate([negatives, few]))
    kept = replace(table, X=table.X[rows], y=table.y[rows], words=table.words[rows])
    return Market(f"{whole.name}, {positive:.0%} positive", kept, whole.question)


def uniform(shop: Market, pool: Indices, labels: int, rng: np.random.Generator) -> Bought:
    return pool[:labels], None


def curriculum(shop: Market, pool: Indices, labels: int, rng: np.random.Generator) -> Bought:
    sample = study(shop, pool, labels, rng)
    return pool[sample.rows], sample.weights


def unweighted(shop: Market, pool: Indices, labels: int, rng: np.random.Generator) -> Bought:
    return pool[study(shop, pool, labels, rng).rows], None


def study(shop: Market, pool: Indices, labels: int, rng: np.random.Generator) -> Sample:
    asking = Curriculum(shop.table.X[pool], shop.question, 2, most=labels, rng=rng)
    while len(rows := asking.next_rows()):
        asking.record(shop.table.y[pool[rows]])
    return asking.sample


WAYS: tuple[Callable[..., Bought], ...] = (uniform, curriculum, unweighted)


def measure(
    shop: Market, bought: Bought, test: Indices, rng: np.random.Generator
) -> dict[str, float]:
    """Figures of one proxy; where none could be fitted, only the positives found."""
    rows, weight = bought
    found = {"positives": float(shop.table.y[rows].sum()), "fitted": 0.0}
    try:
        lesson = learn(shop.table, rows, test, weight=weight, rng=rng)
    except NotEnoughSignal:
        return found
    alike = np.ones(len(test))
    return found | {
        "fitted": 1.0,
        "f1": f1(shop.table.y[test], lesson.said),
        "agreement": float(lesson.right.mean()),
        "handled": handled_share(lesson.trust, lesson.right, alike, TARGET),
        "wrong": lesson.wrong_where(PROMISED),
        "calibration_error": lesson.calibration_error,
    }


FIGURES = ("positives", "fitted", "f1", "agreement", "handled", "wrong", "calibration_error")


def compare(shop: Market, labels: int, seeds: int) -> Iterator[dict[str, Any]]:
    """A row a way of buying, averaged over the seeds in which a proxy could be fitted."""
    for way in WAYS:
        runs = []
        for seed in range(seeds):
            rng = np.random.default_rng(seed)
            test, rest = np.split(rng.permutation(len(shop.table.y)), [TEST_ROWS])
            bought = way(shop, rest[: CANDIDATES_A_LABEL * labels], labels, rng)
            runs.append(measure(shop, bought, test, rng))
        means = {
            key: float(np.mean([run[key] for run in runs if key in run] or [np.nan]))
            for key in FIGURES
        }
        yield {"data": shop.name, "labels": labels, "way": way.__name__, **means, "seeds": seeds}


def plot(rows: Sequence[dict[str, Any]], file: Path) -> None:
    """F1 of the positive label by number of labels."""
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(row["data"] for row in rows))
    figure = Figure(figsize=(3.4 * len(names), 3.4), layout="constrained")
    for axes, name in zip(np.atleast_1d(figure.subplots(1, len(names))), names, strict=True):
        for way in dict.fromkeys(row["way"] for row in rows):
            line = [row for row in rows if (row["data"], row["way"]) == (name, way)]
            axes.plot([r["labels"] for r in line], [r["f1"] for r in line], "o-", label=way)
        axes.set(title=name, xlabel="labels", ylabel="F1 of the positive label")
    axes.legend(fontsize=6)
    figure.savefig(file, dpi=150)


def main() -> None:
    arguments = parser(__doc__ or "", seeds=8).parse_args()
    rows = [
        row
        for shop in load(arguments.data)
        for labels in LABELS
        for row in compare(shop, labels, arguments.seeds)
    ]
    show(rows, arguments.json)
    if arguments.plot:
        plot(rows, arguments.plot)


if __name__ == "__main__":
    main()
