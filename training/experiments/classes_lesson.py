"""Two tables with many classes, random splits of them, and a proxy trained on a split.

Knows embeddings, teacher labels and a small tier's bare answers; knows no certificate.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from common import embeddings, read_csv
from numpy.typing import NDArray

from cascade.distill.calibrate import calibrate_proxy
from cascade.distill.fit import Answerer, fit_answerer
from cascade.tiers.agreement import Floats
from cascade.tiers.novelty import Neighbourhood
from cascade.tiers.proxy import proxy_features

Integers = NDArray[np.int64]

NO_SMALL: Integers = np.empty(0, np.int64)


@dataclass(frozen=True)
class Corpus:
    """Embedded texts, and what teacher and small tier say of them: (n,) label indices.

    labels : to train with, and to certify with, in each split.
    """

    name: str
    labels: tuple[int, int]
    X: NDArray[np.float32]
    words: Integers
    teacher: Integers
    small: Integers
    n_labels: int


@dataclass(frozen=True)
class Split:
    """Rows to train on, to draw for the audit, and to judge by."""

    train: Integers
    draws: Integers
    test: Integers


@dataclass(frozen=True)
class Proxy:
    """A proxy of one split. label, trust : (n,) of all rows; promised : (m,) of its training rows,
    out of fold; scores : (n, L)."""

    answerer: Answerer
    scores: Floats
    label: Integers
    trust: Floats
    promised: Floats


def banking(folder: Path) -> Corpus:
    """The rows that GPT-3.5 has answered too."""
    rows = read_csv(folder / "banking77" / "raw_banking77_test.csv")
    teacher = np.array([int(row["gpt-label"]) for row in rows])
    small = np.array([int(row["gpt35-label_rep"]) for row in rows])  # 77 and more: no intent
    return corpus("banking77", (1500, 500), [row["text"] for row in rows], teacher, small)


def agnews(folder: Path) -> Corpus:
    """Title and first lines of each article."""
    with (folder / "gold/agnews_test/test.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    topics = np.array([int(row[0]) - 1 for row in rows])
    texts = [f"{row[1]}. {row[2]}" for row in rows]
    return corpus("agnews", (1000, 1500), texts, topics, NO_SMALL)


def corpus(
    name: str, labels: tuple[int, int], texts: list[str], teacher: Integers, small: Integers
) -> Corpus:
    words, n_labels = np.array([len(text.split()) for text in texts]), int(teacher.max()) + 1
    return Corpus(
        name, labels, embeddings(texts), words, teacher, np.minimum(small, n_labels), n_labels
    )


CORPORA = {"banking77": banking, "agnews": agnews}


def split_rows(data: Corpus, rng: np.random.Generator) -> Split:
    """At random; the audit's draws are uniform on the rows not trained on."""
    train, draws, test = np.split(rng.permutation(len(data.X)), np.cumsum(data.labels))
    return Split(train, draws, test)


def learn(data: Corpus, split: Split, rng: np.random.Generator) -> Proxy:
    """Fit and calibrate a proxy on the training rows."""
    X, y = data.X[split.train], data.teacher[split.train]
    answerer = fit_answerer(X, y, data.n_labels, rng=rng)
    fitted = calibrate_proxy(X, y, data.words[split.train], answerer, rng=rng)
    scores = answerer.probabilities(data.X)
    label = scores.argmax(axis=1)
    looks = Neighbourhood.from_arrays(fitted.neighbourhood.arrays).look(data.X, label)
    features = proxy_features(scores, looks, data.words)
    return Proxy(
        answerer=answerer,
        scores=scores,
        label=label,
        trust=fitted.agreement.model.confidence(features),
        promised=fitted.agreement.out_of_fold,
    )
