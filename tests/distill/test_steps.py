"""What labels would take, and buying them."""

from __future__ import annotations

from pathlib import Path

import pytest

from cascade.distill.steps import buy_labels, plan_labels
from cascade.distill.workshop import ask_teacher
from tests.distill.workshops import (
    large_tier,
    recipe_of,
    reviews,
    small_tier,
    workshop,
    write_table,
)


@pytest.fixture
def table(tmp_path: Path) -> Path:
    return write_table(tmp_path / "t.csv", reviews(800))


async def test_plan_asks_nobody_and_guesses_the_price(table: Path, tmp_path: Path) -> None:
    large, small = large_tier(), small_tier()
    with workshop(tmp_path, recipe_of(table), large, small) as shop:
        planned = await plan_labels(shop)
    assert large.asked == small.asked == []
    assert (planned["labels_there"], planned["labels_to_buy"]) == (0, 250)
    assert planned["seconds"] == "unknown until the first label is bought"
    assert planned["break_even_requests"] == 500.0
    assert planned["rows"] == "800 texts of 800 rows"
    # 250 labels of 10 to 60 prompt tokens at $1 and two output tokens at $2 a million
    assert 250 * 14e-6 < planned["dollars"] < 250 * 64e-6


async def test_plan_knows_the_price_once_a_label_is_there(table: Path, tmp_path: Path) -> None:
    with workshop(tmp_path, recipe_of(table), large_tier(), small_tier()) as shop:
        await buy_labels(shop)
        planned = await plan_labels(shop)
    assert (planned["labels_there"], planned["labels_to_buy"]) == (100, 150)
    assert planned["dollars"] == pytest.approx(0.15)
    assert planned["seconds"] == pytest.approx(150 * 0.02 / 4)


async def test_plan_of_nothing_left_takes_no_time(table: Path, tmp_path: Path) -> None:
    with workshop(tmp_path, recipe_of(table), large_tier()) as shop:
        await buy_labels(shop)
        await ask_teacher(shop, shop.texts(shop.pools.certify))
        planned = await plan_labels(shop)
    assert (planned["labels_to_buy"], planned["seconds"], planned["dollars"]) == (0, 0.0, 0.0)


async def test_labels_are_bought_once_of_each_tier(table: Path, tmp_path: Path) -> None:
    large, small = large_tier(lambda text: (None, ())), small_tier()
    with workshop(tmp_path, recipe_of(table), large, small) as shop:
        first, second = await buy_labels(shop), await buy_labels(shop)
    assert first == second
    assert (first["labels"], first["unreadable"]) == (100, 100)
    assert first["dollars"] == pytest.approx(0.1)
    assert len(large.asked) == len(small.asked) == 100
