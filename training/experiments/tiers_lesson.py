"""What a cascade learns from a few labelled rows of a table: a proxy, and how far to trust whom.

Knows embeddings, teacher labels and a small tier's bare answers; knows no certificate.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cascade.certify import Confidences
from cascade.distill.calibrate import calibrate_proxy, calibrate_stack
from cascade.distill.fit import fit_answerer
from cascade.tiers.novelty import Neighbourhood
from cascade.tiers.proxy import PROXY_FEATURES, proxy_features

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Corpus:
    """A table, and what everybody says of every row; methods pay for what they look at.

    embeddings : (n, d) unit rows. words : (n,) text lengths.
    teacher, small : (n,) label indices. small_price : of an answer; the teacher's is 1.
    """

    embeddings: NDArray[np.float32]
    words: Integers
    teacher: Integers
    small: Integers
    small_price: float

    def __len__(self) -> int:
        return len(self.teacher)


@dataclass(frozen=True)
class Bill:
    """What a method came to.

    agreement : share of all final answers that are the teacher's. teacher, small : answers paid
    for, those for training included.
    """

    agreement: float
    teacher: int
    small: int

    def cost(self, corpus: Corpus) -> float:
        """Per record."""
        return (self.teacher + corpus.small_price * self.small) / len(corpus)


@dataclass(frozen=True)
class Lesson:
    """A trained proxy and stack on one table.

    rows : (m,) that the teacher labelled for training.
    proxy, small : (n,) label of the proxy, and of the small tier stacked with it.
    proxy_trust, small_trust : (n,) P(the teacher agrees). ``small`` and ``small_trust`` need the
        small tier's answer: whoever reads a row of them has paid for it.
    promised : the same of the training rows, out of fold.
    """

    corpus: Corpus
    rows: Integers
    proxy: Integers
    proxy_trust: Floats
    small: Integers
    small_trust: Floats
    promised: Confidences

    def open_target(self, target: float) -> float:
        """The agreement that the rows without a label need, so that all rows reach ``target``."""
        n = len(self.corpus)
        return 1 - (1 - target) * n / (n - len(self.rows))


def learn(corpus: Corpus, labels: int, rng: np.random.Generator) -> Lesson:
    """Train on ``labels`` uniform rows."""
    rows = np.sort(rng.choice(len(corpus), labels, replace=False))
    X, y = corpus.embeddings[rows], corpus.teacher[rows]
    said = np.eye(2)[corpus.small]
    answerer = fit_answerer(X, y, 2, rng=rng)
    proxy = calibrate_proxy(X, y, corpus.words[rows], answerer, rng=rng)
    stack = calibrate_stack(said[rows], y, answerer)

    scores = answerer.probabilities(corpus.embeddings)
    looks = Neighbourhood.from_arrays(proxy.neighbourhood.arrays).look(
        corpus.embeddings, scores.argmax(axis=1)
    )
    features = proxy_features(scores, looks, corpus.words)
    assert proxy.agreement.model.features == PROXY_FEATURES
    combined = stack.stack.combine(said, scores)
    return Lesson(
        corpus=corpus,
        rows=rows,
        proxy=scores.argmax(axis=1),
        proxy_trust=proxy.agreement.model.confidence(features),
        small=combined.argmax(axis=1),
        small_trust=stack.stack.confidence(combined, said, scores),
        promised=Confidences(proxy.agreement.out_of_fold, stack.agreement.out_of_fold),
    )
