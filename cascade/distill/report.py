"""What a distillation came to: the figures that plots, model card and tracking are made of.

Knows numbers and names; knows no model, no file and no MLflow.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cascade.tasks import Identity
from cascade.tiers.artifact import Rung


class ReliabilityBin(NamedTuple):
    """Answers of about the same confidence.

    confidence : mean stated P(the teacher would say the same).
    agreement : share where the teacher did say the same.
    answers : how many of them.
    """

    confidence: float
    agreement: float
    answers: int


@dataclass(frozen=True, kw_only=True)
class DistillReport:
    """One distillation. Confusion and reliability are those of rows as often as they weigh.

    Parameters
    ----------
    task : its name.
    identity : what the proxy is valid for.
    dataset : where the texts came from, for people.
    dataset_digest : sha256 over texts and labels.
    label_counts : training labels by label.
    confusion : (L, L) counts; rows are the teacher's label, columns the proxy's, both in the order
        of ``identity.labels``.
    reliability : bins of the proxy's confidence.
    path : rungs, the most conservative first.
    certified : index of the certified rung; None without certificate, or by label.
    by_label : every label is certified on a rung of its own.
    target : agreement that was asked for.
    params : what was chosen (answerer, seed, ...). Tracking never changes a value once written.
    metrics : what was measured.
    """

    task: str
    identity: Identity
    dataset: str
    dataset_digest: str
    label_counts: Mapping[str, int]
    confusion: NDArray[np.int64]
    reliability: tuple[ReliabilityBin, ...]
    path: tuple[Rung, ...]
    target: float
    certified: int | None = None
    by_label: bool = False
    params: Mapping[str, str | int | float] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)

    @property
    def agreement(self) -> float:
        """Estimated share of the texts to come on which proxy and teacher agree."""
        return float(np.trace(self.confusion) / max(self.confusion.sum(), 1))

    @property
    def recalls(self) -> dict[str, float]:
        """By label: share of the teacher's uses of it that the proxy gives too; NaN if unused."""
        used = self.confusion.sum(axis=1)
        with np.errstate(invalid="ignore"):
            shares = np.diag(self.confusion) / used
        return dict(zip(self.identity.labels, shares.tolist(), strict=True))


def confusion_matrix(
    teacher: Sequence[str], proxy: Sequence[str], labels: Sequence[str]
) -> NDArray[np.int64]:
    """Counts (L, L): rows the teacher's label, columns the proxy's.

    >>> confusion_matrix(["yes", "yes", "no"], ["yes", "no", "no"], ["yes", "no"]).tolist()
    [[1, 1], [0, 1]]
    """
    place = {label: index for index, label in enumerate(labels)}
    counts = np.zeros((len(labels), len(labels)), dtype=np.int64)
    for row, column in zip(teacher, proxy, strict=True):
        counts[place[row], place[column]] += 1
    return counts


def reliability_bins(
    confidence: NDArray[np.floating], agreed: NDArray[np.bool_], bins: int = 10
) -> tuple[ReliabilityBin, ...]:
    """Group answers by confidence into bins of equal size (Nguyen & O'Connor 2015).

    Equal widths would leave most bins of a confident model empty.

    Parameters
    ----------
    confidence : (n,) stated probabilities; agreed : (n,) whether the teacher said the same.

    >>> reliability_bins(np.array([0.5, 0.9, 0.6, 1.0]), np.array([0, 1, 1, 1], bool), bins=2)[1]
    ReliabilityBin(confidence=0.95, agreement=1.0, answers=2)
    """
    order = np.argsort(confidence, kind="stable")
    groups = [one for one in np.array_split(order, bins) if one.size]
    return tuple(
        ReliabilityBin(
            round(float(confidence[one].mean()), 6), float(agreed[one].mean()), int(one.size)
        )
        for one in groups
    )


def calibration_error(bins: Sequence[ReliabilityBin]) -> float:
    """Expected calibration error: mean |confidence - agreement|, weighted by answers.

    >>> calibration_error([ReliabilityBin(0.9, 0.8, 3), ReliabilityBin(0.5, 0.5, 1)])
    0.075
    """
    total = sum(one.answers for one in bins)
    gap = sum(abs(one.confidence - one.agreement) * one.answers for one in bins)
    return round(gap / total, 6) if total else 0.0
