"""The window through which a model sees a text: which tokens, and how many there would be.

Knows the tokenizer, knows nothing of vectors. Training and serving share it, so that a text is
the same tokens in both. Change what it does only together with ``card.TEXT_TREATMENT``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

CHARS_PER_TOKEN = 64  # no more characters are looked at than this times max_tokens


def readable(text: str) -> str:
    """The text as UTF-8 can carry it: lone surrogates become '?'.

    >>> readable("ok")
    'ok'
    >>> readable("bad \\ud800 half")
    'bad ? half'
    """
    return text.encode("utf-8", "replace").decode()


class TextWindow:
    """The first ``max_tokens`` tokens of a text.

    Only the first ``64 * max_tokens`` characters are tokenized, so a text of a megabyte costs as
    much as one of a page. A text cut this way counts as longer than the window, always.
    """

    def __init__(self, tokenizer_json: Path, max_tokens: int, *, special_tokens: bool) -> None:
        self.max_tokens = max_tokens
        self._special_tokens = special_tokens
        self._most_chars = CHARS_PER_TOKEN * max_tokens
        # Two tokenizers, each set once: changing a shared one would not be safe among threads.
        # What the file says of padding and truncation is another program's habit.
        self._whole = Tokenizer.from_file(str(tokenizer_json))
        self._whole.no_padding()
        self._whole.no_truncation()
        self._cut = Tokenizer.from_file(str(tokenizer_json))
        self._cut.no_padding()
        self._cut.enable_truncation(max_tokens)

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, at most ``max_tokens`` of them."""
        return self._tokenize(self._cut, texts)

    def count(self, texts: Sequence[str]) -> NDArray[np.int64]:
        """How many tokens each text has, shape (n,); a lower bound once past the window."""
        counts = np.array([len(ids) for ids in self._tokenize(self._whole, texts)], dtype=np.int64)
        cut = np.array([len(text) > self._most_chars for text in texts], dtype=bool)
        counts[cut] = np.maximum(counts[cut], self.max_tokens + 1)
        return counts

    def _tokenize(self, tokenizer: Tokenizer, texts: Sequence[str]) -> list[list[int]]:
        heads = [readable(text[: self._most_chars]) for text in texts]
        encodings = tokenizer.encode_batch_fast(heads, add_special_tokens=self._special_tokens)
        return [encoding.ids for encoding in encodings]
