"""Answer every request with the cheapest model that is provably good enough."""

from __future__ import annotations

from cascade.types import (
    Abstention,
    Accept,
    Answer,
    Ask,
    Decision,
    GiveUp,
    Policy,
    Price,
    Query,
    Tier,
    Usage,
)

__all__ = [
    "Abstention",
    "Accept",
    "Answer",
    "Ask",
    "Decision",
    "GiveUp",
    "Policy",
    "Price",
    "Query",
    "Tier",
    "Usage",
]

__version__ = "0.1.0"
