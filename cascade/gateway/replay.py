"""A decision as a story that can be told again: what each tier said, and what it would have taken.

Knows a trail and a policy; never what was asked. An abstention's detail stays out: an engine's
error may quote the caller's text.
"""

from __future__ import annotations

from collections.abc import Mapping

from cascade import reasons
from cascade.gateway.lanes import Lane
from cascade.policies import Ladder
from cascade.store import Said
from cascade.types import SKIP, Abstention, Decision, Reply, least_confidence


def audit_of(decision_id: str) -> str:
    """The id of the record that holds what a decision's audit cost and said."""
    return f"{decision_id}-audit"


def told(lane: Lane, decision: Decision) -> tuple[Said, ...]:
    """What each tier said, with the thresholds that were in force."""
    thresholds: Mapping[str, float] = {}
    if isinstance(lane.router.policy, Ladder) and decision.reason != reasons.FORCED:
        thresholds = lane.router.policy.thresholds
    return tuple(
        _said(reply, thresholds, first=place == 0) for place, reply in enumerate(decision.trail)
    )


def _said(reply: Reply, thresholds: Mapping[str, float], *, first: bool) -> Said:
    usage = reply.usage
    if isinstance(reply, Abstention):
        return Said(reply.tier, usage.seconds, usage.dollars, reason=reply.reason)
    judged = reply.tier in thresholds
    return Said(
        reply.tier,
        usage.seconds,
        usage.dollars,
        label=reply.text,
        confidence=reply.confidence,
        needed=least_confidence(thresholds, reply.tier, reply.text) if judged else None,
        worth_next=thresholds.get(SKIP) if first else None,
    )
