"""How good a proxy gets with how many labels: logistic regression and LightGBM, two embedders.

Four data sets. Banking77 (77 intents, GPT-4 is the teacher) and hatespeech (GPT-3.5) have gold
labels as well, so the proxy's F1 can be set against its teacher's; on AG News and SMS spam the gold
labels are the teacher, whose F1 is then 1. F1 is that of the positive label for two labels, the
macro average for more. Labels are drawn uniformly; everything else is the test set. Beside the
quality stands how far to trust P(agree): its expected calibration error, and how many answers are
really wrong where 6% are promised.

    python training/experiments/quality.py --data DIR --seeds 5
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from common import embeddings, parser, read_csv, show
from numpy.typing import NDArray
from quality_lesson import Table, learn
from sklearn.metrics import f1_score

from cascade.distill.fit import STRENGTHS, TREES_UP_TO_LABELS, LinearLearner, TreesLearner
from cascade.errors import NotEnoughSignal

Indices = NDArray[np.int64]

LABELS = (100, 300, 1000, 3000)
EMBEDDERS = ("minilm-int8", "wordllama-256")
LEAST_TEST_ROWS = 1000
PROMISED = 0.06
BAND = (
    0.90,
    1.02,
)  # F1 of a proxy over its LLM's, as published: arXiv 2603.15970


@dataclass(frozen=True)
class Data:
    """A labelled table. texts : in parts, as files hold them; teacher, gold : (n,) indices."""

    name: str
    parts: list[list[str]]
    teacher: Indices
    gold: Indices
    n_labels: int

    def table(self, embedder: str) -> Table:
        """As a proxy sees it."""
        X = np.vstack([embeddings(part, embedder=embedder) for part in self.parts])
        words = np.array([len(text.split()) for part in self.parts for text in part])
        return Table(X, self.teacher, words, self.n_labels)


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
    data: Data, table: Table, learners: Sequence[Any], train: Indices, test: Indices
) -> dict[str, float]:
    """Agreement with the teacher, F1 over the teacher's F1, and calibration, on the test rows."""
    lesson = learn(table, train, test, learners=learners, rng=np.random.default_rng(0))
    teacher, gold = data.teacher[test], data.gold[test]
    return {
        "agreement": float(lesson.right.mean()),
        "f1_ratio": f1(gold, lesson.said) / f1(gold, teacher),
        "calibration_error": lesson.calibration_error,
        f"wrong_where_{PROMISED}": lesson.wrong_where(PROMISED),
    }


def models(data: Data, seed: int) -> Iterator[tuple[str, list[Any]]]:
    """What is compared, each chosen by cross-validation where there is a choice."""
    yield "logistic", [LinearLearner(strength) for strength in STRENGTHS]
    if data.n_labels <= TREES_UP_TO_LABELS:
        yield "LightGBM", [TreesLearner(seed)]


def compare(data: Data, embedder: str, labels: int, seeds: int) -> Iterator[dict[str, Any]]:
    """A row a model, averaged over the seeds in which one could be fitted."""
    table = data.table(embedder)
    found: dict[str, list[dict[str, float]]] = {}
    for seed in range(seeds):
        order = np.random.default_rng(seed).permutation(len(table.y))
        for name, learners in models(data, seed):
            with suppress(NotEnoughSignal):  # 100 messages may hold fewer than 10 of spam
                figures = measure(data, table, learners, order[:labels], order[labels:])
                found.setdefault(name, []).append(figures)
    for name, runs in found.items():
        means = {key: float(np.mean([run[key] for run in runs])) for key in runs[0]}
        yield {
            "data": data.name,
            "embedder": embedder,
            "labels": labels,
            "model": name,
            **means,
            "least_ratio": min(run["f1_ratio"] for run in runs),
            "in_band": "yes" if means["f1_ratio"] >= BAND[0] else "no",
            "seeds": len(runs),
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
