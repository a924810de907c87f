"""Answer "which rows are positive?" with few labels, and prove precision, recall or both.

The life of a filter: 1. a pilot labels a few random rows; 2. they forecast P(positive); 3. the
*teacher zone*, where yes and no are mixed, is labelled; 4. cells and rungs are frozen; 5. what is
accepted or rejected unseen is audited by weighted draws; 6. labels that are left mend the answer.
Every label counts against the budget. ``filter_flow`` says which rows it wants and never buys;
``certify_filter`` is its thin driver.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass

import numpy as np

from cascade.certify.aims import Aim, Precision, Recall
from cascade.certify.certificate import Certificate, seal, table
from cascade.certify.claim import Guarantee
from cascade.certify.filter_audit import Book, FilterAudit, KnownRow, Planner
from cascade.certify.filter_pilot import forecast, pilot_draws, ranks_of
from cascade.certify.filter_planner import Thrifty, teacher_zone
from cascade.certify.weighted import Floats, Ints
from cascade.errors import UnreadableAnswer, UsageError

PILOT_SHARE = 0.1  # of the labels
TOP = 0.2
BOT = 0.0
DARK = 1.0
ZONE_SHARE = 0.8  # of the planned teacher zone; the rest is bought where the audit ends

Flow = Generator[list[int], list[bool | None], "FilterResult"]
"""Yields rows to label, receives their labels in the same order; None where one is unreadable."""


@dataclass(frozen=True)
class FilterResult:
    """What a filter leaves.

    answer : (m,) rows said to be positive, increasing.
    certificates : one for each aim, in their order; None where nothing could be proved.
    labels : row -> whether it is positive, for every readable label bought.
    unreadable : rows whose teacher answer could not be read; they are in no answer.
    """

    answer: Ints
    certificates: tuple[Certificate | None, ...]
    labels: dict[int, bool]
    unreadable: tuple[int, ...]


def certify_filter(
    scores: Floats,
    oracle: Callable[[int], bool],
    aims: Sequence[Aim],
    label_budget: int,
    *,
    rng: np.random.Generator,
    table_digest: str,
    planner: Planner | None = None,
) -> FilterResult:
    """Find the positive rows of a table within a budget of labels.

    Parameters
    ----------
    scores : (n,) the larger, the likelier positive. Best in [0, 1]; only their order must mean
        anything, and not even that for the guarantee.
    oracle : row -> whether the teacher calls it positive. May raise ``UnreadableAnswer``.
    aims : ``Precision``, ``Recall`` or one of each. Both hold together with probability at least
        1 - (sum of their deltas).
    table_digest : sha256 of the table, to which the certificates are tied.
    planner : chooses the draws; any is valid.

    Raises
    ------
    UsageError : no aim, or two of a kind.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> scores = rng.beta(0.3, 0.9, 5000)
    >>> positive = rng.random(5000) < scores
    >>> aims = [Precision(Guarantee(0.9, 0.1))]
    >>> result = certify_filter(
    ...     scores, positive.__getitem__, aims, 300, rng=rng, table_digest="ab12"
    ... )
    >>> len(result.labels), bool(positive[result.answer].mean() >= 0.9)
    (300, True)
    """
    flow = filter_flow(scores, aims, label_budget, rng, table_digest, planner or Thrifty())
    answers: list[bool | None] | None = None
    while True:
        try:
            wanted = flow.send(answers)  # type: ignore[arg-type]  # None starts a generator
        except StopIteration as end:
            result: FilterResult = end.value
            return result
        answers = [_ask(oracle, row) for row in wanted]


def _ask(oracle: Callable[[int], bool], row: int) -> bool | None:
    try:
        return bool(oracle(row))
    except UnreadableAnswer:
        return None


def filter_flow(
    scores: Floats,
    aims: Sequence[Aim],
    label_budget: int,
    rng: np.random.Generator,
    table_digest: str,
    planner: Planner,
) -> Flow:
    """The sans-I/O core of ``certify_filter``, which see. Never asks for a row twice."""
    if not aims or len({type(aim) for aim in aims}) < len(aims):
        raise UsageError("give a Precision, a Recall, or one of each")
    ranks = ranks_of(scores, rng)
    known = yield from _pilot(ranks, label_budget, rng)
    known += yield from _zone(_forecast(scores, ranks, known), aims, known, label_budget)
    audit = FilterAudit(_forecast(scores, ranks, known), aims, rng=rng, known=known)
    left = label_budget - len(known)
    while left > 0 and audit.unlabelled.any() and (plan := planner.plan(audit, left)) is not None:
        draw = audit.draw(plan)
        [positive] = yield [draw.row]
        audit.record(draw, positive)
        left -= 1
    wanted = _mending(audit)[:left].tolist()
    mended = dict(zip(wanted, (yield wanted), strict=True))
    return _result(audit, mended, table_digest)


def _pilot(
    ranks: Ints, label_budget: int, rng: np.random.Generator
) -> Generator[list[int], list[bool | None], list[KnownRow]]:
    most = min(math.ceil(PILOT_SHARE * label_budget), len(ranks) - 1)  # a row is left to freeze
    rows, propensities = pilot_draws(ranks, most, rng)
    answers = yield rows.tolist()
    return [
        KnownRow(row, positive, propensity)
        for row, positive, propensity in zip(
            rows.tolist(), answers, propensities.tolist(), strict=True
        )
    ]


def _zone(
    p_positive: Floats, aims: Sequence[Aim], known: Sequence[KnownRow], label_budget: int
) -> Generator[list[int], list[bool | None], list[KnownRow]]:
    free = np.setdiff1d(np.arange(len(p_positive)), [row.row for row in known])
    order = free[np.argsort(-p_positive[free], kind="stable")]
    positive = sum(row.positive is True for row in known)
    left = min(label_budget - len(known), len(free) - 1)
    start, stop = teacher_zone(p_positive[order], aims, positive, left)
    # the edges are bought last: the audit may end elsewhere than the forecast says
    size = stop - start
    if any(isinstance(aim, Precision) for aim in aims):
        start, stop = start + int(TOP * size), stop - int(BOT * size)
    if any(isinstance(aim, Recall) for aim in aims):
        stop -= int(0.2 * size)
    wanted = order[start : max(stop, start)][: max(left, 0)].tolist()
    answers = yield wanted
    return [KnownRow(row, positive, 1.0) for row, positive in zip(wanted, answers, strict=True)]


def _forecast(scores: Floats, ranks: Ints, known: Sequence[KnownRow]) -> Floats:
    read = [row for row in known if row.positive is not None]
    rows = np.array([row.row for row in read], dtype=np.int64)
    positive = np.array([row.positive for row in read], dtype=np.bool_)
    return forecast(scores, ranks, rows, positive) if read else scores


def _mending(audit: FilterAudit) -> Ints:
    """Unlabelled rows that improve the answer most if they are labelled, best first.

    Below what is accepted: the likeliest positive. Above what is rejected: the likeliest negative.
    Between the two: all of them, else the recall is not what was audited.
    """
    precision, recall = _book(audit, Precision), _book(audit, Recall)
    if precision is None:
        assert recall is not None
        return audit.cells(~recall.zone)[::-1]
    rejected = np.zeros_like(precision.zone) if recall is None else recall.zone
    return audit.cells(~precision.zone & ~rejected)


def _book(audit: FilterAudit, kind: type[Aim]) -> Book | None:
    return next((book for book in audit.books if isinstance(book.aim, kind)), None)


def _result(audit: FilterAudit, mended: dict[int, bool | None], table_digest: str) -> FilterResult:
    precision, recall = _book(audit, Precision), _book(audit, Recall)
    labels = {row.row: row.positive for row in [*audit.known, *audit.draws]} | mended
    accepted = precision.zone if precision else ~recall.zone if recall else np.empty(0)
    unseen = np.setdiff1d(audit.cells(accepted), list(mended))
    # rows that are neither accepted, rejected nor labelled count as missed
    open_rows = (
        len(np.setdiff1d(audit.cells(~accepted & ~recall.zone), list(mended))) if recall else 0
    )
    certificates = [
        seal(audit.evidence(book), table(table_digest))
        if book.passed and not (book is recall and open_rows)
        else None
        for book in audit.books
    ]
    found = [row for row, positive in labels.items() if positive]
    return FilterResult(
        answer=np.union1d(unseen, np.array(found, dtype=np.int64)),
        certificates=tuple(certificates),
        labels={row: positive for row, positive in labels.items() if positive is not None},
        unreadable=tuple(row for row, positive in labels.items() if positive is None),
    )
