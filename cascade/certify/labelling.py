"""Label a whole table at the least cost: the one call for whoever has scores and a teacher.

Knows one score a row and a teacher that can be asked; nothing of texts, prompts or models.

In four steps: a pilot of random labels calibrates the scores; answers, order and rungs are frozen;
the audit certifies how far down the order the proxy may answer; the teacher answers the rest.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cascade.certify.audit import FREE_BELOW, TableAudit, audit_table
from cascade.certify.buying import buy_in_order
from cascade.certify.certificate import Certificate
from cascade.certify.claim import Guarantee
from cascade.certify.pilot import FIRST, calibrate, pilot_rows, pilot_size, wrong_at_worst
from cascade.certify.planner import Prices
from cascade.errors import UnreadableAnswer, UsageError

Floats = NDArray[np.float64]

UNREADABLE = -1
"""The answer of a row whose teacher could not be understood."""


@dataclass(frozen=True)
class LabelledTable:
    """Every row's answer, who gave it, and what is proven of them.

    answers : (n,) 1 positive, 0 negative, ``UNREADABLE`` where the teacher was.
    by_teacher : (n,) who answered: True the teacher, False the proxy.
    labels : teacher answers bought for the pilot and the audit; the rest are escalations.
    certificate : None where nothing was certified. Then the proxy answers so few rows that they
        cannot break the target whatever they are.
    """

    answers: NDArray[np.int64]
    by_teacher: NDArray[np.bool_]
    labels: int
    certificate: Certificate | None
    order: NDArray[np.int64]

    @property
    def avoided(self) -> float:
        """Share of rows for which the teacher was never asked."""
        return 1.0 - float(self.by_teacher.mean())


def certify_table(
    scores: Floats,
    oracle: Callable[[int], int],
    guarantee: Guarantee,
    *,
    rng: np.random.Generator,
    label_budget: int | None = None,
    workers: int = 1,
    prices: Prices = FREE_BELOW,
    name: str = "",
) -> LabelledTable:
    """Answer every row: by the proxy as far as can be certified, by the teacher beyond.

    With probability at least 1 - delta, at most a share 1 - target of the answers differ from the
    teacher's. The scores need not be probabilities, nor be any good (``certify.table``).

    Parameters
    ----------
    scores : (n,) in [0, 1], higher where the label is more likely positive.
    oracle : row -> the teacher's label, 1 or 0; may raise ``UnreadableAnswer``. Asked at most once
        a row, from threads if ``workers > 1``. The same seed asks the same rows again, so with a
        label cache in the oracle an interrupted call is resumed for nothing.
    label_budget : most labels for the pilot and the audit together; escalations do not count.
    workers : questions to the teacher at the same time.
    prices : of a teacher call and of a proxy's answer; a label must be worth its price.
    name : of whatever else the certificate is to hang on: teacher, prompt, labels. It is valid for
        ``table(scores_digest(scores, name))`` and no other.

    Raises
    ------
    UsageError : scores that are no numbers in [0, 1].

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> scores = rng.beta(0.3, 0.6, 2_000)
    >>> teacher = (rng.random(2_000) < scores).astype(int)
    >>> table = certify_table(scores, lambda row: teacher[row], Guarantee(0.9, 0.1), rng=rng)
    >>> bool((table.answers == teacher).mean() >= 0.9), table.certificate.metric
    (True, 'agreement')
    """
    scores = np.asarray(scores)
    if scores.ndim != 1 or not (scores.min(initial=0) >= 0 and scores.max(initial=0) <= 1):
        raise UsageError("scores are one number in [0, 1] a row: rescale them, fill the gaps")
    teacher = Teacher(oracle, workers)
    budget = len(scores) if label_budget is None else label_budget
    positive, p_agree = look(scores, teacher, guarantee, min(pilot_size(len(scores)), budget), rng)
    pilot = tuple(teacher.labels)
    audit = TableAudit(p_agree, guarantee, rng=rng, prices=prices, known=pilot)
    result = audit_table(
        audit,
        lambda row: teacher.label(row) != positive[row],
        budget - len(pilot),
        scores_digest(scores, name),
        workers=workers,
    )
    by_teacher = np.ones(len(scores), dtype=bool)
    by_teacher[result.answered] = False
    bought = len(teacher.labels)
    teacher.ask(np.flatnonzero(by_teacher))
    answers = positive.astype(np.int64)
    answers[list(teacher.labels)] = list(teacher.labels.values())
    return LabelledTable(answers, by_teacher, bought, result.certificate, audit.order)


def scores_digest(scores: Floats, name: str = "") -> str:
    """sha256 of the table that ``certify_table`` certifies: its scores, and what the name stands
    for. As doubles, whatever their type.

    >>> scores_digest(np.array([0.5]), "gpt, spam") == scores_digest(np.array([0.5]), "llama, spam")
    False
    """
    digest = hashlib.sha256(hashlib.sha256(name.encode()).digest())
    digest.update(np.ascontiguousarray(scores, dtype="<f8").data)
    return digest.hexdigest()


def look(
    scores: Floats, teacher: Teacher, guarantee: Guarantee, labels: int, rng: np.random.Generator
) -> tuple[NDArray[np.bool_], Floats]:
    """Label a pilot of at most so many rows; what ``decide`` makes of it.

    The pilot ends early where even a pessimist expects that the proxy may answer every row: better
    answers and a better order cost labels, and there would be nothing left to win with them.
    """
    teacher.ask(pilot_rows(scores, min(labels, FIRST), rng))
    positive, p_agree = decide(scores, teacher.readable(teacher.labels))
    if labels <= FIRST or wrong_at_worst(p_agree) <= guarantee.risk:
        return positive, p_agree
    unseen = np.delete(np.arange(len(scores)), list(teacher.labels))
    teacher.ask(unseen[pilot_rows(scores[unseen], labels - len(teacher.labels), rng)])
    return decide(scores, teacher.readable(teacher.labels))


def decide(scores: Floats, pilot: dict[int, int]) -> tuple[NDArray[np.bool_], Floats]:
    """The proxy's answers (n,), whether positive, and its P(agree), (n,)."""
    rows = np.fromiter(pilot, dtype=np.int64)
    labels = np.fromiter(pilot.values(), dtype=np.int64) == 1
    chance = calibrate(scores, rows, labels)
    positive = chance >= 0.5
    return positive, np.where(positive, chance, 1 - chance)


class Teacher:
    """Asks the oracle once a row and remembers."""

    def __init__(self, oracle: Callable[[int], int], workers: int) -> None:
        self.labels: dict[int, int] = {}
        self._oracle = oracle
        self._workers = workers

    def label(self, row: int) -> int:
        """The row's label. Raises ``UnreadableAnswer``."""
        self.labels.setdefault(row, UNREADABLE)
        self.labels[row] = int(self._oracle(row))
        return self.labels[row]

    def ask(self, rows: Iterable[int]) -> None:
        """Label all rows that have no label yet."""
        open_rows = (int(row) for row in rows if row not in self.labels)
        buy_in_order(
            lambda: next(open_rows, None), self._attempt, lambda row, _: None, self._workers
        )

    def readable(self, rows: Iterable[int]) -> dict[int, int]:
        """row -> label, those that could be read."""
        labels = {int(row): self.labels[int(row)] for row in rows}
        return {row: label for row, label in labels.items() if label != UNREADABLE}

    def _attempt(self, row: int) -> None:
        try:
            self.label(row)
        except UnreadableAnswer:
            return
