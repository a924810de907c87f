"""Three tiers against two and against BARGAIN: cost per record at a guaranteed agreement.

Offensive posts: GPT-3.5 is the teacher (price 1), Llama-2-70B the small tier (price .1, its answer
is 0 or 1 and nothing else), a proxy on MiniLM embeddings is free. Training labels, the small tier's
answers and every label of the audit are charged.

    python training/experiments/three_tiers.py --data DIR --seeds 50 --json -
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from common import embeddings, parser, read_csv, show
from tiers_lesson import Bill, Corpus, Lesson, learn
from tiers_rivals import bargain_on_proxy, bargain_on_raw_small, bargain_on_small, per_tier

from cascade.certify import (
    Confidences,
    Guarantee,
    JointAudit,
    JointPrices,
    Rung,
    Said,
    audit_joint,
)
from cascade.certify.joint_audit import TEACHER
from cascade.distill.path import Costs, build_path

TRAIN = 300  # teacher labels to learn from
RUNGS = 40
SMALL_PRICE = 0.1

Method = Callable[[Lesson, Guarantee, np.random.Generator], Bill]


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


def three_tiers(lesson: Lesson, guarantee: Guarantee, rng: np.random.Generator) -> Bill:
    """Tiers chosen by predicted cost, small answers bought lazily, one certificate."""
    return certified(lesson, lesson.promised.proxy, lesson.promised.small, guarantee, rng)


def proxy_then_teacher(lesson: Lesson, guarantee: Guarantee, rng: np.random.Generator) -> Bill:
    """The proxy alone below the teacher."""
    return certified(lesson, lesson.promised.proxy, None, guarantee, rng)


def small_then_teacher(lesson: Lesson, guarantee: Guarantee, rng: np.random.Generator) -> Bill:
    """The small tier asked about every row: the proxy is never sure, and only helps to judge."""
    never_sure = np.full_like(lesson.promised.proxy, 1e-6)
    return certified(lesson, never_sure, lesson.promised.small, guarantee, rng)


def certified(
    lesson: Lesson,
    proxy: np.ndarray,
    small: np.ndarray | None,
    guarantee: Guarantee,
    rng: np.random.Generator,
) -> Bill:
    """Lay a path from what the tiers promise on the training rows, audit it, count the cost."""
    corpus = lesson.corpus
    costs = Costs(corpus.small_price, 1.0)
    path = build_path(proxy, small, costs, target=lesson.open_target(guarantee.target), rungs=RUNGS)
    audit = JointAudit(
        lesson.proxy_trust if proxy[0] > 1e-6 else np.full(len(corpus), 1e-6),
        [Rung(rung.thresholds, 1 - rung.shares["large"]) for rung in path],
        guarantee,
        promised=Confidences(proxy, np.zeros(len(proxy)) if small is None else small),
        prices=JointPrices(corpus.small_price),
        rng=rng,
        known=lesson.rows.tolist(),
    )
    result = audit_joint(
        audit,
        lesson.proxy,
        lambda rows: Said(lesson.small[rows], lesson.small_trust[rows]),
        lambda row: int(corpus.teacher[row]),
        label_budget=len(corpus),
        table_digest="0" * 64,
    )
    escalated = np.setdiff1d(np.flatnonzero(result.answers == TEACHER), lesson.rows)
    right = (result.answers == TEACHER) | (result.answers == corpus.teacher)
    return Bill(
        agreement=float(right.mean()),
        teacher=len(lesson.rows) + len(result.labels) + len(escalated),
        small=result.small_asked + (0 if small is None else len(lesson.rows)),
    )


METHODS: dict[str, Method] = {
    "three tiers": three_tiers,
    "proxy, teacher": proxy_then_teacher,
    "small, teacher": small_then_teacher,
    "per-tier Bonferroni": per_tier,
    "BARGAIN on the proxy": bargain_on_proxy,
    "BARGAIN on the small LLM": bargain_on_small,
    "BARGAIN on the raw small LLM": bargain_on_raw_small,
}


def measure(name: str, lessons: Sequence[Lesson], guarantee: Guarantee) -> dict[str, Any]:
    """One line of the result."""
    bills = [
        METHODS[name](lesson, guarantee, np.random.default_rng([seed, 1]))
        for seed, lesson in enumerate(lessons)
    ]
    agreement = [bill.agreement for bill in bills]
    return {
        "method": name,
        "target": guarantee.target,
        "delta": guarantee.delta,
        "cost": float(np.mean([bill.cost(lessons[0].corpus) for bill in bills])),
        "failures": float(np.mean([one < guarantee.target - 1e-9 for one in agreement])),
        "agreement": float(np.mean(agreement)),
        "seeds": len(lessons),
    }


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
        measure(name, lessons, Guarantee(target, delta))
        for target in chosen.target
        for delta in chosen.delta
        for name in METHODS
    ]
    show(rows, chosen.json)


if __name__ == "__main__":
    main()
