"""Certify a distilled proxy's path for the stream: fresh uniform draws, labels only where needed.

Knows how to buy what an audit wants, in the order of its draws; the bound itself is ``certify``'s.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import msgspec
import numpy as np
from numpy.typing import NDArray

from cascade import certify
from cascade.certify import Certificate, StreamAudit
from cascade.distill.card import model_card
from cascade.distill.distil import Distilled
from cascade.distill.label import silent
from cascade.distill.replay import TEACHER, Opinions, judge
from cascade.distill.workshop import (
    Workshop,
    ask_small,
    ask_teacher,
    indices,
    look,
    scores,
)
from cascade.errors import CertificateError
from cascade.tiers.artifact import Artifact
from cascade.tiers.proxy import Proxy

CHUNK = 32
"""Draws whose labels are bought at the same time; the audit takes them in one by one, in order."""


@dataclass(frozen=True)
class Certified:
    """A proxy after its audit.

    artifact : with certificate and thresholds, where a rung passed.
    refusal : why there is no certificate; empty where there is one.
    confusion : (L, L) draws answered below the teacher on the certified rung: teacher, policy.
    dollars_below : mean price a request of the tiers below the teacher, on that rung.
    """

    artifact: Artifact
    certificate: Certificate | None
    refusal: str
    labels: int
    confusion: NDArray[np.int64]
    dollars_below: float


@dataclass(frozen=True)
class _Draws:
    """The certification draws as every tier below the teacher sees them."""

    texts: list[str]
    opinions: Opinions
    answers: NDArray[np.int64]  # (n, G)


async def certify_stream(shop: Workshop, distilled: Distilled) -> Certified:
    """Audit the frozen path on the pool that the training never saw.

    Raises
    ------
    CascadeError
        A purchase failed. A path that proves nothing is no error: ``refusal`` says so.
    """
    path = distilled.artifact.manifest.path
    draws = await _draw(shop, distilled)
    guarantee = certify.Guarantee(shop.recipe.guarantee.target, shop.recipe.guarantee.delta)
    rungs = [certify.Rung(rung.thresholds, 1.0 - rung.shares["large"]) for rung in path]
    audit = StreamAudit(guarantee, rungs, certify.Deadline(len(draws.texts)))
    truth = await _audit(shop, audit, draws)
    try:
        certificate = certify.seal(audit.evidence(), certify.STREAM)
    except CertificateError as exc:
        nothing = np.zeros((len(shop.bench.task.labels),) * 2, np.int64)
        return Certified(distilled.artifact, None, str(exc), audit.labels, nothing, 0.0)
    best = audit.certified or 0
    asked = float(draws.opinions.asks_small(path[best]).mean())
    return Certified(
        artifact=_sealed(distilled, certificate, best),
        certificate=certificate,
        refusal="",
        labels=audit.labels,
        confusion=_confusion(truth, draws.answers[:, best], len(shop.bench.task.labels)),
        dollars_below=distilled.lessons.costs.small * asked,
    )


async def _draw(shop: Workshop, distilled: Distilled) -> _Draws:
    """Look at every draw; hear the small LLM on those that some rung would ask it about."""
    texts = shop.texts(shop.pools.certify)
    manifest, proxy = distilled.artifact.manifest, Proxy(distilled.artifact)
    views = look(shop.bench, texts)
    alone = judge(proxy, views, None, None)
    asked = np.flatnonzero(np.any([alone.asks_small(rung) for rung in manifest.path], axis=0))
    small = await ask_small(shop, [texts[row] for row in asked])
    heard = np.full((len(texts), len(manifest.labels)), np.nan)
    if small is not None:
        heard[asked] = scores(small, len(manifest.labels))
    opinions = judge(proxy, views, manifest.stack, heard)
    return _Draws(texts, opinions, opinions.answers(manifest.path))


async def _audit(shop: Workshop, audit: StreamAudit, draws: _Draws) -> NDArray[np.int64]:
    """Run the audit; (n,) the teacher's label index of each draw, -1 where it is not known."""
    truth = np.full(len(draws.texts), -1)
    with shop.progress("certification draws") as report:
        for start in range(0, len(draws.texts), CHUNK):
            rows = range(start, min(start + CHUNK, len(draws.texts)))
            await _take(shop, audit, draws, rows, truth)
            report(rows.stop, len(draws.texts), 0.0)
            if audit.done:
                break
    return truth


async def _take(
    shop: Workshop, audit: StreamAudit, draws: _Draws, rows: range, truth: NDArray[np.int64]
) -> None:
    """Buy the labels that a chunk of draws needs into ``truth``, then record draw by draw."""
    wanted = [row for row in rows if audit.wants(draws.answers[row] != TEACHER)]
    if wanted:
        bought = await ask_teacher(shop, [draws.texts[row] for row in wanted], silent)
        truth[wanted] = indices(bought, shop.bench.task.labels)
    for row in rows:
        if audit.done:
            return
        answered = draws.answers[row] != TEACHER
        wrong = draws.answers[row] != truth[row] if row in wanted else None
        audit.record(str(row), answered, wrong)


def _sealed(distilled: Distilled, certificate: Certificate, best: int) -> Artifact:
    artifact = distilled.artifact
    report = replace(distilled.report, certified=best)
    return replace(
        artifact,
        manifest=msgspec.structs.replace(artifact.manifest, thresholds=certificate.thresholds),
        card=model_card(report, certificate),
        certificate=certify.to_json(certificate),
    )


def _confusion(
    truth: NDArray[np.int64], answers: NDArray[np.int64], n_labels: int
) -> NDArray[np.int64]:
    counts = np.zeros((n_labels, n_labels), np.int64)
    known = (truth >= 0) & (answers != TEACHER)
    np.add.at(counts, (truth[known], answers[known]), 1)
    return counts
