"""The nouns that every part shares. Knows nothing of HTTP, models, files or time."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Final, Protocol

import msgspec

Dollars = Annotated[float, msgspec.Meta(ge=0)]

Message = Mapping[str, Any]
"""One chat message in OpenAI's shape: ``{"role": ..., "content": ...}``."""

SKIP: Final = "skip"
"""A key among a policy's thresholds that names no tier: the least confidence of the cheapest tier
at which a second one below the teacher is worth asking. Under it the teacher is asked at once."""

ONE_LABEL: Final = ":"
"""Between tier and label in the key of a threshold that is for one answer only."""


def for_label(tier: str, label: str) -> str:
    """The key of a threshold for one answer of a tier; it goes before the tier's own.

    >>> for_label("proxy", "spam")
    'proxy:spam'
    """
    return f"{tier}{ONE_LABEL}{label}"


def tiers_of(thresholds: Mapping[str, float]) -> list[str]:
    """The tiers that have a threshold, in their order.

    >>> tiers_of({"proxy": 2.0, "proxy:spam": 0.8, "small": 0.9, SKIP: 0.3})
    ['proxy', 'small']
    """
    return [key for key in thresholds if key != SKIP and ONE_LABEL not in key]


def least_confidence(thresholds: Mapping[str, float], tier: str, label: str) -> float:
    """At which this answer of a tier may stand.

    >>> spam_only = {"proxy": 2.0, "proxy:spam": 0.8}
    >>> [least_confidence(spam_only, "proxy", label) for label in ("spam", "ham")]
    [0.8, 2.0]
    """
    return thresholds.get(for_label(tier, label), thresholds[tier])


@dataclass(frozen=True, slots=True)
class Query:
    """What somebody asked: a conversation and a name for it.

    ``extra`` holds request fields that only a language model understands (tools, stop, seed, ...).
    """

    id: str
    messages: tuple[Message, ...]
    extra: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_text(cls, text: str, id: str | None = None) -> Query:
        """A one-turn query. The id defaults to the text's sha256, so equal texts are equal.

        >>> Query.from_text("good").text
        'good'
        """
        name = id or hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]
        return cls(name, ({"role": "user", "content": text},))

    @property
    def text(self) -> str | None:
        """The text of a plain one-turn query; None for anything else."""
        if len(self.messages) != 1:
            return None
        content = self.messages[0].get("content")
        return content if isinstance(content, str) else None


class Usage(msgspec.Struct, frozen=True):
    """What an answer cost. Adds with ``+``; ``prompt_tokens`` includes ``cached_tokens``.

    >>> (Usage(prompt_tokens=10, dollars=0.5) + Usage(prompt_tokens=5)).prompt_tokens
    15
    """

    prompt_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    seconds: float = 0.0
    dollars: float = 0.0

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.prompt_tokens + other.prompt_tokens,
            self.cached_tokens + other.cached_tokens,
            self.output_tokens + other.output_tokens,
            self.seconds + other.seconds,
            self.dollars + other.dollars,
        )


class Price(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Dollars per million tokens. Part of a file: a misspelt key must not mean "for free"."""

    input: Dollars = 0.0
    cached_input: Dollars = 0.0
    output: Dollars = 0.0

    def dollars(self, usage: Usage) -> float:
        """What ``usage`` costs.

        >>> Price(input=1.0, cached_input=0.1, output=2.0).dollars(Usage(1_000_000, 500_000, 0))
        0.55
        """
        fresh = usage.prompt_tokens - usage.cached_tokens
        cached, output = usage.cached_tokens, usage.output_tokens
        total = self.input * fresh + self.cached_input * cached + self.output * output
        return total / 1e6


@dataclass(frozen=True, slots=True)
class Answer:
    """What one tier said.

    confidence : calibrated P(the teacher would say the same), in [0, 1].
    scores : the tier's own probability of each label, in the task's label order; may be empty.
    """

    tier: str
    text: str
    confidence: float
    usage: Usage = Usage()
    scores: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Abstention:
    """A tier that would not or could not answer, and the reason code that says why."""

    tier: str
    reason: str
    usage: Usage = Usage()
    detail: str = ""


Reply = Answer | Abstention
Trail = tuple[Reply, ...]


@dataclass(frozen=True, slots=True)
class Ask:
    """Move: ask this tier next."""

    tier: str


@dataclass(frozen=True, slots=True)
class Accept:
    """Move: this answer is the one."""

    answer: Answer
    reason: str


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Move: no tier can answer; the caller gets an error with this reason."""

    reason: str
    detail: str = ""


Move = Ask | Accept | GiveUp


@dataclass(frozen=True, slots=True)
class Decision:
    """How a query ended. ``answer`` is None when every tier that was asked abstained."""

    query: Query
    answer: Answer | None
    trail: Trail
    reason: str
    detail: str = ""

    @property
    def usage(self) -> Usage:
        """Everything spent on this query, the tiers that were not accepted included."""
        return sum((reply.usage for reply in self.trail), Usage())


class Tier(Protocol):
    """Whoever answers queries: proxy, small LLM, large LLM, teacher, judge.

    ``answer`` returns one reply a query, in order. It never raises for a single bad query: that
    one gets an ``Abstention``. Batch first; online is a batch of one.
    """

    name: str

    async def answer(self, queries: list[Query]) -> list[Reply]: ...


class Policy(Protocol):
    """Decide the next move. Pure: no I/O, no clock, no hidden randomness."""

    def decide(self, query: Query, trail: Trail) -> Move: ...
