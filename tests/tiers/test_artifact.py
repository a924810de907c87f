"""The proxy on disk: whole or not there, and never parsed unless every checksum matches."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import msgspec
import numpy as np
import pytest

from cascade.errors import RegistryError
from cascade.tasks import Identity
from cascade.tiers.agreement import AgreementModel
from cascade.tiers.artifact import (
    ANSWERER,
    CHECKSUMS,
    FORMAT,
    MANIFEST,
    Artifact,
    Manifest,
    Rung,
    verify,
)
from cascade.tiers.novelty import NoveltyGate
from cascade.tiers.stacked import STACK_FEATURES, Stack

IDENTITY = Identity("filter", "prompt", ("yes", "no"), 200, "large", "minilm-int8@abc")
CURVE = AgreementModel(("top",), (0.5,), (0.1,), (1.0,), 0.0)
K = len(STACK_FEATURES)
STACK = Stack(
    1.0, 0.5, (0.1, -0.1), AgreementModel(STACK_FEATURES, (0.0,) * K, (1.0,) * K, (0.1,) * K, 0.0)
)


@pytest.fixture
def artifact() -> Artifact:
    manifest = Manifest(
        task="review-positive",
        identity=IDENTITY,
        labels=IDENTITY.labels,
        agreement=CURVE,
        gate=NoveltyGate(0.5, 0.3, 0.6),
        path=(Rung({"proxy": 0.9}, {"proxy": 0.4, "large": 0.6}, 0.02),),
        training_digest="abc",
        created="2026-11-23T00:00:00Z",
        label_counts={"yes": 3, "no": 4},
        stack=STACK,
    )
    arrays = {"rows": np.eye(3, dtype=np.float32), "labels": np.arange(3)}
    return Artifact(manifest, b"onnx bytes", arrays, "# A card\n")


def test_what_is_saved_is_what_is_loaded(artifact: Artifact, tmp_path: Path) -> None:
    digest = artifact.save(tmp_path / "v1")
    loaded = Artifact.load(tmp_path / "v1")
    assert loaded.manifest == artifact.manifest
    assert (loaded.answerer, loaded.card, loaded.certificate) == (b"onnx bytes", "# A card\n", None)
    assert loaded.arrays["labels"].tolist() == [0, 1, 2]
    assert loaded.digest == digest == artifact.digest == verify(tmp_path / "v1")
    assert [path.name for path in tmp_path.iterdir()] == ["v1"]


def test_the_certificate_travels_with_the_proxy(artifact: Artifact, tmp_path: Path) -> None:
    certified = dataclasses.replace(
        artifact,
        certificate=b'{"target": 0.9}',
        manifest=msgspec.structs.replace(artifact.manifest, thresholds={"proxy": 0.9}),
    )
    certified.save(tmp_path / "v1")
    loaded = Artifact.load(tmp_path / "v1")
    assert loaded.certificate == b'{"target": 0.9}'
    assert loaded.manifest.thresholds == {"proxy": 0.9}
    assert loaded.digest != artifact.digest


@pytest.mark.parametrize("name", [MANIFEST, ANSWERER, "arrays.safetensors", "card.md"])
def test_one_changed_byte_is_refused(artifact: Artifact, tmp_path: Path, name: str) -> None:
    artifact.save(tmp_path / "v1")
    path = tmp_path / "v1" / name
    content = bytearray(path.read_bytes())
    content[-2] ^= 1
    path.write_bytes(content)
    with pytest.raises(RegistryError, match=f"{name} is not what its checksum promises"):
        Artifact.load(tmp_path / "v1")
    with pytest.raises(RegistryError, match=name):
        verify(tmp_path / "v1")


@pytest.mark.parametrize("name", [MANIFEST, CHECKSUMS])
def test_a_missing_file_is_refused(artifact: Artifact, tmp_path: Path, name: str) -> None:
    artifact.save(tmp_path / "v1")
    (tmp_path / "v1" / name).unlink()
    with pytest.raises(RegistryError, match=name):
        Artifact.load(tmp_path / "v1")


@pytest.mark.parametrize("content", [b"{", b"{}", b'{"../../etc/passwd": "0"}'])
def test_checksums_that_are_none_are_refused(
    artifact: Artifact, tmp_path: Path, content: bytes
) -> None:
    artifact.save(tmp_path / "v1")
    (tmp_path / "v1" / CHECKSUMS).write_bytes(content)
    with pytest.raises(RegistryError):
        Artifact.load(tmp_path / "v1")


def test_files_beside_the_proxy_are_ignored(artifact: Artifact, tmp_path: Path) -> None:
    artifact.save(tmp_path / "v1")
    (tmp_path / "v1" / "MLmodel").write_text("flavors: {}")
    assert Artifact.load(tmp_path / "v1").digest == artifact.digest


def test_a_folder_is_never_overwritten(artifact: Artifact, tmp_path: Path) -> None:
    artifact.save(tmp_path / "v1")
    with pytest.raises(RegistryError, match="never overwritten"):
        artifact.save(tmp_path / "v1")


def test_a_failed_save_leaves_nothing(artifact: Artifact, tmp_path: Path) -> None:
    broken = msgspec.structs.replace(
        artifact.manifest, path=(Rung({"proxy": float("nan")}, {}, 0.0),)
    )
    with pytest.raises(RegistryError, match="not a proxy of this version"):
        dataclasses.replace(artifact, manifest=broken).save(tmp_path / "v1")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_says_so(artifact: Artifact, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RegistryError, match="could not be written"):
        artifact.save(tmp_path / "file" / "v1")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": FORMAT + 1}, f"format {FORMAT + 1}"),
        ({"surprise": 1}, "surprise"),
        ({"labels": ["no", "yes"]}, "labels differ"),
        ({"agreement": {**msgspec.to_builtins(CURVE), "coef": []}}, "one number for each"),
        ({"stack": {**msgspec.to_builtins(STACK), "agreement": msgspec.to_builtins(CURVE)}}, "oth"),
    ],
)
def test_a_manifest_of_another_kind_is_refused(
    artifact: Artifact, change: dict[str, object], message: str
) -> None:
    raw = {**msgspec.to_builtins(artifact.manifest), **change}
    with pytest.raises(msgspec.ValidationError, match=message):
        msgspec.json.decode(msgspec.json.encode(raw), type=Manifest)
