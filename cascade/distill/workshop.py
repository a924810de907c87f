"""What a distillation works with, and what the tiers say of a set of texts.

Knows how to look (embed) and to ask (buy); knows nothing of fitting, certifying or registering.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cascade.benches import LARGE, SMALL, Bench
from cascade.distill.label import Progress, buy
from cascade.distill.sample import Pools, split
from cascade.distill.source import Rows, read_rows
from cascade.recipes import Recipe
from cascade.registry import Registry
from cascade.store import Label, Store
from cascade.types import Tier

ProgressOf = Callable[[str], AbstractContextManager[Progress]]
"""From a title to something that shows how far the work is."""


@dataclass(frozen=True)
class Material:
    """A recipe's texts, and which of them are for what. Asks nobody."""

    recipe: Recipe

    def rng(self, purpose: int) -> np.random.Generator:
        """A stream of its own for each purpose, so that no step disturbs another's draws."""
        return np.random.default_rng([self.recipe.seed, purpose])

    @cached_property
    def rows(self) -> Rows:
        """The recipe's distinct texts."""
        return read_rows(self.recipe.source, self.recipe.task.window, self.rng(0))

    @cached_property
    def pools(self) -> Pools:
        """Which rows are for training, for certifying and for the end. They never meet."""
        return split(len(self.rows.texts), self.recipe.buy, self.rng(1))

    def texts(self, rows: NDArray[np.intp]) -> list[str]:
        """The texts of some rows."""
        return [self.rows.texts[row] for row in rows]


@dataclass
class Bill:
    """Dollars spent on labels so far."""

    dollars: float = 0.0


@dataclass(frozen=True)
class Workshop(Material):
    """One task's material, tiers, store and registry; built once by the caller.

    work : folder for artifacts that are not registered yet.
    tracking : an MLflow URI, or None where nothing is tracked.
    limit_dollars : most to spend on labels, of every tier together, while the workshop is open.
    """

    bench: Bench
    store: Store
    registry: Registry
    work: Path
    progress: ProgressOf
    tracking: str | None = None
    limit_dollars: float = float("inf")
    audit_rate: float = 0.01
    concurrency: int = 4
    bill: Bill = field(default_factory=Bill)


@dataclass(frozen=True)
class Views:
    """Texts as a proxy sees them.

    embeddings : (n, d) unit rows; tokens : (n,) before truncation; whole : (n,) not truncated.
    """

    embeddings: NDArray[np.float32]
    tokens: NDArray[np.int64]
    whole: NDArray[np.bool_]

    def __getitem__(self, rows: NDArray[np.bool_] | NDArray[np.intp]) -> Views:
        return Views(self.embeddings[rows], self.tokens[rows], self.whole[rows])


def look(bench: Bench, texts: Sequence[str]) -> Views:
    """Embed the texts."""
    tokens = bench.embedder.count_tokens(texts)
    return Views(bench.embedder.encode(texts), tokens, tokens <= bench.embedder.max_tokens)


async def ask_teacher(
    shop: Workshop, texts: Sequence[str], progress: Progress | None = None
) -> list[Label]:
    """The teacher's labels, in order; with a progress of its own where none is handed in."""
    return await _ask(shop, LARGE, shop.bench.large, texts, progress)


async def ask_small(
    shop: Workshop, texts: Sequence[str], progress: Progress | None = None
) -> list[Label] | None:
    """The small LLM's labels, in order; None without a small tier, and where every label is held
    to the target: that is certified for one tier only."""
    small = None if shop.recipe.guarantee.per_class else shop.bench.small
    return None if small is None else await _ask(shop, SMALL, small, texts, progress)


async def _ask(
    shop: Workshop, name: str, tier: Tier, texts: Sequence[str], progress: Progress | None
) -> list[Label]:
    model = shop.bench.models[name]
    shown = shop.progress(f"labels from {model}") if progress is None else nullcontext(progress)
    before = shop.bill.dollars

    def tell(done: int, total: int, dollars: float) -> None:
        shop.bill.dollars = before + dollars
        report(done, total, dollars)

    with shown as report:
        return await buy(
            shop.bench.task,
            tier,
            texts,
            shop.store,
            limit_dollars=shop.limit_dollars - before,
            concurrency=shop.concurrency,
            progress=tell,
            teacher_model=model,
        )


def indices(labels: Sequence[Label], order: Sequence[str]) -> NDArray[np.int64]:
    """(n,) label indices; -1 where the completion could not be read."""
    place = {label: index for index, label in enumerate(order)}
    return np.array([-1 if one.answer is None else place[one.answer] for one in labels], np.int64)


def scores(labels: Sequence[Label], n_labels: int) -> NDArray[np.float64]:
    """(n, L) label probabilities; a row of NaN where the tier gave none."""
    table = np.full((len(labels), n_labels), np.nan)
    for row, one in enumerate(labels):
        if one.answer is not None and len(one.scores) == n_labels:
            table[row] = one.scores
    return table
