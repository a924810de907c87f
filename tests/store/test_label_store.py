"""The label book: what goes in comes out, once, under its full address."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cascade.store import Label, LabelKey, Store, open_store, task_digest
from cascade.store.labels import MOST_KEYS
from cascade.tasks import Example, Task, Window
from cascade.types import Usage

TASK = Task("good", "filter", "Is it good?", ("yes", "no"))


def label(text: str, answer: str | None = "yes", task: Task = TASK, teacher: str = "t") -> Label:
    usage = Usage(90, 80, 1, 0.5, 0.002)
    return Label(LabelKey.of(task, teacher, text), answer, (0.9, 0.1), usage, bought_at=12.5)


def test_what_was_put_comes_back(store: Store) -> None:
    kept = label("fine")
    store.labels.put(kept)
    assert store.labels.get_many([kept.key]) == {kept.key: kept}


def test_unreadable_is_an_answer_of_its_own(store: Store) -> None:
    kept = replace(label("fine", None), scores=())
    store.labels.put(kept)
    assert store.labels.get_many([kept.key])[kept.key].answer is None


def test_an_absent_key_is_absent(store: Store) -> None:
    assert store.labels.get_many([label("never").key]) == {}
    assert store.labels.get_many([]) == {}


def test_the_first_label_stays(store: Store) -> None:
    store.labels.put(label("fine", "yes"))
    store.labels.put(label("fine", "no"))
    (found,) = store.labels.get_many([label("fine").key]).values()
    assert found.answer == "yes"


def test_more_keys_than_one_statement_takes(store: Store) -> None:
    labels = [label(f"text {i}") for i in range(MOST_KEYS + 7)]
    for one in labels:
        store.labels.put(one)
    assert len(store.labels.get_many(one.key for one in labels)) == len(labels)


def test_teachers_and_tasks_do_not_mix(store: Store) -> None:
    other = replace(TASK, instruction="Is it bad?")
    labels = [label("fine"), label("fine", "no", teacher="u"), label("fine", "no", task=other)]
    for one in labels:
        store.labels.put(one)
    assert store.labels.get_many(one.key for one in labels) == {one.key: one for one in labels}


def test_spent_adds_up_one_task_and_teacher(store: Store) -> None:
    for text in ("a", "b"):
        store.labels.put(label(text))
    store.labels.put(replace(label("c"), usage=Usage(dollars=0.5)))
    store.labels.put(label("a", teacher="dear"))
    spent = store.labels.spent(task_digest(TASK), "t")
    assert spent.labels == 3
    assert spent.usage.prompt_tokens == 180
    assert spent.usage.dollars == pytest.approx(0.504)
    assert spent.dearest == 0.5


def test_nothing_spent_is_zero(store: Store) -> None:
    spent = store.labels.spent(task_digest(TASK), "t")
    assert (spent.labels, spent.usage, spent.dearest) == (0, Usage(), 0.0)


def test_labels_outlive_the_store(store_url: str) -> None:
    with open_store(store_url) as store:
        store.labels.put(label("fine"))
    with open_store(store_url) as store:
        assert store.labels.get_many([label("fine").key])


def test_threads_share_a_store(store: Store) -> None:
    labels = [label(f"text {i}") for i in range(60)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(store.labels.put, labels))
    assert len(store.labels.get_many(one.key for one in labels)) == 60


@pytest.mark.parametrize(
    "other",
    [
        replace(TASK, instruction="Is it bad?"),
        replace(TASK, labels=("no", "yes")),
        replace(TASK, window=Window(5)),
        replace(TASK, examples=(Example("great", "yes"),)),
    ],
)
def test_the_address_changes_with_what_the_teacher_is_told(other: Task) -> None:
    assert task_digest(other) != task_digest(TASK)


def test_the_address_is_blind_to_the_name_and_to_text_outside_the_window() -> None:
    windowed = replace(TASK, window=Window(2))
    assert task_digest(replace(TASK, name="renamed")) == task_digest(TASK)
    assert LabelKey.of(windowed, "t", "a b c") == LabelKey.of(windowed, "t", "a b d")


@given(st.text())
def test_every_text_has_an_address(text: str) -> None:
    assert len(LabelKey.of(TASK, "t", text).text_sha256) == 64


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=20)
@given(
    st.lists(st.floats(0, 1), max_size=5),
    st.floats(0, 1e6),
    st.integers(0, 2**31 - 1),
    st.text(min_size=1),
)
def test_numbers_survive_exactly(
    store: Store, scores: list[float], dollars: float, tokens: int, text: str
) -> None:
    kept = replace(
        label(text, teacher=f"{dollars}{tokens}{scores}"),
        scores=tuple(scores),
        usage=Usage(prompt_tokens=tokens, dollars=dollars),
    )
    store.labels.put(kept)
    assert store.labels.get_many([kept.key])[kept.key] == kept
