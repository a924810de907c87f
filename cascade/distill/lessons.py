"""Buy the labels that a proxy learns from, round by round, for as long as the next one pays.

Knows the teacher and what a curriculum asks for; knows nothing of fitting. Buying again after a
crash asks for the same rows, and those whose labels are in the store cost nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

from cascade.benches import LARGE
from cascade.distill.curriculum import Curriculum, Sample
from cascade.distill.learning_curve import LearningCurve
from cascade.distill.workshop import Views, Workshop, ask_teacher, indices, look
from cascade.store import Label, LabelKey


@dataclass(frozen=True)
class Purchase:
    """Training texts in the order in which they were asked for, and the teacher's labels.

    sample : how the rows were drawn among the candidates.
    """

    texts: list[str]
    views: Views
    labels: list[Label]
    sample: Sample


async def buy_lessons(shop: Workshop) -> Purchase:
    """At most ``buy.train`` labels; fewer where the next would save less than it costs."""
    recipe, names = shop.recipe, shop.bench.task.labels
    candidates = shop.texts(shop.pools.train)
    views = look(shop.bench, candidates)
    question = shop.bench.embedder.encode([f"{shop.bench.task.instruction} {names[0]}"])[0]
    curriculum = Curriculum(
        views.embeddings, question, len(names), most=recipe.buy.train, rng=shop.rng(2)
    )
    curve, labels, before = LearningCurve(), list[Label](), shop.bill.dollars
    with shop.progress(f"labels from {shop.bench.models[LARGE]}") as report:

        def tell(done: int, total: int, dollars: float) -> None:
            report(len(labels) + done, recipe.buy.train, shop.bill.dollars - before)

        while len(rows := curriculum.next_rows()):
            bought = await ask_teacher(shop, [candidates[row] for row in rows], tell)
            labels += bought
            curriculum.record(indices(bought, names))
            curve.add(len(labels), curriculum.handled(recipe.guarantee.target))
            if not curve.worth_another(recipe.expected_requests):
                break
    sample = curriculum.sample
    texts = [candidates[row] for row in sample.rows]
    return Purchase(texts, views[sample.rows], labels, sample)


def likely_texts(shop: Workshop) -> list[str]:
    """As many candidates as may be bought, those first whose labels are there.

    Which rows are asked for hangs on the answers; how many, and about how long they are, does not.
    """
    task, model = shop.bench.task, shop.bench.models[LARGE]
    candidates = shop.texts(shop.pools.train)
    keys = {text: LabelKey.of(task, model, text) for text in candidates}
    there = shop.store.labels.get_many(keys.values())
    known_first = sorted(candidates, key=lambda text: keys[text] not in there)
    return known_first[: shop.recipe.buy.train]
