"""What the HTTP response of an endpoint means: a result, a setback, or a refusal.

Knows OpenAI's bodies and HTTP's statuses; knows no replica, no retry and no deadline.
"""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import aiohttp
import orjson

from cascade.errors import TierRejected, TierUnavailable

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


async def read_completion(response: aiohttp.ClientResponse) -> dict[str, Any]:
    """A chat completion, as OpenAI shapes it.

    Raises
    ------
    Setback
        The body is not JSON, has no choices or is too large.
    """
    found = await _read_object(response)
    if not isinstance(found.get("choices"), list):
        raise Setback(f"{response.url} answered 200 without choices")
    return found


async def read_models(response: aiohttp.ClientResponse) -> list[str]:
    """The ids in a list of models; raises as ``read_completion``."""
    found = await _read_object(response)
    try:
        return [str(model["id"]) for model in found["data"]]
    except (KeyError, TypeError) as exc:
        raise Setback(f"{response.url} answered 200 without a list of models") from exc


async def refusal(response: aiohttp.ClientResponse, key: str | None) -> Setback | TierRejected:
    """What a status other than 200 means; ``key`` is blotted out, some endpoints repeat it."""
    excerpt = _message(await _read(response, LARGEST_BODY_BYTES))
    if key:
        excerpt = excerpt.replace(key, "***")
    # without its address: callers of the gateway read this too
    said = f"the engine said {response.status}: {excerpt[:EXCERPT_CHARACTERS]}"
    # llama.cpp says 500 to an image that its model cannot see
    unable = response.status == 501 or "not supported" in excerpt
    if response.status in TEMPORARY or (response.status >= 500 and not unable):
        return Setback(said, retry_after_seconds(response.headers.get("Retry-After")))
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


async def _read_object(response: aiohttp.ClientResponse) -> dict[str, Any]:
    body = await _read(response, LARGEST_BODY_BYTES)
    try:
        found = orjson.loads(body)
    except orjson.JSONDecodeError as exc:
        raise Setback(f"{response.url} answered 200 with something that is not JSON") from exc
    if not isinstance(found, dict):
        raise Setback(f"{response.url} answered 200 with JSON that is not an object")
    return found


async def _read(response: aiohttp.ClientResponse, limit: int) -> bytes:
    """A body of at most ``limit`` bytes; a longer one is a setback, not a full memory."""
    body = bytearray()
    while chunk := await response.content.readany():
        body += chunk
        if len(body) > limit:
            raise Setback(f"{response.url} sent more than {limit} bytes")
    return bytes(body)


def _message(body: bytes) -> str:
    """The sentence inside an OpenAI-shaped error body, or the beginning of any other."""
    try:
        return str(orjson.loads(body)["error"]["message"])
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return body.decode("utf-8", "replace")
