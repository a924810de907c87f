"""OpenAI's chat JSON <-> Cascade's types. Pure: knows no socket, no tier and no clock."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

import msgspec

from cascade.gateway.formats import AnswerFormat, answer_format
from cascade.gateway.refusals import Refusal, bad_request
from cascade.types import Message, Query, Usage

DEEPEST = 64
"""Levels of nesting accepted; an OpenAI request with tools needs about 10."""

ROLES = frozenset({"system", "developer", "user", "assistant", "tool", "function"})

DECIDED_BY_TASK = frozenset(
    {
        "model",
        "messages",
        "stream",
        "stream_options",
        "response_format",
        "n",
        "logprobs",
        "top_logprobs",
        "temperature",
        "top_p",
        "max_tokens",
        "max_completion_tokens",
        "stop",
        "presence_penalty",
        "frequency_penalty",
        "logit_bias",
        "seed",
        "store",
        "metadata",
        "user",
        "reasoning_effort",
        "verbosity",
        "prediction",
        "service_tier",
    }
)
"""Request fields that a typed task answers for itself; the others stay with the query."""

STRING = re.compile(rb'"(?:[^"\\]|\\.)*+"', re.DOTALL)
NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))

INSIDE = re.compile(r"`\$\.?([^`]*)`")

DONE = b"data: [DONE]\n\n"

Shape = TypeVar("Shape")


class StreamOptions(msgspec.Struct, frozen=True):
    """``stream_options``."""

    include_usage: bool | None = None


class TypedRequest(msgspec.Struct, frozen=True):
    """The fields of a chat request that a typed task understands."""

    model: str
    messages: list[dict[str, Any]]
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    response_format: dict[str, Any] | None = None
    n: int | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None

    @property
    def wants_usage(self) -> bool:
        """Whether a stream ends with a usage chunk."""
        return bool(self.stream_options and self.stream_options.include_usage)


class PredictRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``POST /v1/tasks/<name>/predict``."""

    inputs: list[str]


def decode(body: bytes, shape: type[Shape]) -> Shape:
    """A JSON body as ``shape``.

    Raises
    ------
    Refusal
        400: not UTF-8, not JSON, nested too deep, or a field that is missing or of a wrong type.
    """
    check_depth(body)
    try:
        return msgspec.json.decode(body, type=shape)
    except msgspec.ValidationError as exc:
        found = INSIDE.search(str(exc))
        raise bad_request(str(exc), param=found[1] if found else None) from exc
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise bad_request(f"the body is not JSON in UTF-8: {exc}", code="invalid_json") from exc


def check_depth(body: bytes) -> None:
    """Refuse a body that is nested deeper than ``DEEPEST``; brackets inside strings do not count.

    Peels the innermost pairs of brackets, all at once, until none is left: bytes operations only,
    so that a hostile body of megabytes costs milliseconds.

    Raises
    ------
    Refusal
        400: nested deeper (at the latest from twice as deep on), or brackets that do not match.

    >>> check_depth(b'{"a": "[[[["}')
    """
    if body.count(b"[") + body.count(b"{") <= DEEPEST:
        return
    brackets = STRING.sub(b"", body).translate(None, delete=NOT_BRACKETS)
    for _ in range(DEEPEST):
        if not brackets:
            return
        brackets = brackets.replace(b"{}", b"").replace(b"[]", b"")
    if brackets:
        message = f"the body is nested deeper than {DEEPEST} levels, or its brackets do not match"
        raise bad_request(message, code="invalid_json")


def read_fields(body: bytes) -> dict[str, Any]:
    """A chat request, of which only ``model`` has been looked at.

    Raises
    ------
    Refusal
        400: no JSON object, or ``model`` is no text.
    """
    fields = decode(body, dict[str, Any])
    if not isinstance(fields.get("model"), str):
        raise bad_request("model is missing or no text; see GET /v1/models", param="model")
    return fields


