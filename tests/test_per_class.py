"""A task with a class that the proxy cannot judge: from the recipe to what the gateway answers."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from cascade import certify, config
from cascade.certify.certificate import STREAM
from cascade.certify.every_label import EveryLabelEvidence
from cascade.distill import pipeline
from cascade.distill.card import claim_in_words
from cascade.distill.evaluation import evaluate
from cascade.distill.workshop import Workshop
from cascade.gateway.audit import Auditor
from cascade.gateway.builder import LaneBuilder
from cascade.gateway.lanes import Lane, Lanes
from cascade.gateway.observe import Metrics
from cascade.recipes import Labels
from cascade.tiers.artifact import Artifact
from cascade.types import Query
from tests.distill.workshops import (
    BLAME,
    NEUTRAL,
    PRAISE,
    Opinion,
    RuleTier,
    chance,
    large_tier,
    recipe_of,
    small_tier,
    workshop,
    write_table,
)

LABELS = ("praise", "blame", "plain")


def notes(n: int) -> list[str]:
    """Two of five praise, two blame, one does neither."""
    rng = np.random.default_rng(5)
    return [_note(rng) for _ in range(n)]


def _note(rng: np.random.Generator) -> str:
    words = list(rng.choice(NEUTRAL, rng.integers(6, 12)))
    kind = rng.random()
    if kind < 0.8:
        words += list(rng.choice(PRAISE if kind < 0.4 else BLAME, 2))
    rng.shuffle(words)
    return " ".join(words)


def sort_notes(text: str) -> Opinion:
    """What the words say; but a third of the plain notes are praise or blame to this teacher."""
    words = set(text.split())
    if words & set(PRAISE):
        return "praise", ()
    if words & set(BLAME):
        return "blame", ()
    return LABELS[0 if chance(text) < 0.16 else 1 if chance(text) > 0.84 else 2], ()


@dataclass(frozen=True)
class Made:
    shop: Workshop
    outcome: pipeline.Outcome
    lane: Lane
    artifact: Artifact
    large: RuleTier
    small: RuleTier

    @property
    def certificate(self) -> certify.Certificate:
        assert self.outcome.certificate is not None
        return self.outcome.certificate

    def served(self) -> list[tuple[str, str, str]]:
        """(tier, answer, what the teacher would have said) of texts that nobody has seen."""
        texts = self.shop.texts(self.shop.pools.evaluate)
        queries = [Query.from_text(text) for text in texts]
        decisions = asyncio.run(self.lane.router.route_many(queries))
        answers = [one.answer for one in decisions if one.answer]
        said = [str(sort_notes(text)[0]) for text in texts]
        return [(one.tier, one.text, truth) for one, truth in zip(answers, said, strict=True)]


def promoted(folder: Path, *, per_class: bool) -> Iterator[Made]:
    recipe = recipe_of(
        write_table(folder / "t.csv", notes(1500)),
        kind="classify",
        labels=LABELS,
        guarantee=config.Guarantee(0.85, 0.1, per_class),
        buy=Labels(train=150, certify=400, evaluate=400),
    )
    large, small = large_tier(sort_notes), small_tier(sort_notes)
    with workshop(folder, recipe, large, small if per_class else None) as shop:
        outcome = asyncio.run(pipeline.promote(shop))
        kept = shop.registry.load("mood", outcome.version, folder / "in")
        builder = LaneBuilder({"mood": shop.bench}, watching=dict)
        lane = builder.build("mood", outcome.version, kept)
        yield Made(shop, outcome, lane, Artifact.load(kept), large, small)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Made]:
    yield from promoted(tmp_path_factory.mktemp("per-class"), per_class=True)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Made]:
    yield from promoted(tmp_path_factory.mktemp("plain"), per_class=False)


def test_only_the_good_classes_are_answered_below_the_teacher(made: Made) -> None:
    below = [(text, truth) for tier, text, truth in made.served() if tier == "proxy"]
    given = Counter(text for text, _ in below)
    assert set(given) == {"praise", "blame"} and min(given.values()) > 50
    for label in given:
        right = [text == truth for text, truth in below if text == label]
        assert np.mean(right) >= 0.85


def test_the_plain_guarantee_answers_the_bad_class_too(plain: Made) -> None:
    """And holds: a bad class is a small part of all answers."""
    assert plain.certificate.metric == "agreement"
    served = plain.served()
    right = [text == truth for tier, text, truth in served if tier == "proxy" and text == "plain"]
    assert len(right) > 20 and np.mean(right) < 0.85
    assert np.mean([tier == "large" or text == truth for tier, text, truth in served]) >= 0.85


def test_one_certificate_holds_one_for_each_class(made: Made) -> None:
    certificate = made.certificate
    certify.verify(certify.from_json(made.artifact.certificate or b""))
    certify.require(certificate, STREAM)
    assert certificate.metric == "agreement by label" and certificate.delta == 0.1
    assert set(certify.label_thresholds(certificate.thresholds)) == {"praise", "blame"}
    assert isinstance(certificate.evidence, EveryLabelEvidence)
    own = certify.label_certificates(certificate.evidence.replay())
    for label, one in own.items():
        certify.verify(one)
        assert one.metric == f"agreement:{label}" and one.delta == pytest.approx(0.1 / 3)
    assert set(own) == {"praise", "blame"}


async def test_without_a_label_that_could_hold_nothing_is_bought(tmp_path: Path) -> None:
    recipe = recipe_of(
        write_table(tmp_path / "t.csv", notes(400)),
        kind="classify",
        labels=LABELS,
        guarantee=config.Guarantee(0.95, 0.05, per_class=True),
        buy=Labels(train=150, certify=90, evaluate=60),
    )
    large = large_tier(sort_notes)
    with workshop(tmp_path, recipe, large) as shop:
        outcome = await pipeline.certify(shop)
    assert outcome.certified is not None and outcome.certificate is None
    assert "each needs draws of its own (`buy.certify`)" in outcome.certified.refusal
    assert len(large.asked) == 150


async def test_where_no_label_holds_the_audit_ends_early(tmp_path: Path) -> None:
    """A teacher that changes its mind after the training."""
    recipe = recipe_of(
        write_table(tmp_path / "t.csv", notes(900)),
        kind="classify",
        labels=LABELS,
        guarantee=config.Guarantee(0.85, 0.1, per_class=True),
        buy=Labels(train=150, certify=400, evaluate=60),
    )
    audited: set[str] = set()

    def turncoat(text: str) -> Opinion:
        label, scores = sort_notes(text)
        return (LABELS[LABELS.index(str(label)) - 1] if text in audited else label), scores

    large = large_tier(turncoat)
    with workshop(tmp_path, recipe, large) as shop:
        audited.update(shop.texts(shop.pools.certify))
        outcome = await pipeline.certify(shop)
    assert outcome.certified is not None and outcome.certificate is None
    assert "no label's answers reached 0.850 agreement" in outcome.certified.refusal
    assert 0 < outcome.certified.labels < 200


def test_a_label_that_is_left_to_the_teacher_is_not_missed(made: Made) -> None:
    """Unless the proxy never gives it: then only others' answers would be given in its place."""
    certified, distilled = made.outcome.certified, made.outcome.distilled
    assert certified is not None
    confusion = np.diag([90, 90, 0])
    confusion[LABELS.index("plain")] = [5, 5, 0]
    certified = replace(certified, confusion=confusion)
    assert pipeline.judge(made.shop, distilled, certified).promote
    counts = distilled.report.confusion.copy()
    counts[:, LABELS.index("plain")] = 0
    blind = replace(distilled, report=replace(distilled.report, confusion=counts))
    (reason,) = pipeline.judge(made.shop, blind, certified).reasons
    assert reason.startswith("wherever the teacher says plain")


