"""A YAML file, and where each of its values stands. Knows lines and columns; knows no key of ours.

One reader for whoever loads a file and for whoever explains it: both see the same mistakes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import msgspec
import yaml

from cascade.shapes import KeyPath, Misfit, Strict, find_misfits

ENVIRONMENT = re.compile(r"\$\{(\w+)\}")

PLAIN_TAGS = ("tag:yaml.org,2002:map", "tag:yaml.org,2002:seq")

Shape = TypeVar("Shape", bound=Strict)


class Place(NamedTuple):
    """Where something stands in a file; both count from 1, as editors do."""

    line: int
    column: int


START = Place(1, 1)


class Mistake(NamedTuple):
    """One thing that is wrong with a file, and what to do about it."""

    file: str
    place: Place
    message: str

    def __str__(self) -> str:
        """As compilers write it, so that editors can jump there.

        >>> print(Mistake("gateway.yaml", Place(4, 3), "audit.rat: unknown key"))
        gateway.yaml:4:3: audit.rat: unknown key
        """
        return f"{self.file}:{self.place.line}:{self.place.column}: {self.message}"


class Mistaken(ValueError):
    """A file that cannot be used. ``mistakes``: all that were found, in their order."""

    def __init__(self, mistakes: tuple[Mistake, ...]) -> None:
        first, *others = mistakes
        more = f" (and {len(others)} more: 'cascade validate' lists them)" if others else ""
        super().__init__(f"{first}{more}")
        self.mistakes = mistakes


@dataclass(frozen=True)
class Document:
    """A file as it was read.

    content : plain values, every ``${NAME}`` replaced; None where the file is not YAML.
    places : of every key and list item. mistakes : those of the YAML itself.
    """

    path: Path
    content: Any
    places: Mapping[KeyPath, Place] = field(default_factory=dict)
    mistakes: tuple[Mistake, ...] = ()

    def read(self, shape: type[Shape]) -> Shape:
        """The file as ``shape``.

        Raises
        ------
        Mistaken
            With everything that is wrong.
        """
        mistakes = self.mistakes_as(shape)
        if mistakes:
            raise Mistaken(mistakes)
        return msgspec.convert(self.content, shape)

    def mistakes_as(self, shape: type[Strict]) -> tuple[Mistake, ...]:
        """Everything that is wrong with the file as ``shape``, from its top to its end."""
        if self.mistakes and self.content is None:
            return self.mistakes
        told = {mistake.place for mistake in self.mistakes}  # what follows from it is no news
        found = [self.mistake(misfit) for misfit in find_misfits(self.content, shape)]
        new = [one for one in found if one.place not in told]
        return tuple(sorted([*self.mistakes, *new]))

    def mistake(self, misfit: Misfit) -> Mistake:
        """What is wrong, at the nearest place that is in the file."""
        path = misfit.path
        while path and path not in self.places:
            path = path[:-1]
        return Mistake(str(self.path), self.places.get(path, START), str(misfit))


def open_document(path: Path, environment: Mapping[str, str]) -> Document:
    """Read a file; what is wrong with it is in the document."""
    try:
        text = path.read_bytes().decode()
    except OSError as exc:
        return _broken(path, START, f"cannot be read: {exc.strerror}; is the path right?")
    except UnicodeDecodeError as exc:
        line = exc.object.count(b"\n", 0, exc.start) + 1
        return _broken(path, Place(line, 1), "is not UTF-8: save it with that encoding")
    try:
        loader = yaml.SafeLoader(text)
        root = loader.get_single_node()
    except yaml.reader.ReaderError as exc:
        line = text.count("\n", 0, exc.position) + 1
        return _broken(path, Place(line, 1), f"is not YAML: {exc.reason}; remove the character")
    except yaml.MarkedYAMLError as exc:
        return _broken(path, _place(exc.problem_mark or exc.context_mark), _syntax(exc))
    walk = _Walk(path, loader, environment)
    content = None if root is None else walk.value(root, ())
    return Document(path, content, walk.places, tuple(walk.mistakes))


class _Walk:
    """One way through a tree of YAML nodes, from its root to its leaves."""

    def __init__(self, path: Path, loader: yaml.SafeLoader, environment: Mapping[str, str]) -> None:
        self.places: dict[KeyPath, Place] = {}
        self.mistakes: list[Mistake] = []
        self._file = str(path)
        self._loader = loader
        self._environment = environment
        self._around: list[yaml.Node] = []

    def value(self, node: yaml.Node, path: KeyPath) -> Any:
        """The node as plain Python; what is wrong with it is noted, and something stands in."""
        self.places.setdefault(path, _place(node.start_mark))
        if any(node is one for one in self._around):
            self._note(path, "an alias cannot stand inside of what it names")
            return None
        self._around.append(node)
        try:
            return self._value(node, path)
        except yaml.MarkedYAMLError as exc:
            self._note(path, f"is not plain YAML: {exc.problem}")
        except ValueError as exc:  # such as the 31st of February
            self._note(path, f"YAML reads this as a number or a date, {exc}: put it in quotes")
        finally:
            self._around.pop()
        return None

    def _value(self, node: yaml.Node, path: KeyPath) -> Any:
        if isinstance(node, yaml.ScalarNode):
            return self._filled(self._loader.construct_object(node), path)
        if node.tag not in PLAIN_TAGS:
            self._note(path, f"the tag {node.tag} means nothing here: remove it")
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        return [self.value(item, (*path, place)) for place, item in enumerate(node.value)]

    def _mapping(self, node: yaml.MappingNode, path: KeyPath) -> dict[str, Any]:
        self._note_repeats(node, path)
        self._loader.flatten_mapping(node)  # `<<`: what it merges in comes before the own keys
        found = {}
        for key, item in node.value:
            if not isinstance(key, yaml.ScalarNode):
                self._note(path, "a key is one word, not a list and not keys and values")
                continue
            here = (*path, key.value)
            self.places[here] = _place(key.start_mark)
            found[key.value] = self.value(item, here)
        return found

    def _note_repeats(self, node: yaml.MappingNode, path: KeyPath) -> None:
        """PyYAML itself keeps the last one in silence."""
        first: dict[str, Place] = {}
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                here, place = (*path, key.value), _place(key.start_mark)
                earlier = first.setdefault(key.value, place)
                if earlier != place:
                    self.places[here] = place
                    self._note(here, f"occurs twice, first on line {earlier.line}: remove one")

    def _filled(self, value: Any, path: KeyPath) -> Any:
        """A text with its ``${NAME}`` replaced; the name stays where it is not set."""
        return ENVIRONMENT.sub(lambda m: self._set(m, path), value) if type(value) is str else value

    def _set(self, found: re.Match[str], path: KeyPath) -> str:
        if found[1] not in self._environment:
            self._note(path, f"{found[0]} is not set in the environment: export {found[1]}=...")
        return self._environment.get(found[1], found[0])

    def _note(self, path: KeyPath, message: str) -> None:
        self.mistakes.append(Mistake(self._file, self.places[path], str(Misfit(path, message))))


def _place(mark: yaml.Mark | None) -> Place:
    return START if mark is None else Place(mark.line + 1, mark.column + 1)


def _syntax(error: yaml.MarkedYAMLError) -> str:
    if "'\\t'" in (error.problem or ""):
        return "is not YAML: a tab; indent with spaces"
    if "but got '{'" in (error.problem or ""):
        return "is not YAML: a brace inside of braces; put ${NAME} in quotes there"
    begun = f" begun on line {error.context_mark.line + 1}" if error.context_mark else ""
    around = f"{error.context}{begun}, " if error.context else ""
    return f"is not YAML: {around}{error.problem}; is a bracket, a quote or a colon missing?"


def _broken(path: Path, place: Place, message: str) -> Document:
    return Document(path, None, mistakes=(Mistake(str(path), place, message),))
