"""Turn the weights of a BERT sentence embedder into an ONNX embedder's folder, without torch.

Knows BERT (Devlin et al. 2019) as sentence-transformers uses it: mean over the tokens, then L2.
Knows nothing of downloads. Checked against torch: see ``models/cards/minilm-int8.md``.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from safetensors.numpy import load_file

from cascade.artifacts import publish_bytes
from cascade.embed.card import EmbedderCard, sha256s, write_card

if TYPE_CHECKING:
    from cascade.embed.graph import Array, GraphPen
    from cascade.embed.precision import Precision

EPSILON = 1e-12  # of every layer normalisation, as BERT was trained
GELU_LEAST = -0.17  # the smallest value of x * Phi(x), rounded down
MAX_BATCH = 32  # texts; larger ones are no faster on a CPU and cost memory


@dataclass(frozen=True, slots=True)
class Bert:
    """A BERT encoder: its weights under PyTorch's names, and what they do not say."""

    weights: dict[str, Array]
    heads: int

    @property
    def dim(self) -> int:
        """Length of a vector."""
        return int(self.weights["embeddings.word_embeddings.weight"].shape[1])

    @property
    def layers(self) -> int:
        """Number of encoder layers."""
        return len([name for name in self.weights if name.endswith("attention.self.query.weight")])


def bert_graph(bert: Bert, precision: Precision) -> bytes:
    """The ONNX model of a BERT sentence embedder, pooling and norm inside."""
    from cascade.embed.graph import INT32, GraphPen

    pen = GraphPen()
    mask = pen.op("Cast", "attention_mask", to=INT32)
    x = _embeddings(pen, bert, precision)  # (batch, tokens, dim), here and below
    for number in range(bert.layers):
        x = _layer(pen, bert, precision, number, x=x, mask=mask)
    return pen.model(_mean_direction(pen, x), bert.dim)


def build_bert_embedder(
    weights: Path,
    tokenizer_json: Path,
    folder: Path,
    *,
    name: str,
    precision: Literal["int8", "float32"],
    heads: int,
    max_tokens: int,
) -> None:
    """Make an embedder's folder of a safetensors file and a tokenizer.

    Raises
    ------
    MissingExtra
        The library onnx is not installed.
    """
    from cascade.embed.precision import Float32, Int8

    bert = Bert(load_file(weights), heads)
    writer = Int8() if precision == "int8" else Float32()
    folder.mkdir(parents=True)
    publish_bytes(folder / "model.onnx", bert_graph(bert, writer))
    shutil.copyfile(tokenizer_json, folder / "tokenizer.json")
    card = EmbedderCard(
        name=name,
        engine="onnx",
        dim=bert.dim,
        max_tokens=max_tokens,
        max_batch=MAX_BATCH,
        special_tokens=True,
        files=sha256s(folder),
    )
    write_card(folder, card)


def _embeddings(pen: GraphPen, bert: Bert, precision: Precision) -> str:
    """Words + positions + the first segment, normalised."""
    weights = bert.weights
    words = precision.table(pen, "words", weights["embeddings.word_embeddings.weight"], "input_ids")
    segment = weights["embeddings.token_type_embeddings.weight"][0]
    table = pen.constant("positions", weights["embeddings.position_embeddings.weight"] + segment)
    tokens = pen.op("Gather", pen.op("Shape", "input_ids"), pen.ints(1))
    positions = pen.op("Slice", table, pen.ints(0), tokens, pen.ints(0))  # (tokens, dim)
    return _norm(
        pen, bert, "embeddings.LayerNorm", words, pen.op("Unsqueeze", positions, pen.ints(0))
    )


def _layer(
    pen: GraphPen, bert: Bert, precision: Precision, number: int, *, x: str, mask: str
) -> str:
    """Attention and the two dense layers, each added to its input and normalised."""
    weights, layer = bert.weights, f"encoder.layer.{number}"

    def dense(name: str, value: str, least: float | None = None) -> str:
        weight = weights[f"{layer}.{name}.weight"]
        return precision.dense(pen, f"{layer}.{name}", weight, value, least=least)

    def bias(name: str) -> str:
        return pen.constant(f"{layer}.{name}.bias", weights[f"{layer}.{name}.bias"])

    def norm(name: str, value: str, skip: str, bias_of: str) -> str:
        return _norm(pen, bert, f"{layer}.{name}", value, skip, bias(bias_of))

    seen = dense("attention.output.dense", _attention(pen, bert, precision, layer, x=x, mask=mask))
    x = norm("attention.output.LayerNorm", seen, x, "attention.output.dense")
    wide = pen.fused("BiasGelu", dense("intermediate.dense", x), bias("intermediate.dense"))
    narrow = dense("output.dense", wide, least=GELU_LEAST)
    return norm("output.LayerNorm", narrow, x, "output.dense")


def _attention(
    pen: GraphPen, bert: Bert, precision: Precision, layer: str, *, x: str, mask: str
) -> str:
    """Self-attention with one matrix product for queries, keys and values."""
    parts = [f"{layer}.attention.self.{part}" for part in ("query", "key", "value")]
    weight = np.concatenate([bert.weights[f"{part}.weight"] for part in parts])
    bias = np.concatenate([bert.weights[f"{part}.bias"] for part in parts])
    joined = precision.dense(pen, f"{layer}.attention.self", weight, x)
    q, k, v = pen.ops("Split", joined, outputs=3, axis=-1, num_outputs=3)
    bias_name = pen.constant(f"{layer}.attention.self.bias", bias)
    return pen.fused("MultiHeadAttention", q, k, v, bias_name, mask, num_heads=bert.heads)


def _norm(pen: GraphPen, bert: Bert, name: str, x: str, *others: str) -> str:
    """Layer normalisation of a sum. Not the fused SkipLayerNormalization: 4 times slower here."""
    for other in others:
        x = pen.op("Add", x, other)
    scale = pen.constant(f"{name}.weight", bert.weights[f"{name}.weight"])
    shift = pen.constant(f"{name}.bias", bert.weights[f"{name}.bias"])
    return pen.op("LayerNormalization", x, scale, shift, axis=-1, epsilon=EPSILON)


def _mean_direction(pen: GraphPen, x: str) -> str:
    """Mean over the real tokens, then L2. The norm undoes a division, so the sum is enough."""
    from cascade.embed.graph import FLOAT

    mask = pen.op("Unsqueeze", pen.op("Cast", "attention_mask", to=FLOAT), pen.ints(2))
    total = pen.op("ReduceSum", pen.op("Mul", x, mask), pen.ints(1), keepdims=0)
    return pen.op("LpNormalization", total, axis=-1, p=2)
