"""What is loaded, and what is refused: damaged folders, wrong providers."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import onnxruntime
import pytest

from cascade.embed import load_embedder
from cascade.embed.card import EmbedderCard, read_card, sha256s, write_card
from cascade.embed.onnx import CPU, OnnxEmbedder
from cascade.errors import ChecksumMismatch, ModelError, ModelUnavailable


@pytest.fixture
def folder(tiny_models: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_models / "tiny-int8", tmp_path / "tiny-int8"))


def test_an_embedder_that_was_not_pulled_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailable, match="cascade models pull minilm-int8"):
        load_embedder("minilm-int8", tmp_path)


@pytest.mark.parametrize("name", ["model.onnx", "tokenizer.json"])
def test_one_changed_byte_is_refused(folder: Path, name: str) -> None:
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(ChecksumMismatch, match=name):
        load_embedder(folder.name, folder.parent)


def test_a_missing_file_is_refused(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ModelUnavailable, match=r"tokenizer\.json is missing"):
        load_embedder(folder.name, folder.parent)


@pytest.mark.parametrize(
    "damage",
    [
        lambda card: b"{",
        lambda card: b"\xff" + card,
        lambda card: json.dumps(json.loads(card) | {"extra": 1}).encode(),
        lambda card: json.dumps(json.loads(card) | {"format": 2}).encode(),
    ],
)
def test_a_damaged_card_is_refused(folder: Path, damage: Callable[[bytes], bytes]) -> None:
    card = folder / "embedder.json"
    card.write_bytes(damage(card.read_bytes()))
    with pytest.raises(ModelError, match="damaged"):
        load_embedder(folder.name, folder.parent)


def test_bytes_that_are_no_model_are_refused_in_our_words(folder: Path) -> None:
    (folder / "model.onnx").write_bytes(b"not a model")
    promised = read_card(folder)
    fields = {name: getattr(promised, name) for name in promised.__struct_fields__}
    write_card(folder, EmbedderCard(**fields | {"files": sha256s(folder)}))
    with pytest.raises(ModelError, match="onnxruntime cannot load"):
        load_embedder(folder.name, folder.parent)


def test_the_version_changes_with_bytes_and_window(folder: Path) -> None:
    card = read_card(folder)
    fields = {name: getattr(card, name) for name in card.__struct_fields__}
    others = [{"max_tokens": 8}, {"special_tokens": False}, {"files": {"model.onnx": "0" * 64}}]
    versions = {EmbedderCard(**fields | change).version for change in others}
    assert len(versions | {card.version}) == 4
    assert EmbedderCard(**fields | {"name": "another"}).version == card.version


def test_a_provider_that_is_not_there_is_logged_and_the_cpu_works(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        embedder = OnnxEmbedder(folder, providers=["NoSuchExecutionProvider", CPU])
    assert "NoSuchExecutionProvider" in caplog.text
    assert embedder.providers == [CPU]
    assert embedder.encode(["w1"]).shape == (1, 32)


@pytest.mark.gpu
def test_cuda_runs_the_float32_graph(tiny_models: Path) -> None:
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime has no CUDA provider")
    folder = tiny_models / "tiny-float32"
    cuda = OnnxEmbedder(folder, providers=["CUDAExecutionProvider"])
    assert cuda.providers[0] == "CUDAExecutionProvider"
    difference = cuda.encode(["w1 w2", "w3"]) - OnnxEmbedder(folder).encode(["w1 w2", "w3"])
    assert abs(difference).max() < 1e-3
