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
from functools import partial

import numpy as np

from cascade.certify.aims import Aim, Precision, Recall
from cascade.certify.buying import buy_in_order
from cascade.certify.certificate import Certificate, seal, table
from cascade.certify.filter_audit import FilterAudit, KnownRow, Planner, WeightedDraw
from cascade.certify.filter_pilot import Ranked, pilot
from cascade.certify.filter_planner import Thrifty, teacher_zone
from cascade.certify.weighted import Floats, Ints, Plan
from cascade.errors import UnreadableAnswer, UsageError

PILOT_SHARE = 0.1  # of the labels
EDGE = 0.5  # of a recall's zone, beside what is rejected: bought where the audit ends, not before
ROUNDS = 3  # in which the teacher zone is bought
WAVE = 8  # draws between two looks of the planner

Flow = Generator[list[int], list[bool | None], "FilterResult"]
"""Yields rows to label, receives their labels in the same order; None where one is unreadable."""


@dataclass(frozen=True)
class FilterResult:
    """What a filter leaves.

    answer : (m,) rows said to be positive, increasing.
    certificates : one for each aim, in their order; None where nothing could be proved.
    labels : row -> whether it is positive, for every readable label bought.
    unreadable : rows whose teacher answer could not be read: in the answer under a recall alone,
        in none where a precision is promised. Then a recall that counts what they may be is one of
        the answer and these rows together (see ``aims``).
    order : (u,) rows without a label at the freeze, by rank; for ``check_table``.
    """

    answer: Ints
    certificates: tuple[Certificate | None, ...]
    labels: dict[int, bool]
    unreadable: tuple[int, ...]
    order: Ints


def certify_filter(
    scores: Floats,
    oracle: Callable[[int], bool],
    aims: Sequence[Aim],
    label_budget: int,
    *,
    rng: np.random.Generator,
    table_digest: str,
    planner: Planner | None = None,
    workers: int = 1,
) -> FilterResult:
    """Find the positive rows of a table within a budget of labels.

    Where a recall cannot be proved, every row that the teacher did not call negative is answered;
    where a precision cannot, only those that it called positive are.

    Parameters
    ----------
    scores : (n,) the larger, the likelier positive. Best in [0, 1]; only their order must mean
        anything, and not even that for the guarantee.
    oracle : row -> whether the teacher calls it positive. May raise ``UnreadableAnswer``. Called
        from threads if ``workers > 1``.
    aims : ``Precision``, ``Recall`` or one of each. Both hold together with probability at least
        1 - (sum of their deltas).
    table_digest : sha256 of the table, to which the certificates are tied.
    planner : chooses the draws; any is valid.
    workers : labels bought at the same time. The result does not depend on it.

    Raises
    ------
    UsageError : no aim or two of a kind, no rows, a negative budget.

    Examples
    --------
    >>> from cascade.certify import Guarantee
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
    wanted = next(flow)
    while True:
        try:
            wanted = flow.send(_buy(oracle, wanted, workers))
        except StopIteration as end:
            result: FilterResult = end.value
            return result


def _buy(oracle: Callable[[int], bool], wanted: list[int], workers: int) -> list[bool | None]:
    rows, answers = iter(wanted), list[bool | None]()
    buy_in_order(
        lambda: next(rows, None),
        partial(_ask, oracle),
        lambda row, answer: answers.append(answer),
        workers,
    )
    return answers


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
    if not len(scores) or label_budget < 0:
        raise UsageError("a filter needs a table with rows, and no less than 0 labels")
    ranked = Ranked.of(scores, rng)
    known = yield from pilot(ranked, math.ceil(PILOT_SHARE * label_budget), rng)
    known = yield from _zone(ranked, aims, known, label_budget)
    audit = FilterAudit(ranked.forecast(known), aims, rng=rng, known=known)
    left = label_budget - len(known)
    while left > 0 and audit.open_rows.any() and (plan := planner.plan(audit, left)) is not None:
        draws = _wave(audit, plan, min(WAVE, left))
        answers = yield [draw.row for draw in draws]
        for draw, positive in zip(draws, answers, strict=True):
            audit.record(draw, positive)
        left -= len(draws)
    wanted = _mending(audit)[:left].tolist()
    mended = dict(zip(wanted, (yield wanted), strict=True))
    return _result(audit, mended, table_digest)


def _zone(
    ranked: Ranked, aims: Sequence[Aim], known: list[KnownRow], label_budget: int
) -> Generator[list[int], list[bool | None], list[KnownRow]]:
    """The rows labelled before the freeze; in rounds, since each tells where the zone lies."""
    for parts in range(ROUNDS, 0, -1):
        order, p_positive = ranked.unlabelled(known)
        positive = sum(row.positive is True for row in known)
        left = min(label_budget - len(known), len(order) - 1)
        start, stop = teacher_zone(p_positive, aims, positive, left)
        if any(isinstance(aim, Recall) for aim in aims):
            stop -= int(EDGE * (stop - start))
        wanted = order[start:stop:parts][:left].tolist()
        answers = yield wanted
        known = known + [
            KnownRow(row, positive, 1.0) for row, positive in zip(wanted, answers, strict=True)
        ]
    return known


def _wave(audit: FilterAudit, plan: Plan, most: int) -> list[WeightedDraw]:
    """At least one draw; fewer than ``most`` where the plan has used up its cells."""
    draws = [audit.draw(plan)]
    while len(draws) < most and audit.can_draw(plan):
        draws.append(audit.draw(plan))
    return draws


def _mending(audit: FilterAudit) -> Ints:
    """Unlabelled rows, those first that improve the answer most if they are labelled.

    First those between what is accepted and what is rejected: all of them, else the recall is not
    what was audited. Then, under a recall alone, the likeliest negative rows of the answer; under
    a precision, the likeliest positive ones of the others.
    """
    between = audit.cells(~audit.accepted & ~audit.rejected)
    others = [audit.cells(audit.rejected), audit.cells(audit.accepted)[::-1]]
    return np.concatenate([between, *others[:: -1 if audit.book(Precision) is None else 1]])


def _result(audit: FilterAudit, mended: dict[int, bool | None], table_digest: str) -> FilterResult:
    labels = {row.row: row.positive for row in audit.known}
    labels |= {draw.row: draw.positive for draw in audit.draws} | mended
    unseen = np.setdiff1d(audit.cells(audit.accepted), list(mended))
    # rows neither accepted, rejected nor labelled would be missed: then no recall was proved
    missed = np.setdiff1d(audit.cells(~audit.accepted & ~audit.rejected), list(mended))
    certificates = [
        seal(audit.evidence(book), table(table_digest))
        if book.passed and not (isinstance(book.aim, Recall) and len(missed))
        else None
        for book in audit.books
    ]
    unreadable = tuple(row for row, positive in labels.items() if positive is None)
    found = [row for row, positive in labels.items() if positive]
    if audit.book(Precision) is None:
        found += unreadable  # they may be positive, and a recall can only gain by them
    return FilterResult(
        answer=np.union1d(unseen, np.array(found, dtype=np.int64)),
        certificates=tuple(certificates),
        labels={row: positive for row, positive in labels.items() if positive is not None},
        unreadable=unreadable,
        order=audit.order,
    )
