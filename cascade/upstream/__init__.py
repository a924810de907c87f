"""HTTP/1.1 to an engine. Knows bytes, connections and their faults; no model, no JSON, no retry."""

from __future__ import annotations

from collections.abc import Mapping

from yarl import URL

from cascade.upstream.plain import PlainTransport
from cascade.upstream.secure import AiohttpTransport
from cascade.upstream.transport import Incoming, Transport, UpstreamFault

__all__ = [
    "AiohttpTransport",
    "Incoming",
    "PlainTransport",
    "Transport",
    "UpstreamFault",
    "transport_to",
]


def transport_to(origin: URL, fields: Mapping[str, str]) -> Transport:
    """The cheapest client for an origin: our own without TLS, aiohttp with it.

    fields : headers that every request carries.
    """
    if origin.scheme == "https" or origin.host is None or origin.port is None:
        return AiohttpTransport(str(origin.origin()), fields)
    return PlainTransport(origin.host, origin.port, fields)
