"""A small world to distil in: reviews of made-up words, tiers that read them, a real embedder.

A review is easy (words of praise or blame), subtle (one word that only a language model notices)
or blank (nothing to go by: the teacher's label is as good as random). ``shop_in`` puts a workshop
for such reviews into a folder; everything but the language models is the real thing.
"""

from __future__ import annotations

import asyncio
import csv
import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

from cascade import reasons
from cascade.benches import Bench
from cascade.config import Guarantee
from cascade.distill.label import Progress, silent
from cascade.distill.workshop import Workshop
from cascade.embed import Embedder, load_embedder
from cascade.embed.static import build_static_embedder
from cascade.recipes import Labels, Recipe, Source
from cascade.registry import Registry
from cascade.registry.folder import FolderRegistry
from cascade.store import open_store
from cascade.types import Abstention, Answer, Price, Query, Reply, Tier, Usage

YES, NO = "yes", "no"
PRAISE, BLAME = ("lovely", "great", "superb"), ("awful", "broken", "shabby")
UPSIDE, DOWNSIDE = ("indeed",), ("hardly",)  # invisible to the embedder
NEUTRAL = tuple(f"w{number}" for number in range(60))
ALIEN = "qqq"  # a word far away from all others
EMBEDDER, MAX_TOKENS = "toy", 24

TEACHER_SPENT = Usage(prompt_tokens=40, output_tokens=1, seconds=0.02, dollars=0.001)
SMALL_SPENT = Usage(prompt_tokens=40, output_tokens=1, seconds=0.005, dollars=0.0002)

Opinion = tuple[str | None, tuple[float, ...]]
"""A label (None: unreadable) and label probabilities (may be empty)."""


def reviews(n: int, seed: int = 0) -> list[str]:
    """Distinct reviews: six of ten easy, three subtle, one blank."""
    rng = np.random.default_rng(seed)
    return [_review(rng) for _ in range(n)]


def _review(rng: np.random.Generator) -> str:
    words = list(rng.choice(NEUTRAL, rng.integers(6, 12)))
    kind, good = rng.random(), rng.random() < 0.5
    if kind < 0.6:
        words += list(rng.choice(PRAISE if good else BLAME, 2))
    elif kind < 0.9:
        words.append(UPSIDE[0] if good else DOWNSIDE[0])
    rng.shuffle(words)
    return " ".join(words)


def chance(text: str, purpose: str = "") -> float:
    """A number in [0, 1) that hangs on the text alone.

    >>> chance("a") == chance("a") != chance("b")
    True
    """
    return int.from_bytes(hashlib.sha256(f"{purpose}/{text}".encode()).digest()[:6]) / 2**48


def taste(text: str) -> str:
    """The teacher's label: what the words say, or the toss of a coin; 1% is a slip."""
    words = text.split()
    good = sum(word in PRAISE + UPSIDE for word in words)
    bad = sum(word in BLAME + DOWNSIDE for word in words)
    right = good > bad if good != bad else chance(text) < 0.5
    return YES if right == (chance(text, "slip") >= 0.01) else NO


def teach(text: str) -> Opinion:
    """As ``taste``, with log-probabilities."""
    label = taste(text)
    return label, (0.97, 0.03) if label == YES else (0.03, 0.97)


def coin(seed: int) -> Callable[[str], Opinion]:
    """A teacher whose labels have nothing to do with the text."""

    def toss(text: str) -> Opinion:
        return (YES if chance(text, str(seed)) < 0.5 else NO), ()

    return toss


def parity(text: str) -> Opinion:
    """A teacher that counts words, which no average of word vectors shows."""
    return (YES if len(text.split()) % 2 else NO), ()


def lean(text: str) -> Opinion:
    """A small LLM that notices subtle words, and leans to yes."""
    words = set(text.split())
    good = bool(words & {*PRAISE, *UPSIDE}) - bool(words & {*BLAME, *DOWNSIDE})
    yes = {1: 0.95, 0: 0.75, -1: 0.4}[good] + 0.04 * chance(text, "small")
    return (YES if yes > 0.5 else NO), (yes, 1 - yes)


