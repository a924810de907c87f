"""What the console shows of one task, from its newest decisions; and the page itself.

Pure but for reading the page: knows records, no store, no clock and no HTTP.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.resources import files
from statistics import fmean, quantiles
from typing import NamedTuple

import msgspec

from cascade import reasons
from cascade.store import AuditRecord, DecisionRecord

ESCALATIONS = 12
HTML = "text/html; charset=utf-8"

INLINE = re.compile(r"<(style|script)>(.*?)</\1>", re.DOTALL)
POLICY = (
    "default-src 'none'; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'; style-src {style}; script-src {script}"
)


class Station(msgspec.Struct, frozen=True):
    """One tier on the way of the requests.

    asked, answered : of the decisions looked at. p50_seconds, p95_seconds : of an answer of its
        own, as its caller waited for it; None before the first.
    """

    tier: str
    asked: int
    answered: int
    p50_seconds: float | None
    p95_seconds: float | None


class Money(msgspec.Struct, frozen=True):
    """Dollars of the decisions looked at.

    teacher_only : what they would have cost, had the teacher answered each at its mean price; None
        while it has not been asked. audits : of the checks among the newest records.
    """

    spent: float
    audits: float
    teacher_only: float | None


class Checked(msgspec.Struct, frozen=True):
    """An audit: ``at`` Unix seconds; ``agreement`` the estimate after it, over answers below."""

    at: float
    wrong: bool
    agreement: float


class Flow(msgspec.Struct, frozen=True):
    """One task's newest decisions, summed up; ``since`` and ``until`` in Unix seconds.

    below : how many were answered below the teacher.
    """

    decisions: int
    since: float | None
    until: float | None
    below: int
    stations: list[Station]
    reasons: dict[str, int]
    money: Money
    escalations: list[DecisionRecord]


def flow_of(records: Sequence[DecisionRecord], tiers: Sequence[str]) -> Flow:
    """Sum up.

    Parameters
    ----------
    records : newest first; audits among them are checks, not answers.
    tiers : in the order in which they are asked; the last one is the teacher.
    """
    made = [one for one in records if one.reason != reasons.AUDIT]
    teacher = tiers[-1]
    return Flow(
        decisions=len(made),
        since=made[-1].at if made else None,
        until=made[0].at if made else None,
        below=sum(one.tier not in (None, teacher) for one in made),
        stations=[_station(tier, made) for tier in tiers],
        reasons=dict(Counter(one.reason for one in made).most_common()),
        money=_money(records, made, teacher),
        escalations=[one for one in made if one.reason != reasons.CERTIFIED][:ESCALATIONS],
    )


def _station(tier: str, made: Sequence[DecisionRecord]) -> Station:
    seconds = [one.seconds for one in made if one.tier == tier]
    return Station(
        tier=tier,
        asked=sum(any(said.tier == tier for said in one.trail) for one in made),
        answered=len(seconds),
        p50_seconds=_quantile(seconds, 50),
        p95_seconds=_quantile(seconds, 95),
    )


def _quantile(values: list[float], percent: int) -> float | None:
    """
    >>> _quantile([3.0], 95), _quantile([], 50)
    (3.0, None)
    """
    if len(values) < 2:
        return values[0] if values else None
    return quantiles(values, n=100, method="inclusive")[percent - 1]


def _money(
    records: Sequence[DecisionRecord], made: Sequence[DecisionRecord], teacher: str
) -> Money:
    prices = [
        said.dollars
        for one in made
        for said in one.trail
        if said.tier == teacher and said.label is not None
    ]
    prices += [one.dollars for one in records if one.reason == reasons.AUDIT and one.label]
    return Money(
        spent=sum(one.dollars for one in made),
        audits=sum(one.dollars for one in records if one.reason == reasons.AUDIT),
        teacher_only=fmean(prices) * len(made) if prices else None,
    )


def checks_of(audits: Sequence[AuditRecord]) -> list[Checked]:
    """The agreement below the teacher as it became known, oldest first (Hajek's estimate).

    audits : settled ones, newest first. Each counts for as many answers as its propensity says.

    >>> two = [AuditRecord("b", 2.0, "t", "proxy", "no", 0.5, None, None, "yes", 9.0),
    ...        AuditRecord("a", 1.0, "t", "proxy", "no", 0.1, None, None, "no", 8.0)]
    >>> [round(one.agreement, 2) for one in checks_of(two)]
    [1.0, 0.83]
    """
    checked, weight, right = [], 0.0, 0.0
    for audit in reversed(audits):
        wrong = bool(audit.wrong)
        weight += 1 / audit.propensity
        right += (not wrong) / audit.propensity
        checked.append(Checked(audit.settled_at or audit.at, wrong, right / weight))
    return checked


class Page(NamedTuple):
    """The console as it is sent. Nothing but its own style and script may run in it."""

    body: bytes
    headers: Mapping[str, str]


def load_page() -> Page:
    """Read ``console.html``; the policy allows exactly what is written there, by its digest."""
    text = (files("cascade.gateway") / "console.html").read_text(encoding="utf-8")
    allowed = {kind: f"'sha256-{_digest(code)}'" for kind, code in INLINE.findall(text)}
    headers = {
        "content-security-policy": POLICY.format(**allowed),
        "cache-control": "no-store",
        "referrer-policy": "no-referrer",
        "x-content-type-options": "nosniff",
    }
    return Page(text.encode(), headers)


def _digest(code: str) -> str:
    return base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()