def test_labels_are_bought_once_and_only_where_the_audit_wants_them(made: Made) -> None:
    assert len(made.large.asked) == len(set(made.large.asked))
    pool = made.shop.texts(made.shop.pools.certify)
    evidence = made.certificate.evidence
    assert isinstance(evidence, EveryLabelEvidence)
    for audit in evidence.audits:
        draws = [int(draw.id) for draw in audit.draws]
        assert draws == sorted(draws)
        for draw in audit.draws:
            right = sort_notes(pool[int(draw.id)])[0] == audit.label
            assert set(draw.outcome) - {"."} == {"+" if right else "x"}
    audited = set(pool) & set(made.large.asked)
    assert made.certificate.labels <= len(audited) < 0.95 * len(pool)


def test_the_small_tier_is_neither_paid_nor_served(made: Made) -> None:
    assert made.small.asked == []
    assert list(made.lane.router.tiers) == ["proxy", "large"]


def test_people_see_which_labels_hold(made: Made) -> None:
    for words in (claim_in_words(made.certificate), made.artifact.card):
        assert "**each** of these labels holds: `praise`, `blame`" in words.replace(
            "`blame`, `praise`", "`praise`, `blame`"
        )
    assert "| `plain` | left to the teacher |" in made.artifact.card
    assert "about each label that it gives" in made.artifact.card
    assert made.outcome.verdict is not None
    assert made.outcome.verdict.conditions[0].reason.startswith("agreement by label >= 0.850")


def test_the_monitor_watches_all_answers_together(made: Made) -> None:
    task = made.lane.task.name
    lanes = Lanes({task: made.lane})
    auditor = Auditor(
        lanes,
        Metrics(),
        config.Audit(),
        rng=np.random.default_rng(0),
        keep=lambda record: None,
    )
    auditor.install(made.lane)
    docket = auditor.docket(task)
    assert docket is not None
    assert docket.watch.monitor.guarantee == certify.Guarantee(0.85, 0.1)
    assert docket.watch.rung == made.lane.rung


def test_evaluation_serves_the_same_policy(made: Made) -> None:
    measured = asyncio.run(evaluate(made.shop))
    served = made.served()
    assert measured["shares"]["proxy"] == pytest.approx(
        np.mean([tier == "proxy" for tier, _, _ in served])
    )
    assert measured["conditional_agreement"] == pytest.approx(
        np.mean([text == truth for tier, text, truth in served if tier == "proxy"])
    )
