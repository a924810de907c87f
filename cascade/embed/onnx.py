"""Embed with ONNX Runtime. Knows an embedder's folder; knows nothing of how it was made.

The graph takes ``input_ids`` and ``attention_mask`` (batch, tokens) and gives ``embedding``
(batch, dim), pooled and normalised inside.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from cascade.artifacts import check_folder
from cascade.embed.batches import buckets, padded
from cascade.embed.card import read_card
from cascade.embed.window import TextWindow
from cascade.errors import ModelError

CPU = "CPUExecutionProvider"

logger = logging.getLogger(__name__)


class OnnxEmbedder:
    """An embedder's folder, loaded after its checksums were verified.

    Parameters
    ----------
    folder : holds ``model.onnx``, ``tokenizer.json`` and ``embedder.json``.
    threads : batches that run at once. Each runs on one core: texts side by side use cores better
        than one short text spread over them, and the result does not depend on it.
    providers : ONNX Runtime's names, first choice first. One that is not there is logged, and the
        CPU does the work.
    """

    def __init__(
        self, folder: Path, *, threads: int = 1, providers: Sequence[str] = (CPU,)
    ) -> None:
        card = read_card(folder)
        check_folder(folder, card.files)
        self.name, self.version = card.name, card.version
        self.dim, self.max_tokens = card.dim, card.max_tokens
        self._max_batch = card.max_batch
        self._window = TextWindow(
            folder / "tokenizer.json", card.max_tokens, special_tokens=card.special_tokens
        )
        self._session = _open_session(folder / "model.onnx", providers)
        self._pool = ThreadPoolExecutor(threads) if threads > 1 else None

    @property
    def providers(self) -> list[str]:
        """What really runs the model, first choice first."""
        return list(self._session.get_providers())

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Embed texts; array of shape (n, dim), rows of length 1."""
        rows = self._window.ids(texts)
        batches = buckets([len(row) for row in rows], self._max_batch)
        vectors = np.empty((len(texts), self.dim), dtype=np.float32)
        run_all = self._pool.map if self._pool else map
        results = run_all(lambda batch: self._run([rows[i] for i in batch]), batches)
        for batch, result in zip(batches, results, strict=True):
            vectors[batch] = result
        return vectors

    def count_tokens(self, texts: Sequence[str]) -> NDArray[np.int64]:
        """Tokens of each text, shape (n,); more than ``max_tokens`` means truncated."""
        return self._window.count(texts)

    def _run(self, rows: list[list[int]]) -> NDArray[np.float32]:
        ids, mask = padded(rows)
        vectors: NDArray[np.float32]
        (vectors,) = self._session.run(["embedding"], {"input_ids": ids, "attention_mask": mask})
        return vectors


def _open_session(model: Path, providers: Sequence[str]) -> onnxruntime.InferenceSession:
    available = onnxruntime.get_available_providers()
    usable = [provider for provider in providers if provider in available]
    for missing in set(providers) - set(usable):
        logger.warning(
            "%s is not in this onnxruntime: embedding on the CPU. For CUDA: "
            "pip install 'cascade-router[gpu]'",
            missing,
        )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors only: a fallback is logged below, in our words
    try:
        session = onnxruntime.InferenceSession(
            str(model), options, providers=[*(p for p in usable if p != CPU), CPU]
        )
    except Exception as exc:  # onnxruntime's exceptions share no base class of their own
        raise ModelError(f"onnxruntime cannot load {model} ({exc}): pull it again") from exc
    if usable and session.get_providers()[0] != usable[0]:
        logger.warning("%s could not be started: embedding on the CPU", usable[0])
    return session
