"""The trained tier: answers from an embedding alone, and knows when it had better not.

Knows one loaded proxy and an embedder; knows no other tier, no threshold and no registry. Light on
purpose: numpy and ONNX Runtime, nothing of what fitted the proxy.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from cascade import reasons
from cascade.errors import RegistryError
from cascade.tasks import Identity, Task, unusual
from cascade.tiers.agreement import CONFIDENCE_FEATURES, Floats, confidence_features
from cascade.tiers.artifact import Artifact, Manifest
from cascade.tiers.novelty import Familiarity, Neighbourhood, Singles
from cascade.types import Abstention, Answer, Query, Reply

PROXY_FEATURES: Final = (
    *CONFIDENCE_FEATURES,
    "neighbours",
    "distance",
    "mahalanobis",
    "log_tokens",
)


class Embedder(Protocol):
    """What the proxy needs to see a text."""

    @property
    def max_tokens(self) -> int:
        """Longest text that it sees whole."""
        ...

    def encode(self, texts: Sequence[str]) -> Singles:
        """(n, dim) unit rows."""
        ...

    def count_tokens(self, texts: Sequence[str]) -> NDArray[np.int64]:
        """(n,), before any truncation."""
        ...


@dataclass(frozen=True)
class Judgement:
    """What the proxy thinks of n texts.

    scores : (n, L) label probabilities; labels : (n,) index of the most probable one.
    agreement : (n,) calibrated P(the teacher would say the same); novel : (n,) beyond the gate.
    """

    scores: Singles
    labels: NDArray[np.int64]
    agreement: Floats
    novel: NDArray[np.bool_]


def proxy_features(
    scores: NDArray[np.floating], familiarity: Familiarity, tokens: NDArray[np.int64]
) -> Floats:
    """How sure and how familiar an answer looks.

    Parameters
    ----------
    scores : (n, L) label probabilities; tokens : (n,) length of each text.

    Returns
    -------
    (n, 7): the columns of ``PROXY_FEATURES``.
    """
    seen = (familiarity.neighbours, familiarity.distance, familiarity.mahalanobis)
    return np.column_stack([confidence_features(scores), *seen, np.log1p(tokens)])


class Proxy:
    """A proxy in memory. Safe to share between threads: nothing in it changes.

    Parameters
    ----------
    threads : cores for one batch; 1 is fastest for the batch of one that a request is.

    Raises
    ------
    RegistryError
        The artifact's parts do not fit together.
    """

    def __init__(self, artifact: Artifact, threads: int = 1) -> None:
        self.manifest: Manifest = artifact.manifest
        self.digest = artifact.digest
        if self.manifest.agreement.features != PROXY_FEATURES:
            raise RegistryError("the agreement model was fitted on other features: train again")
        try:
            self._neighbourhood = Neighbourhood.from_arrays(artifact.arrays)
            self._session = open_answerer(artifact.answerer, threads)
        except Exception as exc:  # onnxruntime raises exception classes of its own making
            raise RegistryError(f"the proxy's model cannot be opened: {exc}; train again") from exc

    @classmethod
    def load(cls, folder: Path, threads: int = 1) -> Proxy:
        """Verify a folder and open it. Raises ``RegistryError`` like ``Artifact.load``."""
        return cls(Artifact.load(folder), threads)

    @property
    def thresholds(self) -> Mapping[str, float] | None:
        """Least confidence of each tier on the certified rung; None without certificate."""
        return self.manifest.thresholds

    def differences(self, identity: Identity) -> list[str]:
        """Names of the fields in which this proxy was made for something else."""
        return self.manifest.identity.differences(identity)

    def scores(self, embeddings: Singles) -> Singles:
        """Label probabilities (n, L) of embeddings (n, dim)."""
        (probabilities,) = self._session.run(None, {"embedding": embeddings})
        result: Singles = probabilities
        return result

    def judge(self, embeddings: Singles, tokens: NDArray[np.int64]) -> Judgement:
        """Answer, and say how far to trust each answer.

        Parameters
        ----------
        embeddings : (n, dim) unit rows; tokens : (n,) length of each text.
        """
        scores = self.scores(embeddings)
        labels = scores.argmax(axis=1)
        familiarity = self._neighbourhood.look(embeddings, labels)
        features = proxy_features(scores, familiarity, tokens)
        agreement = self.manifest.agreement.confidence(features)
        novel = self.manifest.gate.novel(scores.max(axis=1), familiarity)
        return Judgement(scores, labels, agreement, novel)


def open_answerer(model: bytes, threads: int = 1) -> Any:
    """An ONNX Runtime session that does not keep a core busy while it waits."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


class ProxyTier:
    """A proxy as a tier: anything unusual, truncated or novel is an abstention, never a guess."""

    def __init__(self, name: str, proxy: Proxy, embedder: Embedder, task: Task) -> None:
        self.name = name
        self._proxy = proxy
        self._embedder = embedder
        self._task = task

    async def answer(self, queries: list[Query]) -> list[Reply]:
        """One reply a query, in order; the work runs beside the event loop."""
        return await asyncio.to_thread(self._answer, queries)

    def scores_of(self, queries: Sequence[Query]) -> Singles:
        """The answerer's label probabilities (n, L) of plain queries, whatever the gates say."""
        return self._proxy.scores(self._embedder.encode(self._texts(queries)))

    def _texts(self, queries: Sequence[Query]) -> list[str]:
        return [self._task.text(query) or "" for query in queries]

    def _answer(self, queries: list[Query]) -> list[Reply]:
        why = [unusual(query) for query in queries]
        plain = [i for i, reason in enumerate(why) if reason is None]
        texts = self._texts([queries[i] for i in plain])
        tokens = np.asarray(self._embedder.count_tokens(texts)) if texts else np.zeros(0, np.int64)
        whole = tokens <= self._embedder.max_tokens
        replies: list[Reply] = [
            Abstention(self.name, reason or reasons.TRUNCATED) for reason in why
        ]
        seen = [i for i, fits in zip(plain, whole, strict=True) if fits]
        if seen:
            kept = [text for text, fits in zip(texts, whole, strict=True) if fits]
            judgement = self._proxy.judge(self._embedder.encode(kept), tokens[whole])
            for row, i in enumerate(seen):
                replies[i] = self._reply(judgement, row)
        return replies

    def _reply(self, judgement: Judgement, row: int) -> Reply:
        if judgement.novel[row]:
            return Abstention(self.name, reasons.NOVEL)
        return Answer(
            tier=self.name,
            text=self._task.labels[int(judgement.labels[row])],
            confidence=float(judgement.agreement[row]),
            scores=tuple(judgement.scores[row].tolist()),
        )
