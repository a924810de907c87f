"""Certify a distilled proxy's path for the stream: fresh uniform draws, labels only where needed.

Knows how to buy what an audit wants, in the order of its draws; the bound itself is ``certify``'s.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import msgspec
import numpy as np
from numpy.typing import NDArray

from cascade import certify
from cascade.certify import Certificate, EveryLabelAudit, StreamAudit
from cascade.distill.attempts import open_audit
from cascade.distill.card import model_card
from cascade.distill.distil import Distilled
from cascade.distill.label import silent
from cascade.distill.label_path import LabelPlan, Strings, named
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
from cascade.tiers.artifact import Artifact, Rung
from cascade.tiers.proxy import Proxy

CHUNK = 32
"""Draws whose labels are bought at the same time; the audit takes them in one by one, in order."""


NO_LABEL = (
    "no label can be held to the target by itself: each needs draws of its own (`buy.certify`), "
    "answers that are right often enough (`buy.train`), or a lower target"
)


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
    """Certification draws, as every rung would treat them.

    answers : (n, G) label indices, ``TEACHER`` where the rung asks the teacher.
    asks : (n, G) whether the rung pays the small LLM.
    truth : (n,) the teacher's label index, -1 where it is not known.
    """

    answers: NDArray[np.int64]
    asks: NDArray[np.bool_]
    truth: NDArray[np.int64]


async def certify_proxy(shop: Workshop, distilled: Distilled) -> Certified:
    """Audit what the recipe asks for: all answers together, or every label's by themselves.

    Raises
    ------
    CascadeError
        A purchase failed. An audit that proves nothing is no error: ``refusal`` says so.
    """
    if distilled.plan is None:
        return await certify_stream(shop, distilled)
    return await certify_labels(shop, distilled, distilled.plan)


async def certify_stream(shop: Workshop, distilled: Distilled) -> Certified:
    """Audit the frozen path on the pool that the training never saw.

    Raises
    ------
    CascadeError
        A purchase failed. A path that proves nothing is no error: ``refusal`` says so.
    """
    proxy = Proxy(distilled.artifact)
    guarantee = open_audit(shop, distilled)
    rungs = [certify.Rung(rung.thresholds, 1.0 - rung.shares["large"]) for rung in _path(proxy)]
    audit = StreamAudit(guarantee, rungs, certify.Deadline(len(shop.pools.certify)))
    draws = await _audit(shop, audit, proxy)
    try:
        certificate = certify.seal(audit.evidence(), certify.STREAM)
    except CertificateError as exc:
        return _refused(shop, distilled, str(exc), audit.labels)
    best = audit.certified or 0
    return Certified(
        artifact=_sealed(distilled, certificate, best),
        certificate=certificate,
        refusal="",
        labels=audit.labels,
        confusion=_confusion(draws.truth, draws.answers[:, best], len(shop.bench.task.labels)),
        dollars_below=distilled.lessons.costs.small * float(draws.asks[:, best].mean()),
    )


async def certify_labels(shop: Workshop, distilled: Distilled, plan: LabelPlan) -> Certified:
    """Audit every label's answers on the pool that the training never saw; raises like
    ``certify_proxy``."""
    if not plan.labels:
        return _refused(shop, distilled, NO_LABEL, 0)
    proxy, names = Proxy(distilled.artifact), shop.bench.task.labels
    opinions = judge(proxy, look(shop.bench, shop.texts(shop.pools.certify)), None, None)
    answers = named(opinions.answers(plan.path), names)
    audit = EveryLabelAudit.over(answers, plan.labels, open_audit(shop, distilled))
    truth = await _audit_labels(shop, audit, answers)
    try:
        certificate = certify.seal(audit.evidence(), certify.STREAM)
    except CertificateError as exc:
        return _refused(shop, distilled, str(exc), audit.labels)
    served = opinions.answers([Rung(certificate.thresholds, {}, 0.0)])[:, 0]
    return Certified(
        artifact=_sealed(distilled, certificate, None),
        certificate=certificate,
        refusal="",
        labels=audit.labels,
        confusion=_confusion(truth, served, len(names)),
        dollars_below=0.0,
    )


async def _audit_labels(
    shop: Workshop, audit: EveryLabelAudit, answers: Strings
) -> NDArray[np.int64]:
    """Run the audit; (n,) the teacher's label index of every draw, -1 where it is not known."""
    texts, names = shop.texts(shop.pools.certify), shop.bench.task.labels
    truth = np.full(len(texts), TEACHER)
    with shop.progress("certification draws") as report:
        for start in range(0, len(texts), CHUNK):
            if audit.done:
                break
            chunk = range(start, min(start + CHUNK, len(texts)))
            wanted = [draw for draw in chunk if audit.wants(answers[draw])]
            if wanted:
                bought = await ask_teacher(shop, [texts[draw] for draw in wanted], silent)
                truth[wanted] = indices(bought, names)
            for draw in wanted:
                audit.record(str(draw), answers[draw], str(named(truth[draw], names)))
            report(chunk.stop, len(texts), 0.0)
    return truth


