"""Labels are bought in rounds: the later ones where they teach, and none that does not pay."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cascade.distill.label import Progress
from cascade.distill.lessons import Purchase, buy_lessons, likely_texts
from cascade.distill.workshop import Workshop
from cascade.recipes import Labels
from tests.distill.workshops import (
    NO,
    YES,
    Opinion,
    RuleTier,
    chance,
    large_tier,
    recipe_of,
    reviews,
    workshop,
    write_table,
)


def seldom(text: str) -> Opinion:
    """A teacher who says yes to superb things only: about one review in nine."""
    return (YES if "superb" in text else NO), ()


@pytest.fixture
def table(tmp_path: Path) -> Path:
    return write_table(tmp_path / "t.csv", reviews(1200))


async def purchase(table: Path, folder: Path, large: RuleTier, **changes: object) -> Purchase:
    with workshop(folder, recipe_of(table, **changes), large) as shop:
        return await buy_lessons(shop)


async def test_each_label_is_bought_once_and_again_is_free(table: Path, tmp_path: Path) -> None:
    large = large_tier(seldom)
    first = await purchase(table, tmp_path, large)
    second = await purchase(table, tmp_path, large)
    assert first.texts == second.texts
    assert np.array_equal(first.sample.propensities, second.sample.propensities)
    assert sorted(large.asked) == sorted(first.texts)
    assert len(set(first.texts)) == len(first.labels) == len(first.views.tokens) == 100


async def test_labels_belong_to_their_texts(table: Path, tmp_path: Path) -> None:
    bought = await purchase(table, tmp_path, large_tier(seldom))
    assert [one.answer for one in bought.labels] == [seldom(text)[0] for text in bought.texts]


async def test_rare_labels_are_sought_out(table: Path, tmp_path: Path) -> None:
    buy = Labels(train=200, certify=100, evaluate=50)
    bought = await purchase(table, tmp_path, large_tier(seldom), buy=buy)
    rare = np.array([one.answer == YES for one in bought.labels])
    uniform = bought.sample.uniform
    assert rare[~uniform].mean() > 1.5 * rare[uniform].mean()


async def test_a_small_job_buys_no_label_that_does_not_pay(table: Path, tmp_path: Path) -> None:
    """What teacher and text agree about is soon learnt; and fewer requests want fewer labels."""
    buy = Labels(train=250, certify=10, evaluate=10)
    bought = [
        len(
            (
                await purchase(table, tmp_path, large_tier(seldom), buy=buy, expected_requests=n)
            ).texts
        )
        for n in (100, 1_000_000)
    ]
    assert 60 <= bought[0] < 250 == bought[1]


async def test_progress_runs_from_nothing_to_all(table: Path, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    with workshop(tmp_path, recipe_of(table), large_tier()) as shop:
        watched = listening(shop, told)
        await buy_lessons(watched)
    assert told == sorted(told)
    assert (told[0], told[-1]) == ((0, 100), (100, 100))
    assert watched.bill.dollars == pytest.approx(0.1)


def listening(shop: Workshop, told: list[tuple[int, int]]) -> Workshop:
    """The same workshop, with a progress that remembers."""

    @contextmanager
    def remember(title: str) -> Iterator[Progress]:
        yield lambda done, total, dollars: told.append((done, total))

    return replace(shop, progress=remember)


async def test_a_plan_counts_the_labels_that_are_there(table: Path, tmp_path: Path) -> None:
    with workshop(tmp_path, recipe_of(table), large_tier()) as shop:
        before = likely_texts(shop)
        bought = (await buy_lessons(shop)).texts
        assert len(before) == 100 and set(before) != set(bought)
        assert set(likely_texts(shop)) == set(bought)


async def test_unreadable_answers_are_labels_too(table: Path, tmp_path: Path) -> None:
    def grumpy(text: str) -> Opinion:
        return (None, ()) if chance(text, "grumpy") < 0.2 else seldom(text)

    bought = await purchase(table, tmp_path, large_tier(grumpy))
    assert len(bought.labels) == 100
    assert 0 < sum(one.answer is None for one in bought.labels) < 50
