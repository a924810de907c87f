"""A training recipe: one YAML file that says everything about one task. Knows no model."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from cascade.config import Count, Guarantee
from cascade.documents import Mistaken, open_document
from cascade.errors import RecipeError
from cascade.prompts import MOST_LABELS
from cascade.shapes import Misfit, Strict
from cascade.tasks import Example, Kind, Task, Window

EMBEDDER = "minilm-int8"
NAME = re.compile(r"[a-z0-9][a-z0-9-]*")
Seed = Annotated[int, msgspec.Meta(ge=0)]

REFUSED_KINDS = {
    "rank": "no gateway serves a ranking; use cascade.certify.audit_ranking on arrays",
    "chat": "free text has no closed set of labels to agree on",
    "multilabel": "several labels for one text have no single answer to agree on",
}


class TextColumn(Strict, frozen=True):
    """Which column holds the text, and how much of it belongs to the task."""

    column: str
    head_tokens: Count | None = None


class Source(Strict, frozen=True):
    """Where the texts are: a CSV, TSV or Parquet file,.

    gold : a column with human labels; only ever reported beside the agreement, never trained on.
    """

    table: str
    text: str | TextColumn
    gold: str | None = None
    limit: Count | None = None

    @property
    def column(self) -> TextColumn:
        """The text column, however it was written."""
        return TextColumn(self.text) if isinstance(self.text, str) else self.text


class Labels(Strict, frozen=True):
    """How many teacher labels to buy for each purpose.

    train : at most; fewer where the next one would save less than it costs over
        ``expected_requests``. certify, evaluate : uniform draws.
    """

    train: Count = 400
    certify: Count = 300
    evaluate: Count = 300


class SolvedExample(Strict, frozen=True):
    """A few-shot example."""

    text: str
    label: str


class Recipe(Strict, frozen=True):
    """One task, its texts and the guarantee it must hold.

    teacher : the last tier, whose answers count as right; no other tier can be it yet.
    """

    name: str
    kind: str
    prompt: str
    source: Source
    labels: tuple[str, ...] = ()
    examples: tuple[SolvedExample, ...] = ()
    teacher: Literal["large"] = "large"
    embedder: str = EMBEDDER
    guarantee: Guarantee = Guarantee()
    buy: Labels = Labels()
    expected_requests: Count = 1_000_000
    allow_missed: tuple[str, ...] = ()
    seed: Seed = 0

    def misfits(self) -> Iterator[Misfit]:
        """What makes no task, or one that no guarantee can be given for."""
        if self.kind in REFUSED_KINDS:
            yield Misfit(("kind",), f"kind {self.kind} is refused: {REFUSED_KINDS[self.kind]}")
        elif self.kind not in ("filter", "classify"):
            yield Misfit(("kind",), f"kind {self.kind!r} is none of filter, classify")
        else:
            yield from self._label_misfits()
        if not NAME.fullmatch(self.name):
            message = f"name {self.name!r}: use lower-case letters, digits and hyphens"
            yield Misfit(("name",), message)
        if not self.prompt.strip():
            yield Misfit(("prompt",), "prompt is empty: ask the question in it")
        yield from self._guarantee_misfits()

    def _guarantee_misfits(self) -> Iterator[Misfit]:
        if self.guarantee.per_class and self.kind == "filter":
            message = (
                "guarantee.per_class is for kind classify; a filter's answers are held together: "
                "remove it, or write the task as classify with two labels"
            )
            yield Misfit(("guarantee", "per_class"), message, beside=("kind",))
        elif self.guarantee.per_class and "*" in self.labels:
            message = "with guarantee.per_class no label may be *: it stands for all"
            yield Misfit(("labels", self.labels.index("*")), message, beside=("guarantee",))

    def _label_misfits(self) -> Iterator[Misfit]:
        labels = self.task_labels
        if any(not label or label != label.strip() for label in labels):
            yield Misfit(("labels",), "a label is empty or has white space around it")
        twice = [label for label, n in Counter(map(str.casefold, labels)).items() if n > 1]
        if twice:
            yield Misfit(("labels",), f"labels occur twice: {', '.join(twice)}")
        if not 2 <= len(labels) <= MOST_LABELS:
            yield Misfit(("labels",), f"{len(labels)} labels: a task has 2 to {MOST_LABELS}")
        elif self.kind == "filter" and len(labels) != 2:
            message = "a filter has exactly two labels, the positive one first"
            yield Misfit(("labels",), message, beside=("kind",))
        unknown = {example.label for example in self.examples} - set(labels)
        if unknown:
            message = f"examples use unknown labels: {', '.join(sorted(unknown))}"
            yield Misfit(("examples",), message, beside=("labels",))
        unknown = set(self.allow_missed) - set(labels)
        if unknown:
            message = f"allow_missed has unknown labels: {', '.join(sorted(unknown))}"
            yield Misfit(("allow_missed",), message, beside=("labels",))

    @property
    def task_labels(self) -> tuple[str, ...]:
        """The labels; a filter's default to yes and no."""
        return self.labels or (("yes", "no") if self.kind == "filter" else ())

    @property
    def task(self) -> Task:
        """The question without its data."""
        kind: Kind = "filter" if self.kind == "filter" else "classify"
        return Task(
            name=self.name,
            kind=kind,
            instruction=self.prompt.strip(),
            labels=self.task_labels,
            examples=tuple(Example(one.text, one.label) for one in self.examples),
            window=Window(self.source.column.head_tokens),
        )


def load_recipe(path: Path, environment: Mapping[str, str] = os.environ) -> Recipe:
    """Read one recipe.

    Raises
    ------
    RecipeError
        The file is missing, malformed, or asks for something that cannot be.
    """
    try:
        return open_document(path, environment).read(Recipe)
    except Mistaken as exc:
        raise RecipeError(str(exc)) from exc


def load_recipes(folder: Path) -> dict[str, Recipe]:
    """Every recipe of a folder by its name.

    Raises
    ------
    RecipeError
        One of them is wrong, or two have the same name.
    """
    recipes: dict[str, Recipe] = {}
    for path in sorted(folder.glob("*.yaml")):
        recipe = load_recipe(path)
        if recipe.name in recipes:
            raise RecipeError(f"{path}: another recipe is already called {recipe.name}")
        recipes[recipe.name] = recipe
    return recipes
