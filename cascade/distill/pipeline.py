"""The commands' steps: train, certify, promote, evaluate. Each repeats those before it, for free.

Labels are bought once and everything else is determined by them, so a step that is run again after
a crash ends with the same artifact; the registry keeps one copy of it.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

from cascade.certify import (
    STREAM,
    Certificate,
    Economics,
    Rule,
    Sample,
    Verdict,
    label_thresholds,
    promotion_verdict,
)
from cascade.distill.certification import Certified, certify_proxy
from cascade.distill.distil import Distilled, distil
from cascade.distill.tracking import Tracker
from cascade.distill.workshop import Workshop
from cascade.errors import PromotionRefused, RegistryError
from cascade.registry import CHALLENGER, CHAMPION
from cascade.tiers.artifact import Artifact, verify


@dataclass(frozen=True)
class Outcome:
    """What a command came to. version : in the registry. run : MLflow's id, if it is tracked."""

    distilled: Distilled
    version: str
    run: str | None
    certified: Certified | None = None
    verdict: Verdict | None = None

    @property
    def certificate(self) -> Certificate | None:
        """Of the registered version."""
        return self.certified.certificate if self.certified else None


async def train(shop: Workshop) -> Outcome:
    """Distil, and register as challenger without certificate."""
    distilled = await distil(shop)
    version, run = _register(shop, distilled, distilled.artifact)
    return Outcome(distilled, version, run)


async def certify(shop: Workshop) -> Outcome:
    """Distil, audit on fresh draws, and register the challenger with what it proved."""
    distilled = await distil(shop)
    certified = await certify_proxy(shop, distilled)
    distilled = _with_certificate(distilled, certified)
    version, run = _register(shop, distilled, certified.artifact)
    return Outcome(distilled, version, run, certified)


async def promote(shop: Workshop) -> Outcome:
    """Certify, apply the promotion rule, and move the champion alias if it says yes.

    Raises
    ------
    PromotionRefused
        With every condition that is not met.
    """
    outcome = await certify(shop)
    assert outcome.certified is not None
    verdict = judge(shop, outcome.distilled, outcome.certified)
    if not verdict.promote:
        raise PromotionRefused(
            f"{shop.recipe.name} version {outcome.version} is not promoted: "
            + "; ".join(verdict.reasons)
            + ". The teacher goes on answering. More labels (`buy` in the recipe) or another "
            "prompt may help"
        )
    if shop.registry.champion(shop.recipe.name) != outcome.version:
        shop.registry.promote(shop.recipe.name, outcome.version, CHAMPION)
    return replace(outcome, verdict=verdict)


def judge(shop: Workshop, distilled: Distilled, certified: Certified) -> Verdict:
    """The promotion rule on what the audit found."""
    lessons, recipe = distilled.lessons, shop.recipe
    economics = Economics(
        volume=recipe.expected_requests,
        teacher=lessons.costs.large,
        below=certified.dollars_below,
        labels=len(lessons.y) + certified.labels,
        audit_rate=shop.audit_rate,
    )
    sample = Sample(shop.bench.task.labels, lessons.teacher_counts, certified.confusion)
    rule = Rule(may_miss=_left_to_teacher(distilled, certified).union(recipe.allow_missed))
    return promotion_verdict(certified.certificate, STREAM, economics, sample, rule)


def _left_to_teacher(distilled: Distilled, certified: Certified) -> frozenset[str]:
    """Labels without a certificate of their own that the proxy does give: such requests go to the
    teacher, so the label is not missed, though no answer below the teacher ever has it."""
    certificate = certified.certificate
    own = label_thresholds(certificate.thresholds) if certificate else {}
    recalls = distilled.report.recalls.items()
    return frozenset(label for label, recall in recalls if own and label not in own and recall > 0)


def _with_certificate(distilled: Distilled, certified: Certified) -> Distilled:
    certificate = certified.certificate
    if certificate is None:
        return distilled
    path = distilled.artifact.manifest.path
    places = (i for i, one in enumerate(path) if one.thresholds == certificate.thresholds)
    figures = {
        "certificate.bound": certificate.bound,
        "certificate.share_below_teacher": certificate.share,
        "certificate.conditional_agreement": certificate.conditional.estimate,
        "certificate.conditional_bound": certificate.conditional.bound,
        "certificate.labels": float(certificate.labels),
    }
    metrics = {**distilled.report.metrics, **figures}
    report = replace(distilled.report, certified=next(places, None), metrics=metrics)
    return replace(distilled, report=report)


def _register(shop: Workshop, distilled: Distilled, artifact: Artifact) -> tuple[str, str | None]:
    """Log the run, keep the artifact, and call it challenger. The same digest is kept once."""
    name = shop.recipe.name
    folder = _kept(artifact, shop.work / name / artifact.digest[:16])
    known = shop.registry.version(name, CHALLENGER)
    if known is not None:
        registered = shop.registry.describe(name, known)
        if registered.digest == artifact.digest:
            return known, registered.run
    tracked = Tracker(shop.tracking).run(name, artifact.digest) if shop.tracking else nullcontext()
    with tracked as run:
        if run is not None:
            run.log(distilled.report)
            run.attach(folder)
        version = shop.registry.save(name, folder, run=run.id if run else None)
        shop.registry.promote(name, version, CHALLENGER)
    return version, run.id if run else None


def _kept(artifact: Artifact, folder: Path) -> Path:
    """The artifact in a folder named by its digest; whoever wrote it first, it is the same."""
    try:
        artifact.save(folder)
    except RegistryError:
        if not folder.exists() or verify(folder) != artifact.digest:
            raise
    return folder
