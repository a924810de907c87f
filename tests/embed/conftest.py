"""A BERT of two tiny layers with random weights, and a tokenizer of forty words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing

from cascade.embed.bert import build_bert_embedder

DIM, WIDE, LAYERS, WORDS = 32, 64, 2, 40
HEADS, MAX_TOKENS = 4, 16


def tiny_weights() -> dict[str, Any]:
    """Random weights under the names that PyTorch gives those of a BERT."""
    rng = np.random.default_rng(0)
    dense = {"attention.self.query": (DIM, DIM), "attention.self.key": (DIM, DIM)}
    dense |= {"attention.self.value": (DIM, DIM), "attention.output.dense": (DIM, DIM)}
    dense |= {"intermediate.dense": (WIDE, DIM), "output.dense": (DIM, WIDE)}
    weights = {
        "embeddings.word_embeddings.weight": rng.normal(size=(WORDS, DIM)),
        "embeddings.position_embeddings.weight": rng.normal(size=(MAX_TOKENS, DIM)),
        "embeddings.token_type_embeddings.weight": rng.normal(size=(2, DIM)),
    }
    norms = ["embeddings.LayerNorm"]
    for layer in (f"encoder.layer.{number}" for number in range(LAYERS)):
        norms += [f"{layer}.attention.output.LayerNorm", f"{layer}.output.LayerNorm"]
        for name, shape in dense.items():
            weights[f"{layer}.{name}.weight"] = rng.normal(size=shape) / np.sqrt(shape[1])
            weights[f"{layer}.{name}.bias"] = 0.1 * rng.normal(size=shape[0])
    for norm in norms:
        weights[f"{norm}.weight"] = 1 + 0.1 * rng.normal(size=DIM)
        weights[f"{norm}.bias"] = 0.1 * rng.normal(size=DIM)
    return {name: weight.astype(np.float32) for name, weight in weights.items()}


def save_tiny_tokenizer(path: Path) -> None:
    """Words ``w0 .. w35`` and four special ones; padded and cut as another program liked it."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *(f"w{number}" for number in range(WORDS - 4))]
    tokenizer = Tokenizer(WordLevel({word: id for id, word in enumerate(words)}, "[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.enable_padding(length=12)
    tokenizer.enable_truncation(5)
    tokenizer.save(str(path))


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A models folder with the embedders ``tiny-int8`` and ``tiny-float32``."""
    folder = tmp_path_factory.mktemp("models")
    save_file(tiny_weights(), folder / "weights")
    save_tiny_tokenizer(folder / "tokenizer")
    for precision in ("int8", "float32"):
        build_bert_embedder(
            folder / "weights",
            folder / "tokenizer",
            folder / f"tiny-{precision}",
            name=f"tiny-{precision}",
            precision=precision,
            heads=HEADS,
            max_tokens=MAX_TOKENS,
        )
    return folder


@pytest.fixture(scope="session")
def weights() -> dict[str, Any]:
    return tiny_weights()
