"""Reason codes: why an answer came from where it came from. Stable; see docs/reference.md."""

from __future__ import annotations

from typing import Final

CERTIFIED: Final = "certified"  # answered below the teacher, inside the certificate
BELOW_THRESHOLD: Final = "below_threshold"  # the tiers below were not sure enough
NOVEL: Final = "novel"  # unlike anything the proxy was trained on
TRUNCATED: Final = "truncated"  # longer than the proxy can see
MULTI_TURN: Final = "multi_turn"  # more than one user turn
UNSUPPORTED_INPUT: Final = "unsupported_input"  # tools, images, empty text, ...
NO_CHAMPION: Final = "no_champion"  # nothing is promoted for this task
IDENTITY_MISMATCH: Final = "identity_mismatch"  # the champion was made for another task or embedder
DEMOTED: Final = "demoted"  # the monitor or an operator took the champion out
FORCED: Final = "forced"  # x-cascade-tier
SLO: Final = "slo"  # no time for the usual path
BUDGET: Final = "budget"  # a spend limit
TIER_UNAVAILABLE: Final = "tier_unavailable"  # an engine did not answer
UNREADABLE: Final = "unreadable"  # the completion was not a label
AUDIT: Final = "audit"  # asked of the teacher to check the tiers below
PASSTHROUGH: Final = "passthrough"  # not a typed task

ALL: Final = frozenset(
    value for name, value in list(globals().items()) if name.isupper() and isinstance(value, str)
)
