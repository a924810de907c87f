"""Hold every class of a table to the target, not only the average.

Knows labels, rows and one table audit a class; nothing of texts or models.

A class is the rows that the policy answers with one label. The claim of each certified class: *with
probability at least 1 - delta / C, at most a share 1 - target of this class's final answers differ
from the teacher's*; all C of them together hold with probability at least 1 - delta. Rows that the
teacher says belong to a class are another matter: nobody knows them without asking it about all.

The price is real. Each class needs labels of its own, and a class that is too small to pay for them
escalates whole.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

from cascade.certify.audit import FREE_BELOW, TableAudit
from cascade.certify.buying import buy_in_order
from cascade.certify.certificate import Certificate, seal, table
from cascade.certify.claim import Guarantee
from cascade.certify.class_evidence import ClassEvidence
from cascade.certify.conditional import ANY
from cascade.certify.planner import Prices
from cascade.certify.table import TableDraw
from cascade.errors import UnreadableAnswer, UsageError

Strings = NDArray[np.str_]

SPARE = 1.0  # nats beyond ln(C / delta) that a class is asked to be able to win


def least_rows(guarantee: Guarantee, classes: int) -> float:
    """Rows that a class needs where ``classes`` share delta, even if it makes no error at all.

    (ln(C / delta) + 1) / KL(0 || 1 - target), the divergence of two coins.

    >>> round(least_rows(Guarantee(0.9, 0.1), 77)), round(least_rows(Guarantee(0.9, 0.1), 1))
    (73, 31)
    """
    return (math.log(classes) + guarantee.log_bar + SPARE) / -math.log(guarantee.target)


def affordable(rows: Sequence[float], guarantee: Guarantee) -> list[int]:
    """Which classes to hold to the target: as many of the largest as can share delta.

    Parameters
    ----------
    rows : (C,) of each class, known (or, for a stream, expected) before the first label is bought.

    >>> affordable([500, 30, 90, 41], Guarantee(0.9, 0.1))
    [0, 2]
    """
    largest = sorted(range(len(rows)), key=lambda index: -rows[index])
    fits = [
        rows[index] >= least_rows(guarantee, count) for count, index in enumerate(largest, start=1)
    ]
    return largest[: max((count for count, fit in enumerate(fits, start=1) if fit), default=0)]


class ClassDraw(msgspec.Struct, frozen=True):
    """The next row to label.

    row : index in the whole table. draw : the same row as its class's audit knows it.
    """

    row: int
    label: str
    draw: TableDraw


class ClassAudit:
    """One look-ahead audit a class, over one frozen table.

    The classes are audited one after the other, the largest first: it gives most rows for a label.
    Any order is valid, since no audit's draws depend on another's.

    Parameters
    ----------
    p_agree : (n,) calibrated P(the policy's answer agrees with the teacher's); orders and bets.
    answers : (n,) the policy's frozen label of each row.
    known : rows labelled before the freeze: never drawn, answered by their label.
    """

    def __init__(
        self,
        p_agree: NDArray[np.float64],
        answers: Strings,
        guarantee: Guarantee,
        *,
        rng: np.random.Generator,
        prices: Prices = FREE_BELOW,
        known: Collection[int] = (),
    ) -> None:
        labels, rows = np.unique(answers, return_counts=True)
        if ANY in labels:
            raise UsageError(f"no label may be called {ANY!r}: it stands for all answers")
        kept = affordable(rows.tolist(), guarantee)
        self.escalated = tuple(str(one) for one in np.delete(labels, kept))
        """Classes too small to be held to the target: the teacher answers all their rows."""
        self.rows = {str(labels[index]): np.flatnonzero(answers == labels[index]) for index in kept}
        share = Guarantee(guarantee.target, guarantee.delta / max(len(kept), 1))
        labelled = np.isin(np.arange(len(answers)), list(known))
        self.audits = {
            label: TableAudit(
                p_agree[rows],
                share,
                rng=rng,
                prices=prices,
                known=np.flatnonzero(labelled[rows]).tolist(),
            )
            for label, rows in self.rows.items()
        }
        self._open = dict.fromkeys(self.audits)

    def draw(self) -> ClassDraw | None:
        """The next row to label; None while no class's label is worth its price.

        May be called again before earlier draws are recorded; then it may go on to other classes.
        """
        for label in list(self._open):
            audit = self.audits[label]
            if (draw := audit.draw()) is not None:
                return ClassDraw(int(self.rows[label][draw.row]), label, draw)
            if not audit.waiting:
                del self._open[label]
        return None

    def record(self, drawn: ClassDraw, wrong: bool) -> None:
        """Take in the label of a drawn row. In the order of drawing, never of arrival."""
        self.audits[drawn.label].record(drawn.draw, wrong)

    def answered(self) -> NDArray[np.int64]:
        """Rows of the table that the policy may answer, ascending; see ``TableAudit.answered``."""
        mine = [self.rows[label][audit.answered()] for label, audit in self.audits.items()]
        return np.sort(np.concatenate([np.empty(0, np.int64), *mine]))

    def evidence(self) -> dict[str, ClassEvidence]:
        """What proves each certified class, by label."""
        return {
            label: ClassEvidence(label, len(self.audits), audit.evidence())
            for label, audit in self.audits.items()
            if audit.ledger.passed
        }


@dataclass(frozen=True)
class ClassResult:
    """What the audits leave.

    certificates : by label, of the classes that were certified.
    answered : (m,) rows the policy answers; in a class without a certificate as few as can never
        break the target. Labelled rows keep their label, the rest escalate.
    labels : row -> whether the policy was wrong there, for every label bought.
    unreadable : rows whose teacher answer could not be read; they escalate.
    escalated : classes too small for an audit.
    """

    certificates: dict[str, Certificate]
    answered: NDArray[np.int64]
    labels: dict[int, bool]
    unreadable: tuple[int, ...]
    escalated: tuple[str, ...]


def audit_classes(
    audit: ClassAudit,
    oracle: Callable[[int], bool],
    label_budget: int,
    table_digest: str,
    *,
    workers: int = 1,
) -> ClassResult:
    """Draw, buy and record until the budget is spent or no label is worth its price.

    Parameters
    ----------
    oracle : row -> whether the policy's frozen answer differs from the teacher's. Where it raises
        ``UnreadableAnswer`` the row counts as wrong. Called from threads if ``workers > 1``.
    label_budget : most labels to buy, over all classes. Stopping early is always valid.
    table_digest : sha256 of the whole table, to which every certificate is tied.
    workers : labels bought at the same time.
    """
    asked: list[int] = []
    labels: dict[int, bool] = {}
    unreadable: list[int] = []

    def next_draw() -> ClassDraw | None:
        drawn = audit.draw() if len(asked) < label_budget else None
        if drawn is not None:
            asked.append(drawn.row)
        return drawn

    def buy(drawn: ClassDraw) -> bool | None:
        try:
            return oracle(drawn.row)
        except UnreadableAnswer:
            return None

    def record(drawn: ClassDraw, wrong: bool | None) -> None:
        if wrong is None:
            unreadable.append(drawn.row)
        labels[drawn.row] = wrong is None or bool(wrong)
        audit.record(drawn, labels[drawn.row])

    buy_in_order(next_draw, buy, record, workers)
    certificates = {
        label: seal(evidence, table(table_digest)) for label, evidence in audit.evidence().items()
    }
    return ClassResult(
        certificates=certificates,
        answered=audit.answered(),
        labels=labels,
        unreadable=tuple(unreadable),
        escalated=audit.escalated,
    )
