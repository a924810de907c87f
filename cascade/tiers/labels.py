"""Read a chat completion: which label, how probable each label was, what it used. Pure.

Knows OpenAI's response shape and a task's codes; knows no HTTP, no model and no tokenizer.

A model writes codes, not labels (``cascade.prompts.answer_codes``): two labels that begin with the
same token cannot be told apart by that token's probability, and long labels cost output tokens.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from cascade.errors import UnreadableAnswer
from cascade.tasks import WRAPPING, Task
from cascade.types import Price, Usage

SMALLEST_PROBABILITY = 1e-9
"""Keeps the logarithm of every label's probability finite."""


class Alternative(msgspec.Struct, frozen=True):
    """One token that a model might have written at a position."""

    token: str
    logprob: float

    @property
    def probability(self) -> float:
        """In [0, 1]: engines write -9999 for "never", and rounding may exceed 0."""
        return math.exp(min(self.logprob, 0.0))


class Position(msgspec.Struct, frozen=True):
    """The token that was written at a position, and the likeliest ones there."""

    token: str
    logprob: float
    top_logprobs: tuple[Alternative, ...] = ()

    @property
    def alternatives(self) -> tuple[Alternative, ...]:
        """The likeliest tokens; at least the one that was written."""
        return self.top_logprobs or (Alternative(self.token, self.logprob),)


@dataclass(frozen=True, slots=True)
class Reading:
    """What a completion says.

    probabilities : (L,) in the task's label order, sum 1; empty when the engine gave none.
    confidence : probability of ``label``; 0 when unknown, so that it passes no threshold.
    """

    label: str
    probabilities: tuple[float, ...]
    confidence: float


def read_response(response: Mapping[str, Any], task: Task) -> Reading:
    """The label of a completion, read exactly, and the probability of every label.

    The label is what the text says, even where another spelling of another label would sum to
    more ("No" .4, "yes" .35, "Yes" .25): whoever asks the model directly sees the text too.

    Raises
    ------
    UnreadableAnswer
        There is no text, or it is not exactly one of the task's codes.
    """
    try:
        choice = response["choices"][0]
        content = choice["message"]["content"]
    except (KeyError, IndexError, TypeError) as exc:
        raise UnreadableAnswer(f"the response to task {task.name} has no message") from exc
    if not isinstance(content, str):
        raise UnreadableAnswer(f"the response to task {task.name} has no text")
    label = task.read(content)
    probabilities = label_probabilities(_positions(choice), task.codes)
    confidence = probabilities[task.labels.index(label)] if probabilities else 0.0
    return Reading(label, probabilities, confidence)


def label_probabilities(positions: Sequence[Position], codes: Sequence[str]) -> tuple[float, ...]:
    """Probability of each code, from the likeliest tokens at each position of a completion.

    Leading white space, quotes and case are forgiven, spellings of one code are summed. A token
    that only one code begins with counts for that code. One that several codes begin with
    ("A" for "AA", "AB") is followed to the next position if it was the token written; else nobody
    knows how it would have gone on, and all of them share it evenly. A code that no listed token
    leads to shares the mass outside the list, but gets no more than the least listed token, which
    by definition was likelier. Tokens that lead to no code are left out.

    Returns
    -------
    (L,) sums to 1; empty when no listed token leads to a code.

    >>> yes_no = Position("no", -0.7, (Alternative(" No", -0.7), Alternative("Yes", -0.7)))
    >>> label_probabilities([yes_no], ["yes", "no"])
    (0.5, 0.5)
    """
    spoken = _from_first_word(positions)
    if not spoken:
        return ()
    folded = [code.casefold() for code in codes]
    masses = _masses(spoken, folded, "")
    if not any(masses):
        return ()
    floor = _floor(spoken[0], masses.count(0.0))
    raised = [max(mass or floor, SMALLEST_PROBABILITY) for mass in masses]
    total = math.fsum(raised)
    return tuple(mass / total for mass in raised)


def usage_of(response: Mapping[str, Any], price: Price, seconds: float) -> Usage:
    """What a completion used; zeros for what the endpoint does not say.

    Hidden reasoning counts as output: OpenAI includes it in ``completion_tokens``, others only in
    ``total_tokens``, so the output is whichever of the two says more.

    >>> usage_of({"usage": {"prompt_tokens": 9, "completion_tokens": 1}}, Price(), 0.5)
    Usage(prompt_tokens=9, cached_tokens=0, output_tokens=1, seconds=0.5, dollars=0.0)
    """
    said = response.get("usage")
    prompt = _count(said, "prompt_tokens")
    details = said.get("prompt_tokens_details") if isinstance(said, dict) else None
    usage = Usage(
        prompt_tokens=prompt,
        cached_tokens=min(_count(details, "cached_tokens"), prompt),
        output_tokens=max(_count(said, "completion_tokens"), _count(said, "total_tokens") - prompt),
        seconds=seconds,
    )
    return msgspec.structs.replace(usage, dollars=price.dollars(usage))


def _count(found: Any, name: str) -> int:
    """A token count; 0 when it is missing, null or nonsense."""
    value = found.get(name) if isinstance(found, dict) else None
    return max(value, 0) if isinstance(value, int) else 0


def _positions(choice: Mapping[str, Any]) -> tuple[Position, ...]:
    """The log-probabilities of a choice; none when they are missing or of another shape."""
    try:
        return msgspec.convert(choice["logprobs"]["content"], tuple[Position, ...])
    except (KeyError, TypeError, msgspec.ValidationError):
        return ()


def _from_first_word(positions: Sequence[Position]) -> Sequence[Position]:
    """Without the leading positions at which only white space or a quote was written."""
    for start, position in enumerate(positions):
        if _plain(position.token):
            return positions[start:]
    return ()


def _masses(positions: Sequence[Position], codes: Sequence[str], written: str) -> list[float]:
    """Mass that the tokens after ``written`` give to each code: (L,), sums to at most 1."""
    masses = [0.0] * len(codes)
    here, later = positions[0], positions[1:]
    for alternative in here.alternatives:
        text = written + _plain(alternative.token)
        meant = _meant(text, codes) if text != written else []
        follows = len(meant) > 1 and later and alternative.token == here.token
        shares = _masses(later, codes, text) if follows else _evenly(meant, len(codes))
        for i, share in enumerate(shares):
            masses[i] += alternative.probability * share
    return masses


def _meant(text: str, codes: Sequence[str]) -> list[int]:
    """Which codes a beginning may mean; a whole code means itself, whatever else it begins."""
    if text in codes:
        return [codes.index(text)]
    return [i for i, code in enumerate(codes) if code.startswith(text)]


def _evenly(meant: Sequence[int], n: int) -> list[float]:
    """One unit of mass split over the codes it may mean; none when it means no code."""
    return [1 / len(meant) if i in meant else 0.0 for i in range(n)]


def _floor(position: Position, n_missing: int) -> float:
    """Mass of one code that no listed token leads to."""
    listed = [alternative.probability for alternative in position.alternatives]
    outside = max(0.0, 1.0 - math.fsum(listed))
    return min(outside / max(n_missing, 1), *listed)


def _plain(token: str) -> str:
    """A token as ``Task.read`` would see it."""
    return token.strip(WRAPPING).casefold()
