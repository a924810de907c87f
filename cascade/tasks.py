"""A task: a question with a closed set of labels, and what makes a proxy valid for it.

Knows how to ask and how to read; knows no engine, no embedding and no threshold.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Literal

import msgspec

from cascade import reasons
from cascade.errors import UnreadableAnswer
from cascade.prompts import answer_codes, example_messages, system_text
from cascade.types import Message, Query

Kind = Literal["filter", "classify"]

WORD = re.compile(r"\w+|[^\w\s]")
WRAPPING = " \t\r\n\"'`.*"


@dataclass(frozen=True)
class Example:
    """A solved case that becomes part of the stable prefix."""

    text: str
    label: str


@dataclass(frozen=True)
class Window:
    """The part of a text that belongs to the task: its first ``head_tokens`` words.

    A token here is a run of word characters or one punctuation mark, so that the window does not
    depend on any model's tokenizer.

    >>> Window(head_tokens=3).crop("One, two three.")
    'One, two'
    """

    head_tokens: int | None = None

    def crop(self, text: str) -> str:
        """The text up to the end of its last token inside the window."""
        if self.head_tokens is None:
            return text
        end = 0
        for count, token in enumerate(WORD.finditer(text), start=1):
            if count > self.head_tokens:
                break
            end = token.end()
        else:
            return text
        return text[:end]


@dataclass(frozen=True)
class Identity:
    """Everything a proxy's validity hangs on. Any difference means that it is not used."""

    kind: str
    prompt: str
    labels: tuple[str, ...]
    window: int | None
    teacher: str
    embedder: str

    def differences(self, other: Identity) -> list[str]:
        """Names of the fields in which two identities differ.

        >>> a = Identity("filter", "p", ("yes", "no"), None, "t", "e")
        >>> a.differences(Identity("filter", "q", ("yes", "no"), None, "t", "e2"))
        ['prompt', 'embedder']
        """
        names = [one.name for one in fields(self)]
        return [name for name in names if getattr(self, name) != getattr(other, name)]


@dataclass(frozen=True)
class Task:
    """A closed question about a text.

    labels : the answers a caller may see, in a fixed order; at least two, at most 150.
    """

    name: str
    kind: Kind
    instruction: str
    labels: tuple[str, ...]
    examples: tuple[Example, ...] = ()
    window: Window = field(default_factory=Window)

    @cached_property
    def codes(self) -> tuple[str, ...]:
        """What a language model writes for each label."""
        return answer_codes(self.labels)

    @cached_property
    def prefix(self) -> tuple[Message, ...]:
        """The messages before the record: the same for every record."""
        system = {
            "role": "system",
            "content": system_text(self.instruction, self.labels, self.codes),
        }
        solved: list[Message] = [system]
        for example in self.examples:
            code = self.codes[self.labels.index(example.label)]
            solved += example_messages(self.window.crop(example.text), code)
        return tuple(solved)

    @cached_property
    def prompt_digest(self) -> str:
        """sha256 of everything a model is told before the record."""
        return hashlib.sha256(msgspec.json.encode(self.prefix)).hexdigest()

    def text(self, query: Query) -> str | None:
        """The part of a plain query's text that the task looks at; None if it is not plain."""
        text = query.text
        return None if text is None else self.window.crop(text)

    def prompt(self, query: Query) -> list[Message]:
        """The whole conversation to send to a language model."""
        text = self.text(query)
        if text is None:
            return [*self.prefix, *query.messages]
        return [*self.prefix, {"role": "user", "content": text}]

    def read(self, completion: str) -> str:
        """The label a completion states.

        Case, white space, quotes and a final full stop are forgiven; anything else is not.

        Raises
        ------
        UnreadableAnswer
            The completion is not exactly one of the task's codes.
        """
        stated = completion.strip(WRAPPING).casefold()
        for code, label in zip(self.codes, self.labels, strict=True):
            if stated == code.casefold():
                return label
        raise UnreadableAnswer(
            f"the completion {completion[:80]!r} is none of the answers of task {self.name}"
        )

    def identity(self, teacher: str, embedder: str) -> Identity:
        """What a proxy for this task, teacher and embedder is valid for."""
        return Identity(
            kind=self.kind,
            prompt=self.prompt_digest,
            labels=self.labels,
            window=self.window.head_tokens,
            teacher=teacher,
            embedder=embedder,
        )


def unusual(query: Query) -> str | None:
    """The reason code of a query that only a language model may answer; None for a plain text.

    >>> unusual(Query.from_text("fine"))
    >>> unusual(Query.from_text("  "))
    'unsupported_input'
    """
    if sum(message.get("role") == "user" for message in query.messages) > 1:
        return reasons.MULTI_TURN
    text = query.text
    if text is None or not text.strip() or query.messages[0].get("role") != "user":
        return reasons.UNSUPPORTED_INPUT
    if any(query.extra.get(name) for name in ("tools", "functions", "audio", "modalities")):
        return reasons.UNSUPPORTED_INPUT
    return None


def label_counts(labels: Sequence[str], order: Sequence[str]) -> dict[str, int]:
    """How often each label occurs, the absent ones included.

    >>> label_counts(["yes"], ["yes", "no"])
    {'yes': 1, 'no': 0}
    """
    return {label: sum(one == label for one in labels) for label in order}
