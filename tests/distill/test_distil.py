"""A recipe becomes a proxy: repeatably, from readable labels only, or with a reason why not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cascade.distill.distil import distil, mean_costs
from cascade.distill.lessons import buy_lessons
from cascade.distill.path import Costs
from cascade.distill.workshop import indices, scores
from cascade.errors import NotEnoughSignal, RecipeError
from cascade.store import Label, LabelKey
from cascade.types import Usage
from tests.distill.workshops import (
    MAX_TOKENS,
    NO,
    YES,
    Opinion,
    chance,
    large_tier,
    recipe_of,
    reviews,
    small_tier,
    teach,
    workshop,
    write_table,
)


def grumpy(text: str) -> Opinion:
    """The teacher, unreadable on every tenth text."""
    return (None, ()) if chance(text, "grumpy") < 0.1 else teach(text)


@pytest.fixture
def table(tmp_path: Path) -> Path:
    return write_table(tmp_path / "t.csv", reviews(800))


async def test_same_labels_give_the_same_bytes_and_cost_nothing(
    table: Path, tmp_path: Path
) -> None:
    large, small = large_tier(), small_tier()
    with workshop(tmp_path, recipe_of(table), large, small) as shop:
        first = await distil(shop)
        asked = len(large.asked), len(small.asked)
    with workshop(tmp_path, recipe_of(table), large, small) as shop:
        second = await distil(shop)
    assert asked == (100, 100) == (len(large.asked), len(small.asked))
    assert second.artifact.digest == first.artifact.digest
    assert second.report.metrics == first.report.metrics


async def test_report_and_manifest_say_what_happened(table: Path, tmp_path: Path) -> None:
    with workshop(tmp_path, recipe_of(table), large_tier(), small_tier()) as shop:
        made = await distil(shop)
        assert (await buy_lessons(shop)).texts == made.lessons.texts
    manifest, report = made.artifact.manifest, made.report
    assert manifest.thresholds is None and made.artifact.certificate is None
    assert manifest.label_counts == report.label_counts
    assert sum(report.label_counts.values()) == 100
    assert manifest.identity == shop.bench.identity
    assert report.agreement > 0.65
    # on 100 rows the stack may lose a row or two to a small LLM that is not biased
    assert report.metrics["small_agreement_stacked"] >= report.metrics["small_agreement_raw"] - 0.03
    assert report.metrics["parity_largest_difference"] <= 1e-4
    assert made.lessons.costs.large == pytest.approx(0.001)
    assert made.lessons.costs.small == pytest.approx(0.0002)
    assert made.lessons.teacher_counts.sum() == 50  # the uniform half


async def test_without_a_small_tier_there_is_no_stack(table: Path, tmp_path: Path) -> None:
    with workshop(tmp_path, recipe_of(table), large_tier()) as shop:
        made = await distil(shop)
    assert made.artifact.manifest.stack is None
    assert made.lessons.small is None and made.lessons.costs.small == 0.0
    assert all("small" not in rung.thresholds for rung in made.artifact.manifest.path)
    assert "small_agreement_raw" not in made.report.metrics


async def test_unreadable_labels_are_dropped_and_counted(table: Path, tmp_path: Path) -> None:
    with workshop(tmp_path, recipe_of(table), large_tier(grumpy), small_tier()) as shop:
        made = await distil(shop)
        asked = (await buy_lessons(shop)).texts
    unreadable = sum(grumpy(text)[0] is None for text in asked)
    lessons = made.lessons
    assert lessons.unreadable == unreadable > 0
    assert made.report.metrics["unreadable_labels"] == unreadable
    assert lessons.small is not None
    lengths = {len(lessons.texts), len(lessons.y), len(lessons.soft), len(lessons.small)}
    assert lengths == {len(lessons.views.tokens)} == {100 - unreadable}
    assert [grumpy(text)[0] for text in lessons.texts] == [(YES, NO)[label] for label in lessons.y]


async def test_teacher_without_probabilities_teaches_its_labels(
    table: Path, tmp_path: Path
) -> None:
    large = large_tier(lambda text: (teach(text)[0], ()))
    with workshop(tmp_path, recipe_of(table), large) as shop:
        lessons = (await distil(shop)).lessons
    assert np.array_equal(lessons.soft, np.eye(2)[lessons.y])


async def test_long_texts_are_not_promised_to_any_tier(tmp_path: Path) -> None:
    """They go straight to the teacher, however sure the tiers below would be."""
    texts = reviews(800)
    texts[::2] = [" ".join([text, *["w0"] * MAX_TOKENS]) for text in texts[::2]]
    table = write_table(tmp_path / "t.csv", texts)
    with workshop(tmp_path, recipe_of(table), large_tier(), small_tier()) as shop:
        made = await distil(shop)
    long = 1 - made.lessons.views.whole.mean()
    assert long > 0.2
    assert all(rung.shares["large"] >= long - 1e-9 for rung in made.artifact.manifest.path)


async def test_teacher_of_one_mind_is_not_enough_signal(table: Path, tmp_path: Path) -> None:
    with (
        workshop(tmp_path, recipe_of(table), large_tier(lambda text: (YES, ()))) as shop,
        pytest.raises(NotEnoughSignal) as refused,
    ):
        await distil(shop)
    assert "yes" in str(refused.value) or "one" in str(refused.value)


async def test_teacher_that_nobody_can_read_is_not_enough_signal(
    table: Path, tmp_path: Path
) -> None:
    with (
        workshop(tmp_path, recipe_of(table), large_tier(lambda text: (None, ()))) as shop,
        pytest.raises(NotEnoughSignal),
    ):
        await distil(shop)


async def test_another_seed_draws_other_texts(table: Path, tmp_path: Path) -> None:
    with workshop(tmp_path, recipe_of(table), large_tier()) as shop:
        other = replace(shop, recipe=recipe_of(table, seed=1))
        texts, others = [set((await buy_lessons(one)).texts) for one in (shop, other)]
        assert texts != others
        assert not texts & set(shop.texts(shop.pools.certify))


async def test_too_small_a_table_says_how_many_texts_are_missing(tmp_path: Path) -> None:
    table = write_table(tmp_path / "t.csv", reviews(50))
    with (
        workshop(tmp_path, recipe_of(table), large_tier()) as shop,
        pytest.raises(RecipeError, match="50 distinct texts for 310 labels"),
    ):
        await distil(shop)


def label(
    answer: str | None, scores: tuple[float, ...] = (), seconds: float = 0.0, dollars: float = 0.0
) -> Label:
    return Label(
        LabelKey("task", "teacher", str(answer)),
        answer,
        scores,
        Usage(seconds=seconds, dollars=dollars),
    )


def test_labels_as_numbers() -> None:
    bought = [label(YES, (0.9, 0.1)), label(None), label(NO)]
    assert indices(bought, (YES, NO)).tolist() == [0, -1, 1]
    table = scores(bought, 2)
    assert table[0].tolist() == [0.9, 0.1]
    assert np.isnan(table[1:]).all()


def test_both_tiers_are_priced_in_the_same_unit() -> None:
    free = [label(YES, seconds=2.0), label(NO, seconds=4.0)]
    charged = [label(YES, seconds=2.0, dollars=0.5)]
    assert mean_costs(charged, charged) == Costs(small=0.5, large=0.5)
    assert mean_costs(charged, free) == Costs(small=3.0, large=2.0)
    assert mean_costs(charged, None) == Costs(small=0.0, large=0.5)
