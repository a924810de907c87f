"""Does it pay to choose whose labels to buy? Uniform rows against the curriculum, label for label.

Spam among text messages as it is (13%) and thinned to 3%, and hate speech as GPT-3.5 sees it. A
proxy is fitted and calibrated on the rows that were bought, the curriculum's with their weights,
without them for comparison. On rows that nobody looked at: F1 of the positive label; the share that
the proxy could handle at 95% agreement; how many answers are really wrong where the path's rung
promises 4%; and how far P(agree) is off (expected calibration error).

    python training/experiments/buying.py --data DIR --seeds 10
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from common import ROOT, embeddings, parser, show
from numpy.typing import NDArray
from quality import f1, hatespeech, sms

from cascade.distill.calibrate import calibrate_proxy
from cascade.distill.curriculum import Curriculum
from cascade.distill.fit import fit_answerer
from cascade.distill.learning_curve import handled_share
from cascade.distill.report import calibration_error, reliability_bins
from cascade.distill.sample import CANDIDATES_A_LABEL, representative
from cascade.embed import load_embedder
from cascade.errors import NotEnoughSignal
from cascade.tiers.proxy import proxy_features

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]

LABELS = (150, 400)
TARGET, PROMISED = 0.95, 0.04
TEST_ROWS = 3000
EMBEDDER = "minilm-int8"


@dataclass(frozen=True)
class Table:
    """X : (n, d); y : (n,) 1 where the teacher says yes; words : (n,); question : (d,)."""

    name: str
    X: NDArray[np.float32]
    y: Indices
    words: Indices
    question: NDArray[np.float32]


@dataclass(frozen=True)
class Bought:
    """rows : (n,) of the table. weight : (n,) what each stands for."""

    rows: Indices
    weight: Floats


def load(folder: Path) -> Iterator[Table]:
    """The three tables."""
    embedder = load_embedder(EMBEDDER, ROOT / "models")
    for data, question in (
        (sms(folder), "Is this message spam?"),
        (hatespeech(folder), "Is this hate speech?"),
    ):
        (texts,) = data.parts
        words = np.array([len(text.split()) for text in texts])
        whole = Table(
            data.name, embeddings(texts), data.teacher, words, embedder.encode([question])[0]
        )
        yield whole
        if data.name == "sms":
            yield thinned(whole, 0.03)


def thinned(table: Table, positive: float) -> Table:
    """With so many positives only, chosen at random."""
    rng = np.random.default_rng(0)
    negatives, positives = np.flatnonzero(table.y == 0), np.flatnonzero(table.y == 1)
    few = rng.choice(positives, int(positive / (1 - positive) * len(negatives)), replace=False)
    rows = np.sort(np.concatenate([negatives, few]))
    name = f"{table.name}, {positive:.0%} positive"
    return Table(name, table.X[rows], table.y[rows], table.words[rows], table.question)


def buy_uniform(table: Table, pool: Indices, labels: int, rng: np.random.Generator) -> Bought:
    return Bought(pool[:labels], np.ones(labels))


def buy_chosen(table: Table, pool: Indices, labels: int, rng: np.random.Generator) -> Bought:
    curriculum = Curriculum(table.X[pool], table.question, 2, most=labels, rng=rng)
    while len(rows := curriculum.next_rows()):
        curriculum.record(table.y[pool[rows]])
    return Bought(pool[curriculum.sample.rows], curriculum.sample.weights)


def buy_chosen_unweighted(
    table: Table, pool: Indices, labels: int, rng: np.random.Generator
) -> Bought:
    return Bought(buy_chosen(table, pool, labels, rng).rows, np.ones(labels))


WAYS = {"uniform": buy_uniform, "curriculum": buy_chosen, "unweighted": buy_chosen_unweighted}


def measure(
    table: Table, bought: Bought, test: Indices, rng: np.random.Generator
) -> dict[str, float]:
    """Figures of one proxy; none could be fitted: NaN but for the positives found."""
    X, y, words = table.X[bought.rows], table.y[bought.rows], table.words[bought.rows]
    try:
        answerer = fit_answerer(X, y, 2, rng=rng)
    except NotEnoughSignal:
        return {"positives": float(y.sum()), "fitted": 0.0}
    proxy = calibrate_proxy(X, y, words, answerer, rng=rng, weight=bought.weight)
    chances = answerer.probabilities(table.X[test])
    said, truth = chances.argmax(axis=1), table.y[test]
    looks = proxy.neighbourhood.look(table.X[test], said)
    trust = proxy.agreement.model.confidence(proxy_features(chances, looks, table.words[test]))
    right = said == truth
    promised = proxy.agreement.out_of_fold[representative(bought.weight)]
    return {
        "positives": float(y.sum()),
        "fitted": 1.0,
        "f1": f1(truth, said),
        "agreement": float(right.mean()),
        "handled": handled_share(trust, right, np.ones(len(right)), TARGET),
        "wrong": float((~right & (trust >= rung(promised))).mean()),
        "calibration_error": calibration_error(reliability_bins(trust, right)),
    }


def rung(promised: Floats) -> float:
    """The confidence from which on ``PROMISED`` of all rows are expected to go wrong."""
    surest = -np.sort(-promised)
    fits = np.flatnonzero(np.cumsum(1 - surest) <= PROMISED * len(surest))
    return float(surest[fits[-1]]) if fits.size else 2.0


def compare(table: Table, labels: int, seeds: int) -> Iterator[dict[str, Any]]:
    """A row a way of buying, averaged over the seeds in which a proxy could be fitted."""
    found: dict[str, list[dict[str, float]]] = {name: [] for name in WAYS}
    for seed in range(seeds):
        order = np.random.default_rng(seed).permutation(len(table.y))
        pool, test = order[TEST_ROWS:][: CANDIDATES_A_LABEL * labels], order[:TEST_ROWS]
        for name, buy in WAYS.items():
            rng = np.random.default_rng(seed)
            found[name].append(measure(table, buy(table, pool, labels, rng), test, rng))
    keys = ["positives", "fitted", "f1", "agreement", "handled", "wrong", "calibration_error"]
    for name, runs in found.items():
        means = {
            key: float(np.mean([run[key] for run in runs if key in run] or [np.nan]))
            for key in keys
        }
        yield {"data": table.name, "labels": labels, "bought": name, **means, "seeds": seeds}


def plot(rows: Sequence[dict[str, Any]], file: Path) -> None:
    """F1 of the positive label by number of labels."""
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(row["data"] for row in rows))
    figure = Figure(figsize=(3.4 * len(names), 3.4), layout="constrained")
    for axes, name in zip(np.atleast_1d(figure.subplots(1, len(names))), names, strict=True):
        for way in WAYS:
            line = [row for row in rows if (row["data"], row["bought"]) == (name, way)]
            axes.plot([r["labels"] for r in line], [r["f1"] for r in line], "o-", label=way)
        axes.set(title=name, xlabel="labels", ylabel="F1 of the positive label")
    axes.legend(fontsize=6)
    figure.savefig(file, dpi=150)


def main() -> None:
    arguments = parser(__doc__ or "", seeds=10).parse_args()
    rows = [
        row
        for table in load(arguments.data)
        for labels in LABELS
        for row in compare(table, labels, arguments.seeds)
    ]
    show(rows, arguments.json)
    if arguments.plot:
        plot(rows, arguments.plot)


if __name__ == "__main__":
    main()
