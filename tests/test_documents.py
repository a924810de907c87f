"""Lines and columns of YAML, and every way in which data does not fit a type."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cascade.documents import Mistaken, open_document
from cascade.shapes import Misfit, Strict, find_misfits, salvage, without

VARIABLES = {"HOST": "gpu-1"}


def told(folder: Path, text: str | bytes) -> list[str]:
    """The mistakes of a file, less its folder."""
    path = folder / "f.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return [str(one).removeprefix(f"{folder}/") for one in open_document(path, VARIABLES).mistakes]


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        ("a: 1\nb:\n\tc: 1\n", "f.yaml:3:1: is not YAML: a tab; indent with spaces"),
        (
            "a: [1,\nb: 2\n",
            "f.yaml:3:1: is not YAML: while parsing a flow sequence begun on line 1",
        ),
        ("a: {b: ${HOST}}\n", "f.yaml:1:9: is not YAML: a brace inside of braces; put ${NAME} in"),
        ("a: 1\na: 2\n", "f.yaml:2:1: a: occurs twice, first on line 1: remove one"),
        ("a:\n  b: {c: 1, c: 2}\n", "f.yaml:2:13: a.b.c: occurs twice, first on line 2"),
        ("a: 1\n---\nb: 2\n", "f.yaml:2:1: is not YAML: expected a single document"),
        ("a: &x [*x]\n", "f.yaml:1:4: a[0]: an alias cannot stand inside of what it names"),
        ("a: !thing {b: 1}\n", "f.yaml:1:1: a: the tag !thing means nothing here"),
        ("a: !!python/name:os.system 1\n", "f.yaml:1:1: a: is not plain YAML: could not determine"),
        ("a: 2026-02-31\n", "f.yaml:1:1: a: YAML reads this as a number or a date"),
        ("a: 1\n{b: 1}: 2\n", "f.yaml:1:1: a key is one word"),
        ("a: 1\nb: \x01\n", "f.yaml:2:1: is not YAML: special characters are not allowed"),
        (b"a: 1\nb: \xff\n", "f.yaml:2:1: is not UTF-8"),
        ("a:\n  - x\n  - ${NOPE}\n", "f.yaml:3:5: a[1]: ${NOPE} is not set in the environment"),
        ("a: {<<: 1}\n", "f.yaml:1:1: a: is not plain YAML: expected a mapping"),
    ],
)
def test_every_mistake_has_a_place(tmp_path: Path, text: str | bytes, mistake: str) -> None:
    (found,) = told(tmp_path, text)
    assert found.startswith(mistake)


def test_all_variables_that_are_missing_are_told(tmp_path: Path) -> None:
    found = told(tmp_path, "a: ${ONE}/${TWO}\nb: ${HOST}\nc: ${THREE}\n")
    assert [one.split(" ")[0] for one in found] == ["f.yaml:1:1:", "f.yaml:1:1:", "f.yaml:3:1:"]


def test_a_merged_key_may_be_overridden(tmp_path: Path) -> None:
    path = tmp_path / "f.yaml"
    path.write_text('base: &b {x: 1, y: "${HOST}"}\none: {<<: *b, x: 2}\n')
    document = open_document(path, VARIABLES)
    assert document.mistakes == ()
    assert document.content["one"] == {"x": 2, "y": "gpu-1"}
    assert document.places["one", "x"] == (2, 15)


class Inner(Strict, frozen=True):
    kind: Literal["cat", "dog"] = "cat"
    n: Annotated[int, msgspec.Meta(ge=1)] = 1


class Old(msgspec.Struct, frozen=True):
    x: int = 0

    def __post_init__(self) -> None:
        if self.x > 9:
            raise ValueError("x is too large")


class Outer(Strict, frozen=True):
    name: str
    low: int = 0
    high: int = 9
    inner: Inner | None = None
    items: tuple[Inner | str, ...] = ()
    old: Old = Old()

    def misfits(self) -> list[Misfit]:
        wrong = self.low > self.high
        return [Misfit(("low",), "low > high", beside=("high",))] if wrong else []


@pytest.mark.parametrize(
    ("data", "found"),
    [
        ({"name": "a"}, []),
        ({"name": "a", "lwo": 1}, ["lwo: unknown key: did you mean `low`?"]),
        ({}, ["the key `name` is missing: add it"]),
        (None, ["expected keys and values, got nothing"]),
        ({"name": True}, ["name: expected a text, got true or false: put it in quotes"]),
        ({"name": "a", "inner": {"n": 0}}, ["inner.n: expected a whole number >= 1, got 0"]),
        (
            {"name": "a", "items": ["x", {"kind": "cow"}, {"kind": "dgo"}, 3]},
            [
                "items[1].kind: expected cat or dog",
                "items[2].kind: expected cat or dog: did you mean `dog`?",
                "items[3]: expected a text or keys and values, got a whole number",
            ],
        ),
        ({"name": "a", "low": 10}, ["low: low > high"]),
        ({"name": "a", "old": {"x": 10}}, ["old: x is too large"]),
        ({"name": "a", "low": 10, "zzz": 1}, ["zzz: unknown key: there are", "low: low > high"]),
        ({"name": "a", "low": 10, "high": "x"}, ["high: expected a whole number, got a text"]),
        ({"name": 1, "low": 10}, ["name: expected a text, got a whole number"]),
    ],
)
def test_every_misfit_is_found(data: Any, found: list[str]) -> None:
    """Also what is wrong together, unless one of the two is wrong by itself: a default in its
    place would be blamed."""
    told = [str(one) for one in find_misfits(data, Outer)]
    assert len(told) == len(found)
    assert all(one.startswith(start) for one, start in zip(told, found, strict=True))


def test_what_fits_is_salvaged() -> None:
    data = {"name": "a", "lwo": 1, "high": "x", "inner": {"n": 0, "kind": "dog"}, "items": ["y", 3]}
    assert salvage(data, Outer) == Outer("a", inner=Inner("dog"), items=("y",))
    assert salvage({"name": "a", "low": 99, "high": "x"}, Outer) is None
    assert salvage({"high": 3}, Outer) is None
    assert without({"a": 1}, [()]) is None


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 12) | st.sampled_from(["cat", "x"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from([*Outer.__struct_fields__, "n", "kind", "x"]), inner)
    ),
    max_leaves=8,
)


@given(PLAIN)
def test_nothing_is_found_exactly_where_msgspec_takes_it(data: Any) -> None:
    found = [*find_misfits(data, Outer)]
    try:
        msgspec.convert(data, Outer)
    except msgspec.ValidationError:
        assert found
    else:
        assert not found


def test_one_sentence_says_that_there_is_more(tmp_path: Path) -> None:
    path = tmp_path / "f.yaml"
    path.write_text("nmae: a\nlow: x\n")
    with pytest.raises(Mistaken, match=r"f\.yaml:1:1: .* \(and 2 more: 'cascade validate'"):
        open_document(path, {}).read(Outer)
