"""A registered proxy as a function of texts: what it would answer, and what it would pass on.

Knows one artifact, its embedder and its certified threshold; asks no LLM. For notebooks and batch
scoring; the gateway has the whole cascade.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, NamedTuple

from cascade import reasons
from cascade.embed import Embedder, load_embedder
from cascade.errors import RegistryError
from cascade.tasks import Identity, Kind, Task, Window
from cascade.tiers.proxy import Proxy, ProxyTier
from cascade.types import Abstention, Query, Reply, least_confidence

PROXY: Final = "proxy"
NEVER: Final = 2.0
"""A threshold that no confidence reaches: of a proxy without certificate."""
ESCALATE: Final = "escalate"


class Outcome(NamedTuple):
    """What becomes of one text.

    label, confidence : the proxy's answer and its calibrated P(the teacher would say the same),
        also where that is too little to answer; "" and 0 where the proxy would not even look.
    tier : "proxy" if the proxy may answer alone, else "escalate".
    reason : why; one of ``cascade.reasons``.
    """

    label: str
    confidence: float
    tier: str
    reason: str


class ServedProxy:
    """The proxy of one artifact folder.

    Parameters
    ----------
    folder : the artifact.
    models : folder that ``cascade models pull`` filled; the embedder is in there.

    Raises
    ------
    RegistryError
        The artifact does not verify, or was made with another version of the embedder.
    ModelUnavailable
        The embedder has not been pulled.
    """

    def __init__(self, folder: Path, models: Path) -> None:
        proxy = Proxy.load(folder)
        identity = proxy.manifest.identity
        self._thresholds = proxy.thresholds or {PROXY: NEVER}
        task = _task(proxy.manifest.task, identity)
        self._tier = ProxyTier(PROXY, proxy, _embedder(identity, models), task)

    def outcomes(self, texts: Sequence[str]) -> list[Outcome]:
        """One outcome a text, in order."""
        queries = [Query.from_text(text) for text in texts]
        with ThreadPoolExecutor(1) as beside:  # a notebook's own thread has an event loop already
            replies = beside.submit(lambda: asyncio.run(self._tier.answer(queries))).result()
        return [outcome(reply, self._thresholds) for reply in replies]


def outcome(reply: Reply, thresholds: Mapping[str, float]) -> Outcome:
    """What a reply of the proxy means under the certified thresholds.

    >>> from cascade.types import Answer
    >>> outcome(Answer("proxy", "yes", 0.97), {"proxy": 0.9})
    Outcome(label='yes', confidence=0.97, tier='proxy', reason='certified')
    >>> outcome(Answer("proxy", "yes", 0.97), {"proxy": NEVER, "proxy:no": 0.8}).reason
    'below_threshold'
    """
    if isinstance(reply, Abstention):
        return Outcome("", 0.0, ESCALATE, reply.reason)
    if reply.confidence < least_confidence(thresholds, PROXY, reply.text):
        return Outcome(reply.text, reply.confidence, ESCALATE, reasons.BELOW_THRESHOLD)
    return Outcome(reply.text, reply.confidence, PROXY, reasons.CERTIFIED)


def _task(name: str, identity: Identity) -> Task:
    """As much of the task as reading a text takes; the prompt is not in the artifact."""
    kind: Kind = "filter" if identity.kind == "filter" else "classify"
    return Task(name, kind, "", identity.labels, window=Window(identity.window))


def _embedder(identity: Identity, models: Path) -> Embedder:
    name = identity.embedder.partition("@")[0]
    embedder = load_embedder(name, models)
    if f"{embedder.name}@{embedder.version}" != identity.embedder:
        raise RegistryError(
            f"the proxy needs embedder {identity.embedder}, {models} holds version "
            f"{embedder.version}: run 'cascade models pull' of the version that trained it"
        )
    return embedder
