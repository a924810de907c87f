"""What the demo measured, as the figures of ``demo-report.json``. Pure arithmetic on replies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np

from cascade import certify
from cascade.benches import LARGE, PROXY, SMALL
from cascade.certify import Certificate, Guarantee, StreamAudit
from cascade.certify.stream import RIGHT, TEACHER, UNLABELLED, WRONG, StreamEvidence
from cascade.demo.traffic import Reply
from cascade.errors import CertificateError

STRICTER = 0.95
"""The demo also says what this target would have given from the same labels."""


@dataclass(frozen=True)
class Measured:
    """The replies to held-back requests, beside what the teacher and people say of each.

    forced : the same kind of requests, all answered by the large tier.
    teacher : its label of each reply's text; None where it was unreadable.
    gold : human labels; None without any.
    teacher_dollars : what the teacher's labels cost of which it was asked alone.
    """

    replies: Sequence[Reply]
    forced: Sequence[Reply]
    teacher: Sequence[str | None]
    teacher_dollars: Sequence[float]
    gold: Sequence[str | None] | None

    @property
    def agreement(self) -> float:
        """Share of the answers that are the teacher's."""
        return _share(self._agreed)

    @property
    def conditional_agreement(self) -> float:
        """The same among the answers given below the teacher."""
        below = [reply.tier != LARGE for reply in self.replies]
        return _share([one for one, kept in zip(self._agreed, below, strict=True) if kept])

    @property
    def _agreed(self) -> list[bool]:
        pairs = zip(self.replies, self.teacher, strict=True)
        return [reply.tier == LARGE or reply.label == label for reply, label in pairs]

    def tier(self, name: str) -> dict[str, float | None]:
        """Share, latency and money of one tier."""
        mine = [reply for reply in self.replies if reply.tier == name]
        seconds = [reply.seconds for reply in mine]
        return {
            "share": len(mine) / len(self.replies),
            "p50_ms": _milliseconds(seconds, 50),
            "p99_ms": _milliseconds(seconds, 99),
            "dollars": sum(reply.dollars for reply in mine),
        }

    def gold_accuracy(self) -> dict[str, float]:
        """Share of human labels that cascade and teacher give."""
        if self.gold is None:
            return {}
        said = [reply.label for reply in self.replies]
        pairs = {"cascade": said, "large": self.teacher}
        return {
            name: _share([one == human for one, human in zip(labels, self.gold, strict=True)])
            for name, labels in pairs.items()
        }

    @property
    def speedup(self) -> float:
        """Mean latency of the large tier over that of the cascade."""
        always = float(np.mean([reply.seconds for reply in self.forced]))
        return always / float(np.mean([reply.seconds for reply in self.replies]))

    @property
    def cost_reduction(self) -> float:
        """Mean price of asking the teacher alone, over the mean price that was paid."""
        paid = float(np.mean([reply.dollars for reply in self.replies]))
        alone = [*self.teacher_dollars, *(reply.dollars for reply in self.forced)]
        return float(np.mean(alone)) / paid if paid else float("inf")


def report_of(
    measured: Measured, certificate: Certificate, run: str | None, seconds: float
) -> dict[str, Any]:
    """``demo-report.json``."""
    claim = msgspec.to_builtins(certificate)
    claim["evidence"] = f"{len(claim['evidence']['draws'])} draws; cascade certificate show"
    return {
        "target": certificate.target,
        "delta": certificate.delta,
        "held_back_requests": len(measured.replies),
        "tiers": {name: measured.tier(name) for name in (PROXY, SMALL, LARGE)},
        "agreement": measured.agreement,
        "conditional_agreement": measured.conditional_agreement,
        "gold_accuracy": measured.gold_accuracy(),
        "certificate": claim,
        "claim_held": measured.agreement >= certificate.target,
        f"at_target_{STRICTER}": at_target(certificate, STRICTER),
        "speedup_vs_large": measured.speedup,
        "cost_reduction_vs_large": measured.cost_reduction,
        "mlflow_run_id": run,
        "seconds": seconds,
    }


def at_target(certificate: Certificate, target: float) -> dict[str, Any]:
    """What another target would have certified from the same draws and labels."""
    evidence = certificate.evidence
    assert isinstance(evidence, StreamEvidence)
    guarantee = Guarantee(target, evidence.guarantee.delta)
    audit = StreamAudit(guarantee, evidence.rungs, certify.Deadline(len(evidence.draws)))
    for draw in evidence.draws:
        letters = np.array(list(draw.outcome))
        answered = letters != TEACHER
        if audit.done or (audit.wants(answered) and UNLABELLED in draw.outcome):
            break
        known = bool(np.isin(letters, [RIGHT, WRONG]).any())
        audit.record(draw.id, answered, letters == WRONG if known else None)
    try:
        claim = audit.claim()
    except CertificateError as exc:
        return {"certified": False, "reason": str(exc)}
    return {"certified": True, "share_below_large": claim.rung.share}


def _share(hits: Sequence[bool]) -> float:
    return float(np.mean(hits)) if hits else 1.0


def _milliseconds(seconds: Sequence[float], percentile: float) -> float | None:
    return 1000 * float(np.percentile(seconds, percentile)) if seconds else None
