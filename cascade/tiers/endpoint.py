"""One OpenAI-compatible endpoint, with one or more replicas. Knows HTTP; knows no task, no label.

A request is tried on every replica, and again with full jitter (Brooker, "Exponential backoff and
jitter", AWS 2015), until one deadline for all of it. Errors never carry the key.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import orjson
from yarl import URL

from cascade.errors import ConfigError, TierRejected, TierUnavailable
from cascade.tiers.replicas import Replicas
from cascade.tiers.responses import (
    LARGEST_BODY_BYTES,
    Forwarded,
    Setback,
    read_body,
    read_completion,
    read_forwarded,
    read_models,
    refusal,
)
from cascade.upstream import Incoming, Transport, UpstreamFault, transport_to

logger = logging.getLogger(__name__)

CHAT = "/chat/completions"
OK = 200
FIRST_BACKOFF_SECONDS = 0.2
LONGEST_BACKOFF_SECONDS = 8.0


Received = TypeVar("Received")
Receive = Callable[[Incoming], Awaitable[Received]]


class Endpoint:
    """Ask one model. Belongs to the event loop it is first used in; close it there.

    Parameters
    ----------
    base_urls : replicas of the same model, each ending in ``/v1``.
    timeout_seconds : deadline of one request, all attempts and pauses included. Waiting for a
        free connection comes before it, so a long batch does not time out in its own queue.
    attempts : requests sent at most for one answer, but at least one to every replica.
    concurrency : requests under way at the same time; also the size of the connection pool.
    rng : source of the jitter. By default from the operating system's entropy: processes that
        were started together must not retry together.

    Raises
    ------
    ConfigError
        No replica, an address that is not plain http(s), or a key no header can carry.
    """

    def __init__(
        self,
        model: str,
        base_urls: Sequence[str],
        api_key: str | None = None,
        *,
        timeout_seconds: float = 60.0,
        attempts: int = 3,
        concurrency: int = 4,
        rng: np.random.Generator | None = None,
    ) -> None:
        self.model = model
        self.concurrency = concurrency
        self._replicas = Replicas([_checked_url(url) for url in base_urls])
        if not self._replicas.urls:
            raise ConfigError(f"model {model} has no address: give at least one base URL")
        self._api_key = _checked_key(api_key)
        self._timeout_seconds = timeout_seconds
        self._attempts = max(attempts, len(self._replicas.urls))
        self._rng = rng or np.random.default_rng()
        self._free = Slots(concurrency)
        fields = {"content-type": "application/json"}
        if self._api_key:
            fields["authorization"] = f"Bearer {self._api_key}"
        self._transports: dict[str, Transport] = {
            url: transport_to(URL(url), fields) for url in self._replicas.urls
        }
        self._paths = {url: URL(url).raw_path.rstrip("/") for url in self._replicas.urls}

    @property
    def idle(self) -> bool:
        """Whether no request is under way; looking at the models does not count."""
        return self._free.all_free

    async def __aenter__(self) -> Endpoint:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close every connection. The endpoint may be used again afterwards."""
        for transport in self._transports.values():
            await transport.close()

    async def chat(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """One chat completion. ``model`` and ``stream`` of the body are replaced.

        Raises
        ------
        TierUnavailable
            Nothing usable before the deadline: refused, hung, 429, 5xx, or not JSON.
        TierRejected
            The endpoint says that the request is wrong; ``status`` is its HTTP status.
        """
        payload = self._payload({**body, "model": self.model, "stream": False})
        async with self._free:
            return await self._attempt_all("POST", CHAT, payload, _receive_completion)

    async def forward(self, body: bytes) -> Forwarded:
        """One chat completion, as bytes both ways. ``body`` names the model and asks no stream.

        Raises
        ------
        TierUnavailable, TierRejected
            As ``chat``.
        """
        async with self._free:
            return await self._attempt_all("POST", CHAT, body, _receive_forwarded)

    async def stream(self, body: bytes) -> AsyncGenerator[bytes]:
        """The raw bytes of a streamed completion (SSE), as they arrive.

        ``body`` names the model and asks for a stream.

        Another replica may be asked until one answers 200, none after that. Use it inside
        ``contextlib.aclosing``: leaving early closes the connection, and the engine stops.

        Raises
        ------
        TierUnavailable, TierRejected
            As ``chat``; TierUnavailable also when the stream breaks off or stalls.
        """
        async with self._free:
            response = await self._attempt_all("POST", CHAT, body, _keep_open)
            try:
                while chunk := await self._next_chunk(response):
                    yield chunk
            finally:
                response.close()

    async def models(self) -> list[str]:
        """Ids of the models the endpoint serves.

        Raises
        ------
        TierUnavailable, TierRejected
            As ``chat``.
        """
        return await self._attempt_all("GET", "/models", b"", _receive_models)

    def _payload(self, body: Mapping[str, Any]) -> bytes:
        try:
            payload = orjson.dumps(body)
        except TypeError as exc:  # half of a surrogate pair is not text in any encoding
            raise TierRejected(f"the request is not valid JSON text: {exc}", 400) from exc
        if len(payload) > LARGEST_BODY_BYTES:
            raise TierRejected(f"the request has {len(payload)} bytes; shorten the text", 413)
        return payload

    async def _attempt_all(
        self, method: str, path: str, payload: bytes, receive: Receive[Received]
    ) -> Received:
        """Try replica after replica, then all of them again, until the deadline."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._timeout_seconds
        urls = self._replicas.order(loop.time())
        for attempt in range(self._attempts):
            url = urls[attempt % len(urls)]
            untried = len(urls) - 1 - attempt
            try:
                async with asyncio.timeout_at(_patience(loop.time(), deadline, untried)):
                    received = await self._attempt(method, url, path, payload, receive)
                self._replicas.answered(url)
                return received
            except Setback as exc:
                setback = exc
            except TimeoutError:
                setback = Setback(f"{url}: no answer in time")
            logger.info("%s: attempt %d failed: %s", self.model, attempt + 1, setback)
            self._replicas.failed(url, loop.time())
            pause = self._pause(attempt, untried, setback)
            if attempt + 1 == self._attempts or loop.time() + pause >= deadline:
                break
            await asyncio.sleep(pause)
        raise TierUnavailable(
            f"{self.model} did not answer in {attempt + 1} attempts within "
            f"{self._timeout_seconds:g} s; the last: {setback}. Check that it runs and is reachable"
        ) from setback

    def _pause(self, attempt: int, untried: int, setback: Setback) -> float:
        """Seconds before the next attempt: none while there is a replica not asked yet."""
        if untried > 0:
            return 0.0
        ceiling = min(LONGEST_BACKOFF_SECONDS, FIRST_BACKOFF_SECONDS * 2.0**attempt)
        return setback.retry_after_seconds + float(self._rng.uniform(0.0, ceiling))

    async def _attempt(
        self, method: str, url: str, path: str, payload: bytes, receive: Receive[Received]
    ) -> Received:
        try:
            response = await self._transports[url].open(method, self._paths[url] + path, payload)
            try:
                if response.status != OK:
                    raise await refusal(response, self._api_key)
                return await receive(response)
            except BaseException:
                response.close()
                raise
        except UpstreamFault as exc:
            raise Setback(f"{url}: {exc}") from exc

    async def _next_chunk(self, response: Incoming) -> bytes:
        """The next bytes of a stream; empty at its end."""
        try:
            async with asyncio.timeout(self._timeout_seconds):
                return await response.next_chunk()
        except (UpstreamFault, TimeoutError) as exc:
            raise TierUnavailable(
                f"{self.model}: the stream broke off ({exc or type(exc).__name__}); ask again"
            ) from exc


class Slots(asyncio.Semaphore):
    """A semaphore that knows whether anybody is inside."""

    def __init__(self, slots: int) -> None:
        super().__init__(slots)
        self._slots = slots

    @property
    def all_free(self) -> bool:
        """Whether nobody is."""
        return self._value == self._slots


def _patience(now: float, deadline: float, untried: int) -> float:
    """Until when to wait for one attempt: half of what is left while another replica is waiting.

    A hung replica must leave time for the next one; the last one gets everything that is left.
    """
    return now + (deadline - now) / 2 if untried > 0 else deadline


async def _receive_completion(response: Incoming) -> dict[str, Any]:
    return read_completion(await read_body(response))


async def _receive_forwarded(response: Incoming) -> Forwarded:
    return read_forwarded(await read_body(response))


async def _receive_models(response: Incoming) -> list[str]:
    return read_models(await read_body(response))


async def _keep_open(response: Incoming) -> Incoming:
    return response


def _checked_url(text: str) -> str:
    try:
        url = URL(text)
    except ValueError:
        url = URL()
    if url.scheme not in ("http", "https") or not url.host:
        raise ConfigError(f"{text!r} is not an address: write http://host:port/v1")
    if url.user or url.password:
        raise ConfigError(f"the address of {url.host} holds a password: use api_key instead")
    return str(url).rstrip("/")


def _checked_key(api_key: str | None) -> str | None:
    if api_key is not None and not (api_key.isascii() and api_key.isprintable()):
        raise ConfigError("an api_key has a line break or a non-ASCII character: check its source")
    return api_key
