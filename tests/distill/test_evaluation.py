"""Figures of an evaluation, against the same figures counted by hand."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cascade.benches import LARGE, PROXY, SMALL
from cascade.config import Guarantee
from cascade.distill import pipeline
from cascade.distill.evaluation import champion, evaluate
from cascade.distill.workshop import Workshop
from cascade.errors import RegistryError
from cascade.policies import Ladder
from cascade.recipes import Source
from cascade.router import Router
from cascade.tiers.proxy import Proxy, ProxyTier
from cascade.tiers.stacked import StackedTier
from cascade.types import Decision, Query
from tests.distill.workshops import (
    NO,
    YES,
    Opinion,
    RuleTier,
    chance,
    large_tier,
    recipe_of,
    reviews,
    small_tier,
    taste,
    teach,
    workshop,
    write_table,
)


def grumpy(text: str) -> Opinion:
    """The teacher, unreadable on every twentieth text."""
    return (None, ()) if chance(text, "grumpy") < 0.05 else teach(text)


@pytest.fixture(scope="module", params=["with a small tier", "without"])
def shop(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    folder = tmp_path_factory.mktemp("evaluation")
    table = write_table(folder / "t.csv", reviews(900))
    source = Source(str(table), "text", gold="human")
    small = small_tier() if request.param == "with a small tier" else None
    modest = Guarantee(target=0.75, delta=0.1)  # the unreadable twentieth counts as wrong
    recipe = recipe_of(table, source=source, guarantee=modest)
    with workshop(folder, recipe, large_tier(grumpy), small) as opened:
        outcome = asyncio.run(pipeline.certify(opened))
        opened.registry.promote("mood", outcome.version)
        yield opened


async def decisions(shop: Workshop, texts: list[str]) -> list[Decision]:
    artifact = champion(shop)
    proxy = ProxyTier(PROXY, Proxy(artifact), shop.bench.embedder, shop.bench.task)
    tiers = {PROXY: proxy, LARGE: shop.bench.large}
    if shop.bench.small is not None and artifact.manifest.stack is not None:
        stack = artifact.manifest.stack
        tiers[SMALL] = StackedTier(SMALL, shop.bench.task, shop.bench.small, proxy, stack)
    router = Router(tiers, Ladder(artifact.manifest.thresholds or {}, LARGE))
    return await router.route_many([Query.from_text(text) for text in texts])


async def test_figures_by_hand(shop: Workshop) -> None:
    found = await evaluate(shop)
    texts = shop.texts(shop.pools.evaluate)
    routed = await decisions(shop, texts)
    answers = [one.answer for one in routed]
    tiers = [LARGE if one is None else one.tier for one in answers]
    said = [None if one is None else one.text for one in answers]
    truth = [grumpy(text)[0] for text in texts]
    below = [i for i, tier in enumerate(tiers) if tier != LARGE]
    assert found["rows"] == len(texts) == 60
    for tier in (PROXY, SMALL):
        assert found["shares"][tier] == pytest.approx(tiers.count(tier) / 60)
    agreed = [one == right for one, right in zip(said, truth, strict=True)]
    assert found["agreement"] == pytest.approx(sum(agreed) / 60)
    conditional = sum(agreed[i] for i in below) / len(below)
    assert found["conditional_agreement"] == pytest.approx(conditional)
    human = [taste(text) for text in texts]
    for name, column in (("teacher", truth), ("cascade", said)):
        right = sum(one == gold for one, gold in zip(column, human, strict=True))
        assert found["gold_accuracy"][name] == pytest.approx(right / 60)
    assert 0.4 < found["proxy_alone_agreement"] < 1


async def test_rows_without_a_human_label_count_for_neither(shop: Workshop) -> None:
    table = Path(shop.recipe.source.table)
    header, *rows = table.read_text().splitlines()
    known = {text for i, text in enumerate(shop.texts(shop.pools.evaluate)) if i % 2}
    half = [row if row.split(",")[0] in known else f"{row.split(',')[0]}," for row in rows]
    other = table.with_name("half.csv")
    other.write_text("\n".join([header, *half]))
    recipe = recipe_of(other, source=Source(str(other), "text", gold="human"))
    found = await evaluate(replace(shop, recipe=recipe))
    teacher = [grumpy(text)[0] == taste(text) for text in known]
    assert found["gold_accuracy"]["teacher"] == pytest.approx(sum(teacher) / len(teacher))


async def test_no_gold_column_no_accuracy(shop: Workshop) -> None:
    recipe = recipe_of(Path(shop.recipe.source.table))
    assert (await evaluate(replace(shop, recipe=recipe)))["gold_accuracy"] == {}


async def test_again_costs_nothing(shop: Workshop) -> None:
    first = await evaluate(shop)
    teacher = shop.bench.large
    assert isinstance(teacher, RuleTier)
    asked = len(teacher.asked)
    assert await evaluate(shop) == first
    assert len(teacher.asked) == asked


async def test_champion_of_another_prompt_is_refused(shop: Workshop) -> None:
    other = recipe_of(Path(shop.recipe.source.table), prompt="Is it rude?")
    identity = other.task.identity("another-model", shop.bench.identity.embedder)
    bench = replace(shop.bench, task=other.task, identity=identity)
    with pytest.raises(RegistryError, match="another prompt, teacher: train again"):
        await evaluate(replace(shop, recipe=other, bench=bench))


async def test_without_champion(tmp_path: Path) -> None:
    recipe = recipe_of(write_table(tmp_path / "t.csv", reviews(900)))
    with (
        workshop(tmp_path, recipe, large_tier()) as shop,
        pytest.raises(RegistryError, match="cascade train <recipe> --promote"),
    ):
        await evaluate(shop)


async def test_champion_without_certificate_is_refused(tmp_path: Path) -> None:
    recipe = recipe_of(write_table(tmp_path / "t.csv", reviews(900)))
    with workshop(tmp_path, recipe, large_tier()) as shop:
        shop.registry.promote("mood", (await pipeline.train(shop)).version)
        with pytest.raises(RegistryError, match="has no certificate"):
            await evaluate(shop)


def test_labels_of_the_world() -> None:
    """Both labels are frequent enough for the figures above to mean something."""
    labels = [taste(text) for text in reviews(900)]
    assert min(labels.count(YES), labels.count(NO)) > 300
