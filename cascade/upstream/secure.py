"""HTTP/1.1 over TLS, by aiohttp: slower than ``plain``, but nobody should write TLS twice.

It also serves plain ``http://``, which lets one battery of faults measure both.
"""

from __future__ import annotations

import io
from collections.abc import Mapping

import aiohttp
from yarl import URL

from cascade.upstream.trace import TRACE
from cascade.upstream.transport import CONNECT_SECONDS, IDLE_SECONDS, UpstreamFault


class AiohttpIncoming:
    """See ``Incoming``."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self.status = response.status
        self._response = response

    def header(self, name: str) -> str | None:
        """See ``Incoming``."""
        return self._response.headers.get(name)

    async def next_chunk(self) -> bytes:
        """See ``Incoming``."""
        try:
            return await self._response.content.readany()
        except (aiohttp.ClientError, TimeoutError) as exc:
            raise UpstreamFault(f"the body broke off ({type(exc).__name__}: {exc})") from exc

    def close(self) -> None:
        """See ``Incoming``."""
        self._response.close()  # one that was read to its end has gone back by itself


class AiohttpTransport:
    """See ``Transport``.

    Parameters
    ----------
    origin : such as ``https://api.example.com``.
    fields : sent with every request.
    """

    def __init__(self, origin: str, fields: Mapping[str, str]) -> None:
        self._origin = URL(origin)
        self._fields = fields
        self._session: aiohttp.ClientSession | None = None

    async def open(self, method: str, path: str, body: bytes) -> AiohttpIncoming:
        """See ``Transport``."""
        url = self._origin.join(URL(path, encoded=True))
        try:
            return AiohttpIncoming(
                await self._connected().request(
                    method,
                    url,
                    data=io.BytesIO(body) if body else None,
                    headers=TRACE.get(),
                    allow_redirects=False,
                )
            )
        except (aiohttp.ClientError, OSError, UnicodeError) as exc:  # no DNS can hold such a name
            raise UpstreamFault(f"{type(exc).__name__}: {exc}") from exc

    async def close(self) -> None:
        """See ``Transport``."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    def _connected(self) -> aiohttp.ClientSession:
        """The session, opened at first use because it needs a running event loop."""
        if self._session is None:
            self._session = aiohttp.ClientSession(
                headers=dict(self._fields),
                connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=IDLE_SECONDS),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS),
            )
        return self._session
