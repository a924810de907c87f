"""Many classes: how much may be answered below the teacher at a certified agreement, beside TRACER.

Banking77 (77 intents; GPT-4 is the teacher, GPT-3.5 a small tier whose answer is a bare label) and
AG News (4 topics; the gold labels are the teacher). Each split has the same rows for everybody:
TRACER gets the labels of both other parts to train, select and calibrate on, as it likes.

Every method is held to its own claim, on rows that it has not seen:

- *all answers*: at most 1 - target of all final answers differ from the teacher's, the teacher's
  own included; wrong about that with at most delta.
- *answered*: the same among the answers below the teacher alone, which is a stronger claim.
- *every class*: the same among the answers below the teacher of each class that is answered.
- *TRACER*: no guarantee. A threshold passes if, on calibration rows, a confidence bound of the
  agreement among the answered clears the target and a held-out part does too; the thresholds are
  tried one after the other, so the bound's confidence is not the procedure's.

    python training/experiments/classes.py --data DIR --seeds 100 --json -
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np
from classes_lesson import CORPORA, Corpus, Integers, Proxy, Split, learn, split_rows
from common import parser, show
from numpy.typing import NDArray
from scipy.stats import binom

from cascade import certify
from cascade.certify import Guarantee, Rung
from cascade.certify.class_path import BY_TEACHER
from cascade.certify.path import answered_by, threshold_path
from cascade.distill.calibrate import calibrate_stack
from cascade.distill.path import Costs, build_path
from cascade.distill.replay import TEACHER, Opinions
from cascade.tiers.agreement import Floats

SMALL_PRICE = 0.1  # of an answer of GPT-3.5; the teacher's is 1
SLOW = ("gbt", "rf")  # of TRACER's models: most of its time, and not the best in the splits tried


def all_answers(data: Corpus, split: Split, proxy: Proxy, guarantee: Guarantee) -> Integers:
    """Certify the agreement over all rows, the teacher's own included."""
    path = threshold_path(proxy.promised, guarantee.target)
    answered = answered_by(proxy.trust[split.draws], path)
    wrong = (proxy.label != data.teacher)[split.draws]
    found = certify.certify_stream(answered, answered & wrong[:, None], path, guarantee)
    return below(proxy, split, found.thresholds["proxy"] if found else np.inf)


def answered_alone(data: Corpus, split: Split, proxy: Proxy, guarantee: Guarantee) -> Integers:
    """Certify the agreement among the rows answered below the teacher."""
    path = certify.conditional_path(proxy.promised, guarantee, len(split.draws))
    answered = answered_by(proxy.trust[split.draws], path)
    wrong = (proxy.label != data.teacher)[split.draws]
    found = certify.certify_answers(answered, wrong, path, guarantee)
    return below(proxy, split, found.thresholds["proxy"] if found else np.inf)


def every_class(data: Corpus, split: Split, proxy: Proxy, guarantee: Guarantee) -> Integers:
    """Certify the agreement among the answers of each class, as many classes as can be."""
    path = certify.conditional_path(proxy.promised, guarantee, len(split.draws))
    held_out = proxy.answerer.out_of_fold.argmax(axis=1)
    trained = said(held_out, proxy.promised, path)
    plan = certify.plan_classes(trained, proxy.promised, path, guarantee, len(split.draws))
    answers = said(proxy.label[split.draws], proxy.trust[split.draws], path)
    found = certify.certify_classes(answers, data.teacher[split.draws].astype(str), plan, guarantee)
    least = np.full(data.n_labels, np.inf)
    for label, certificate in found.items():
        least[int(label)] = certificate.thresholds["proxy"]
    return below(proxy, split, least[proxy.label[split.test]])


def with_small(data: Corpus, split: Split, proxy: Proxy, guarantee: Guarantee) -> Integers:
    """As ``all_answers``, with the small tier between the proxy and the teacher."""
    # an answer beyond the task's labels is none: a row of NaN, and no trust
    small = np.vstack([np.eye(data.n_labels), np.full(data.n_labels, np.nan)])[data.small]
    stack = calibrate_stack(small[split.train], data.teacher[split.train], proxy.answerer)
    stacked = stack.stack.combine(small, proxy.scores)
    trust = stack.stack.confidence(stacked, small, proxy.scores)
    opinions = Opinions(
        proxy=proxy.label,
        proxy_trust=proxy.trust,
        small=stacked.argmax(axis=1),
        small_trust=np.where(np.isnan(trust), -1.0, trust),
    )
    costs = Costs(SMALL_PRICE, 1.0)
    path = build_path(proxy.promised, stack.agreement.out_of_fold, costs, target=guarantee.target)
    answers = opinions.answers(path)
    answered = answers[split.draws] != TEACHER
    wrong = answered & (answers != data.teacher[:, None])[split.draws]
    rungs = [Rung(rung.thresholds, 1 - rung.shares["large"]) for rung in path]
    found = certify.certify_stream(answered, wrong, rungs, guarantee)
    if found is None:
        return np.full(len(split.test), TEACHER)
    best = next(i for i, rung in enumerate(rungs) if rung.thresholds == found.thresholds)
    return answers[split.test, best]


