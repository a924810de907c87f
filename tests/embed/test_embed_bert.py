"""The graph written by hand is BERT: against a second BERT, in numpy."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cascade.artifacts import sha256_of
from cascade.embed import load_embedder
from cascade.embed.batches import buckets, padded
from cascade.embed.bert import build_bert_embedder
from cascade.embed.precision import quantise
from cascade.embed.window import TextWindow

HEADS = 4
erf = np.vectorize(math.erf)


def norm(x: Any, weights: dict[str, Any], name: str) -> Any:
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-12)
    return x * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def dense(x: Any, weights: dict[str, Any], name: str) -> Any:
    return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]


def heads(x: Any) -> Any:
    return x.reshape(len(x), HEADS, -1).transpose(1, 0, 2)  # (heads, tokens, dim / heads)


def numpy_bert(ids: list[int], weights: dict[str, Any]) -> Any:
    """One text, as the paper has it; no code shared with what is tested."""
    x = weights["embeddings.word_embeddings.weight"][ids]
    x = x + weights["embeddings.position_embeddings.weight"][: len(ids)]
    x = x + weights["embeddings.token_type_embeddings.weight"][0]
    x = norm(x, weights, "embeddings.LayerNorm")
    for layer in ("encoder.layer.0", "encoder.layer.1"):
        q, k, v = (
            heads(dense(x, weights, f"{layer}.attention.self.{part}"))
            for part in ("query", "key", "value")
        )
        scores = np.exp(q @ k.transpose(0, 2, 1) / np.sqrt(q.shape[-1]))
        seen = (scores / scores.sum(-1, keepdims=True)) @ v
        seen = seen.transpose(1, 0, 2).reshape(x.shape)
        seen = dense(seen, weights, f"{layer}.attention.output.dense")
        x = norm(x + seen, weights, f"{layer}.attention.output.LayerNorm")
        wide = dense(x, weights, f"{layer}.intermediate.dense")
        wide = wide * (1 + erf(wide / np.sqrt(2))) / 2
        x = norm(
            x + dense(wide, weights, f"{layer}.output.dense"), weights, f"{layer}.output.LayerNorm"
        )
    mean = x.mean(axis=0)
    return mean / np.linalg.norm(mean)


TEXTS = ["w1", "w2 w3 w4", "w5 w6 w7 w8 w9 w10 w11 w12 w13 w14", "w30 w31"]


def test_the_float32_graph_is_bert(tiny_models: Path, weights: dict[str, Any]) -> None:
    window = TextWindow(tiny_models / "tokenizer", 16, special_tokens=True)
    expected = [numpy_bert(ids, weights) for ids in window.ids(TEXTS)]
    vectors = load_embedder("tiny-float32", tiny_models).encode(TEXTS)
    np.testing.assert_allclose(vectors, expected, atol=1e-5)


def test_the_int8_graph_is_close_to_it(tiny_models: Path) -> None:
    exact = load_embedder("tiny-float32", tiny_models).encode(TEXTS)
    close = load_embedder("tiny-int8", tiny_models).encode(TEXTS)
    cosines = (exact * close).sum(axis=1)
    assert cosines.min() > 0.995
    assert cosines.max() < 1.0 - 1e-7


def test_the_same_weights_give_the_same_bytes(tiny_models: Path, tmp_path: Path) -> None:
    build_bert_embedder(
        tiny_models / "weights",
        tiny_models / "tokenizer",
        tmp_path / "again",
        name="again",
        precision="int8",
        heads=HEADS,
        max_tokens=16,
    )
    first, again = tiny_models / "tiny-int8" / "model.onnx", tmp_path / "again" / "model.onnx"
    assert sha256_of(first) == sha256_of(again)


def test_the_window_overrules_the_tokenizers_own_padding_and_truncation(tiny_models: Path) -> None:
    window = TextWindow(tiny_models / "tokenizer", 16, special_tokens=True)
    assert window.ids(["w0", "w0 " * 10]) == [[2, 4, 3], [2, *[4] * 10, 3]]
    assert window.ids(["w0 " * 100])[0] == [2, *[4] * 14, 3]
    assert window.count(["w0", "w0 " * 100]).tolist() == [3, 102]


@given(st.lists(st.integers(0, 300), max_size=60), st.integers(1, 9))
def test_buckets_hold_every_position_once_sorted_by_length(lengths: list[int], most: int) -> None:
    groups = buckets(lengths, most)
    flat = [position for group in groups for position in group]
    assert sorted(flat) == list(range(len(lengths)))
    assert [lengths[position] for position in flat] == sorted(lengths)
    assert all(1 <= len(group) <= most for group in groups)


@given(st.lists(st.lists(st.integers(1, 9), max_size=6), max_size=6))
def test_padding_can_be_undone(rows: list[list[int]]) -> None:
    ids, mask = padded(rows)
    assert [
        id_row[mask_row == 1].tolist() for id_row, mask_row in zip(ids, mask, strict=True)
    ] == rows


@given(st.integers(1, 127), st.integers(0, 2**32))
def test_quantised_weights_are_within_half_a_step(levels: int, seed: int) -> None:
    weight = np.random.default_rng(seed).normal(size=(4, 7)).astype(np.float32)
    codes, scale = quantise(weight, levels)
    assert np.abs(codes).max() <= levels
    error = np.abs(codes * scale[:, None] - weight)
    assert np.all(error <= scale[:, None] * 0.5001)


def test_loading_an_embedder_needs_neither_onnx_nor_torch(tiny_models: Path) -> None:
    import subprocess

    program = (
        "import sys; from pathlib import Path; from cascade.embed import load_embedder;"
        f"load_embedder('tiny-int8', Path({str(tiny_models)!r})).encode(['w1']);"
        "print({'onnx', 'torch'} & set(sys.modules))"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == "set()"


@pytest.mark.slow
def test_minilm_int8_is_close_to_minilm_on_real_reviews(models_dir: Path) -> None:
    if not (models_dir / "minilm-fp32").exists():
        pytest.skip("the reference was not pulled: cascade models pull minilm-fp32")
    sample = Path(__file__).parents[2] / "data" / "samples" / "reviews.csv"
    texts = sample.read_text().splitlines()[1:]
    exact = load_embedder("minilm-fp32", models_dir).encode(texts)
    close = load_embedder("minilm-int8", models_dir).encode(texts)
    assert (exact * close).sum(axis=1).mean() >= 0.99
