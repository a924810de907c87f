"""Embed with any sentence-transformers model, as it is. Knows nothing of ONNX.

For trying a model out in training. What serves should be exported first (``export.py``): the same
vectors, without torch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cascade.artifacts import digest
from cascade.embed.window import readable
from cascade.errors import MissingExtra

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

EXTRA = "sentence-transformers"


class SentenceEmbedder:
    """A sentence-transformers model behind the ``Embedder`` protocol.

    Parameters
    ----------
    model : a folder, or a name that sentence-transformers can find.

    Raises
    ------
    MissingExtra
        sentence-transformers is not installed.
    """

    def __init__(self, model: str | Path) -> None:
        self._model = load_sentence_transformer(model)
        self.name = Path(model).name
        self.max_tokens = int(self._model.max_seq_length or self._model.tokenizer.model_max_length)
        self.dim = int(self._model.encode(["one"]).shape[1])
        self.version = digest(weights_sha256(self._model), str(self.max_tokens))

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Embed texts; array of shape (n, dim), rows of length 1."""
        if not texts:
            return np.empty((0, self.dim), dtype=np.float32)
        vectors: NDArray[np.float32] = self._model.encode(
            [readable(text) for text in texts], normalize_embeddings=True, show_progress_bar=False
        )
        return vectors

    def count_tokens(self, texts: Sequence[str]) -> NDArray[np.int64]:
        """Tokens of each text, shape (n,); more than ``max_tokens`` means truncated."""
        tokenizer: Any = self._model.tokenizer
        counts = [len(tokenizer(readable(text), truncation=False).input_ids) for text in texts]
        return np.array(counts, dtype=np.int64)


def load_sentence_transformer(model: str | Path) -> SentenceTransformer:
    """Load on the CPU; raises ``MissingExtra`` without the library."""
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError as exc:
        raise MissingExtra("a sentence-transformers model", EXTRA) from exc
    return SentenceTransformer(str(model), device="cpu")


def weights_sha256(model: SentenceTransformer) -> str:
    """One checksum over all weights, by name."""
    seen = hashlib.sha256()
    for name, weight in sorted(model.state_dict().items()):
        seen.update(name.encode())
        seen.update(weight.cpu().numpy().tobytes())
    return seen.hexdigest()
