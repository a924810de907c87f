"""Buying labels: each once, none lost, never more than was allowed."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cascade import reasons
from cascade.distill.label import FAILURES_IN_A_ROW, Plan, buy, plan
from cascade.errors import (
    BudgetExceeded,
    StoreError,
    TierRejected,
    TierUnavailable,
    UsageError,
)
from cascade.store import LabelKey, Store, open_store, task_digest
from cascade.tasks import Task, Window
from cascade.testing import FakeTier
from cascade.types import Abstention, Answer, Query, Reply, Usage

TASK = Task("good", "filter", "Is it good?", ("yes", "no"))
TEXTS = [f"text {i}" for i in range(20)]
YES = Usage(seconds=0.5, dollars=0.01)


class Teacher:
    """Says what ``reply`` says, after a moment; remembers its questions and how many at once."""

    name = "large"

    def __init__(self, reply: Callable[[str], Reply]) -> None:
        self.asked: list[str] = []
        self.most_at_once = 0
        self._at_once = 0
        self._reply = reply

    async def answer(self, queries: list[Query]) -> list[Reply]:
        self.asked += [query.text or "" for query in queries]
        self._at_once += 1
        self.most_at_once = max(self.most_at_once, self._at_once)
        await asyncio.sleep(0.001)
        self._at_once -= 1
        return [self._reply(query.text or "") for query in queries]


def agreeable(text: str) -> Reply:
    return Answer("large", "yes", 1.0, YES, (0.8, 0.2))


def down(text: str) -> Reply:
    return Abstention("large", reasons.TIER_UNAVAILABLE, detail="connection refused")


def refusing(text: str) -> Reply:
    return Abstention("large", reasons.UNSUPPORTED_INPUT, detail="401 wrong key")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with open_store(f"sqlite:///{tmp_path}/store.db") as opened:
        yield opened


def bought(store: Store, teacher: str = "large") -> int:
    return store.labels.spent(task_digest(TASK), teacher).labels


async def test_labels_come_in_the_order_of_the_texts(store: Store) -> None:
    answers = {text: ("yes" if i % 3 else "no", 1.0) for i, text in enumerate(TEXTS)}
    labels = await buy(TASK, FakeTier("large", answers), TEXTS, store)
    assert [label.answer for label in labels] == [answers[text][0] for text in TEXTS]


async def test_scores_and_usage_are_kept(store: Store) -> None:
    (label,) = await buy(TASK, Teacher(agreeable), ["a"], store)
    assert (label.scores, label.usage) == ((0.8, 0.2), YES)
    assert abs(label.bought_at - time.time()) < 60
    assert store.labels.get_many([label.key]) == {label.key: label}


async def test_nothing_is_bought_twice(store: Store) -> None:
    teacher = Teacher(agreeable)
    first = await buy(TASK, teacher, TEXTS[:5], store)
    again = await buy(TASK, teacher, TEXTS[:8], store)
    assert again[:5] == first
    assert sorted(teacher.asked) == sorted(TEXTS[:8])


async def test_equal_texts_are_asked_once(store: Store) -> None:
    teacher = Teacher(agreeable)
    labels = await buy(TASK, teacher, ["a", "b", "a", "a"], store)
    assert sorted(teacher.asked) == ["a", "b"]
    assert labels[0] == labels[2] == labels[3] != labels[1]


async def test_only_the_window_is_asked_and_compared(store: Store) -> None:
    task = Task("good", "filter", "Is it good?", ("yes", "no"), window=Window(2))
    teacher = Teacher(agreeable)
    await buy(task, teacher, ["one two three", "one two four"], store)
    assert teacher.asked == ["one two"]


async def test_another_model_behind_the_same_name_is_another_teacher(store: Store) -> None:
    teacher = Teacher(agreeable)
    await buy(TASK, teacher, ["a"], store, teacher_model="qwen-1.5b")
    await buy(TASK, teacher, ["a"], store, teacher_model="qwen-32b")
    assert teacher.asked == ["a", "a"]
    assert bought(store, "qwen-32b") == 1


async def test_concurrency_is_used_and_bounded(store: Store) -> None:
    teacher = Teacher(agreeable)
    await buy(TASK, teacher, TEXTS, store, concurrency=3)
    assert teacher.most_at_once == 3


async def test_no_concurrency_is_wrong_use(store: Store) -> None:
    with pytest.raises(UsageError, match="at least one"):
        await buy(TASK, Teacher(agreeable), TEXTS, store, concurrency=0)


async def test_no_texts_are_no_labels(store: Store) -> None:
    assert await buy(TASK, Teacher(agreeable), [], store) == []


async def test_progress_counts_distinct_texts_and_new_dollars(store: Store) -> None:
    told: list[tuple[int, int, float]] = []
    await buy(TASK, Teacher(agreeable), ["a", "b"], store)
    await buy(
        TASK,
        Teacher(agreeable),
        ["a", "b", "c", "d", "d"],
        store,
        progress=lambda done, total, dollars: told.append((done, total, round(dollars, 6))),
    )
    assert told == [(2, 4, 0.0), (3, 4, 0.01), (4, 4, 0.02)]


async def test_a_label_is_durable_before_progress_counts_it(store: Store) -> None:
    def check(done: int, total: int, dollars: float) -> None:
        assert bought(store) >= done

    await buy(TASK, Teacher(agreeable), TEXTS, store, progress=check)


async def test_unreadable_is_stored_and_not_asked_again(store: Store) -> None:
    teacher = Teacher(lambda text: Abstention("large", reasons.UNREADABLE, YES, "maybe"))
    (label,) = await buy(TASK, teacher, ["a"], store)
    assert label.answer is None
    assert await buy(TASK, teacher, ["a"], store) == [label]
    assert teacher.asked == ["a"]


async def test_a_label_outside_the_set_is_unreadable(store: Store) -> None:
    (label,) = await buy(TASK, Teacher(lambda text: Answer("large", "maybe", 1.0)), ["a"], store)
    assert label.answer is None
    assert bought(store) == 1


async def test_trouble_that_passes_is_survived(store: Store) -> None:
    trouble = Counter(TEXTS[::3])

    def now_and_then(text: str) -> Reply:
        trouble[text] -= 1
        return down(text) if trouble[text] >= 0 else agreeable(text)

    labels = await buy(TASK, Teacher(now_and_then), TEXTS, store, concurrency=1)
    assert [label.answer for label in labels] == ["yes"] * len(TEXTS)


async def test_a_teacher_that_goes_down_keeps_what_was_bought(store: Store) -> None:
    teacher = Teacher(lambda text: agreeable(text) if text in TEXTS[:7] else down(text))
    with pytest.raises(TierUnavailable, match="connection refused; 7 labels were bought") as raised:
        await buy(TASK, teacher, TEXTS, store, concurrency=1)
    assert "run this again" in str(raised.value)
    assert bought(store) == 7
    assert len(teacher.asked) == 7 + FAILURES_IN_A_ROW


async def test_one_text_that_always_fails_ends_the_purchase_last(store: Store) -> None:
    teacher = Teacher(lambda text: down(text) if text == TEXTS[0] else agreeable(text))
    with pytest.raises(TierUnavailable, match="19 labels"):
        await buy(TASK, teacher, TEXTS, store, concurrency=2)
    assert bought(store) == 19


async def test_a_refused_text_is_neither_stored_nor_fatal(store: Store) -> None:
    teacher = Teacher(lambda text: refusing(text) if text == TEXTS[3] else agreeable(text))
    labels = await buy(TASK, teacher, TEXTS, store)
    assert [label.answer for label in labels].count(None) == 1
    assert labels[3].answer is None
    assert bought(store) == 19


async def test_many_refusals_in_a_row_end_the_purchase(store: Store) -> None:
    teacher = Teacher(lambda text: agreeable(text) if text in TEXTS[:2] else refusing(text))
    with pytest.raises(TierRejected, match="401 wrong key; 2 labels were bought"):
        await buy(TASK, teacher, TEXTS, store, concurrency=1)
    assert len(teacher.asked) == 2 + FAILURES_IN_A_ROW


async def test_nothing_but_refusals_is_no_result(store: Store) -> None:
    with pytest.raises(TierRejected, match="wrong key"):
        await buy(TASK, Teacher(refusing), ["a"], store)


@pytest.mark.parametrize("concurrency", [1, 4, 32])
async def test_the_limit_is_never_passed(store: Store, concurrency: int) -> None:
    teacher = Teacher(agreeable)
    with pytest.raises(BudgetExceeded, match=r"limit of \$0.055.*5 labels.*15 are missing"):
        await buy(TASK, teacher, TEXTS, store, limit_dollars=0.055, concurrency=concurrency)
    assert len(teacher.asked) == bought(store) == 5


async def test_the_next_purchase_goes_on_where_the_limit_stopped_one(store: Store) -> None:
    teacher = Teacher(agreeable)
    with pytest.raises(BudgetExceeded):
        await buy(TASK, teacher, TEXTS, store, limit_dollars=0.1)
    await buy(TASK, teacher, TEXTS, store, limit_dollars=0.11)
    assert sorted(teacher.asked) == sorted(TEXTS)


async def test_failures_that_cost_count_against_the_limit(store: Store) -> None:
    def dear_failure(text: str) -> Reply:
        return Abstention("large", reasons.TIER_UNAVAILABLE, Usage(dollars=0.02))

    with pytest.raises(BudgetExceeded, match="0.04 spent"):
        await buy(TASK, Teacher(dear_failure), TEXTS, store, limit_dollars=0.04)


async def test_no_money_buys_nothing_but_what_is_there(store: Store) -> None:
    teacher = Teacher(agreeable)
    await buy(TASK, teacher, ["a"], store)
    assert len(await buy(TASK, teacher, ["a"], store, limit_dollars=0.0)) == 1
    with pytest.raises(BudgetExceeded):
        await buy(TASK, teacher, ["b"], store, limit_dollars=0.0)
    assert teacher.asked == ["a"]


async def test_a_free_teacher_has_no_limit(store: Store) -> None:
    free = FakeTier("large", {text: ("yes", 1.0) for text in TEXTS})
    assert len(await buy(TASK, free, TEXTS, store, limit_dollars=0.01)) == len(TEXTS)


async def test_a_store_that_fails_stops_the_asking(store: Store, tmp_path: Path) -> None:
    def lose_the_store(text: str) -> Reply:
        if text == TEXTS[4]:
            for file in tmp_path.glob("store.db*"):
                file.write_bytes(b"not a database any more" * 1000)
        return agreeable(text)

    teacher = Teacher(lose_the_store)
    with pytest.raises(StoreError):
        await buy(TASK, teacher, TEXTS, store, concurrency=1)
    assert len(teacher.asked) == 5


async def test_asks_in_flight_are_kept_when_it_is_cancelled(store: Store) -> None:
    teacher = Teacher(agreeable)
    purchase = asyncio.create_task(buy(TASK, teacher, TEXTS, store, concurrency=4))
    while len(teacher.asked) < 10:
        await asyncio.sleep(0)
    purchase.cancel()
    with pytest.raises(asyncio.CancelledError):
        await purchase
    assert bought(store) == len(teacher.asked) < len(TEXTS)


async def test_a_tier_that_raises_is_not_hidden(store: Store) -> None:
    def broken(text: str) -> Reply:
        if text == TEXTS[2]:
            raise RuntimeError("a bug")
        return agreeable(text)

    teacher = Teacher(broken)
    with pytest.raises(RuntimeError, match="a bug"):
        await buy(TASK, teacher, TEXTS, store, concurrency=4)
    assert bought(store) == len(teacher.asked) - 1


async def test_a_plan_before_the_first_label(store: Store) -> None:
    told = plan(TASK, "large", ["a", "b", "a"], store)
    assert told == Plan(0, 2, seconds=None, dollars=None, break_even_rows=2.0)


async def test_a_plan_from_what_labels_have_cost(store: Store) -> None:
    await buy(TASK, Teacher(agreeable), TEXTS[:5], store)
    told = plan(TASK, "large", TEXTS, store, concurrency=2, saving_share=0.5)
    assert (told.there, told.to_buy, told.break_even_rows) == (5, 15, 30.0)
    assert told.seconds == pytest.approx(15 * 0.5 / 2)
    assert told.dollars == pytest.approx(0.15)


async def test_a_plan_that_saves_nothing_never_breaks_even(store: Store) -> None:
    assert plan(TASK, "large", ["a"], store, saving_share=0.0).break_even_rows is None


CONCURRENCY, KILLS, N_TEXTS = 4, 12, 400
BUYER = f"""
import asyncio, os, sys
from cascade.distill.label import buy
from cascade.store import open_store
from cascade.tasks import Task
from cascade.types import Answer, Usage

