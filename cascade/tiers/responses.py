"""What the HTTP response of an endpoint means: a result, a setback, or a refusal.

Knows OpenAI's bodies and HTTP's statuses; knows no replica, no retry and no deadline.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import msgspec
import orjson

from cascade.errors import TierRejected, TierUnavailable
from cascade.upstream import Incoming

LARGEST_BODY_BYTES = 16 * 1024 * 1024
EXCERPT_CHARACTERS = 300
UNPROCESSABLE = 422
TEMPORARY = frozenset({408, 409, 425, 429})
"""4xx codes that say "not now" rather than "not like this"; every 5xx says so too."""

NEXT_STEP = {
    401: "; check its api_key",
    403: "; check what its api_key may do",
    404: "; check the model's name and that the address ends in /v1",
    301: "; give the address it redirects to",
    302: "; give the address it redirects to",
    307: "; give the address it redirects to",
    308: "; give the address it redirects to",
}


class Setback(TierUnavailable):
    """One attempt failed; another may not. Never leaves ``Endpoint``."""

    def __init__(self, message: str, retry_after_seconds: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


def read_completion(body: bytes) -> dict[str, Any]:
    """A chat completion, as OpenAI shapes it.

    Raises
    ------
    Setback
        The body is not JSON or has no choices.
    """
    found = _read_object(body)
    if not isinstance(found.get("choices"), list):
        raise Setback("it answered 200 without choices")
    return found


@dataclass(frozen=True, slots=True)
class Forwarded:
    """A chat completion as the engine wrote it, and the usage that it reports."""

    body: bytes
    usage: Mapping[str, Any]


class _Completion(msgspec.Struct):
    choices: list[msgspec.Raw]
    usage: dict[str, Any] | None = None


COMPLETION = msgspec.json.Decoder(_Completion)


def read_forwarded(body: bytes) -> Forwarded:
    """A chat completion of which only the usage is looked at; raises as ``read_completion``."""
    try:
        return Forwarded(body, COMPLETION.decode(body).usage or {})
    except (msgspec.MsgspecError, UnicodeDecodeError) as exc:
        raise Setback(f"it answered 200 without a chat completion: {exc}") from exc


def read_models(body: bytes) -> list[str]:
    """The ids in a list of models; raises as ``read_completion``."""
    try:
        return [str(model["id"]) for model in _read_object(body)["data"]]
    except (KeyError, TypeError) as exc:
        raise Setback("it answered 200 without a list of models") from exc


async def refusal(response: Incoming, key: str | None) -> Setback | TierRejected:
    """What a status other than 200 means; ``key`` is blotted out, some endpoints repeat it."""
    excerpt = _message(await read_body(response))
    if key:
        excerpt = excerpt.replace(key, "***")
    # without its address: callers of the gateway read this too
    said = f"the engine said {response.status}: {excerpt[:EXCERPT_CHARACTERS]}"
    # llama.cpp says 500 to an image that its model cannot see
    unable = response.status == 501 or "not supported" in excerpt
    if response.status in TEMPORARY or (response.status >= 500 and not unable):
        return Setback(said, retry_after_seconds(response.header("retry-after")))
    status = response.status if response.status < 500 else UNPROCESSABLE
    return TierRejected(said + NEXT_STEP.get(response.status, ""), status)


def retry_after_seconds(header: str | None) -> float:
    """Seconds a ``Retry-After`` header asks for (RFC 9110, 10.2.3); 0 when it says nothing usable.

    >>> retry_after_seconds("1.5"), retry_after_seconds("soon"), retry_after_seconds("-3")
    (1.5, 0.0, 0.0)
    """
    try:
        seconds = float(header or 0)
    except ValueError:
        seconds = _seconds_until(header or "")
    return seconds if 0 < seconds < float("inf") else 0.0


def _seconds_until(date: str) -> float:
    try:
        return (parsedate_to_datetime(date) - datetime.now(UTC)).total_seconds()
    except (ValueError, TypeError):  # not a date, or one without a time zone
        return 0.0


async def read_body(response: Incoming) -> bytes:
    """A whole body; one of more than ``LARGEST_BODY_BYTES`` is a setback, not a full memory."""
    chunks, size = list[bytes](), 0
    while chunk := await response.next_chunk():
        chunks.append(chunk)
        size += len(chunk)
        if size > LARGEST_BODY_BYTES:
            raise Setback(f"it sent more than {LARGEST_BODY_BYTES} bytes")
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def _read_object(body: bytes) -> dict[str, Any]:
    try:
        found = orjson.loads(body)
    except orjson.JSONDecodeError as exc:
        raise Setback("it answered 200 with something that is not JSON") from exc
    if not isinstance(found, dict):
        raise Setback("it answered 200 with JSON that is not an object")
    return found


def _message(body: bytes) -> str:
    """The sentence inside an OpenAI-shaped error body, or the beginning of any other."""
    try:
        return str(orjson.loads(body)["error"]["message"])
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return body.decode("utf-8", "replace")
