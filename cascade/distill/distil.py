"""From a recipe to a proxy: read, split, label, fit, calibrate, lay the path, export, report.

Every step is repeatable: labels come from the store once they are bought, and all randomness from
the recipe's seed. So running it again gives the same artifact, byte for byte, and costs nothing.
"""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass
from datetime import UTC, datetime

import msgspec
import numpy as np
from numpy.typing import NDArray

from cascade.certify import Guarantee
from cascade.distill.calibrate import (
    ProxyCalibration,
    StackCalibration,
    calibrate_proxy,
    calibrate_stack,
)
from cascade.distill.card import model_card
from cascade.distill.export import Parity, export
from cascade.distill.fit import Answerer, fit_answerer
from cascade.distill.label_path import LabelPlan, plan_labels
from cascade.distill.lessons import buy_lessons
from cascade.distill.path import Costs, build_path
from cascade.distill.report import (
    DistillReport,
    calibration_error,
    confusion_matrix,
    reliability_bins,
)
from cascade.distill.sample import representative
from cascade.distill.workshop import Views, Workshop, ask_small, indices, scores
from cascade.errors import NotEnoughSignal
from cascade.store import Label
from cascade.tasks import label_counts
from cascade.tiers.agreement import Floats
from cascade.tiers.artifact import Artifact, Manifest, Rung

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Lessons:
    """The training rows that the teacher's labels could be read of.

    y : (n,) label indices; soft : (n, L) the teacher's own probabilities, one-hot where it gave
    none; small : (n, L) the small LLM's, or None; weight : (n,) what each row stands for.
    teacher_counts : (L,) its labels in the uniform half of the sample.
    """

    texts: list[str]
    views: Views
    y: NDArray[np.int64]
    soft: NDArray[np.float64]
    small: NDArray[np.float64] | None
    weight: NDArray[np.float64]
    teacher_counts: NDArray[np.int64]
    costs: Costs
    unreadable: int
    newest: float

    @property
    def traffic(self) -> NDArray[np.intp]:
        """Rows as often as they weigh: together they look like the texts to come."""
        return representative(self.weight)


@dataclass(frozen=True)
class Distilled:
    """A proxy that nobody has certified yet, and how it came to be.

    plan : of every label, where the recipe wants each one held to the target.
    """

    artifact: Artifact
    report: DistillReport
    lessons: Lessons
    plan: LabelPlan | None = None


async def distil(shop: Workshop) -> Distilled:
    """Make the proxy of a recipe.

    Raises
    ------
    CascadeError
        The table, a label purchase, too little signal, or a failed export; each says what to do.
    """
    lessons = await _learn(shop)
    labels = shop.bench.task.labels
    answerer = fit_answerer(
        lessons.views.embeddings,
        lessons.y,
        len(labels),
        rng=shop.rng(3),
        soft=lessons.soft,
    )
    proxy = calibrate_proxy(
        lessons.views.embeddings,
        lessons.y,
        lessons.views.tokens,
        answerer,
        rng=shop.rng(4),
        weight=lessons.weight,
    )
    stack = _stack_of(lessons, answerer)
    usual = lessons.views.whole & ~proxy.novel  # other rows go straight to the teacher
    rows = lessons.traffic
    sure = np.where(usual, proxy.agreement.out_of_fold, 0.0)[rows]
    small = None if stack is None else np.where(usual, stack.agreement.out_of_fold, 0.0)[rows]
    target = shop.recipe.guarantee.target
    plan = _label_plan(shop, answerer.out_of_fold.argmax(axis=1)[rows], sure)
    path = plan.path if plan else build_path(sure, small, lessons.costs, target=target)
    model, parity = export(answerer, lessons.views.embeddings, rng=shop.rng(5))
    report = _report(shop, lessons, answerer, proxy, stack, path, parity)
    manifest = Manifest(
        task=shop.recipe.name,
        identity=shop.bench.identity,
        labels=labels,
        agreement=proxy.agreement.model,
        gate=proxy.gate,
        path=path,
        training_digest=report.dataset_digest,
        created=datetime.fromtimestamp(lessons.newest, UTC).isoformat(timespec="seconds"),
        label_counts=dict(report.label_counts),
        stack=stack.stack if stack else None,
    )
    artifact = Artifact(manifest, model, proxy.neighbourhood.arrays, model_card(report))
    return Distilled(artifact, report, lessons, plan)


