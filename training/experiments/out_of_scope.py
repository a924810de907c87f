"""Requests that belong to no label: CLINC150, 150 intents and 1,000 out-of-scope test questions.

A proxy is fitted on in-scope questions only, and asked both kinds. How well does each score tell
them apart (AUROC), how many out-of-scope questions does the gate stop, and how many answers are
wrong when every score answers equally many rows (an out-of-scope answer is always wrong)?

    python training/experiments/out_of_scope.py --data DIR --seeds 5
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from common import embeddings, parser, show
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from cascade.distill.calibrate import calibrate_proxy
from cascade.distill.fit import fit_answerer
from cascade.tiers.proxy import proxy_features

Floats = NDArray[np.float64]

EMBEDDER = "minilm-int8"
LABELS_A_CLASS = (5, 20)
COVERAGES = (0.5, 0.6, 0.7)
SILENT = -1.0
OUTSIDE = -1


@dataclass(frozen=True)
class Questions:
    """X : (n, d) unit embeddings; y : (n,) intents, ``OUTSIDE`` without one; words : (n,)."""

    X: NDArray[np.float32]
    y: NDArray[np.int64]
    words: NDArray[np.int64]

    def __getitem__(self, rows: NDArray[Any]) -> Questions:
        return Questions(self.X[rows], self.y[rows], self.words[rows])


@dataclass(frozen=True)
class Verdicts:
    """On the test rows. inside, wrong, novel : (n,); scores : by name, (n,), higher is safer."""

    inside: NDArray[np.bool_]
    wrong: NDArray[np.bool_]
    novel: NDArray[np.bool_]
    scores: dict[str, Floats]


def load(folder: Path) -> tuple[Questions, NDArray[np.str_]]:
    """All questions, and the split that each belongs to."""
    splits = json.loads((folder / "gold/clinc150/data_full.json").read_text(encoding="utf-8"))
    rows = [(text, label, name) for name, part in splits.items() for text, label in part]
    texts = [row[0] for row in rows]
    intents = sorted({row[1] for row in rows} - {"oos"})
    place = {"oos": OUTSIDE} | {label: index for index, label in enumerate(intents)}
    y = np.array([place[row[1]] for row in rows])
    words = np.array([len(text.split()) for text in texts])
    X = embeddings(texts, embedder=EMBEDDER)
    return Questions(X, y, words), np.array([row[2] for row in rows])


def draw(train: Questions, a_class: int, rng: np.random.Generator) -> Questions:
    """So many questions of each intent."""
    shuffled = rng.permutation(len(train.y))
    rows = [shuffled[train.y[shuffled] == label][:a_class] for label in np.unique(train.y)]
    return train[rng.permutation(np.concatenate(rows))]


def judge(train: Questions, test: Questions, rng: np.random.Generator) -> Verdicts:
    """Fit a proxy, and let it judge the test rows."""
    answerer = fit_answerer(train.X, train.y, int(train.y.max()) + 1, rng=rng)
    proxy = calibrate_proxy(train.X, train.y, train.words, answerer, rng=rng)
    chances = answerer.probabilities(test.X)
    top, answers = chances.max(axis=1), chances.argmax(axis=1)
    seen = proxy.neighbourhood.look(test.X, answers)
    agreement = proxy.agreement.model.confidence(proxy_features(chances, seen, test.words))
    novel = proxy.gate.novel(top, seen)
    scores = {
        "max probability": top,
        "distance": -seen.distance,
        "Mahalanobis": -seen.mahalanobis,
        "gate": -(seen.distance + proxy.gate.doubt * (1.0 - top)),
        "agreement": agreement,
        "agreement, gated": np.where(novel, SILENT, agreement),
        "max probability, gated": np.where(novel, SILENT, top),
    }
    return Verdicts(test.y != OUTSIDE, answers != test.y, novel, scores)


def describe(verdicts: Verdicts, name: str) -> dict[str, float]:
    """How one score does."""
    score, inside = verdicts.scores[name], verdicts.inside
    surest = np.argsort(-score, kind="stable")
    figures = {"auroc": float(roc_auc_score(inside, score))}
    for coverage in COVERAGES:
        answered = surest[: int(coverage * len(surest))]
        figures[f"wrong@{coverage:.0%}"] = float(verdicts.wrong[answered].mean())
    figures["gate_stops_outside"] = float(verdicts.novel[~inside].mean())
    figures["gate_stops_inside"] = float(verdicts.novel[inside].mean())
    right = inside & ~verdicts.wrong
    figures["gate_stops_right"] = float(verdicts.novel[right].mean())
    return figures


def compare(train: Questions, test: Questions, a_class: int, seeds: int) -> list[dict[str, Any]]:
    """A row a score, averaged over the seeds."""
    runs = []
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        runs.append(judge(draw(train, a_class, rng), test, rng))
    rows = []
    for name in runs[0].scores:
        found = [describe(run, name) for run in runs]
        means = {key: float(np.mean([one[key] for one in found])) for key in found[0]}
        rows.append({"labels_a_class": a_class, "score": name, **means, "seeds": seeds})
    return rows


def plot(rows: Sequence[dict[str, Any]], file: Path) -> None:
    """Wrong answers at equal coverage."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.6), layout="constrained")
    for axes, size in zip(figure.subplots(1, len(LABELS_A_CLASS)), LABELS_A_CLASS, strict=True):
        for row in (one for one in rows if one["labels_a_class"] == size):
            wrong = [row[f"wrong@{coverage:.0%}"] for coverage in COVERAGES]
            axes.plot(COVERAGES, wrong, "o-", label=row["score"])
        axes.set(title=f"{size} labels a class", xlabel="coverage", ylabel="wrong answers")
    axes.legend(fontsize=6)
    figure.savefig(file, dpi=150)


def main() -> None:
    arguments = parser(__doc__ or "", seeds=5).parse_args()
    questions, split = load(arguments.data)
    train, test = questions[split == "train"], questions[np.isin(split, ("test", "oos_test"))]
    rows = [row for size in LABELS_A_CLASS for row in compare(train, test, size, arguments.seeds)]
    show(rows, arguments.json)
    if arguments.plot:
        plot(rows, arguments.plot)


if __name__ == "__main__":
    main()