def read_typed(fields: dict[str, Any]) -> tuple[TypedRequest, dict[str, Any]]:
    """A chat request to a typed task, and the fields that only a language model understands.

    Raises
    ------
    Refusal
        400: malformed, or asking for something that a label does not have.
    """
    try:
        request = msgspec.convert(fields, TypedRequest)
    except msgspec.ValidationError as exc:
        found = INSIDE.search(str(exc))
        raise bad_request(str(exc), param=found[1] if found else None) from exc
    _check_messages(request.messages)
    _check_choices(request)
    extra = {name: value for name, value in fields.items() if name not in DECIDED_BY_TASK}
    return request, extra


def _check_messages(messages: list[dict[str, Any]]) -> None:
    if not messages:
        raise bad_request("messages is empty", param="messages")
    for i, message in enumerate(messages):
        role = message.get("role")
        if not isinstance(role, str) or role not in ROLES:
            known = ", ".join(sorted(ROLES))
            raise bad_request(f"messages[{i}].role is none of {known}", param=f"messages[{i}].role")


def _check_choices(request: TypedRequest) -> None:
    if request.n not in (None, 1):
        raise _unsupported("n", "a typed task has one answer: leave out `n`")
    if request.logprobs or request.top_logprobs:
        message = "a typed answer has one confidence, in x-cascade-confidence: leave out `logprobs`"
        raise _unsupported("logprobs", message)


def _unsupported(param: str, message: str) -> Refusal:
    return bad_request(message, param=param, code="unsupported_parameter")


def format_for(request: TypedRequest, labels: tuple[str, ...]) -> AnswerFormat:
    """How this request wants its label written.

    Raises
    ------
    Refusal
        400: a schema that one label cannot fill.
    """
    return answer_format(request.response_format, labels)


def query_of(request: TypedRequest, extra: Mapping[str, Any], id: str) -> Query:
    """The conversation as a query.

    >>> parts = [{"type": "text", "text": "good"}]
    >>> one = TypedRequest("task/x", [{"role": "user", "content": parts}])
    >>> query_of(one, {}, "id").text
    'good'
    """
    return Query(id, tuple(map(_plain, request.messages)), extra)


def _plain(message: Message) -> Message:
    """A content of exactly one text part is the same as that text."""
    match message.get("content"):
        case [{"type": "text", "text": str(text), **more}] if not more:
            return {**message, "content": text}
    return message


def usage_json(usage: Usage) -> dict[str, Any]:
    """``usage`` as OpenAI writes it."""
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.prompt_tokens + usage.output_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
    }


class Completion(msgspec.Struct, frozen=True):
    """A typed answer on its way out.

    content : the label, or the JSON that was asked for. created : seconds since 1970.
    """

    id: str
    model: str
    created: int
    content: str
    usage: Usage

    def whole(self) -> bytes:
        """A ``chat.completion``."""
        message = {"role": "assistant", "content": self.content, "refusal": None}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
        head = self._head("chat.completion")
        return msgspec.json.encode({**head, "choices": [choice], "usage": usage_json(self.usage)})

    def events(self, wants_usage: bool) -> Iterator[bytes]:
        """The same as server-sent events: role, content, finish, perhaps usage, done."""
        absent = {"usage": None} if wants_usage else {}
        yield self._event([_delta({"role": "assistant", "content": ""})], absent)
        yield self._event([_delta({"content": self.content})], absent)
        yield self._event([_delta({}, finish="stop")], absent)
        if wants_usage:
            yield self._event([], {"usage": usage_json(self.usage)})
        yield DONE

    def _event(self, choices: list[dict[str, Any]], usage: Mapping[str, Any]) -> bytes:
        chunk = {**self._head("chat.completion.chunk"), "choices": choices, **usage}
        return b"data: " + msgspec.json.encode(chunk) + b"\n\n"

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model}


def _delta(delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
    return {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
