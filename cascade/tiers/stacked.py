"""The small tier: a small LLM's label probabilities, re-calibrated and combined with the proxy's.

Knows how to combine two opinions and how far the teacher would agree; knows no engine and no
embedding. A raw small LLM collapses onto one label; the stack's bias undoes that.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from cascade import reasons
from cascade.shapes import Strict
from cascade.tasks import Task, unusual
from cascade.tiers.agreement import (
    CONFIDENCE_FEATURES,
    AgreementModel,
    Floats,
    confidence_features,
    floored_log,
)
from cascade.types import Abstention, Answer, Query, Reply, Tier

STACK_FEATURES: Final = (
    *CONFIDENCE_FEATURES,
    "small_margin",
    "small_entropy",
    "tiers_agree",
    "proxy_log",
)


class Stack(Strict, frozen=True):
    """A conditional logit over two opinions: what the teacher says, given the LLM and the proxy.

    P(label c) is proportional to exp(small * log s_c + proxy * log p_c + bias_c). One weight an
    opinion and one bias a label, so that 150 labels need no more than a few hundred rows.

    agreement : P(the teacher agrees) on ``STACK_FEATURES``.
    """

    small: float
    proxy: float
    bias: tuple[float, ...]
    agreement: AgreementModel

    def __post_init__(self) -> None:
        if self.agreement.features != STACK_FEATURES:
            raise ValueError("the stack's agreement model was fitted on other features")

    def combine(self, small: Floats, proxy: Floats) -> Floats:
        """Label probabilities of the stack.

        Parameters
        ----------
        small, proxy : (n, L) label probabilities of the small LLM and of the proxy.

        Returns
        -------
        (n, L), rows sum to 1.
        """
        logits = self.small * floored_log(small) + self.proxy * floored_log(proxy)
        return softmax(logits + np.array(self.bias))

    def confidence(self, stacked: Floats, small: Floats, proxy: Floats) -> Floats:
        """(n,), P(the teacher agrees with the most probable label of ``stacked``)."""
        return self.agreement.confidence(stack_features(stacked, small, proxy))


def softmax(logits: Floats) -> Floats:
    """Rows of probabilities.

    >>> softmax(np.array([[0.0, 0.0]])).tolist()
    [[0.5, 0.5]]
    """
    raised = np.exp(logits - logits.max(axis=1, keepdims=True))
    rows: Floats = raised / raised.sum(axis=1, keepdims=True)
    return rows


def stack_features(stacked: Floats, small: Floats, proxy: Floats) -> Floats:
    """How sure the stack looks, and whether its two opinions support each other.

    Parameters
    ----------
    stacked, small, proxy : (n, L) label probabilities.

    Returns
    -------
    (n, 7): the columns of ``STACK_FEATURES``.
    """
    label = stacked.argmax(axis=1)
    agree = small.argmax(axis=1) == proxy.argmax(axis=1)
    support = floored_log(np.take_along_axis(proxy, label[:, None], axis=1))
    own = confidence_features(small)[:, 1:]
    return np.hstack([confidence_features(stacked), own, agree[:, None], support])


class Opinion(Protocol):
    """What the stack needs from the proxy."""

    def scores_of(self, queries: Sequence[Query]) -> NDArray[np.float32]:
        """(n, L) label probabilities of plain queries."""
        ...


class StackedTier:
    """Ask the small LLM and the proxy at the same time, and answer what their stack says.

    Where the LLM abstains, so does this tier.
    """

    def __init__(self, name: str, task: Task, language: Tier, proxy: Opinion, stack: Stack) -> None:
        self.name = name
        self._task = task
        self._language = language
        self._proxy = proxy
        self._stack = stack

    async def answer(self, queries: list[Query]) -> list[Reply]:
        """One reply a query, in order."""
        replies: list[Reply] = [
            Abstention(self.name, unusual(query) or reasons.UNSUPPORTED_INPUT) for query in queries
        ]
        plain = [i for i, query in enumerate(queries) if unusual(query) is None]
        if plain:
            combined = await self._combined([queries[i] for i in plain])
            for i, reply in zip(plain, combined, strict=True):
                replies[i] = reply
        return replies

    async def _combined(self, queries: list[Query]) -> list[Reply]:
        spoken, scores = await asyncio.gather(
            self._language.answer(queries), asyncio.to_thread(self._proxy.scores_of, queries)
        )
        return [self._reply(reply, row) for reply, row in zip(spoken, scores, strict=True)]

    def _reply(self, reply: Reply, scores: NDArray[np.float32]) -> Reply:
        if isinstance(reply, Abstention):
            return Abstention(self.name, reply.reason, reply.usage, reply.detail)
        if len(reply.scores) != len(self._task.labels):
            detail = "the small LLM gave no probability for each label: its engine needs logprobs"
            return Abstention(self.name, reasons.UNREADABLE, reply.usage, detail)
        small, proxy = np.array([reply.scores]), scores[None, :].astype(np.float64)
        stacked = self._stack.combine(small, proxy)
        return Answer(
            tier=self.name,
            text=self._task.labels[int(stacked[0].argmax())],
            confidence=float(self._stack.confidence(stacked, small, proxy)[0]),
            usage=reply.usage,
            scores=tuple(stacked[0].tolist()),
        )
