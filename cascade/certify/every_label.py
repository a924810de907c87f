"""Hold every label's answers on a stream to the target, with one certificate for all of them.

Knows one ``ConditionalAudit`` a label over the same draws; nothing of models.

The claim: with probability at least 1 - delta over the draws, *for every label that the policy
gives below the teacher*, at most a share 1 - target of the requests so answered get another answer
from the teacher. C labels were planned, each is audited at delta / C (Bonferroni 1936), and those
that were not certified are never given below the teacher. Two weaker claims follow on the same
event, since a mean of shares is no larger than their largest: at most a share 1 - target of all
answers below the teacher differ, and so do of all answers.

One tier only. Which requests a label gets must not depend on another label's threshold, or the
requests that were audited are not those that are served: where two tiers know different labels for
a request, the first one's threshold decides whether the second one is heard.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

from cascade.certify.claim import AGREEMENT, Claim, Conditional, Guarantee, Rung
from cascade.certify.conditional import ANY, ConditionalAudit, ConditionalEvidence
from cascade.errors import CertificateError
from cascade.types import ONE_LABEL, for_label

Strings = NDArray[np.str_]

BY_LABEL = f"{AGREEMENT} by label"
"""The metric: agreement of every label's answers. It implies the agreement of all of them."""

NEVER = 2.0
"""A threshold that no confidence reaches: of the labels that have none of their own."""


def label_thresholds(thresholds: Mapping[str, float]) -> dict[str, float]:
    """Each label's own threshold; empty where one serves all labels.

    >>> label_thresholds({"proxy": 2.0, "proxy:a:b": 0.8}), label_thresholds({"proxy": 0.9})
    ({'a:b': 0.8}, {})
    """
    return {key.partition(ONE_LABEL)[2]: at for key, at in thresholds.items() if ONE_LABEL in key}


class EveryLabelEvidence(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="every label"
):
    """Everything needed to win the certificate again, offline.

    guarantee : with the whole delta. audits : of every label that was planned, also of those that
    were not certified: all share delta.
    """

    guarantee: Guarantee
    audits: list[ConditionalEvidence]

    @property
    def log_wealths(self) -> list[float]:
        """As recorded, label by label; a replay must find the same."""
        return [wealth for audit in self.audits for wealth in audit.log_wealths]

    def replay(self) -> EveryLabelAudit:
        """Run every audit again. Raises ``CertificateError`` on impossible draws."""
        labels = [audit.label for audit in self.audits]
        if not labels or len(set(labels)) < len(labels) or ANY in labels:
            raise CertificateError("the evidence does not hold one audit for each of its labels")
        share = shared(self.guarantee, len(labels))
        if any(audit.guarantee != share for audit in self.audits):
            raise CertificateError(f"each of {len(labels)} labels has to be audited at {share}")
        return EveryLabelAudit(self.guarantee, [audit.replay() for audit in self.audits])


def shared(guarantee: Guarantee, labels: int) -> Guarantee:
    """What each of so many labels is audited at, that all may hold together.

    >>> shared(Guarantee(0.9, 0.1), 2).delta
    0.05
    """
    return Guarantee(guarantee.target, guarantee.delta / max(labels, 1))