asked = os.open(sys.argv[2], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
reported = os.open(sys.argv[3], os.O_WRONLY | os.O_CREAT | os.O_APPEND)

def note(file, line):
    os.write(file, f"{{line}}\\n".encode())
    os.fsync(file)

class SlowTeacher:
    name = "large"
    async def answer(self, queries):
        note(asked, queries[0].text)
        await asyncio.sleep(0.02)
        return [Answer("large", "yes", 1.0, Usage(dollars=0.01))]

task = Task("good", "filter", "Is it good?", ("yes", "no"))
with open_store(sys.argv[1]) as store:
    asyncio.run(buy(
        task, SlowTeacher(), [f"text {{i}}" for i in range({N_TEXTS})], store,
        concurrency={CONCURRENCY}, progress=lambda done, total, dollars: note(reported, done),
    ))
"""


def start_buying(folder: Path) -> subprocess.Popen[bytes]:
    files = [f"sqlite:///{folder}/store.db", folder / "asked", folder / "reported"]
    return subprocess.Popen([sys.executable, "-c", BUYER, *map(str, files)])


def lines(path: Path) -> list[str]:
    """The whole lines of a log that may have been cut."""
    return path.read_text().split("\n")[:-1] if path.exists() else []


def stored_texts(folder: Path) -> set[str]:
    keys = {LabelKey.of(TASK, "large", f"text {i}"): f"text {i}" for i in range(N_TEXTS)}
    with open_store(f"sqlite:///{folder}/store.db") as store:
        return {keys[key] for key in store.labels.get_many(keys)}


def kill_while_buying(folder: Path, after_seconds: float) -> None:
    """Kill -9 at ``after_seconds`` after the first ask, or from the start if there is none."""
    before = len(lines(folder / "asked"))
    buyer = start_buying(folder)
    while buyer.poll() is None and len(lines(folder / "asked")) == before:
        time.sleep(0.005)
    time.sleep(after_seconds)
    os.kill(buyer.pid, signal.SIGKILL)
    buyer.wait()


@pytest.mark.slow
def test_kill_9_loses_nothing_and_nothing_is_bought_twice(tmp_path: Path) -> None:
    moments = random.Random(20261)
    kills = 0
    while len(stored_texts(tmp_path)) < N_TEXTS and kills < KILLS:
        there, asked_before = stored_texts(tmp_path), len(lines(tmp_path / "asked"))
        kill_while_buying(tmp_path, moments.uniform(0.0, 0.15))
        kills += 1
        asked_now = set(lines(tmp_path / "asked")[asked_before:])
        now = stored_texts(tmp_path)
        assert there <= now
        assert not asked_now & there
        assert len(asked_now - now) <= CONCURRENCY
        assert max(map(int, lines(tmp_path / "reported")), default=0) <= len(now)
    assert kills == KILLS, "the purchases ended before they could be killed"
    assert start_buying(tmp_path).wait(timeout=60) == 0
    assert len(stored_texts(tmp_path)) == N_TEXTS
    asked = lines(tmp_path / "asked")
    assert set(asked) == {f"text {i}" for i in range(N_TEXTS)}
    assert len(asked) - N_TEXTS <= KILLS * CONCURRENCY
