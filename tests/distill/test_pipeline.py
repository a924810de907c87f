"""From a recipe to a champion: what is promoted, what is refused, and that again is free."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cascade import certify
from cascade.certify.stream import StreamEvidence
from cascade.config import Guarantee
from cascade.distill import pipeline
from cascade.distill.workshop import Workshop
from cascade.errors import BudgetExceeded, NotEnoughSignal, PromotionRefused
from cascade.recipes import Labels
from cascade.registry import CHALLENGER, open_registry
from cascade.registry.mlflow_connection import MlflowConnection
from cascade.tiers.artifact import Artifact
from tests.distill.workshops import (
    YES,
    Opinion,
    chance,
    coin,
    large_tier,
    parity,
    recipe_of,
    reviews,
    small_tier,
    taste,
    workshop,
    write_table,
)
from tests.mlflow_server import MlflowServer

CHEAP = {"guarantee": Guarantee(target=0.8, delta=0.1), "buy": Labels(60, 100, 10)}


@pytest.fixture
def table(tmp_path: Path) -> Path:
    return write_table(tmp_path / "t.csv", reviews(800))


def loaded(shop: Workshop, version: str, into: Path) -> Artifact:
    return Artifact.load(shop.registry.load("mood", version, into))


async def test_train_registers_a_challenger_without_certificate(
    table: Path, tmp_path: Path
) -> None:
    with workshop(tmp_path, recipe_of(table), large_tier(), small_tier()) as shop:
        outcome = await pipeline.train(shop)
        assert shop.registry.version("mood", CHALLENGER) == outcome.version == "1"
        assert shop.registry.champion("mood") is None
        assert outcome.certificate is None and outcome.run is None
        assert loaded(shop, "1", tmp_path / "in").certificate is None


async def test_certify_registers_what_it_proved(table: Path, tmp_path: Path) -> None:
    with workshop(tmp_path, recipe_of(table), large_tier(), small_tier()) as shop:
        outcome = await pipeline.certify(shop)
        kept = loaded(shop, outcome.version, tmp_path / "in")
        assert shop.registry.champion("mood") is None
    assert kept.certificate is not None and outcome.certificate is not None
    read = certify.from_json(kept.certificate)
    certify.verify(read)
    assert read == outcome.certificate
    assert outcome.distilled.report.certified is not None
    assert outcome.distilled.report.metrics["certificate.labels"] == read.labels


@pytest.mark.parametrize("small", [small_tier, lambda: None], ids=["small", "no small"])
async def test_useful_proxy_is_promoted_and_again_is_free(
    table: Path, tmp_path: Path, small: Callable[[], Any]
) -> None:
    large, other = large_tier(), small()
    with workshop(tmp_path, recipe_of(table), large, other) as shop:
        first = await pipeline.promote(shop)
        assert shop.registry.champion("mood") == first.version == "1"
        asked = len(large.asked), len(other.asked) if other else 0
        again = await pipeline.promote(shop)
        certified = await pipeline.certify(shop)
        assert shop.registry.champion("mood") == "1"
    assert first.verdict is not None and first.verdict.promote
    assert asked == (len(large.asked), len(other.asked) if other else 0)
    assert len(large.asked) == len(set(large.asked))
    assert again.version == certified.version == "1"
    assert again.certified is not None and first.certified is not None
    assert again.certified.artifact.digest == first.certified.artifact.digest
    assert sorted(one.name for one in (tmp_path / "registry/mood/versions").iterdir()) == ["1"]


async def test_steps_one_by_one_make_two_versions(table: Path, tmp_path: Path) -> None:
    large = large_tier()
    with workshop(tmp_path, recipe_of(table), large) as shop:
        versions = [
            (await step(shop)).version
            for step in (pipeline.train, pipeline.certify, pipeline.promote, pipeline.train)
        ]
        assert shop.registry.champion("mood") == "2"
    assert versions == ["1", "2", "2", "1"]


async def test_lost_work_folder_and_registry_are_made_again_from_labels(
    table: Path, tmp_path: Path
) -> None:
    """Only the labels cannot be made again, and they give the same artifact."""
    large = large_tier()
    with workshop(tmp_path, recipe_of(table), large) as shop:
        first = await pipeline.promote(shop)
    asked = len(large.asked)
    (tmp_path / "work").rename(tmp_path / "gone")
    (tmp_path / "registry").rename(tmp_path / "gone-too")
    with workshop(tmp_path, recipe_of(table), large) as shop:
        second = await pipeline.promote(shop)
        digest = shop.registry.describe("mood", second.version).digest
    assert first.certified is not None and digest == first.certified.artifact.digest
    assert len(large.asked) == asked


async def test_new_labels_make_a_new_champion(table: Path, tmp_path: Path) -> None:
    with workshop(tmp_path, recipe_of(table), large_tier()) as shop:
        await pipeline.promote(shop)
    with workshop(tmp_path, recipe_of(table, seed=1), large_tier()) as shop:
        assert (await pipeline.promote(shop)).version == "2"
        assert shop.registry.champion("mood") == "2"
        assert shop.registry.rollback("mood") == "1"


async def test_unreadable_labels_neither_help_nor_hide(table: Path, tmp_path: Path) -> None:
    """Dropped from training, and a wrong answer of every tier that answered in the audit."""

    def mumble(text: str) -> Opinion:
        return (None, ()) if chance(text, "mumble") < 0.04 else (taste(text), ())

    with workshop(tmp_path, recipe_of(table), large_tier(mumble)) as shop:
        outcome = await pipeline.certify(shop)
        texts = shop.texts(shop.pools.certify)
    assert outcome.distilled.lessons.unreadable > 0
    assert outcome.certificate is not None
    evidence = outcome.certificate.evidence
    assert isinstance(evidence, StreamEvidence)
    audited = [one.outcome for one in evidence.draws if mumble(texts[int(one.id)])[0] is None]
    assert any("x" in one for one in audited)
    assert not any("+" in one for one in audited)


@pytest.mark.slow
async def test_shuffled_labels_are_never_promoted(table: Path, tmp_path: Path) -> None:
    """Twenty worthless teachers. Some rungs may be certified (few rows are answered); none wins."""
    refusals = [await refusal_of_coin(seed, table, tmp_path / str(seed)) for seed in range(20)]
    assert all("is not promoted" in one or "would answer" in one for one in refusals)
    for one in refusals:
        known = ("no certificate", "constant answer", "net saving", "no tier below the teacher")
        assert any(reason in one for reason in known)


async def refusal_of_coin(seed: int, table: Path, folder: Path) -> str:
    folder.mkdir()
    recipe = recipe_of(table, seed=seed, **CHEAP)
    with workshop(folder, recipe, large_tier(coin(seed))) as shop:
        with pytest.raises((PromotionRefused, NotEnoughSignal)) as refused:
            await pipeline.promote(shop)
        assert shop.registry.champion("mood") is None
    return str(refused.value)


async def test_task_that_embeddings_do_not_show_is_refused(table: Path, tmp_path: Path) -> None:
    with workshop(tmp_path, recipe_of(table), large_tier(parity)) as shop:
        with pytest.raises(PromotionRefused, match="mood version 1 is not promoted: ") as refused:
            await pipeline.promote(shop)
        assert shop.registry.champion("mood") is None
        assert shop.registry.version("mood", CHALLENGER) == "1"
    assert "The teacher goes on answering" in str(refused.value)


async def test_refusal_leaves_the_champion_where_it_is(table: Path, tmp_path: Path) -> None:
    with workshop(tmp_path, recipe_of(table), large_tier()) as shop:
        await pipeline.promote(shop)
    other = recipe_of(table, prompt="Is the number of words odd?")
    with workshop(tmp_path, other, large_tier(parity)) as shop:
        with pytest.raises(PromotionRefused):
            await pipeline.promote(shop)
        assert shop.registry.champion("mood") == "1"


async def test_proxy_that_never_pays_for_its_labels_is_refused(table: Path, tmp_path: Path) -> None:
    recipe = recipe_of(table, expected_requests=100)
    with (
        workshop(tmp_path, recipe, large_tier()) as shop,
        pytest.raises(PromotionRefused, match=r"net saving -0\.\d+ dollars over 100 requests"),
    ):
        await pipeline.promote(shop)


async def test_one_class_says_what_it_found(table: Path, tmp_path: Path) -> None:
    with (
        workshop(tmp_path, recipe_of(table), large_tier(lambda text: (YES, ()))) as shop,
        pytest.raises(NotEnoughSignal) as refused,
    ):
        await pipeline.promote(shop)
    assert len(str(refused.value)) > 40
    assert "label" in str(refused.value)


async def test_limit_keeps_what_was_bought(table: Path, tmp_path: Path) -> None:
    large = large_tier()
    with workshop(tmp_path, recipe_of(table), large) as shop:
        with pytest.raises(BudgetExceeded, match="are kept"):
            await pipeline.train(replace(shop, limit_dollars=0.03))
        bought = len(large.asked)
        await pipeline.train(shop)
    assert 0 < bought <= 30
    assert len(large.asked) == 100


async def test_limit_holds_for_everything_that_one_command_buys(
    table: Path, tmp_path: Path
) -> None:
    """100 + 100 labels to train on and the audit, in chunks: one purse for all of them."""
    large, small = large_tier(), small_tier()
    with workshop(tmp_path, recipe_of(table), large, small) as shop:
        with pytest.raises(BudgetExceeded):
            await pipeline.promote(replace(shop, limit_dollars=0.2))
        assert shop.registry.champion("mood") is None
    spent = len(large.asked) * 0.001 + len(small.asked) * 0.0002
    assert 0.19 < spent <= 0.2


@pytest.mark.parametrize("kind", ["database", "server"])
async def test_mlflow_keeps_run_version_and_champion(
    table: Path, tmp_path: Path, kind: str, request: pytest.FixtureRequest
) -> None:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    if kind == "server":
        server: MlflowServer = request.getfixturevalue("mlflow_server")
        uri = server.uri
    large, name = large_tier(), f"mood-{kind}"
    recipe, registry = recipe_of(table, name=name), open_registry(uri)
    with workshop(tmp_path, recipe, large, registry=registry, tracking=uri) as shop:
        first, again = await pipeline.promote(shop), await pipeline.promote(shop)
        folder = registry.load(name, registry.champion(name) or "", tmp_path / "in")
    assert again.version == first.version == registry.champion(name)
    assert again.run == first.run == registry.describe(name, first.version).run
    assert first.certified is not None
    assert Artifact.load(folder).digest == first.certified.artifact.digest
    run = MlflowConnection(uri).client.get_run(first.run or "")
    assert run.info.status == "FINISHED"
    assert run.data.metrics["certificate.bound"] == 0.85
    assert len(large.asked) == len(set(large.asked))
