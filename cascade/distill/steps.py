"""The steps before a distillation: say what its labels would take, and buy them."""

from __future__ import annotations

from typing import Any

from cascade.benches import LARGE
from cascade.distill.label import Plan, plan
from cascade.distill.lessons import buy_lessons, likely_texts
from cascade.distill.workshop import Workshop, ask_small
from cascade.types import Usage

EXPECTED_SAVING = 0.5
"""Share of the teacher's cost that a proxy saves, before anything is known of the task."""


async def plan_labels(shop: Workshop) -> dict[str, Any]:
    """What training and certifying would take at most. Asks nobody."""
    texts = likely_texts(shop) + shop.texts(shop.pools.certify)
    model = shop.bench.models[LARGE]
    found = plan(
        shop.bench.task,
        model,
        texts,
        shop.store,
        concurrency=shop.concurrency,
        saving_share=EXPECTED_SAVING,
    )
    return {
        "task": shop.recipe.name,
        "rows": str(shop.rows),
        "teacher": model,
        "labels_there": found.there,
        "labels_to_buy": found.to_buy,
        "seconds": "unknown until the first label is bought"
        if found.seconds is None
        else found.seconds,
        "dollars": found.dollars if found.dollars is not None else _guess(shop, texts, found),
        "break_even_requests": found.break_even_rows,
        "expected_requests": shop.recipe.expected_requests,
    }


async def buy_labels(shop: Workshop) -> dict[str, Any]:
    """Buy the teacher's and the small LLM's labels of the training rows."""
    bought = await buy_lessons(shop)
    await ask_small(shop, bought.texts)
    labels = bought.labels
    return {
        "task": shop.recipe.name,
        "labels": len(labels),
        "unreadable": sum(one.answer is None for one in labels),
        "dollars": sum(one.usage.dollars for one in labels),
    }


def _guess(shop: Workshop, texts: list[str], found: Plan) -> float:
    """Dollars by the length of prefix and texts, before any label says what it costs."""
    told = " ".join(str(message.get("content")) for message in shop.bench.task.prefix)
    prefix, *lengths = shop.bench.embedder.count_tokens([told, *texts]).tolist()
    prompt = prefix + sum(lengths) / max(len(lengths), 1)
    usage = Usage(prompt_tokens=round(prompt), output_tokens=2)
    return found.to_buy * shop.bench.prices[LARGE].dollars(usage)
