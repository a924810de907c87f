"""Which proxy may answer: a real, small one, with everything that can be wrong with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from cascade.certify import Certificate
from cascade.errors import RegistryError
from cascade.gateway.builder import Bench, LaneBuilder
from cascade.tasks import Task
from cascade.testing import FakeTier
from cascade.tiers.artifact import Artifact
from cascade.types import Query
from tests.tiny_proxy import tiny_proxy

TASK = Task("mood", "filter", "Good?", ("yes", "no"))
IDENTITY = TASK.identity("big-b", "words@1")
TEXTS = [f"{label} {i}" for i in range(60) for label in TASK.labels]


class Words:
    """An embedder for tests: "yes 7" lies near the centre of yes."""

    max_tokens = 4

    def encode(self, texts: Sequence[str]) -> Any:
        rows = np.stack([self._row(text) for text in texts])
        return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)

    def count_tokens(self, texts: Sequence[str]) -> Any:
        return np.array([len(text.split()) for text in texts])

    def _row(self, text: str) -> Any:
        label, number = text.split()[:2]
        noise = np.random.default_rng(int(number)).normal(size=16)
        return 3 * np.eye(16)[TASK.labels.index(label)] + 0.3 * noise


@pytest.fixture(scope="module")
def artifact(certificate: Certificate) -> Artifact:
    y = np.array([TASK.labels.index(text.split()[0]) for text in TEXTS])
    thresholds = certificate.thresholds
    return tiny_proxy(
        TASK, IDENTITY, Words(), TEXTS, y, thresholds=thresholds, certificate=certificate
    )


@pytest.fixture
def builder() -> LaneBuilder:
    answers = {text: (text.split()[0], 1.0) for text in TEXTS} | {"yes 1 2 3 4 5": ("yes", 1.0)}
    bench = Bench(
        task=TASK,
        identity=IDENTITY,
        embedder=Words(),
        large=FakeTier("large", answers),
        small=None,
        models={"large": "big-b"},
    )
    return LaneBuilder({"mood": bench}, watching=dict)


async def test_a_champion_answers_and_says_who_it_is(
    artifact: Artifact, builder: LaneBuilder, tmp_path: Path
) -> None:
    artifact.save(tmp_path / "p")
    lane = builder.build("mood", "7", tmp_path / "p")
    assert lane.reason == "" and lane.version == "7" and lane.certificate is not None
    assert lane.models == {"large": "big-b", "proxy": "mood@7"}
    decisions = await lane.router.route_many([Query.from_text(text) for text in TEXTS[:20]])
    assert {one.answer.text for one in decisions if one.answer} == {"yes", "no"}
    assert "certified" in {one.reason for one in decisions}
    long = await lane.router.route(Query.from_text("yes 1 2 3 4 5"))
    assert long.reason == "truncated" and long.answer is not None and long.answer.tier == "large"


def test_small_without_a_stack_is_left_out(
    artifact: Artifact, builder: LaneBuilder, tmp_path: Path
) -> None:
    artifact.save(tmp_path / "p")
    with_small = replace(builder.benches["mood"], small=FakeTier("small", {}))
    lane = replace(builder, benches={"mood": with_small}).build("mood", "1", tmp_path / "p")
    assert list(lane.router.tiers) == ["proxy", "large"]


def test_another_identity_is_named(
    artifact: Artifact, builder: LaneBuilder, tmp_path: Path
) -> None:
    artifact.save(tmp_path / "p")
    other = replace(builder.benches["mood"], identity=TASK.identity("bigger", "words@2"))
    lane = replace(builder, benches={"mood": other}).build("mood", "1", tmp_path / "p")
    assert lane.reason == "identity_mismatch"
    assert "teacher, embedder" in lane.detail


@pytest.mark.parametrize(
    ("certificate_of", "why"),
    [
        (lambda one: None, "no certificate"),
        (lambda one: b"{}", "not a certificate"),
        (lambda one: one.replace(b'"bound":0.9', b'"bound":0.99'), "digest"),
    ],
)
def test_without_a_proven_certificate_the_teacher_answers(
    artifact: Artifact, builder: LaneBuilder, tmp_path: Path, certificate_of: Any, why: str
) -> None:
    replace(artifact, certificate=certificate_of(artifact.certificate)).save(tmp_path / "p")
    lane = builder.build("mood", "1", tmp_path / "p")
    assert lane.reason == "no_champion" and why in lane.detail


def test_certificate_for_other_thresholds_is_refused(
    artifact: Artifact, builder: LaneBuilder, tmp_path: Path
) -> None:
    manifest = msgspec.structs.replace(artifact.manifest, thresholds={"proxy": 0.1})
    replace(artifact, manifest=manifest).save(tmp_path / "p")
    assert "other thresholds" in builder.build("mood", "1", tmp_path / "p").detail


def test_a_damaged_folder_is_an_error(
    artifact: Artifact, builder: LaneBuilder, tmp_path: Path
) -> None:
    artifact.save(tmp_path / "p")
    (tmp_path / "p" / "answerer.onnx").write_bytes(b"")
    with pytest.raises(RegistryError, match="checksum"):
        builder.build("mood", "1", tmp_path / "p")
