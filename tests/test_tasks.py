"""Asking and reading: the prompt's stable prefix, the window, exact reading, identity."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cascade import Query, reasons
from cascade.errors import UnreadableAnswer
from cascade.prompts import MOST_LABELS, answer_codes
from cascade.tasks import Example, Task, Window, label_counts, unusual

TASK = Task("good", "filter", "Is it good?", ("yes", "no"), (Example("great", "yes"),))
NAMES = st.lists(st.text("abcdef.", min_size=1), min_size=2, max_size=MOST_LABELS, unique=True)


def user(content: object) -> dict[str, object]:
    return {"role": "user", "content": content}


@given(st.text(min_size=1), st.text(min_size=1))
def test_every_byte_before_the_record_is_the_same(first: str, second: str) -> None:
    prompts = [TASK.prompt(Query.from_text(text)) for text in (first, second)]
    assert prompts[0][:-1] == prompts[1][:-1] == list(TASK.prefix)
    assert [prompt[-1]["content"] for prompt in prompts] == [first, second]


def test_examples_are_part_of_the_prefix() -> None:
    assert [message["role"] for message in TASK.prefix] == ["system", "user", "assistant"]
    assert TASK.prefix[-1]["content"] == "yes"


@pytest.mark.parametrize("said", ["yes", " Yes", "YES.", '"yes"', "yes\n", "**yes**"])
def test_wrapping_is_forgiven(said: str) -> None:
    assert TASK.read(said) == "yes"


@pytest.mark.parametrize("said", ["", "yes no", "yes, it is", "ye", "maybe", "not", "1"])
def test_anything_else_is_unreadable(said: str) -> None:
    with pytest.raises(UnreadableAnswer):
        TASK.read(said)


def test_labels_that_look_alike_get_codes() -> None:
    task = Task("topic", "classify", "Which?", ("comp.a", "comp.b"))
    assert task.codes == ("A", "B")
    assert "A: comp.a\nB: comp.b" in task.prefix[0]["content"]
    assert task.read("b") == "comp.b"


@given(NAMES)
def test_codes_are_distinct_and_short(labels: list[str]) -> None:
    codes = answer_codes(labels)
    assert len({code.casefold() for code in codes}) == len(labels)
    assert codes == tuple(labels) or {len(code) for code in codes} <= {1, 2}


@given(st.text(), st.integers(1, 50))
def test_the_window_is_a_prefix_and_cropping_twice_changes_nothing(text: str, size: int) -> None:
    window = Window(size)
    cropped = window.crop(text)
    assert text.startswith(cropped)
    assert window.crop(cropped) == cropped


def test_no_window_keeps_everything() -> None:
    assert Window().crop("a  b ") == "a  b "


def test_the_conversation_is_never_cut_to_its_last_message() -> None:
    turns = (user("first"), {"role": "assistant", "content": "?"}, user("second"))
    prompt = TASK.prompt(Query("id", turns))
    assert prompt[-3:] == list(turns)


@pytest.mark.parametrize(
    ("messages", "extra", "reason"),
    [
        ((user("a"), user("b")), {}, reasons.MULTI_TURN),
        ((user([{"type": "image_url"}]),), {}, reasons.UNSUPPORTED_INPUT),
        ((user(""),), {}, reasons.UNSUPPORTED_INPUT),
        (({"role": "system", "content": "x"}, user("a")), {}, reasons.UNSUPPORTED_INPUT),
        (({"role": "assistant", "content": "x"},), {}, reasons.UNSUPPORTED_INPUT),
        ((user("a"),), {"tools": [{}]}, reasons.UNSUPPORTED_INPUT),
        ((user("a"),), {"tools": []}, None),
        ((user("a"),), {"seed": 1}, None),
    ],
)
def test_unusual_queries_are_named(messages: tuple, extra: dict, reason: str | None) -> None:
    assert unusual(Query("id", messages, extra)) == reason


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"instruction": "Is it bad?"}, ["prompt"]),
        ({"labels": ("no", "yes")}, ["prompt", "labels"]),
        ({"window": Window(5)}, ["window"]),
        ({"examples": ()}, ["prompt"]),
    ],
)
def test_any_change_of_the_task_changes_its_identity(change: dict, field: list[str]) -> None:
    original, changed = (t.identity("large", "minilm") for t in (TASK, replace(TASK, **change)))
    assert original.differences(changed) == field


def test_absent_labels_are_counted_as_zero() -> None:
    assert label_counts(["a", "a"], ["a", "b"]) == {"a": 2, "b": 0}


def test_half_a_surrogate_pair_is_a_query_with_an_id_of_its_own() -> None:
    """It may come out of a JSON body; an engine will refuse it, but nothing may crash before."""
    half, other = Query.from_text("\ud800"), Query.from_text("\udc00")
    assert half.text == "\ud800" and half.id != other.id
