"""Every way in which plain data does not fit a type. Knows msgspec's structs; knows no file.

msgspec stops at the first mistake. Whoever corrects a file by hand wants them all, each with the
keys that lead to it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator
from difflib import get_close_matches
from types import UnionType
from typing import Annotated, Any, Literal, NamedTuple, TypeVar, Union, get_args, get_origin

import msgspec

KeyPath = tuple[str | int, ...]
"""The keys and list places that lead to a value: ``("tiers", "large", "replicas", 0)``."""

Fitted = TypeVar("Fitted")

PLAIN_NAMES = {
    "int": "a whole number",
    "float": "a number",
    "str": "a text",
    "bool": "true or false",
    "array": "a list",
    "object": "keys and values",
    "null": "nothing",
}
BARE_WORD = ": put it in quotes, YAML reads a bare yes, no, on or off as true or false"


class Misfit(NamedTuple):
    """One thing that is wrong, and which key or list item it is about.

    beside : other keys that it is about too; while one of those is wrong, this is not known.
    """

    path: KeyPath
    message: str
    beside: tuple[str, ...] = ()

    def __str__(self) -> str:
        """The keys, then the message.

        >>> print(Misfit(("listen", "port"), "expected a whole number, got a text"))
        listen.port: expected a whole number, got a text
        """
        return f"{dotted(self.path)}: {self.message}" if self.path else self.message


class Unfit(ValueError):
    """A value whose parts are right by themselves, and wrong together."""

    def __init__(self, struct: type[msgspec.Struct], misfits: tuple[Misfit, ...]) -> None:
        super().__init__("; ".join(misfit.message for misfit in misfits))
        self.struct = struct
        self.misfits = misfits


class Strict(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A part of a file: immutable, an unknown key is an error, and so is what ``misfits`` finds."""

    def misfits(self) -> Iterable[Misfit]:
        """What no type can say; each with the keys below this part that it is about."""
        return ()

    def __post_init__(self) -> None:
        found = tuple(self.misfits())
        if found:
            raise Unfit(type(self), found)


def dotted(path: KeyPath) -> str:
    """A path as people write it.

    >>> dotted(("tiers", "large", "replicas", 0))
    'tiers.large.replicas[0]'
    """
    parts = (f"[{key}]" if isinstance(key, int) else f".{key}" for key in path)
    return "".join(parts).removeprefix(".")


def find_misfits(data: Any, shape: Any, path: KeyPath = ()) -> Iterator[Misfit]:
    """Everything that keeps ``data`` from being converted to ``shape``.

    Parameters
    ----------
    data : what a JSON or YAML parser returns.
    shape : a struct, or a type that msgspec understands.
    path : the keys that lead to ``data``.
    """
    return (misfit for misfit in _misfits(data, shape, path) if not misfit.beside)


def salvage(data: Any, shape: type[Fitted]) -> Fitted | None:
    """As much of ``data`` as fits, with defaults for the rest; None where too much is missing."""
    wrong = [misfit.path for misfit in _misfits(data, shape, ())]
    try:
        return msgspec.convert(without(data, wrong), shape)
    except msgspec.ValidationError:
        return None


def _misfits(data: Any, shape: Any, path: KeyPath) -> Iterator[Misfit]:
    """``find_misfits``; with a ``beside`` those that are not told."""
    struct, item = _struct_in(shape), _item_in(shape)
    if struct is not None and isinstance(data, dict):
        yield from _misfits_of_struct(data, struct, path)
    elif item is not None and isinstance(data, list):
        for place, one in enumerate(data):
            yield from _misfits(one, item, (*path, place))
    else:
        try:
            msgspec.convert(data, shape)
        except msgspec.ValidationError as exc:
            yield Misfit(path, _plainly(str(exc), data, shape))