def by_tracer(data: Corpus, split: Split, proxy: Proxy, guarantee: Guarantee) -> Integers:
    """TRACER's own models, acceptor and gate; without its novelty gate, which answers less."""
    from tracer.fit.pipeline import fit_frontier, route_pipeline

    rows = np.concatenate([split.train, split.draws])
    seen, y = np.unique(data.teacher[rows], return_inverse=True)
    frontier, _ = fit_frontier(data.X[rows], y, [guarantee.target], skip=SLOW)
    best = frontier[0]["best"]
    if best is None:
        return np.full(len(split.test), TEACHER)
    label, handled, _ = route_pipeline(best["stages"], data.X[split.test])
    return np.where(handled, seen[label], TEACHER)


def said(label: Integers, trust: Floats, path: Sequence[Rung]) -> NDArray[np.str_]:
    """(m, G) what each rung answers."""
    return np.where(answered_by(trust, path), label.astype(str)[:, None], BY_TEACHER)


def below(proxy: Proxy, split: Split, threshold: float | Floats) -> Integers:
    """(t,) the proxy's label of the test rows where it is trusted enough."""
    trusted = proxy.trust[split.test] >= threshold
    return np.where(trusted, proxy.label[split.test], TEACHER)


# ---- how each claim is judged on test rows: (wrong, rows) of the worst part that it speaks of

Parts = list[tuple[int, int]]


def of_all(answers: Integers, teacher: Integers) -> Parts:
    wrong = (answers != TEACHER) & (answers != teacher)
    return [(int(wrong.sum()), len(answers))]


def of_answered(answers: Integers, teacher: Integers) -> Parts:
    return [(of_all(answers, teacher)[0][0], int((answers != TEACHER).sum()))]


def of_classes(answers: Integers, teacher: Integers) -> Parts:
    labels = np.unique(answers[answers != TEACHER])
    return [
        (int((teacher[answers == one] != one).sum()), int((answers == one).sum())) for one in labels
    ]


Method = Callable[[Corpus, Split, Proxy, Guarantee], Integers]

WITH_SMALL, TRACER = "proxy, small", "TRACER"
METHODS: dict[str, tuple[Method, str, Callable[[Integers, Integers], Parts]]] = {
    "proxy": (all_answers, "all answers", of_all),
    WITH_SMALL: (with_small, "all answers", of_all),
    "proxy, strict": (answered_alone, "answered", of_answered),
    "proxy, classes": (every_class, "every class", of_classes),
    TRACER: (by_tracer, "answered, empirical", of_answered),
}


def judge(answers: Integers, teacher: Integers, parts: Parts, risk: float) -> dict[str, float]:
    """One split's figures. ``clear`` : a violation that the size of the test set cannot explain."""
    answered = answers != TEACHER
    right = answers[answered] == teacher[answered]
    return {
        "coverage": float(answered.mean()),
        "agreement": 1 - float((~right).sum()) / len(answers),
        "conditional": float(right.mean()) if len(right) else np.nan,
        "violations": float(any(wrong > risk * rows + 1e-9 for wrong, rows in parts)),
        "clear": float(
            any(binom.sf(wrong - 1, rows, risk) < 0.05 / len(parts) for wrong, rows in parts)
        ),
    }


def measure(
    data: Corpus, method: str, lessons: Sequence[tuple[Split, Proxy]], goal: Guarantee
) -> dict[str, Any]:
    """One line of the result."""
    run, claim, parts_of = METHODS[method]
    figures = []
    for split, proxy in lessons:
        answers, teacher = run(data, split, proxy, goal), data.teacher[split.test]
        figures.append(judge(answers, teacher, parts_of(answers, teacher), goal.risk))
    return {
        "data": data.name,
        "method": method,
        "claim": claim,
        **{name: mean([one[name] for one in figures]) for name in figures[0]},
        "splits": len(lessons),
        "labels": sum(data.labels),
    }


def mean(figures: list[float]) -> float | None:
    """Over the splits in which anything was answered at all."""
    known = [one for one in figures if not np.isnan(one)]
    return float(np.mean(known)) if known else None


def compare(
    data: Corpus, methods: Sequence[str], splits: dict[str, int], goal: Guarantee
) -> list[dict[str, Any]]:
    """A row a method, on the first so many of the same splits."""
    lessons = []
    for seed in range(max(splits[method] for method in methods)):
        rng = np.random.default_rng(seed)
        split = split_rows(data, rng)
        lessons.append((split, learn(data, split, rng)))
    return [measure(data, method, lessons[: splits[method]], goal) for method in methods]


def main() -> None:
    arguments = parser(str(__doc__).splitlines()[0], seeds=100)
    arguments.add_argument("--target", type=float, default=0.9)
    arguments.add_argument("--delta", type=float, default=0.1)
    arguments.add_argument("--corpora", nargs="+", choices=list(CORPORA), default=list(CORPORA))
    arguments.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS))
    arguments.add_argument("--tracer-seeds", type=int, default=30, help="about 15 s each")
    chosen = arguments.parse_args()

    wanted = set(chosen.methods)
    if find_spec("tracer") is None:
        print("without TRACER, which is not installed: make baselines", file=sys.stderr)
        wanted.discard(TRACER)
    splits = dict.fromkeys(METHODS, chosen.seeds) | {TRACER: chosen.tracer_seeds}
    goal, rows = Guarantee(chosen.target, chosen.delta), []
    for name in chosen.corpora:
        data = CORPORA[name](chosen.data)
        possible = METHODS if len(data.small) else set(METHODS) - {WITH_SMALL, TRACER}
        rows += compare(
            data, [one for one in METHODS if one in wanted & set(possible)], splits, goal
        )
    show(rows, chosen.json)


if __name__ == "__main__":
    main()