class RuleTier:
    """A tier that answers by a rule. ``asked`` : every text, in the order of asking."""

    def __init__(self, name: str, rule: Callable[[str], Opinion], spent: Usage) -> None:
        self.name = name
        self.asked: list[str] = []
        self._rule = rule
        self._spent = spent

    async def answer(self, queries: list[Query]) -> list[Reply]:
        """What the rule says of each; it never has to think."""
        await asyncio.sleep(0)
        return [self._reply(query.text or "") for query in queries]

    def _reply(self, text: str) -> Reply:
        self.asked.append(text)
        label, scores = self._rule(text)
        if label is None:
            return Abstention(self.name, reasons.UNREADABLE, self._spent)
        return Answer(self.name, label, max(scores, default=0.0), self._spent, scores)


def make_embedder(models: Path, name: str = EMBEDDER) -> Embedder:
    """A word-vector embedder in ``models``: loud praise and blame, nearly silent subtle words."""
    if not (models / name).exists():
        rng = np.random.default_rng(7)
        words = ["[UNK]", *NEUTRAL, *PRAISE, *BLAME, *UPSIDE, *DOWNSIDE, ALIEN]
        axis = np.eye(32)[0]
        table = rng.normal(size=(len(words), 32)) * [0.0, *[1.0] * 31] / 5
        for row, word in enumerate(words):
            table[row] += 2.0 * axis * ((word in PRAISE) - (word in BLAME))
            table[row] *= 1e-3 if word in UPSIDE + DOWNSIDE else 30.0 if word == ALIEN else 1.0
        work = models / "work"
        work.mkdir(parents=True, exist_ok=True)
        save_file({"table": table.astype(np.float32)}, work / "table")
        tokenizer = Tokenizer(WordLevel({word: id for id, word in enumerate(words)}, "[UNK]"))
        tokenizer.pre_tokenizer = Whitespace()
        tokenizer.save(str(work / "tokenizer"))
        build_static_embedder(
            work / "table", work / "tokenizer", models / name, name=name, max_tokens=MAX_TOKENS
        )
    return load_embedder(name, models)


def write_table(path: Path, texts: Sequence[str], gold: bool = True) -> Path:
    """A CSV of texts with a human label each; humans agree with the teacher where it did not
    slip."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "human"] if gold else ["text"])
        writer.writerows([text, taste(text)] if gold else [text] for text in texts)
    return path


def recipe_of(table: Path, **changes: Any) -> Recipe:
    """A recipe that is cheap to certify."""
    fields: dict[str, Any] = {
        "name": "mood",
        "kind": "filter",
        "prompt": "Is it a positive review?",
        "source": Source(str(table), "text"),
        "embedder": EMBEDDER,
        "guarantee": Guarantee(target=0.85, delta=0.1),
        "buy": Labels(train=100, certify=150, evaluate=60),
    }
    return Recipe(**{**fields, **changes})


@contextmanager
def quiet(title: str) -> Iterator[Progress]:
    """Progress for nobody."""
    yield silent


@contextmanager
def workshop(
    folder: Path,
    recipe: Recipe,
    large: Tier,
    small: Tier | None = None,
    *,
    registry: Registry | None = None,
    tracking: str | None = None,
) -> Iterator[Workshop]:
    """A workshop with its store, models, and, unless there is another, registry in ``folder``."""
    embedder = make_embedder(folder / "models")
    task = recipe.task
    models = {"large": "big-model", **({"small": "small-model"} if small else {})}
    bench = Bench(
        task=task,
        identity=task.identity(models["large"], f"{embedder.name}@{embedder.version}"),
        embedder=embedder,
        large=large,
        small=small,
        models=models,
        prices=dict.fromkeys(models, Price(input=1.0, output=2.0)),
    )
    with open_store(f"sqlite:///{folder}/cascade.db") as store:
        yield Workshop(
            recipe=recipe,
            bench=bench,
            store=store,
            registry=registry or FolderRegistry(folder / "registry"),
            work=folder / "work",
            progress=quiet,
            tracking=tracking,
        )


def large_tier(rule: Callable[[str], Opinion] = teach) -> RuleTier:
    """The teacher."""
    return RuleTier("large", rule, TEACHER_SPENT)


def small_tier(rule: Callable[[str], Opinion] = lean) -> RuleTier:
    """The small LLM."""
    return RuleTier("small", rule, SMALL_SPENT)
