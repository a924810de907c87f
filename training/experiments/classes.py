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
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from classes_lesson import CORPORA, Corpus, Integers, Proxy, Split, learn, split_rows
from classes_methods import all_answers, answered_alone, by_tracer, every_class, with_small
from common import parser, show
from scipy.stats import binom

from cascade.certify import Guarantee
from cascade.distill.replay import TEACHER

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


def broken(parts: Parts, risk: float) -> float:
    """1 where some part is wrong more often than it may be, else 0."""
    return float(any(wrong > risk * rows + 1e-9 for wrong, rows in parts))


def judge(answers: Integers, teacher: Integers, parts: Parts, risk: float) -> dict[str, float]:
    """One split's figures. ``clear`` : a violation that the size of the test set cannot explain."""
    answered = answers != TEACHER
    right = answers[answered] == teacher[answered]
    return {
        "coverage": float(answered.mean()),
        "agreement": 1 - float((~right).sum()) / len(answers),
        "conditional": float(right.mean()) if len(right) else np.nan,
        "violations": broken(parts, risk),
        "clear": float(
            any(binom.sf(wrong - 1, rows, risk) < 0.05 / len(parts) for wrong, rows in parts)
        ),
    }


def examine(
    data: Corpus, method: str, split: Split, proxy: Proxy, goal: Guarantee
) -> dict[str, float]:
    """One split's figures on the test rows, and whether the certificate was false.

    ``false`` : among all rows that the draws were taken from, which is what a certificate speaks
    of; unlike ``violations`` it owes nothing to the choice of test rows. TRACER trains on them.
    """
    run, _, parts_of = METHODS[method]
    rows, tests = np.concatenate([split.draws, split.test]), slice(len(split.draws), None)
    answers, teacher = run(data, replace(split, test=rows), proxy, goal), data.teacher[rows]
    unseen = answers[tests], teacher[tests]
    false = np.nan if method == TRACER else broken(parts_of(answers, teacher), goal.risk)
    return judge(*unseen, parts_of(*unseen), goal.risk) | {"false": false}


def measure(
    data: Corpus, method: str, lessons: Sequence[tuple[Split, Proxy]], goal: Guarantee
) -> dict[str, Any]:
    """One line of the result."""
    figures = [examine(data, method, split, proxy, goal) for split, proxy in lessons]
    return {
        "data": data.name,
        "method": method,
        "claim": METHODS[method][1],
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


def plot(rows: Sequence[dict[str, Any]], file: Path) -> None:
    """Coverage of each method; at its bar, how often its claim was false on test rows."""
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(row["data"] for row in rows))
    figure = Figure(figsize=(4.5 * len(names), 3), layout="constrained")
    for axes, name in zip(np.atleast_1d(figure.subplots(1, len(names))), names, strict=True):
        mine = [row for row in rows if row["data"] == name]
        bars = axes.barh([row["method"] for row in mine], [row["coverage"] for row in mine])
        axes.bar_label(bars, [f"{row['violations']:.0%}" for row in mine])
        axes.set(title=name, xlabel="answered below the teacher", xlim=(0, 1.1))
    figure.savefig(file, dpi=150)


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
    if chosen.plot:
        plot(rows, chosen.plot)


if __name__ == "__main__":
    main()
