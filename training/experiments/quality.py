"""How good a proxy gets with how many labels: logistic regression and LightGBM, two embedders.

Four data sets. Banking77 (77 intents, GPT-4 is the teacher) and hatespeech (GPT-3.5) have gold
labels as well, so the proxy's F1 can be set against its teacher's; on AG News and SMS spam the gold
labels are the teacher, whose F1 is then 1. F1 is that of the positive label for two labels, the
macro average for more. Labels are drawn uniformly; everything else is the test set.

    python training/experiments/quality.py --data DIR --seeds 5
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from common import embeddings, parser, read_csv, show
from numpy.typing import NDArray
from sklearn.metrics import f1_score

from cascade.distill.fit import STRENGTHS, TREES_UP_TO_LABELS, LinearLearner, TreesLearner
from cascade.distill.fit import fit_answerer as fit

Indices = NDArray[np.int64]

LABELS = (100, 300, 1000, 3000)
EMBEDDERS = ("minilm-int8", "wordllama-256")
LEAST_TEST_ROWS = 1000
BAND = (0.90, 1.02)  # F1 of a proxy over F1 of its LLM, as published for such proxies


@dataclass(frozen=True)
class Data:
    """A labelled table. texts : in parts, as files hold them; teacher, gold : (n,) indices."""

    name: str
    parts: list[list[str]]
    teacher: Indices
    gold: Indices
    n_labels: int

    def embedded(self, embedder: str) -> NDArray[np.float32]:
        """(n, d) unit rows."""
        return np.vstack([embeddings(part, embedder=embedder) for part in self.parts])


def banking(folder: Path) -> Data:
    """77 intents; texts labelled by GPT-4."""
    names = ("raw_banking77_test.csv", "processed_banking77_dev.csv")
    files = [read_csv(folder / "banking77" / name) for name in names]
    rows = [row for file in files for row in file]
    teacher = np.array([int(row["gpt-label"]) for row in rows])
    gold = np.array([int(row["label"]) for row in rows])
    return Data("banking77", [[row["text"] for row in one] for one in files], teacher, gold, 77)


def hatespeech(folder: Path) -> Data:
    """Sentences of a forum, labelled by GPT-3.5."""
    rows = read_csv(folder / "hatespeech" / "hatespeech.csv")
    teacher = np.array([int(row["gpt35"]) for row in rows])
    gold = np.array([int(row["gold"]) for row in rows])
    return Data("hatespeech", [[row["text"] for row in rows]], teacher, gold, 2)


def agnews(folder: Path) -> Data:
    """Four topics of news."""
    with (folder / "gold/agnews_test/test.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    gold = np.array([int(row[0]) - 1 for row in rows])
    return Data("agnews", [[f"{row[1]}. {row[2]}" for row in rows]], gold, gold, 4)


def sms(folder: Path) -> Data:
    """Short messages, 13% spam."""
    lines = (folder / "gold/sms_spam/sms.tsv").read_text(encoding="utf-8").splitlines()
    rows = [line.split("\t", 1) for line in lines]
    gold = np.array([int(row[0] == "spam") for row in rows])
    return Data("sms", [[row[1] for row in rows]], gold, gold, 2)


SOURCES: tuple[Callable[[Path], Data], ...] = (banking, hatespeech, agnews, sms)


def f1(truth: Indices, answers: Indices) -> float:
    """Of the positive label for two labels, else the macro average."""
    binary = max(truth.max(), answers.max()) <= 1
    return float(f1_score(truth, answers, average="binary" if binary else "macro", zero_division=0))


def measure(
    data: Data, X: NDArray[np.float32], learners: Sequence[Any], train: Indices, test: Indices
) -> tuple[float, float]:
    """Agreement with the teacher, and F1 over the teacher's F1, on the test rows."""
    rng = np.random.default_rng(0)
    answerer = fit(X[train], data.teacher[train], data.n_labels, rng=rng, learners=[learners])
    answers = answerer.probabilities(X[test]).argmax(axis=1)
    teacher, gold = data.teacher[test], data.gold[test]
    return float((answers == teacher).mean()), f1(gold, answers) / f1(gold, teacher)


def models(data: Data, seed: int) -> Iterator[tuple[str, list[Any]]]:
    """What is compared, each chosen by cross-validation where there is a choice."""
    yield "logistic", [LinearLearner(strength) for strength in STRENGTHS]
    if data.n_labels <= TREES_UP_TO_LABELS:
        yield "LightGBM", [TreesLearner(seed)]


def compare(data: Data, embedder: str, labels: int, seeds: int) -> Iterator[dict[str, Any]]:
    """A row a model, averaged over the seeds."""
    X = data.embedded(embedder)
    found: dict[str, list[tuple[float, float]]] = {}
    for seed in range(seeds):
        order = np.random.default_rng(seed).permutation(len(X))
        for name, learners in models(data, seed):
            figures = measure(data, X, learners, order[:labels], order[labels:])
            found.setdefault(name, []).append(figures)
    for name, figures_of in found.items():
        agreement, ratio = np.array(figures_of).T
        yield {
            "data": data.name,
            "embedder": embedder,
            "labels": labels,
            "model": name,
            "agreement": float(agreement.mean()),
            "f1_ratio": float(ratio.mean()),
            "least_ratio": float(ratio.min()),
            "in_band": "yes" if ratio.mean() >= BAND[0] else "no",
            "seeds": seeds,
        }


def plot(rows: Sequence[dict[str, Any]], file: Path) -> None:
    """F1 over the teacher's F1 by number of labels; the band is grey."""
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(row["data"] for row in rows))
    figure = Figure(figsize=(3.4 * len(names), 3.4), layout="constrained")
    for axes, name in zip(np.atleast_1d(figure.subplots(1, len(names))), names, strict=True):
        axes.axhspan(*BAND, color="0.9")
        for key in dict.fromkeys((row["embedder"], row["model"]) for row in rows):
            line = [r for r in rows if (r["data"], r["embedder"], r["model"]) == (name, *key)]
            axes.plot([r["labels"] for r in line], [r["f1_ratio"] for r in line], "o-", label=key)
        axes.set(title=name, xscale="log", xlabel="labels", ylabel="F1 / teacher's F1")
    axes.legend(fontsize=6)
    figure.savefig(file, dpi=150)


def main() -> None:
    arguments = parser(__doc__ or "", seeds=5).parse_args()
    rows = [
        row
        for source in SOURCES
        for data in [source(arguments.data)]
        for embedder in EMBEDDERS
        for labels in LABELS
        if labels + LEAST_TEST_ROWS <= len(data.teacher)
        for row in compare(data, embedder, labels, arguments.seeds)
    ]
    show(rows, arguments.json)
    if arguments.plot:
        plot(rows, arguments.plot)


if __name__ == "__main__":
    main()
