"""What a cascade learns from a few labelled posts: a proxy, and how far to trust whom.

Knows embeddings, teacher labels and a small tier's bare answers; knows no certificate.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from tiers_cascade import Cascade, Integers

from cascade.certify import Confidences
from cascade.distill.calibrate import calibrate_proxy, calibrate_stack
from cascade.distill.fit import fit_answerer
from cascade.tiers.proxy import proxy_features


@dataclass(frozen=True)
class Corpus:
    """A table, and what everybody says of every row.

    embeddings : (n, d) unit rows. words : (n,) text lengths.
    teacher, small : (n,) label indices, 0 or 1. small_price : of an answer; the teacher's is 1.
    """

    embeddings: NDArray[np.float32]
    words: Integers
    teacher: Integers
    small: Integers
    small_price: float

    def __len__(self) -> int:
        return len(self.teacher)


def learn(corpus: Corpus, labels: int, rng: np.random.Generator) -> Cascade:
    """Train on ``labels`` uniform rows. The small tier's label is that of its stack."""
    rows = np.sort(rng.choice(len(corpus), labels, replace=False))
    X, y = corpus.embeddings[rows], corpus.teacher[rows]
    said = np.eye(2)[corpus.small]
    answerer = fit_answerer(X, y, 2, rng=rng)
    proxy = calibrate_proxy(X, y, corpus.words[rows], answerer, rng=rng)
    stack = calibrate_stack(said[rows], y, answerer)

    scores = answerer.probabilities(corpus.embeddings)
    looks = proxy.neighbourhood.look(corpus.embeddings, scores.argmax(axis=1))
    features = proxy_features(scores, looks, corpus.words)
    combined = stack.stack.combine(said, scores)
    return Cascade(
        rows=rows,
        teacher=corpus.teacher,
        proxy=scores.argmax(axis=1),
        proxy_trust=proxy.agreement.model.confidence(features),
        small=combined.argmax(axis=1),
        small_trust=stack.stack.confidence(combined, said, scores),
        promised=Confidences(proxy.agreement.out_of_fold, stack.agreement.out_of_fold),
        small_price=corpus.small_price,
    )
