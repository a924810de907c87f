"""How a request wants its label written: as it is, or as one JSON field. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from cascade.gateway.refusals import Refusal, bad_request

DEFAULT_FIELD = "label"


@dataclass(frozen=True)
class AnswerFormat:
    """The label itself, or ``{field: label}``.

    >>> AnswerFormat().write("yes")
    'yes'
    >>> AnswerFormat("sentiment").write("yes")
    '{"sentiment":"yes"}'
    """

    field: str | None = None

    def write(self, label: str) -> str:
        """The content of the answer's message."""
        return label if self.field is None else msgspec.json.encode({self.field: label}).decode()


def answer_format(asked: Mapping[str, Any] | None, labels: tuple[str, ...]) -> AnswerFormat:
    """Read ``response_format``.

    ``text`` or none: the label. ``json_object``: ``{"label": ...}``. ``json_schema``: the one
    property of an object whose ``enum`` holds every label of the task, or a string ``label``.

    Raises
    ------
    Refusal
        400 for anything else.

    >>> schema = {"type": "object", "properties": {"x": {"enum": ["yes", "no"]}}}
    >>> asked = {"type": "json_schema", "json_schema": {"schema": schema}}
    >>> answer_format(asked, ("yes", "no")).field
    'x'
    """
    kind = "text" if asked is None else asked.get("type")
    if asked is None or kind == "text":
        return AnswerFormat()
    if kind == "json_object":
        return AnswerFormat(DEFAULT_FIELD)
    if kind == "json_schema":
        return AnswerFormat(_only_property(asked.get("json_schema"), labels))
    raise _unsupported(f"type {kind!r} is none of text, json_object, json_schema")


def _only_property(wrapper: Any, labels: tuple[str, ...]) -> str:
    match wrapper:
        case {"schema": {"type": "object", "properties": dict(properties), **rest}}:
            pass
        case _:
            raise _unsupported("json_schema.schema is not an object with properties")
    if len(properties) != 1:
        raise _unsupported(f"the schema has {len(properties)} properties, a label fills one")
    ((name, schema),) = properties.items()
    if rest.get("required", [name]) not in ([name], []):
        raise _unsupported("the schema requires a property that it does not define")
    if not _holds(schema, labels, name):
        listing = ", ".join(labels)
        raise _unsupported(f"property {name!r} must be an enum with the labels {listing}")
    return str(name)


def _holds(schema: Any, labels: tuple[str, ...], name: str) -> bool:
    """Whether every label of the task is a value of the schema."""
    match schema:
        case {"enum": list(values), **rest}:
            understood = {"type", "description", "title"}
            strings = rest.get("type", "string") == "string"
            return strings and set(rest) <= understood and all(one in values for one in labels)
        case {"type": "string", **rest}:
            return name == DEFAULT_FIELD and set(rest) <= {"description", "title"}
    return False


def _unsupported(why: str) -> Refusal:
    message = f"response_format: {why}"
    return bad_request(message, param="response_format", code="unsupported_response_format")
