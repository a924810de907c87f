"""Everything that is wrong with a gateway.yaml and the recipes of its tasks.

Looks at files and at what is installed. Starts nothing, writes nothing, asks no network.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cascade.cli.premises import config_misfits, embedder_misfits, table_misfits
from cascade.config import MODELS, TASKS, GatewayConfig, overridden
from cascade.documents import Document, Mistake, open_document
from cascade.recipes import EMBEDDER, Recipe, Source
from cascade.shapes import Misfit, Strict, salvage


@dataclass(frozen=True)
class Examination:
    """What was found. ``tasks``: the names of the recipes."""

    tasks: tuple[str, ...]
    mistakes: tuple[Mistake, ...]


@dataclass(frozen=True)
class Written:
    """A file, and what is wrong with its text."""

    document: Document
    mistakes: tuple[Mistake, ...]

    @classmethod
    def open(cls, path: Path, shape: type[Strict], environment: Mapping[str, str]) -> Written:
        """Read a file that should be a ``shape``."""
        document = open_document(path, environment)
        return cls(document, document.mistakes_as(shape))

    def value(self, key: str) -> Any:
        """What the file says under a key of its top; None where it says nothing."""
        content = self.document.content
        return content.get(key) if isinstance(content, dict) else None

    def tell(self, misfits: Iterable[Misfit]) -> Iterator[Mistake]:
        """Everything that is wrong. What follows from a value that is wrong itself is no news."""
        told = {mistake.place for mistake in self.mistakes}
        found = map(self.document.mistake, misfits)
        yield from sorted([*self.mistakes, *(one for one in found if one.place not in told)])


def examine(path: Path, others: Sequence[Path], environment: Mapping[str, str]) -> Examination:
    """Read everything, and compare it with this machine.

    Parameters
    ----------
    path : of gateway.yaml. others : recipes besides those of its ``tasks``.
    """
    gateway = Written.open(path, GatewayConfig, environment)
    config = _readable_part(gateway.document, environment)
    models = Path(config.models if config else MODELS)
    folder = gateway.value("tasks") or TASKS
    files = [*sorted(Path(str(folder)).glob("*.yaml")), *others]
    recipes = [Written.open(file, Recipe, environment) for file in files]
    tasks = [str(one.value("name")) for one in recipes]
    premises = config_misfits(config, gateway.document.places, tasks) if config else ()
    mistakes = [*gateway.tell(premises)]
    first: dict[str, Document] = {}
    for one in recipes:
        mistakes += one.tell([*_twins(one, first), *_recipe_premises(one, models)])
    return Examination(tuple(first), tuple(mistakes))


def _readable_part(document: Document, environment: Mapping[str, str]) -> GatewayConfig | None:
    """Whatever version it says: that is one mistake, and hides no other."""
    if not isinstance(document.content, dict):
        return None
    config = salvage({**document.content, "version": 1}, GatewayConfig)
    return config and overridden(config, environment)


def _recipe_premises(recipe: Written, models: Path) -> Iterator[Misfit]:
    """Of the parts that can be read, whatever else is wrong."""
    source = salvage(recipe.value("source"), Source)
    if source is not None:
        yield from table_misfits(source)
    if recipe.document.content is not None:
        yield from embedder_misfits(str(recipe.value("embedder") or EMBEDDER), models)


def _twins(recipe: Written, first: dict[str, Document]) -> Iterator[Misfit]:
    """Two recipes of one name would be one task. first : the earlier ones, by name; it is added."""
    name = recipe.value("name")
    if not isinstance(name, str):
        return
    other = first.setdefault(name, recipe.document)
    if other is not recipe.document:
        line = other.places["name",].line
        yield Misfit(("name",), f"{name} is the name in {other.path}:{line} too: rename one")