def _misfits_of_struct(
    data: dict[str, Any], struct: type[msgspec.Struct], path: KeyPath
) -> Iterator[Misfit]:
    fields = {field.encode_name: field for field in msgspec.structs.fields(struct)}
    known = {key: value for key, value in data.items() if key in fields}
    found = [
        *(
            Misfit((*path, key), f"unknown key{instead(key, fields)}")
            for key in data
            if key not in fields
        ),
        *(one for key in known for one in _misfits(known[key], fields[key].type, (*path, key))),
        *(
            Misfit(path, f"the key `{name}` is missing: add it")
            for name, field in fields.items()
            if field.required and name not in data
        ),
    ]
    yield from found
    wrong = [misfit.path[len(path) :] for misfit in found]
    for misfit in _misfits_together(without(data, wrong), struct):
        about = (*map(str, misfit.path[:1]), *misfit.beside)
        # a default in place of a wrong value must not be blamed for what nobody wrote
        if {key for key, *_ in wrong}.isdisjoint(about):
            yield Misfit((*path, *misfit.path), misfit.message)
        if path and about:  # whichever of its keys is to blame, the part as a whole is of no use
            yield Misfit(path, misfit.message, beside=about)


def _misfits_together(data: Any, struct: type[msgspec.Struct]) -> tuple[Misfit, ...]:
    try:
        msgspec.convert(data, struct)
    except msgspec.ValidationError as exc:
        inner = exc.__cause__
        if isinstance(inner, Unfit):
            return inner.misfits if inner.struct is struct else ()
        return () if inner is None else (Misfit((), str(inner)),)
    return ()


def without(data: Any, paths: Collection[KeyPath]) -> Any:
    """The data less what stands at these paths; None where that is everything.

    >>> without({"a": [1, 2], "b": {"c": 3}}, [("a", 0), ("b", "c")])
    {'a': [2], 'b': {}}
    """
    if () in paths:
        return None
    if not paths:
        return data
    pairs = data.items() if isinstance(data, dict) else enumerate(data)
    kept = {
        key: without(value, [path[1:] for path in paths if path[0] == key])
        for key, value in pairs
        if (key,) not in paths
    }
    return kept if isinstance(data, dict) else [*kept.values()]


def _choices(shape: Any) -> tuple[Any, ...]:
    """The types that a value may have, without annotations.

    >>> _choices(Annotated[int, "even"] | None)
    (<class 'int'>, <class 'NoneType'>)
    """
    if get_origin(shape) is Annotated:
        return _choices(get_args(shape)[0])
    if get_origin(shape) in (Union, UnionType):
        return tuple(choice for one in get_args(shape) for choice in _choices(one))
    return (shape,)


def _struct_in(shape: Any) -> type[msgspec.Struct] | None:
    structs = (one for one in _choices(shape) if isinstance(one, type))
    return next((one for one in structs if issubclass(one, msgspec.Struct)), None)


def _item_in(shape: Any) -> Any:
    """What a list holds, where the shape is one."""
    lists = (one for one in _choices(shape) if get_origin(one) in (tuple, list))
    return next((get_args(one)[0] for one in lists), None)


def _plainly(said: str, data: Any, shape: Any) -> str:
    """msgspec's sentence in words that a YAML file's writer knows.

    >>> _plainly("Expected `int` >= 1", 0, int)
    'expected a whole number >= 1, got 0'
    """
    words = [
        word for one in _choices(shape) if get_origin(one) is Literal for word in get_args(one)
    ]
    if words:
        return f"expected {' or '.join(map(str, words))}{_near(str(data), map(str, words))}"
    said = re.sub(r"`([a-z |]+)`", lambda found: _named(found[1].split(" | ")), said)
    got = "" if ", got " in said or not isinstance(data, int | float) else f", got {data}"
    return f"{said[:1].lower()}{said[1:]}{got}{BARE_WORD if isinstance(data, bool) else ''}"


def _named(types: list[str]) -> str:
    return " or ".join(PLAIN_NAMES.get(name, name) for name in types)


def instead(written: str, known: Iterable[str]) -> str:
    """The known word that somebody probably meant, or all of them.

    >>> instead("inptu", ["input", "output"]), instead("colour", ["input", "output"])
    (': did you mean `input`?', ': there are input, output')
    """
    known = list(known)
    return _near(written, known) or f": there are {', '.join(known)}"


def _near(written: str, known: Iterable[str]) -> str:
    near = get_close_matches(written, list(known), n=1)
    return f": did you mean `{near[0]}`?" if near else ""
