"""An audit buys what it needs, counts what it must, and its certificate can be won again."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from cascade import certify
from cascade.certify.stream import StreamEvidence
from cascade.distill.certification import Certified, certify_stream
from cascade.distill.distil import distil
from cascade.distill.replay import TEACHER, judge
from cascade.distill.workshop import Workshop, look
from cascade.tiers.artifact import Artifact
from cascade.tiers.proxy import Proxy
from tests.distill.workshops import (
    Opinion,
    RuleTier,
    coin,
    large_tier,
    lean,
    recipe_of,
    reviews,
    small_tier,
    taste,
    teach,
    workshop,
    write_table,
)


async def certified_of(shop: Workshop) -> Certified:
    return await certify_stream(shop, await distil(shop))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("certification")


@pytest.fixture(scope="module")
def large() -> RuleTier:
    return large_tier()


@pytest.fixture(scope="module")
def shop(folder: Path, large: RuleTier) -> Iterator[Workshop]:
    recipe = recipe_of(write_table(folder / "t.csv", reviews(800)))
    with workshop(folder, recipe, large, small_tier()) as opened:
        yield opened


@pytest.fixture(scope="module")
def certified(shop: Workshop) -> Certified:
    return asyncio.run(certified_of(shop))


def test_certificate_verifies_and_replays(certified: Certified) -> None:
    certificate = certified.certificate
    assert certificate is not None and certified.refusal == ""
    certify.verify(certificate)
    certify.require(certificate, certify.STREAM)
    assert (certificate.target, certificate.delta) == (0.85, 0.1)
    assert certificate.labels == certified.labels
    assert certified.artifact.certificate == certify.to_json(certificate)


def test_sealed_artifact_carries_thresholds_and_card(certified: Certified, tmp_path: Path) -> None:
    certified.artifact.save(tmp_path / "sealed")
    read = Artifact.load(tmp_path / "sealed")
    assert certified.certificate is not None and read.certificate is not None
    assert read.manifest.thresholds == certified.certificate.thresholds
    assert certify.from_json(read.certificate) == certified.certificate
    assert f"{certified.certificate.target:.1%}".removesuffix(".0%") in read.card.replace(".0%", "")


def test_evidence_is_what_the_tiers_would_say(shop: Workshop, certified: Certified) -> None:
    """Each letter of each draw, against the teacher's rule and the sealed proxy."""
    assert certified.certificate is not None
    evidence = certified.certificate.evidence
    assert isinstance(evidence, StreamEvidence)
    texts, labels = shop.texts(shop.pools.certify), shop.bench.task.labels
    manifest = certified.artifact.manifest
    small = np.array([lean(text)[1] for text in texts])
    looked = look(shop.bench, texts)
    opinions = judge(Proxy(certified.artifact), looked, manifest.stack, small)
    answers = opinions.answers(manifest.path)
    for draw in evidence.draws:
        row = int(draw.id)
        right = labels.index(taste(texts[row]))
        for letter, answer in zip(draw.outcome, answers[row], strict=True):
            assert (letter == ".") == (answer == TEACHER)
            if letter in "+x":
                assert (letter == "+") == (answer == right)


def test_labels_come_from_the_audit_pool_alone(shop: Workshop, large: RuleTier) -> None:
    certify_pool = set(shop.texts(shop.pools.certify))
    train_pool = set(shop.texts(shop.pools.train))
    assert set(large.asked[100:]) <= certify_pool
    assert not certify_pool & train_pool
    assert len(large.asked) == len(set(large.asked))


def test_confusion_counts_draws_answered_below(certified: Certified) -> None:
    assert certified.certificate is not None
    conditional = certified.certificate.conditional
    confusion = certified.confusion
    assert confusion.sum() >= conditional.rows
    agreement = confusion.trace() / confusion.sum()
    assert agreement == pytest.approx(conditional.estimate, abs=0.05)
    assert 0 < certified.dollars_below < 0.0002


async def test_unreadable_teacher_counts_as_wrong(tmp_path: Path) -> None:
    """Here the teacher is readable while it trains, and never in the audit."""
    recipe = recipe_of(write_table(tmp_path / "t.csv", reviews(800)))
    audited: set[str] = set()

    def mumble(text: str) -> Opinion:
        return (None, ()) if text in audited else teach(text)

    with workshop(tmp_path, recipe, large_tier(mumble)) as shop:
        audited.update(shop.texts(shop.pools.certify))
        certified = await certified_of(shop)
    assert certified.certificate is None
    assert certified.labels > 0
    assert "no rung reached 0.850 agreement" in certified.refusal
    assert certified.artifact.certificate is None
    assert certified.artifact.manifest.thresholds is None


async def test_hopeless_path_stops_buying(tmp_path: Path) -> None:
    recipe = recipe_of(write_table(tmp_path / "t.csv", reviews(800)))
    flipped: set[str] = set()

    def turncoat(text: str) -> Opinion:
        label, _ = teach(text)
        return ("no" if (label == "yes") == (text in flipped) else "yes"), ()

    large = large_tier(turncoat)
    with workshop(tmp_path, recipe, large) as shop:
        flipped.update(shop.texts(shop.pools.certify))
        certified = await certified_of(shop)
    assert certified.certificate is None
    assert certified.labels < 75  # of 150 draws


async def test_a_rung_may_be_certified_that_is_worth_nothing(tmp_path: Path) -> None:
    """Why promotion asks for more: few rows answered at random leave the agreement high."""
    recipe = recipe_of(write_table(tmp_path / "t.csv", reviews(800)))
    with workshop(tmp_path, recipe, large_tier(coin(0))) as shop:
        certified = await certified_of(shop)
    if certified.certificate is not None:
        assert certified.certificate.conditional.bound < 0.6
