"""Three tiers against two and against BARGAIN: cost per record at a guaranteed agreement.

Offensive posts: GPT-3.5 is the teacher (price 1), Llama-2-70B the small tier (price .1, its answer
is 0 or 1 and nothing else), a proxy on MiniLM embeddings is free. Training labels, the small tier's
answers and every label of the audit are charged.

    python training/experiments/three_tiers.py --data DIR --seeds 50 --json -
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from common import embeddings, parser, read_csv, show
from tiers_cascade import Bill, Cascade, certified
from tiers_lesson import Corpus, learn
from tiers_rivals import bargain_on_bare_small, bargain_on_proxy, bargain_on_small, per_tier

from cascade.certify import Confidences, Guarantee

TRAIN = 300  # teacher labels to learn from
SMALL_PRICE = 0.1
NEVER_SURE = 1e-6  # a confidence of 0 would bar the row from every tier

Method = Callable[[Cascade, Guarantee, np.random.Generator], Bill]


def read_corpus(folder: Path) -> Corpus:
    """Posts, what teacher and small tier say of them, and their embeddings."""
    rows = read_csv(folder / "hatespeech" / "hatespeech.csv")
    texts = [row["text"] for row in rows]
    return Corpus(
        embeddings=embeddings(texts),
        words=np.array([len(text.split()) for text in texts]),
        teacher=np.array([int(row["gpt35"]) for row in rows]),
        small=np.array([int(row["llama2_70b"]) for row in rows]),
        small_price=SMALL_PRICE,
    )


def proxy_then_teacher(cascade: Cascade, guarantee: Guarantee, rng: np.random.Generator) -> Bill:
    """The proxy alone below the teacher."""
    return certified(cascade, guarantee, rng, with_small=False)


def small_then_teacher(cascade: Cascade, guarantee: Guarantee, rng: np.random.Generator) -> Bill:
    """The small tier asked about every row: the proxy is never sure, and only helps to judge."""
    unsure = replace(
        cascade,
        proxy_trust=np.full_like(cascade.proxy_trust, NEVER_SURE),
        promised=Confidences(
            np.full_like(cascade.promised.proxy, NEVER_SURE), cascade.promised.small
        ),
    )
    return certified(unsure, guarantee, rng)


def methods(corpus: Corpus) -> dict[str, Method]:
    """What is compared; the first chooses its tiers by predicted cost."""
    return {
        "three tiers": certified,
        "proxy, teacher": proxy_then_teacher,
        "small, teacher": small_then_teacher,
        "per-tier Bonferroni": per_tier,
        "BARGAIN on the proxy": bargain_on_proxy,
        "BARGAIN on the small LLM": bargain_on_small,
        "BARGAIN on the bare small LLM": lambda cascade, guarantee, rng: bargain_on_bare_small(
            corpus.small, corpus.teacher, guarantee, rng
        ),
    }


def measure(
    name: str, method: Method, lessons: Sequence[Cascade], guarantee: Guarantee
) -> dict[str, Any]:
    """One line of the result."""
    bills = [
        method(lesson, guarantee, np.random.default_rng([seed, 1]))
        for seed, lesson in enumerate(lessons)
    ]
    costs = [lesson.cost(bill) for lesson, bill in zip(lessons, bills, strict=True)]
    agreement = [bill.agreement for bill in bills]
    return {
        "method": name,
        "target": guarantee.target,
        "delta": guarantee.delta,
        "cost": float(np.mean(costs)),
        "worst cost": float(np.max(costs)),
        "failures": float(np.mean([one < guarantee.target - 1e-9 for one in agreement])),
        "agreement": float(np.mean(agreement)),
        "teacher": float(np.mean([bill.teacher for bill in bills])),
        "small": float(np.mean([bill.small for bill in bills])),
        "seeds": len(lessons),
    }


def plot(rows: Sequence[dict[str, Any]], to: Path) -> None:
    """Cost per record: a panel a target and delta, a bar a method."""
    from matplotlib.figure import Figure

    cells = sorted({(row["target"], row["delta"]) for row in rows})
    figure = Figure(figsize=(4 * len(cells) + 2, 3), layout="constrained")
    panels = np.atleast_1d(figure.subplots(1, len(cells), sharey=True))
    for axes, cell in zip(panels, cells, strict=True):
        bars = [row for row in rows if (row["target"], row["delta"]) == cell][::-1]
        axes.barh([row["method"] for row in bars], [row["cost"] for row in bars])
        axes.set(title=f"target {cell[0]}, delta {cell[1]}", xlabel="cost per record")
    figure.savefig(to, dpi=150)


def main() -> None:
    arguments = parser(str(__doc__).splitlines()[0], seeds=50)
    arguments.add_argument("--target", type=float, nargs="+", default=[0.9])
    arguments.add_argument("--delta", type=float, nargs="+", default=[0.1])
    arguments.add_argument("--train", type=int, default=TRAIN, help="teacher labels to learn from")
    chosen = arguments.parse_args()

    corpus = read_corpus(chosen.data)
    lessons = [
        learn(corpus, chosen.train, np.random.default_rng(seed)) for seed in range(chosen.seeds)
    ]
    rows = [
        measure(name, method, lessons, Guarantee(target, delta))
        for target in chosen.target
        for delta in chosen.delta
        for name, method in methods(corpus).items()
    ]
    show(rows, chosen.json)
    if chosen.plot:
        plot(rows, chosen.plot)


if __name__ == "__main__":
    main()
