"""Which trace a request to an engine belongs to. Knows header fields; no span and no exporter."""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from types import MappingProxyType

TRACE: ContextVar[Mapping[str, str]] = ContextVar("trace", default=MappingProxyType({}))
"""Headers (W3C ``traceparent`` and ``tracestate``) of every request that this task sends. A context
variable, because a tier between gateway and engine has nothing to do with it."""
