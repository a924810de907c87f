"""Any sentence-transformers model becomes the same kind of folder. Needs the extra."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cascade.embed import load_embedder
from cascade.embed.export import export
from cascade.embed.sentence import SentenceEmbedder
from cascade.errors import MissingExtra, ParityError, UsageError

HAS_EXTRA = importlib.util.find_spec("sentence_transformers") is not None
needs_extra = pytest.mark.skipif(not HAS_EXTRA, reason="sentence-transformers is not installed")
TEXTS = ["w1 w2", "", "w3 w4 w5 w6", "unheard of", "w7 " * 40]

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")


@pytest.mark.skipif(HAS_EXTRA, reason="the extra is installed")
def test_without_the_extra_the_message_names_it(tmp_path: Path) -> None:
    for make in (lambda: export("any", tmp_path / "out"), lambda: SentenceEmbedder("any")):
        with pytest.raises(MissingExtra, match=r"cascade-router\[sentence-transformers\]"):
            make()


def tiny_sentence_transformer(folder: Path, tokenizer_json: Path, pooling: str) -> Any:
    import torch
    from sentence_transformers import SentenceTransformer, models
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=40,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=16,
    )
    BertModel(config).save_pretrained(folder / "bert")
    PreTrainedTokenizerFast(
        tokenizer_file=str(tokenizer_json), pad_token="[PAD]", unk_token="[UNK]"
    ).save_pretrained(folder / "bert")
    transformer = models.Transformer(str(folder / "bert"), max_seq_length=16)
    pool = models.Pooling(32, pooling_mode=pooling)
    model = SentenceTransformer(modules=[transformer, pool], device="cpu")
    model.save(str(folder / "model"))
    return model


@needs_extra
@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_an_export_answers_like_the_original(
    tmp_path: Path, tiny_models: Path, pooling: str
) -> None:
    tiny_sentence_transformer(tmp_path, tiny_models / "tokenizer", pooling)
    original = SentenceEmbedder(tmp_path / "model")
    export(tmp_path / "model", tmp_path / "models" / "mine")
    exported = load_embedder("mine", tmp_path / "models")
    assert (exported.name, exported.dim, exported.max_tokens) == ("mine", 32, 16)
    np.testing.assert_allclose(exported.encode(TEXTS), original.encode(TEXTS), atol=1e-5)
    assert exported.count_tokens(TEXTS).tolist() == original.count_tokens(TEXTS).tolist()
    assert original.encode([]).shape == (0, 32)
    assert [path.name for path in (tmp_path / "models").iterdir()] == ["mine"]


@needs_extra
def test_other_pooling_is_refused_and_leaves_nothing(tmp_path: Path, tiny_models: Path) -> None:
    tiny_sentence_transformer(tmp_path, tiny_models / "tokenizer", "max")
    with pytest.raises(UsageError, match="only mean and cls"):
        export(tmp_path / "model", tmp_path / "models" / "mine")
    assert list((tmp_path / "models").iterdir()) == []


@needs_extra
def test_an_export_that_differs_is_refused(tmp_path: Path, tiny_models: Path) -> None:
    from cascade.embed.export import check_parity
    from cascade.embed.onnx import OnnxEmbedder

    model = tiny_sentence_transformer(tmp_path, tiny_models / "tokenizer", "mean")
    with pytest.raises(ParityError, match="differs from the original"):
        check_parity(model, OnnxEmbedder(tiny_models / "tiny-float32"))


@needs_extra
def test_the_version_follows_the_weights(tmp_path: Path, tiny_models: Path) -> None:
    model = tiny_sentence_transformer(tmp_path, tiny_models / "tokenizer", "mean")
    before = SentenceEmbedder(tmp_path / "model").version
    assert SentenceEmbedder(tmp_path / "model").version == before
    next(iter(model.parameters())).data[0, 0] += 1
    model.save(str(tmp_path / "model"))
    assert SentenceEmbedder(tmp_path / "model").version != before