def _label_plan(shop: Workshop, said: NDArray[np.int64], sure: Floats) -> LabelPlan | None:
    """Of every label, where the recipe wants each one held to the target."""
    asked = shop.recipe.guarantee
    if not asked.per_class:
        return None
    guarantee = Guarantee(asked.target, asked.delta)
    return plan_labels(said, sure, shop.bench.task.labels, guarantee, len(shop.pools.certify))


def _stack_of(lessons: Lessons, answerer: Answerer) -> StackCalibration | None:
    """The small tier's stack; None without one, or where the small LLM answered too little."""
    if lessons.small is None:
        return None
    try:
        return calibrate_stack(lessons.small, lessons.y, answerer, lessons.weight)
    except NotEnoughSignal as exc:
        logger.warning("the small tier is left out, its answers teach nothing: %s", exc)
        return None


async def _learn(shop: Workshop) -> Lessons:
    """Buy what the tiers say of the training rows."""
    bought = await buy_lessons(shop)
    texts, teacher, sample = bought.texts, bought.labels, bought.sample
    small = await ask_small(shop, texts)
    labels = shop.bench.task.labels
    y = indices(teacher, labels)
    readable = y >= 0
    soft = scores(teacher, len(labels))
    soft = np.where(np.isnan(soft), np.eye(len(labels))[y], soft)
    counted = y[readable & sample.uniform]
    return Lessons(
        texts=[text for text, keep in zip(texts, readable, strict=True) if keep],
        views=bought.views[readable],
        y=y[readable],
        soft=soft[readable],
        small=None if small is None else scores(small, len(labels))[readable],
        weight=sample.weights[readable],
        teacher_counts=np.bincount(counted, minlength=len(labels)),
        costs=mean_costs(teacher, small),
        unreadable=int((~readable).sum()),
        newest=max(one.bought_at for one in [*teacher, *(small or [])]),
    )


def mean_costs(teacher: list[Label], small: list[Label] | None) -> Costs:
    """Mean price of an answer of each tier, both in dollars or, where one is free, in seconds."""
    asked = [labels for labels in (small, teacher) if labels]
    dollars = [float(np.mean([one.usage.dollars for one in labels])) for labels in asked]
    if min(dollars) == 0:
        dollars = [float(np.mean([one.usage.seconds for one in labels])) for labels in asked]
    return Costs(small=dollars[0] if small else 0.0, large=dollars[-1])


def _report(
    shop: Workshop,
    lessons: Lessons,
    answerer: Answerer,
    proxy: ProxyCalibration,
    stack: StackCalibration | None,
    path: tuple[Rung, ...],
    parity: Parity,
) -> DistillReport:
    names = shop.bench.task.labels
    said, rows = [names[label] for label in lessons.y], lessons.traffic
    guessed = [names[label] for label in answerer.out_of_fold.argmax(axis=1)]
    bins = reliability_bins(proxy.agreement.out_of_fold[rows], proxy.agreement.agreed[rows])
    metrics = {
        "unreadable_labels": float(lessons.unreadable),
        "effective_labels": float(lessons.weight.sum() ** 2 / (lessons.weight**2).sum()),
        "calibration_error": calibration_error(bins),
        "parity_largest_difference": parity.largest,
    }
    if stack is not None and lessons.small is not None:
        raw = np.nan_to_num(lessons.small).argmax(axis=1)
        metrics["small_agreement_raw"] = float((raw == lessons.y)[rows].mean())
        metrics["small_agreement_stacked"] = float(stack.agreement.agreed[rows].mean())
    return DistillReport(
        task=shop.recipe.name,
        identity=shop.bench.identity,
        dataset=shop.recipe.source.table,
        dataset_digest=_digest(lessons.texts, said),
        label_counts=label_counts(said, names),
        confusion=confusion_matrix([said[i] for i in rows], [guessed[i] for i in rows], names),
        reliability=bins,
        path=path,
        target=shop.recipe.guarantee.target,
        by_label=shop.recipe.guarantee.per_class,
        params={"answerer": answerer.description, "seed": shop.recipe.seed},
        metrics=metrics,
    )


def _digest(texts: list[str], labels: list[str]) -> str:
    """sha256 over texts and labels."""
    return hashlib.sha256(msgspec.json.encode(list(zip(texts, labels, strict=True)))).hexdigest()
