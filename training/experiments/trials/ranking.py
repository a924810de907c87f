"""Trials of the certificate for the teacher's top k."""

from __future__ import annotations

import numpy as np
from worlds import Floats

from cascade.certify import Guarantee, RankingAudit
from cascade.certify.top_k import Graded, Lottery
from trials.cell import ROUNDING, Cell

TOP = 20
LABELS = 400
BOUNDARY = Guarantee(0.9, 0.1)


def ranking_trial(cell: Cell, rng: np.random.Generator) -> bool:
    """Whether a prefix that misses too many of the top k is ever certified."""
    p_top, grades = WORLDS[cell.world](rng, cell.n)
    audit = RankingAudit(p_top, TOP, cell.guarantee, rng=rng)
    if cell.planner == "own":
        return _lies(audit, grades)
    return _ever_false(audit, grades)


def calibrated(rng: np.random.Generator, n: int) -> tuple[Floats, Floats]:
    """The teacher grades what the proxy sees, and noise."""
    seen = rng.normal(size=n)
    return _chance(seen), seen + 0.5 * rng.normal(size=n)


def flat(rng: np.random.Generator, n: int) -> tuple[Floats, Floats]:
    """The proxy knows nothing."""
    return np.full(n, TOP / n), rng.normal(size=n)


def boundary(rng: np.random.Generator, n: int) -> tuple[Floats, Floats]:
    """One row of the top k too many lies outside the middle prefix."""
    p_top = _chance(np.linspace(3, -3, n))
    plan = RankingAudit(p_top, TOP, BOUNDARY, rng=np.random.default_rng(0)).plan
    prefix, missed = plan.sizes[len(plan.sizes) // 2], plan.may_miss + 1
    grades = rng.random(n)
    grades[rng.choice(prefix, TOP - missed, replace=False)] += 1
    grades[prefix + rng.choice(n - prefix, missed, replace=False)] += 1
    return p_top, grades


def few_grades(rng: np.random.Generator, n: int) -> tuple[Floats, Floats]:
    """Grades from 0 to 3 only: the top k is decided among equals, by the seed."""
    seen = rng.normal(size=n)
    return _chance(seen), np.clip(np.round(seen + rng.normal(size=n)), 0, 3)


WORLDS = {world.__name__: world for world in (calibrated, flat, boundary, few_grades)}


def _chance(seen: Floats) -> Floats:
    """P(top k) that adds up to about k."""
    odds = np.exp(3 * seen)
    return np.asarray(np.minimum(TOP * odds / odds.sum(), 0.99))


def _true_top(audit: RankingAudit, grades: Floats) -> set[int]:
    ties = audit.ledger._ties  # equal grades: the order that the seed fixed
    return set(np.lexsort((ties, grades))[-TOP:].tolist())


def _lies(audit: RankingAudit, grades: Floats) -> bool:
    for _ in range(LABELS):
        draw = audit.draw()
        if draw is None:
            break
        _grade(audit, draw, grades)
    if not audit.done:
        return False
    found = len(_true_top(audit, grades) & set(audit.top().tolist()))
    return audit.ledger.claim().bound > found / TOP + ROUNDING


def _ever_false(audit: RankingAudit, grades: Floats) -> bool:
    """Grade the best of the first bad prefix, to know what the top k takes; draw outside of it."""
    ledger, lottery = audit.ledger, Lottery(audit.plan.seed)
    top = np.isin(audit.order, list(_true_top(audit, grades)))
    missed = np.array([top[size:].sum() for size in audit.plan.sizes])
    if not (missed > audit.plan.may_miss).any():
        return False
    bad = int(np.argmax(missed > audit.plan.may_miss))
    inside = audit.order[: audit.plan.sizes[bad]]
    for rank in np.argsort(-grades[inside])[: 2 * TOP].tolist():
        _grade(audit, Graded(int(inside[rank]), rank, None, None), grades)
    while len(audit.grades) < LABELS and ledger.left[: bad + 1].any():
        rank = lottery.draw(ledger, bad)
        _grade(audit, Graded(int(audit.order[rank]), rank, bad, None), grades)
        if ledger.passed and missed[ledger.passed - 1] > audit.plan.may_miss:
            return True
    return False


def _grade(audit: RankingAudit, draw: Graded, grades: Floats) -> None:
    audit.record(draw, float(grades[draw.row]))
