"""Parsing is total: any bytes give a request or a refusal that blames the caller."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cascade.errors import CascadeError, ConfigError, StoreError, TierRejected, TierUnavailable
from cascade.gateway import wire
from cascade.gateway.events import MOST_BYTES, UsageFilter
from cascade.gateway.formats import answer_format
from cascade.gateway.refusals import Refusal, refusal_of
from cascade.tasks import unusual
from cascade.types import Usage

LABELS = ("yes", "no")

scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
trees = st.recursive(
    scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=20
)
messages = st.lists(
    st.fixed_dictionaries(
        {}, optional={"role": st.sampled_from([*wire.ROLES, "x"]) | trees, "content": trees}
    )
)
requests = st.fixed_dictionaries(
    {},
    optional={
        "model": st.just("task/mood") | trees,
        "messages": messages | trees,
        "stream": st.booleans() | trees,
        "stream_options": st.fixed_dictionaries({"include_usage": st.booleans()}) | trees,
        "response_format": st.fixed_dictionaries({"type": st.just("json_schema")}) | trees,
        "n": st.integers(),
        "tools": trees,
    },
)


def parse(body: bytes) -> Any:
    """Everything that happens to a typed request before a tier is asked."""
    request, extra = wire.read_typed(wire.read_fields(body))
    wire.format_for(request, LABELS)
    query = wire.query_of(request, extra, "id")
    unusual(query)
    return query


@given(st.binary(max_size=200))
def test_any_bytes_are_parsed_or_refused(body: bytes) -> None:
    with pytest.raises(Refusal) as refused:
        parse(body)
    assert refused.value.status == 400


@given(requests)
def test_any_json_is_parsed_or_refused(request: Any) -> None:
    try:
        query = parse(json.dumps(request).encode())
    except Refusal as refusal:
        assert refusal.status == 400
        assert json.loads(refusal.body)["error"]["message"]
    else:
        assert query.messages and (query.text is None or query.text.encode() is not None)


@given(trees)
def test_any_response_format_is_understood_or_refused(asked: Any) -> None:
    for format in (asked, {"type": "json_schema", "json_schema": {"schema": asked}}):
        if not isinstance(format, dict):
            continue
        try:
            written = answer_format(format, LABELS).write("yes")
        except Refusal as refusal:
            assert refusal.status == 400
        else:
            assert "yes" in written


@given(st.integers(0, 300), st.integers(0, 5))
def test_depth_is_limited_and_strings_do_not_count(depth: int, brackets: int) -> None:
    quoted = json.dumps("[{" * brackets * 40 + '\\"').encode()
    body = b"[" * depth + quoted + b"]" * depth
    if depth <= wire.DEEPEST:
        wire.check_depth(body)
    else:
        with pytest.raises(Refusal, match="nested deeper"):
            wire.check_depth(body)


def test_wide_bodies_are_not_deep() -> None:
    wire.check_depth(json.dumps([{"a": [1]}] * 1000).encode())


USAGE = b'data: {"choices": [], "usage": {"prompt_tokens": 3}}'
EVENTS = (b'data: {"choices": [{}], "usage": null}', b"data: 1", USAGE, b": ping", b"data: [DONE]")


@given(
    st.lists(st.integers(1, 90)), st.sampled_from([b"\n\n", b"\r\n\r\n", b"\n\r\n"]), st.booleans()
)
def test_events_survive_any_cutting(cuts: list[int], end: bytes, wanted: bool) -> None:
    stream, events, found = b"".join(one + end for one in EVENTS), UsageFilter(wanted=wanted), b""
    for cut in [*cuts, len(stream)]:
        passed = events.feed(stream[:cut])
        assert not passed or passed.endswith(end)
        found, stream = found + passed, stream[cut:]
    assert found == b"".join(one + end for one in EVENTS if wanted or one != USAGE)
    assert events.usage == {"prompt_tokens": 3} and events.rest() == b""


def test_usage_beside_choices_is_passed_on() -> None:
    events, event = UsageFilter(wanted=False), USAGE.replace(b"[]", b"[{}]") + b"\n\n"
    assert events.feed(event) == event and events.usage == {"prompt_tokens": 3}


def test_the_last_event_may_lack_its_blank_line() -> None:
    events = UsageFilter(wanted=False)
    assert events.feed(b"data: 1\n\n" + USAGE) == b"data: 1\n\n"
    assert events.rest() == b"" and events.usage == {"prompt_tokens": 3}


def test_an_endless_event_is_not_kept_for_ever() -> None:
    endless = b"x" * (MOST_BYTES + 1)
    assert UsageFilter(wanted=False).feed(endless) == endless


@given(st.binary(max_size=60))
def test_what_is_no_chunk_is_passed_on(junk: bytes) -> None:
    events = UsageFilter(wanted=False)
    for event in (junk, b'data: {"usage": {' + junk):
        assert events.feed(event) + events.rest() == event


def test_usage_counts_cached_tokens() -> None:
    counted = wire.usage_json(Usage(prompt_tokens=9, cached_tokens=4, output_tokens=2))
    assert counted["total_tokens"] == 11
    assert counted["prompt_tokens_details"] == {"cached_tokens": 4}


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "properties": {}},
        {"type": "object", "properties": {"a": {"enum": ["yes"]}}},
        {"type": "object", "properties": {"a": {"enum": ["yes", "no"], "pattern": "x"}}},
        {"type": "object", "properties": {"a": {"type": "string"}}},
        {"type": "object", "properties": {"a": {"enum": ["yes", "no"]}, "b": {}}},
        {"type": "object", "properties": {"a": {"enum": ["yes", "no"]}}, "required": ["b"]},
        {"type": "object", "properties": {"a": True}},
        {"type": "string", "enum": ["yes", "no"]},
    ],
)
def test_schemas_that_a_label_cannot_fill(schema: Any) -> None:
    with pytest.raises(Refusal, match="response_format"):
        answer_format({"type": "json_schema", "json_schema": {"schema": schema}}, LABELS)


def test_a_free_string_called_label_is_filled() -> None:
    schema = {"type": "object", "properties": {"label": {"type": "string"}}}
    asked = {"type": "json_schema", "json_schema": {"schema": schema}}
    assert answer_format(asked, LABELS).field == "label"


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ConfigError("say it so"), 400),
        (StoreError("the disk is full"), 500),
        (TierUnavailable(""), 503),
        (TierRejected("too long", 413), 400),
        (TierRejected("who are you?", 401), 503),
    ],
)
def test_every_error_of_the_tree_has_a_status(error: CascadeError, status: int) -> None:
    assert refusal_of(error).status == status
