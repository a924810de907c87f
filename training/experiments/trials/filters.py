"""Trials of the filter certificates, precision and recall: own planner, and hostile ones.

With the own planner the final answer is judged; a hostile trial is stopped at the worst moment.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from worlds import Bools, Floats

from cascade.certify.aims import Aim, Precision, Recall
from cascade.certify.filter_audit import Book, FilterAudit
from cascade.certify.filters import certify_filter
from cascade.certify.weighted import Plan
from trials.cell import ROUNDING, Cell

LABELS = 250

Filter = Callable[[np.random.Generator, int, Aim], tuple[Floats, Bools]]
"""-> (n,) predicted P(positive), and which rows are positive."""
Weights = Callable[[Book, int, np.random.Generator], Floats]
"""(book, first bad rung, rng) -> (C,) weights of the cells. May know the truth, not the future."""


def calibrated(rng: np.random.Generator, n: int, aim: Aim) -> tuple[Floats, Bools]:
    """A quarter is positive, and the scores mean what they say."""
    p_positive = rng.beta(0.3, 0.9, n)
    return p_positive, rng.random(n) < p_positive


def rare(rng: np.random.Generator, n: int, aim: Aim) -> tuple[Floats, Bools]:
    """One row in forty is positive, half of them where nobody expects it."""
    p_positive = rng.beta(0.1, 4, n)
    return p_positive, rng.random(n) < np.where(rng.random(n) < 0.5, p_positive, 0.025)


def adversarial(rng: np.random.Generator, n: int, aim: Aim) -> tuple[Floats, Bools]:
    """The surest rows are negative."""
    p_positive = rng.uniform(0, 1, n)
    return p_positive, rng.random(n) > p_positive


def boundary(rng: np.random.Generator, n: int, aim: Aim) -> tuple[Floats, Bools]:
    """The middle rung is just bad: one row too many is false, or missed."""
    p_positive = np.linspace(0.99, 0.01, n)
    book = FilterAudit(p_positive, [aim], rng=np.random.default_rng(0)).books[0]
    middle = len(book.frozen.stops) // 2
    stop = int(book.frozen.before[middle] @ book.frozen.sizes)
    positive = np.zeros(n, dtype=bool)
    if isinstance(aim, Precision):
        allowed = int(aim.allowed(book.frozen)[middle])
        positive[:stop] = True
        positive[rng.choice(stop, allowed + 1, replace=False)] = False
        return p_positive, positive
    # few positives, so that as few may be missed
    kept = min(stop, max(int(0.3 * (n - stop) / aim.rho), 1))
    missed = int(aim.rho * kept + ROUNDING) + 1
    positive[rng.choice(stop, kept, replace=False)] = True
    positive[stop + rng.choice(n - stop, missed, replace=False)] = True
    return p_positive, positive


WORLDS: dict[str, Filter] = {
    world.__name__: world for world in (calibrated, rare, adversarial, boundary)
}


def even(book: Book, bad: int, rng: np.random.Generator) -> Floats:
    """Every unlabelled row alike."""
    return book.ledger.unlabelled.astype(np.float64)


def knowing(book: Book, bad: int, rng: np.random.Generator) -> Floats:
    """Only where the first bad rung does harm."""
    return np.where(book.ledger.harm[bad] > 0, book.ledger.unlabelled, 0.0)


def erratic(book: Book, bad: int, rng: np.random.Generator) -> Floats:
    """Other weights at every draw, a hundred times as large here as there."""
    odds = np.exp(rng.uniform(0, np.log(100), len(book.frozen.sizes)))
    return np.asarray(book.ledger.unlabelled * odds)


PLANNERS: dict[str, Weights] = {planner.__name__: planner for planner in (even, knowing, erratic)}


def precision_trial(cell: Cell, rng: np.random.Generator) -> bool:
    """Whether an answer with too many false positives is ever certified."""
    return _is_false(cell, Precision(cell.guarantee), rng)


def recall_trial(cell: Cell, rng: np.random.Generator) -> bool:
    """Whether an answer that misses too many positives is ever certified."""
    return _is_false(cell, Recall(cell.guarantee), rng)


def _is_false(cell: Cell, aim: Aim, rng: np.random.Generator) -> bool:
    p_positive, positive = WORLDS[cell.world](rng, cell.n, aim)
    if cell.planner in PLANNERS:
        return _ever_false(cell, aim, (p_positive, positive), rng)
    result = certify_filter(
        p_positive, lambda row: bool(positive[row]), [aim], LABELS, rng=rng, table_digest="00"
    )
    [certificate] = result.certificates
    hits = positive[result.answer].sum()
    whole = len(result.answer) if isinstance(aim, Precision) else positive.sum()
    return certificate is not None and bool(certificate.bound > hits / max(whole, 1) + ROUNDING)


def _ever_false(cell: Cell, aim: Aim, rows: tuple[Floats, Bools], rng: np.random.Generator) -> bool:
    p_positive, positive = rows
    audit = FilterAudit(p_positive, [aim], rng=rng)
    book, planner = audit.books[0], PLANNERS[cell.planner]
    bad_rungs = _false_at_freeze(book, positive[audit.order])
    if not bad_rungs.any():
        return False
    bad, forecast = int(np.argmax(bad_rungs)), _bold_forecast(book, positive[audit.order])
    for _ in range(LABELS):
        weights = planner(book, bad, rng)
        if weights.sum() == 0:
            return False
        draw = audit.draw(Plan(weights.tolist(), forecast.tolist()))
        audit.record(draw, bool(positive[draw.row]))
        if book.passed and (bad_rungs[book.passed - 1] or _bound_is_false(audit, positive)):
            return True
    return False


def _false_at_freeze(book: Book, positive: Bools) -> NDArray[np.bool_]:
    """(G,) rungs whose answer, with no label bought, would miss its target."""
    per_cell = _per_cell(book, positive)
    inside = book.frozen.before @ per_cell
    if isinstance(book.aim, Precision):
        negative = book.frozen.before @ (book.frozen.sizes - per_cell)
        return np.asarray(negative > book.aim.allowed(book.frozen))
    return np.asarray(per_cell.sum() - inside > book.aim.rho * inside + ROUNDING)


def _bold_forecast(book: Book, positive: Bools) -> Floats:
    """(C,) half the harm that there is: with such bets a null at its boundary falls most often."""
    share = _per_cell(book, positive) / book.frozen.sizes
    return np.asarray(1 - 0.5 * (1 - share) if isinstance(book.aim, Precision) else 0.5 * share)


def _per_cell(book: Book, positive: Bools) -> NDArray[np.int64]:
    """(C,) positive rows. positive : in the frozen order."""
    return np.asarray(np.add.reduceat(positive, np.cumsum(book.frozen.sizes) - book.frozen.sizes))


def _bound_is_false(audit: FilterAudit, positive: Bools) -> bool:
    """Of the answer as it stands: unseen rows by their zone, drawn rows by their label."""
    book = audit.books[0]
    unseen = positive[audit.cells(book.zone)]
    if isinstance(book.aim, Precision):
        found = sum(draw.positive is True for draw in audit.draws)
        truth = (unseen.sum() + found) / max(len(unseen) + found, 1)
    else:
        truth = 1 - unseen.sum() / max(positive.sum(), 1)
    return bool(book.claim().bound > truth + ROUNDING)