async def _audit(shop: Workshop, audit: StreamAudit, proxy: Proxy) -> _Draws:
    """Run the audit; every draw that it came to."""
    texts, chunks = shop.texts(shop.pools.certify), list[_Draws]()
    with shop.progress("certification draws") as report:
        for start in range(0, len(texts), CHUNK):
            chunks.append(await _take(shop, audit, proxy, texts[start : start + CHUNK]))
            report(min(start + CHUNK, len(texts)), len(texts), 0.0)
            if audit.done:
                break
    return _Draws(
        answers=np.concatenate([chunk.answers for chunk in chunks]),
        asks=np.concatenate([chunk.asks for chunk in chunks]),
        truth=np.concatenate([chunk.truth for chunk in chunks]),
    )


async def _take(shop: Workshop, audit: StreamAudit, proxy: Proxy, texts: list[str]) -> _Draws:
    """Hear every tier on a chunk of draws, the teacher only where the audit wants its label, then
    record draw by draw."""
    opinions = await _hear(shop, proxy, texts)
    answers = opinions.answers(_path(proxy))
    truth = np.full(len(texts), -1)
    wanted = [row for row in range(len(texts)) if audit.wants(answers[row] != TEACHER)]
    if wanted:
        bought = await ask_teacher(shop, [texts[row] for row in wanted], silent)
        truth[wanted] = indices(bought, shop.bench.task.labels)
    first = len(audit.draws)
    for row in range(len(texts)):
        if audit.done:
            break
        wrong = answers[row] != truth[row] if row in wanted else None
        audit.record(str(first + row), answers[row] != TEACHER, wrong)
    asks = np.stack([opinions.asks_small(rung) for rung in _path(proxy)], axis=1)
    return _Draws(answers, asks, truth)


async def _hear(shop: Workshop, proxy: Proxy, texts: list[str]) -> Opinions:
    """What the tiers below the teacher say of some draws. The small LLM is asked only about those
    for which some rung would ask it: its answer decides what that rung does with them."""
    labels = proxy.manifest.labels
    views = look(shop.bench, texts)
    alone = judge(proxy, views, None, None)
    asked = np.flatnonzero(np.any([alone.asks_small(rung) for rung in _path(proxy)], axis=0))
    small = await ask_small(shop, [texts[row] for row in asked], silent)
    heard = np.full((len(texts), len(labels)), np.nan)
    if small is not None:
        heard[asked] = scores(small, len(labels))
    return judge(proxy, views, proxy.manifest.stack, heard)


def _refused(shop: Workshop, distilled: Distilled, why: str, labels: int) -> Certified:
    nothing = np.zeros((len(shop.bench.task.labels),) * 2, np.int64)
    return Certified(distilled.artifact, None, why, labels, nothing, 0.0)


def _path(proxy: Proxy) -> tuple[Rung, ...]:
    return proxy.manifest.path


def _sealed(distilled: Distilled, certificate: Certificate, best: int | None) -> Artifact:
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
