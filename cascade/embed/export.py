"""Turn a sentence-transformers model into an ONNX embedder's folder. Needs the extra.

The graph holds what the model does from token ids on: transformer, mean or CLS pooling, L2. It is
compared with the original before the folder gets its name; a model that pools otherwise is
refused, not approximated.
"""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cascade.artifacts import publish_folder
from cascade.embed.card import EmbedderCard, sha256s, write_card
from cascade.embed.onnx import OnnxEmbedder
from cascade.embed.sentence import load_sentence_transformer
from cascade.errors import ParityError, UsageError

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

OPSET = 17
MAX_BATCH = 32  # texts
TOLERANCE = 1e-4  # largest difference of a coordinate between original and export
PROBES = (
    "",
    "one",
    "A sentence of ordinary length about nothing in particular.",
    "Größe, naïve, 東京 and 🙂: what is not ASCII must be the same tokens too.",
    "long " * 2000,
)


def export(model: str | Path, out_folder: Path) -> OnnxEmbedder:
    """Export ``model`` to ``out_folder``; recipes then call it by that folder's name.

    Parameters
    ----------
    model : a sentence-transformers folder, or a name that the library can find.
    out_folder : replaced if it exists, once the export is complete and checked.

    Raises
    ------
    MissingExtra
        sentence-transformers is not installed.
    UsageError
        The model is not transformer + mean or CLS pooling (+ normalise), with a fast tokenizer.
    ParityError
        The export answers differently from the original.
    """
    original = load_sentence_transformer(model)
    out_folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out_folder.parent) as work:
        draft = Path(work) / out_folder.name
        draft.mkdir()
        _write_graph(original, draft / "model.onnx")
        _write_tokenizer(original, draft / "tokenizer.json")
        write_card(draft, _card(original, draft))
        check_parity(original, OnnxEmbedder(draft))
        publish_folder(draft, out_folder)
    return OnnxEmbedder(out_folder)


def check_parity(original: SentenceTransformer, exported: OnnxEmbedder) -> float:
    """Largest difference of a coordinate over ``PROBES``; ``ParityError`` above ``TOLERANCE``."""
    expected = original.encode(list(PROBES), normalize_embeddings=True, show_progress_bar=False)
    difference = float(np.abs(expected - exported.encode(PROBES)).max())
    if not difference <= TOLERANCE:  # written so that NaN fails too
        raise ParityError(
            f"the exported model differs from the original by {difference:.2g} (allowed: "
            f"{TOLERANCE:g}): use another model"
        )
    return difference


def _pooling(original: SentenceTransformer) -> str:
    """``mean`` or ``cls``, after checking that there is nothing else in the model."""
    kinds = [type(module).__name__ for module in original]
    if kinds not in (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"]):
        raise UsageError(f"cannot export modules {kinds}: only transformer, pooling and normalise")
    mode = str(original[1].get_config_dict()["pooling_mode"])
    if mode not in ("mean", "cls"):
        raise UsageError(f"cannot export pooling {mode!r}: only mean and cls")
    return mode


def _write_graph(original: SentenceTransformer, path: Path) -> None:
    import torch

    encoder: Any = original[0].auto_model
    mean = _pooling(original) == "mean"

    class Pooled(torch.nn.Module):  # type: ignore[misc]  # torch is untyped here
        def __init__(self) -> None:
            super().__init__()
            self.encoder = encoder

        def forward(self, input_ids: Any, attention_mask: Any) -> Any:
            hidden = self.encoder(input_ids=input_ids, attention_mask=attention_mask)[0]
            real = attention_mask.unsqueeze(-1).to(hidden.dtype)
            # L2 undoes the mean's division, so the sum is enough
            pooled = (hidden * real).sum(1) if mean else hidden[:, 0]
            return torch.nn.functional.normalize(pooled, dim=-1)

    names = ["input_ids", "attention_mask"]
    example = torch.ones((2, 7), dtype=torch.int64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the tracer fears for branches; check_parity decides
        torch.onnx.export(
            Pooled().eval(),
            (example, example),
            str(path),
            input_names=names,
            output_names=["embedding"],
            dynamic_axes={name: {0: "batch", 1: "tokens"} for name in names},
            opset_version=OPSET,
            dynamo=False,  # the other exporter needs onnxscript
        )


def _write_tokenizer(original: SentenceTransformer, path: Path) -> None:
    tokenizer = getattr(original.tokenizer, "backend_tokenizer", None)
    if tokenizer is None:
        raise UsageError("cannot export a model without a fast tokenizer (tokenizer.json)")
    tokenizer.save(str(path))


def _card(original: SentenceTransformer, draft: Path) -> EmbedderCard:
    return EmbedderCard(
        name=draft.name,
        engine="onnx",
        dim=int(original.encode(["one"]).shape[1]),
        max_tokens=int(original.max_seq_length or original.tokenizer.model_max_length),
        max_batch=MAX_BATCH,
        special_tokens=True,
        files=sha256s(draft),
    )
