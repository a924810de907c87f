"""A real, small proxy for tests: fitted, calibrated and exported in a fraction of a second."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cascade.certify import Certificate, to_json
from cascade.distill.calibrate import calibrate_proxy
from cascade.distill.export import export
from cascade.distill.fit import fit_answerer
from cascade.embed import Embedder
from cascade.tasks import Identity, Task
from cascade.tiers.artifact import Artifact, Manifest


def tiny_proxy(
    task: Task,
    identity: Identity,
    embedder: Embedder,
    texts: Sequence[str],
    y: NDArray[np.int64],
    *,
    thresholds: dict[str, float] | None = None,
    certificate: Certificate | None = None,
) -> Artifact:
    """Distil ``y``, (n,) label indices of the texts."""
    rng = np.random.default_rng(0)
    X, tokens = embedder.encode(texts), embedder.count_tokens(texts)
    answerer = fit_answerer(X, y, len(task.labels), rng=rng)
    calibration = calibrate_proxy(X, y, tokens, answerer, rng=rng)
    manifest = Manifest(
        task=task.name,
        identity=identity,
        labels=task.labels,
        agreement=calibration.agreement.model,
        gate=calibration.gate,
        path=(),
        training_digest="",
        created="2026-11-23T00:00:00Z",
        label_counts=dict(Counter(task.labels[label] for label in y)),
        thresholds=thresholds,
    )
    model, _ = export(answerer, X, rng=rng)
    arrays = calibration.neighbourhood.arrays
    return Artifact(
        manifest, model, arrays, "# Tiny\n", to_json(certificate) if certificate else None
    )
