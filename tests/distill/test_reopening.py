"""Every audit of a task makes the next one harder, whatever came of it; a fall counts as one."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest

from cascade.certify import Guarantee, HarmMonitor, Watch
from cascade.distill.attempts import open_audit
from cascade.distill.certification import certify_stream
from cascade.distill.distil import distil
from cascade.recipes import Labels, Recipe
from cascade.store import Store
from tests.distill.workshops import large_tier, recipe_of, reviews, workshop, write_table


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    return recipe_of(write_table(tmp_path / "t.csv", reviews(800)))


def fall(store: Store, recipe: Recipe, falls: int, delta: float = 0.1) -> None:
    asked = Guarantee(recipe.guarantee.target, delta)
    watch = Watch("1", HarmMonitor(asked, 0.01, 0.002), None, delta, falls=falls)
    store.monitors.save(recipe.name, msgspec.to_builtins(watch))


async def delta_of(folder: Path, recipe: Recipe) -> float:
    with workshop(folder, recipe, large_tier()) as shop:
        return open_audit(shop, await distil(shop)).delta


def after(earlier: int, delta: float = 0.1) -> float:
    return delta * 6 / (np.pi * earlier) ** 2


async def test_a_fall_makes_the_next_certificate_harder(tmp_path: Path, recipe: Recipe) -> None:
    with workshop(tmp_path, recipe, large_tier()) as shop:
        fall(shop.store, recipe, falls=1)
        certified = await certify_stream(shop, await distil(shop))
    assert certified.certificate is not None
    assert certified.certificate.delta == pytest.approx(after(1))


async def test_an_audit_that_is_resumed_or_repeated_counts_once(
    tmp_path: Path, recipe: Recipe
) -> None:
    assert [await delta_of(tmp_path, recipe) for _ in range(2)] == [0.1, 0.1]


async def test_every_other_audit_counts_whatever_came_of_it(tmp_path: Path, recipe: Recipe) -> None:
    """Fresh draws, more of them, another guarantee; and the first one stays the first."""
    replace = msgspec.structs.replace
    tries = [
        recipe,
        replace(recipe, seed=1),
        replace(recipe, buy=Labels(train=100, certify=160, evaluate=60)),
        replace(recipe, guarantee=replace(recipe.guarantee, target=0.8)),
        recipe,
    ]
    found = [await delta_of(tmp_path, one) for one in tries]
    assert found == pytest.approx([0.1, after(1), after(2), after(3), 0.1])


async def test_audits_and_falls_count_together(tmp_path: Path, recipe: Recipe) -> None:
    first: float = await delta_of(tmp_path, recipe)
    with workshop(tmp_path, recipe, large_tier()) as shop:
        distilled = await distil(shop)
        fall(shop.store, recipe, falls=1)
        returned = open_audit(shop, distilled)
        fall(shop.store, recipe, falls=3)  # a store that has lost its audits
        again = open_audit(shop, distilled)
    assert first == 0.1
    assert [returned.delta, again.delta] == pytest.approx([after(1), after(3)])


async def test_whoever_returns_satisfies_the_gateway(tmp_path: Path, recipe: Recipe) -> None:
    """It reckons from the delta of the certificate that fell, which need not be the recipe's."""
    with workshop(tmp_path, recipe, large_tier()) as shop:
        fall(shop.store, recipe, falls=1, delta=0.01)
        opened = open_audit(shop, await distil(shop))
    assert opened.delta == pytest.approx(after(1, 0.01))