@dataclass(frozen=True)
class EveryLabelAudit:
    """Sequential audits that share their draws: ``wants`` a label?, ``record`` it, until ``done``.

    audits : one a label, each at ``shared(guarantee, len(audits))``.
    """

    guarantee: Guarantee
    audits: Sequence[ConditionalAudit]

    @classmethod
    def over(
        cls, answers: Strings, plan: Mapping[str, Sequence[Rung]], guarantee: Guarantee
    ) -> EveryLabelAudit:
        """Of draws that all policies have looked at, before the first label is bought.

        Parameters
        ----------
        answers : (n, G) what each rung of the whole path answers, "" where it escalates.
        plan : from ``plan_classes``, made before the draws; each label's path ends the whole one.
        """
        share = shared(guarantee, len(plan))
        counts = {
            label: (answers[:, -len(rungs) :] == label).sum(axis=0) for label, rungs in plan.items()
        }
        audits = [
            ConditionalAudit(share, rungs, counts[label].tolist(), label)
            for label, rungs in plan.items()
        ]
        return cls(guarantee, audits)

    @property
    def certified(self) -> list[ConditionalAudit]:
        """Those of the certified labels."""
        return [audit for audit in self.audits if audit.passed]

    @property
    def done(self) -> bool:
        """No draw can change a certified rung any more."""
        return all(audit.done for audit in self.audits)

    @property
    def labels(self) -> int:
        """Teacher answers that were recorded."""
        return sum(len(audit.draws) for audit in self.audits)

    @property
    def highest(self) -> NDArray[np.float64]:
        """The largest log wealth of each rung, label by label."""
        return np.concatenate([audit.highest for audit in self.audits])

    def wants(self, answers: Strings) -> bool:
        """Whether this draw's label is needed. ``answers`` : (G,), as in ``over``."""
        return any(audit.wants(_gives(audit, answers)) for audit in self._concerned(answers))

    def record(self, id: str, answers: Strings, teacher: str) -> None:
        """Take in the label of the next draw that was wanted, in the order of drawing.

        teacher : its answer; one that could not be read equals no label, and so counts as wrong.
        """
        for audit in self._concerned(answers):
            if audit.wants(below := _gives(audit, answers)):
                audit.record(id, below, audit.label != teacher)

    def _concerned(self, answers: Strings) -> list[ConditionalAudit]:
        given = set(answers.tolist())
        return [audit for audit in self.audits if audit.label in given]

    def evidence(self) -> EveryLabelEvidence:
        """The audits as they stand, as plain data."""
        return EveryLabelEvidence(self.guarantee, [audit.evidence() for audit in self.audits])

    def certified_rungs(self) -> list[Rung]:
        """Policies that hold the claim, the most careful first, the boldest last.

        From one to the one before, every label goes back by a rung of its own path, if it has one
        left: each label's earlier rungs are certified with its last, all on the same event.
        """
        steps = max((audit.passed for audit in self.audits), default=0)
        return [self._rung(back) for back in reversed(range(steps))]

    def _rung(self, back: int) -> Rung:
        """Every certified label, so many rungs before its boldest."""
        rungs = {
            audit.label: audit.rungs[max(audit.passed - 1 - back, 0)] for audit in self.certified
        }
        tier = self._tier()
        own = {for_label(tier, label): rung.thresholds[tier] for label, rung in rungs.items()}
        return Rung({tier: NEVER, **own}, sum(rung.share for rung in rungs.values()))

    def _tier(self) -> str:
        """The one that every rung has a threshold for, and no other."""
        named = {tuple(rung.thresholds) for audit in self.audits for rung in audit.rungs}
        if len(named) != 1 or len(tiers := named.pop()) != 1:
            raise CertificateError("labels are certified together for a path of one tier only")
        return str(tiers[0])

    def claim(self) -> Claim:
        """What the draws so far prove. Raises ``CertificateError`` where they prove nothing."""
        target = self.guarantee.target
        if not self.certified:
            raise CertificateError(
                f"no label's answers reached {target:.3f} agreement: certify on more draws "
                "(`buy.certify`), or take a lower target"
            )
        rows = sum(int(audit.seen[audit.passed - 1]) for audit in self.certified)
        wrong = sum(int(audit.wrong[audit.passed - 1]) for audit in self.certified)
        return Claim(
            guarantee=self.guarantee,
            rung=self._rung(0),
            n=self.labels,
            labels=self.labels,
            bound=target,
            conditional=Conditional(1 - wrong / rows, target, rows),
            method=f"{len(self.audits)} labels share delta (Bonferroni); each by fixed-sequence "
            "betting on the draws answered with it (Learn then Test; Ville)",
            metric=BY_LABEL,
        )


def _gives(audit: ConditionalAudit, answers: Strings) -> NDArray[np.bool_]:
    """Which rungs of the audit's path answer with its label."""
    return np.asarray(answers[-len(audit.rungs) :] == audit.label)
