"""Trials of the table certificate: its own planner, and hostile ones that know the truth.

A hostile planner is stopped at the worst moment: its trial fails if the certificate was false at
*any* time, however it ended.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from worlds import WORLDS, Bools, Table

from cascade.certify import TableAudit, certify_table
from cascade.certify.table import Ledger, error_budget
from trials.cell import ROUNDING, Cell

LABELS = 400
WITH_PILOT = "with pilot"
RUINED = 6.0  # nats below the start: a bad rung comes back from there less than once in 4,000 times

Planner = Callable[[Ledger, int, np.random.Generator], int]
"""(ledger, first bad rung, rng) -> rung to draw from. Any is allowed that does not look ahead."""


def cheapest(ledger: Ledger, bad: int, rng: np.random.Generator) -> int:
    """The lowest rung that is not certified yet."""
    return min(ledger.passed, len(ledger.sizes) - 1)


def richest(ledger: Ledger, bad: int, rng: np.random.Generator) -> int:
    """The uncertified rung whose wealth is largest now."""
    first = cheapest(ledger, bad, rng)
    return first + int(np.argmax(ledger.now[first:]))


def knowing(ledger: Ledger, bad: int, rng: np.random.Generator) -> int:
    """Always the first bad rung: the one that must not be certified."""
    return bad


def erratic(ledger: Ledger, bad: int, rng: np.random.Generator) -> int:
    """Any rung, so that most draws are recorded at a part of the rungs only."""
    return int(rng.integers(len(ledger.sizes)))


HOSTILE: dict[str, Planner] = {
    planner.__name__: planner for planner in (cheapest, richest, knowing, erratic)
}


def table_trial(cell: Cell, rng: np.random.Generator) -> bool:
    """Freeze, draw, buy, certify; both bounds of the certificate are checked."""
    table = WORLDS[cell.world](rng, cell.n, cell.guarantee)
    if cell.planner == WITH_PILOT:
        return _pipeline_is_false(cell, table, rng)
    audit = TableAudit(table.p_agree, cell.guarantee, rng=rng)
    if cell.planner in HOSTILE:
        return ever_false(audit, table.wrong, HOSTILE[cell.planner], rng)
    for _ in range(LABELS):
        if (draw := audit.draw()) is None:
            break
        audit.record(draw, bool(table.wrong[draw.row]))
    return _is_false(audit, table.wrong)


def _pipeline_is_false(cell: Cell, table: Table, rng: np.random.Generator) -> bool:
    """Scores as they come: the pilot calibrates them and decides the labels before the freeze."""
    teacher = (~table.wrong).astype(np.int64)
    labelled = certify_table(
        table.p_agree, lambda row: int(teacher[row]), cell.guarantee, rng=rng, label_budget=LABELS
    )
    return int((labelled.answers != teacher).sum()) > error_budget(cell.guarantee, cell.n)


def _is_false(audit: TableAudit, wrong: Bools) -> bool:
    """Certificate or not, no more than the budget may be left; the claim may say more."""
    below = wrong[audit.answered()]
    left = int(below.sum())
    if not audit.ledger.passed:
        return left > audit.ledger.budget
    claim = audit.ledger.claim()
    return (
        left > (1 - claim.bound) * len(wrong) + ROUNDING
        or left > (1 - claim.conditional.bound) * len(below) + ROUNDING
    )


def ever_false(audit: TableAudit, wrong: Bools, planner: Planner, rng: np.random.Generator) -> bool:
    """Draw where the planner says; True as soon as a prefix that was too wrong is certified."""
    ledger = audit.ledger
    too_wrong = np.cumsum(wrong[audit.order])[ledger.sizes - 1] > ledger.budget
    if not too_wrong.any():
        return False
    bad = int(np.argmax(too_wrong))
    for _ in range(LABELS):
        rung = planner(ledger, bad, rng)
        if ledger.unlabelled[rung] == 0:
            return False
        draw = audit.draw_from(rung)
        audit.record(draw, bool(wrong[draw.row]))
        if ledger.passed and too_wrong[ledger.passed - 1]:
            return True
        if ledger.now[bad] < -RUINED and ledger.highest[bad] < ledger.guarantee.log_bar:
            return False
    return False
