"""Remember the vectors of recent texts. Knows nothing of how they are made.

The proxy and the small tier's stack embed the same text for the same request; this makes the
second time free.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cascade.embed.base import Embedder


class Cached:
    """An embedder that keeps the vectors of the last ``capacity`` texts (1.5 kB each at dim 384).

    Two threads that miss the same text at once both compute it: cheaper than making one wait.
    """

    def __init__(self, embedder: Embedder, capacity: int = 4096) -> None:
        self.name, self.version = embedder.name, embedder.version
        self.dim, self.max_tokens = embedder.dim, embedder.max_tokens
        self._embedder = embedder
        self._capacity = capacity
        self._vectors: OrderedDict[str, NDArray[np.float32]] = OrderedDict()
        self._lock = threading.Lock()

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Embed texts; array of shape (n, dim), rows of length 1."""
        found = self._recall(texts)
        missing = [text for text in dict.fromkeys(texts) if text not in found]
        if missing:
            found |= zip(missing, self._embedder.encode(missing), strict=True)
            self._remember({text: found[text] for text in missing})
        rows = [found[text] for text in texts]
        return np.array(rows, dtype=np.float32).reshape(len(texts), self.dim)

    def count_tokens(self, texts: Sequence[str]) -> NDArray[np.int64]:
        """Tokens of each text, shape (n,); more than ``max_tokens`` means truncated."""
        return self._embedder.count_tokens(texts)

    def _recall(self, texts: Sequence[str]) -> dict[str, NDArray[np.float32]]:
        with self._lock:
            known = [text for text in texts if text in self._vectors]
            for text in known:
                self._vectors.move_to_end(text)
            return {text: self._vectors[text] for text in known}

    def _remember(self, vectors: dict[str, NDArray[np.float32]]) -> None:
        with self._lock:
            for text, vector in vectors.items():
                self._vectors[text] = vector.copy()  # not a view that keeps a whole batch alive
            while len(self._vectors) > self._capacity:
                self._vectors.popitem(last=False)
