"""Which texts to run together. Pure: knows lengths, not texts or models."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def buckets(lengths: Sequence[int], max_batch: int) -> list[NDArray[np.int64]]:
    """Positions grouped so that texts of like length run together and little is padded.

    Unsorted batches cost twice the time on reviews of 5 to 250 tokens.

    >>> [bucket.tolist() for bucket in buckets([9, 2, 8, 3], max_batch=2)]
    [[1, 3], [2, 0]]
    """
    order = np.argsort(np.asarray(lengths, dtype=np.int64), kind="stable")
    return [order[start : start + max_batch] for start in range(0, len(order), max_batch)]


def padded(rows: Sequence[Sequence[int]]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Token ids and attention mask, each of shape (n, longest); padding is id 0, mask 0.

    >>> ids, mask = padded([[5, 6], [7]])
    >>> ids.tolist(), mask.tolist()
    ([[5, 6], [7, 0]], [[1, 1], [1, 0]])
    """
    longest = max((len(row) for row in rows), default=0)
    ids = np.zeros((len(rows), longest), dtype=np.int64)
    mask = np.zeros_like(ids)
    for number, row in enumerate(rows):
        ids[number, : len(row)] = row
        mask[number, : len(row)] = 1
    return ids, mask
