"""What three tiers compare with: BARGAIN on one tier, and a guarantee of its own for each tier."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from tables_rivals import bargain
from tiers_lesson import Bill, Lesson

from cascade.certify import Guarantee, TableAudit, TableResult, audit_table

PILOT = 60  # labels with which the raw small tier's two answers get a score


class Answers(NamedTuple):
    """What ``tables_rivals.bargain`` looks at: one tier's answers to some rows."""

    answers: NDArray[np.int64]
    confidence: NDArray[np.float64]
    labels: NDArray[np.int64]


def bargain_on_proxy(lesson: Lesson, guarantee: Guarantee, rng: np.random.Generator) -> Bill:
    """The trained proxy's answers, by its calibrated confidence."""
    return _bargain(lesson, lesson.rows, lesson.proxy, lesson.proxy_trust, guarantee, rng, small=0)


def bargain_on_small(lesson: Lesson, guarantee: Guarantee, rng: np.random.Generator) -> Bill:
    """The small tier asked about every row; its score is our own, learned from the same labels."""
    n = len(lesson.corpus)
    return _bargain(lesson, lesson.rows, lesson.small, lesson.small_trust, guarantee, rng, small=n)


def bargain_on_raw_small(lesson: Lesson, guarantee: Guarantee, rng: np.random.Generator) -> Bill:
    """The small tier's bare answer, with no proxy; how often each of its two answers is right is
    estimated on a pilot."""
    corpus = lesson.corpus
    pilot = rng.choice(len(corpus), PILOT, replace=False)
    said, right = corpus.small[pilot], corpus.small[pilot] == corpus.teacher[pilot]
    rates = np.array(
        [(right[said == label].sum() + 1) / ((said == label).sum() + 2) for label in (0, 1)]
    )
    score = rates[corpus.small]
    return _bargain(lesson, pilot, corpus.small, score, guarantee, rng, small=len(corpus))


def _bargain(
    lesson: Lesson,
    known: NDArray[np.int64],
    answers: NDArray[np.int64],
    score: NDArray[np.float64],
    guarantee: Guarantee,
    rng: np.random.Generator,
    *,
    small: int,
) -> Bill:
    """BARGAIN on the rows without a label, at the agreement that they need for all to reach the
    target. small : answers of the small tier that it looks at."""
    corpus = lesson.corpus
    rest = np.setdiff1d(np.arange(len(corpus)), known)
    view = Answers(answers[rest], score[rest], corpus.teacher[rest])
    found = bargain(
        view, open_guarantee(guarantee, len(corpus), len(rest)), int(rng.integers(2**31))
    )
    escalated = round((1 - found.avoided) * len(rest))
    return Bill(
        agreement=1 - (1 - found.agreement) * len(rest) / len(corpus),
        teacher=len(known) + escalated,
        small=small,
    )


def per_tier(lesson: Lesson, guarantee: Guarantee, rng: np.random.Generator) -> Bill:
    """A table audit for each tier, with half of delta and of the wrong rows allowed.

    The second one may use what the first left of its half. It asks the small tier about every row
    that the first passed on: its own order needs all their confidences.
    """
    corpus = lesson.corpus
    half = Guarantee(1 - guarantee.risk / 2, guarantee.delta / 2)
    first = _audit(lesson, lesson.proxy, lesson.proxy_trust, half, lesson.rows.tolist(), rng)
    done = [*lesson.rows.tolist(), *first.answered.tolist(), *first.labels]
    second = _audit(lesson, lesson.small, lesson.small_trust, half, done, rng)
    wrong = (lesson.proxy != corpus.teacher)[first.answered].sum()
    wrong += (lesson.small != corpus.teacher)[second.answered].sum()
    below = len(first.answered) + len(second.answered)
    return Bill(
        agreement=1 - float(wrong) / len(corpus),
        teacher=len(corpus) - below,
        small=len(lesson.rows) + len(corpus) - len(done),
    )


def _audit(
    lesson: Lesson,
    answers: NDArray[np.int64],
    trust: NDArray[np.float64],
    guarantee: Guarantee,
    known: list[int],
    rng: np.random.Generator,
) -> TableResult:
    teacher = lesson.corpus.teacher
    audit = TableAudit(trust, guarantee, rng=rng, known=known)
    return audit_table(
        audit, lambda row: bool(answers[row] != teacher[row]), len(teacher), "0" * 64
    )


def open_guarantee(guarantee: Guarantee, rows: int, unlabelled: int) -> Guarantee:
    """What the rows without a label need, so that all rows reach the target."""
    return Guarantee(1 - guarantee.risk * rows / unlabelled, guarantee.delta)
