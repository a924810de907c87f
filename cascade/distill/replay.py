"""Replay a path of policies over texts: which tier answers each row on each rung, and what.

The same comparisons as ``policies.Ladder``, for all rungs at once; asks nobody and buys nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cascade.benches import PROXY, SMALL
from cascade.distill.workshop import Views
from cascade.tiers.artifact import Rung
from cascade.tiers.proxy import Proxy
from cascade.tiers.stacked import Stack
from cascade.types import SKIP, for_label

TEACHER = -1


@dataclass(frozen=True)
class Opinions:
    """What the tiers below the teacher say of n texts, and how sure they are.

    proxy, small : (n,) label indices. proxy_trust, small_trust : (n,) P(the teacher agrees); -1
    where the tier abstains, so that no threshold is met. An abstention of the proxy sends the row
    to the teacher, whatever the small tier thinks. labels : (L,) the task's, for rungs that have a
    threshold for a single one.
    """

    proxy: NDArray[np.int64]
    proxy_trust: NDArray[np.float64]
    small: NDArray[np.int64]
    small_trust: NDArray[np.float64]
    labels: tuple[str, ...] = ()

    def answers(self, path: Sequence[Rung]) -> NDArray[np.int64]:
        """(n, G) final label index on each rung; ``TEACHER`` where the teacher is asked."""
        return np.stack([self._on(rung) for rung in path], axis=1)

    def by_tier(self, rung: Rung) -> dict[str, NDArray[np.bool_]]:
        """(n,) which rows each tier below the teacher answers."""
        sure = self.small_trust >= self._least(rung, SMALL, self.small)
        return {PROXY: self._by_proxy(rung), SMALL: self.asks_small(rung) & sure}

    def asks_small(self, rung: Rung) -> NDArray[np.bool_]:
        """(n,) for which rows the small LLM is paid."""
        if rung.thresholds.get(SMALL, np.inf) > 1.0:
            return np.zeros(len(self.proxy), np.bool_)
        worth_asking = self.proxy_trust >= rung.thresholds.get(SKIP, 0.0)
        return worth_asking & ~self._by_proxy(rung)

    def _by_proxy(self, rung: Rung) -> NDArray[np.bool_]:
        by_proxy: NDArray[np.bool_] = self.proxy_trust >= self._least(rung, PROXY, self.proxy)
        return by_proxy

    def _least(self, rung: Rung, tier: str, said: NDArray[np.int64]) -> NDArray[np.float64]:
        """(n,) the confidence that each answer of a tier needs."""
        own = rung.thresholds.get(tier, np.inf)
        least = np.full(len(said), own)
        for index, label in enumerate(self.labels):
            least[said == index] = rung.thresholds.get(for_label(tier, label), own)
        return least

    def _on(self, rung: Rung) -> NDArray[np.int64]:
        tiers = self.by_tier(rung)
        return np.where(tiers[PROXY], self.proxy, np.where(tiers[SMALL], self.small, TEACHER))


def judge(
    proxy: Proxy, views: Views, stack: Stack | None, small_scores: NDArray[np.float64] | None
) -> Opinions:
    """Opinions of a proxy and of the stack on texts.

    Parameters
    ----------
    small_scores : (n, L) the small LLM's label probabilities, NaN where there are none.
    """
    judged = proxy.judge(views.embeddings, views.tokens)
    usual = views.whole & ~judged.novel
    small = np.zeros(len(usual), np.int64)
    trust = np.full(len(usual), -1.0)
    if stack is not None and small_scores is not None:
        heard = usual & np.isfinite(small_scores).all(axis=1)
        opinion, support = small_scores[heard], judged.scores[heard].astype(np.float64)
        combined = stack.combine(opinion, support)
        small[heard] = combined.argmax(axis=1)
        trust[heard] = stack.confidence(combined, opinion, support)
    sure = np.where(usual, judged.agreement, -1.0)
    return Opinions(judged.labels, sure, small, trust, proxy.manifest.labels)
