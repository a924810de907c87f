"""A made-up distillation: big enough to draw, known well enough to check."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from cascade.distill.report import DistillReport, reliability_bins
from cascade.tasks import Identity
from cascade.tiers.artifact import Rung


def make_report(labels: tuple[str, ...] = ("yes", "no"), seed: int = 0) -> DistillReport:
    """A proxy that is right about four times in five and nearly calibrated."""
    rng = np.random.default_rng(seed)
    confidence = rng.beta(6, 1.6, 600)
    agreed = rng.random(600) < confidence - 0.02
    confusion = rng.integers(0, 6, (len(labels), len(labels))) + np.diag([60] * len(labels))
    return DistillReport(
        task="review-positive",
        identity=Identity("filter", "ab" * 32, labels, 200, "qwen-1.5b", "minilm-int8@0123"),
        dataset="data/reviews.parquet",
        dataset_digest="cd" * 32,
        label_counts={label: 200 for label in labels},
        confusion=confusion,
        reliability=reliability_bins(confidence, agreed),
        path=tuple(make_rung(share) for share in np.linspace(0.05, 0.95, 12)),
        certified=7,
        target=0.90,
        params={"answerer": "logistic", "seed": 0, "C": 1.0},
        metrics={"log_loss": 0.41, "share_below_teacher": 0.62},
    )


def make_rung(share: float) -> Rung:
    """The more is answered below the teacher, the more differs."""
    shares = {"proxy": 0.6 * share, "small": 0.4 * share, "large": 1 - share}
    return Rung({"proxy": 1 - 0.4 * share, "small": 0.9}, shares, 0.15 * share**2)


def without_certificate(report: DistillReport) -> DistillReport:
    """The same, before anybody certified it."""
    return replace(report, certified=None)
