"""Lay a task out as chat messages: stable prefix first, the record last. Knows no engine.

For one task every byte before the record is the same for every record, so an engine's prefix
cache computes it once.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

from cascade.types import Message

MOST_LABELS = 150
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
CONFUSABLE_PREFIX = 3
"""Labels that share this many leading characters may share their first token, and then the
first token's log-probability no longer tells them apart."""


def answer_codes(labels: Sequence[str]) -> tuple[str, ...]:
    """What a language model writes for each label, so that the answers are easy to tell apart.

    The labels themselves where each is one word and no two can share a first token; else one
    capital letter (up to 26 labels), else two (up to 150): short, of equal length, and distinct
    from the first character or two on.

    >>> answer_codes(["yes", "no"])
    ('yes', 'no')
    >>> answer_codes(["comp.graphics", "comp.windows"])
    ('A', 'B')
    """
    if _plain(labels):
        return tuple(labels)
    if len(labels) <= len(LETTERS):
        return tuple(LETTERS[: len(labels)])
    return tuple(LETTERS[i // 26] + LETTERS[i % 26] for i in range(len(labels)))


def _plain(labels: Sequence[str]) -> bool:
    """Whether the labels can stand for themselves in a completion."""
    words = [label.casefold() for label in labels]
    if not all(word.isalpha() for word in words) or len(words) > len(LETTERS):
        return False
    pairs = combinations(words, 2)
    return all(a[:CONFUSABLE_PREFIX] != b[:CONFUSABLE_PREFIX] for a, b in pairs)


def system_text(instruction: str, labels: Sequence[str], codes: Sequence[str]) -> str:
    """The instruction and the closed set of answers.

    >>> print(system_text("Is it good?", ["yes", "no"], ["yes", "no"]))
    Is it good?
    Answer with exactly one of these words and nothing else: yes, no
    """
    if tuple(labels) == tuple(codes):
        choices = ", ".join(codes)
        return f"{instruction}\nAnswer with exactly one of these words and nothing else: {choices}"
    table = "\n".join(f"{code}: {label}" for code, label in zip(codes, labels, strict=True))
    return f"{instruction}\n{table}\nAnswer with exactly one of these codes and nothing else."


def example_messages(text: str, code: str) -> list[Message]:
    """One solved example as a user turn and an assistant turn."""
    return [{"role": "user", "content": text}, {"role": "assistant", "content": code}]
