from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cascade.embed.cached import Cached


class Counting:
    """A double: length and first letter as a direction; remembers what it was asked."""

    name, version, dim, max_tokens = "counting", "1", 2, 8

    def __init__(self) -> None:
        self.asked: list[list[str]] = []

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        self.asked.append(list(texts))
        vectors = np.array([[len(text), ord(text[0])] for text in texts], dtype=np.float32)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    def count_tokens(self, texts: Sequence[str]) -> NDArray[np.int64]:
        return np.array([len(text) for text in texts])


def test_a_text_is_embedded_once() -> None:
    inner = Counting()
    cached = Cached(inner)
    first = cached.encode(["a", "bb", "a"])
    again = cached.encode(["bb", "c", "a"])
    assert inner.asked == [["a", "bb"], ["c"]]
    np.testing.assert_array_equal(first[0], again[2])
    np.testing.assert_array_equal(again, Counting().encode(["bb", "c", "a"]))


def test_the_least_recently_used_text_is_forgotten() -> None:
    inner = Counting()
    cached = Cached(inner, capacity=2)
    cached.encode(["a", "b"])
    cached.encode(["a"])
    cached.encode(["c"])
    cached.encode(["a", "c"])
    assert inner.asked == [["a", "b"], ["c"]]
    cached.encode(["b"])
    assert inner.asked[-1] == ["b"]


def test_more_texts_than_it_can_keep_are_all_answered() -> None:
    cached = Cached(Counting(), capacity=1)
    texts = [chr(97 + number) for number in range(9)]
    np.testing.assert_array_equal(cached.encode(texts), Counting().encode(texts))


def test_identity_and_counts_are_the_embedders_own() -> None:
    cached = Cached(Counting())
    assert (cached.name, cached.version, cached.dim, cached.max_tokens) == ("counting", "1", 2, 8)
    assert cached.count_tokens(["abc"]).tolist() == [3]
