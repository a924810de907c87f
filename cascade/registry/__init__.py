"""Where finished proxies are kept: numbered versions of a task, and aliases that point at them."""

from __future__ import annotations

from cascade.registry.base import CHALLENGER, CHAMPION, Registered, Registry
from cascade.registry.opening import open_registry

__all__ = ["CHALLENGER", "CHAMPION", "Registered", "Registry", "open_registry"]
