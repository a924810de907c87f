"""Trials of the certificate for the teacher's top k."""

from __future__ import annotations

import numpy as np
from worlds import Floats

from cascade.certify import Guarantee, RankingAudit
from cascade.certify.standings import Graded
from cascade.certify.top_k import Lottery
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
    ties = audit.ledger.standings.ties  # equal grades: the order that the seed fixed
    return set(np.lexsort((ties, grades))[-TOP:].tolist())


def _lies(audit: RankingAudit, grades: Floats) -> bool:
    for _ in range(LABELS):
        draw = audit.draw()
        if draw is None:
            break
        audit.record(draw, float(grades[draw.row]))
    if not audit.done:
        return False
    found = len(_true_top(audit, grades) & set(audit.top().tolist()))
    return audit.ledger.claim().bound > found / TOP + ROUNDING


def _ever_false(audit: RankingAudit, grades: Floats) -> bool:
    """Grade the best of the first bad prefix, to know what the top k takes; draw outside of it."""
    ledger, lottery, by_rank = audit.ledger, Lottery(audit.plan.seed), grades[audit.order]
    top = np.isin(audit.order, list(_true_top(audit, grades)))
    missed = np.array([top[size:].sum() for size in audit.plan.sizes])
    if not (missed > audit.plan.may_miss).any():
        return False
    bad = int(np.argmax(missed > audit.plan.may_miss))
    for rank in np.argsort(-by_rank[: audit.plan.sizes[bad]])[: 2 * TOP].tolist():
        ledger.record(Graded(int(audit.order[rank]), rank, None, float(by_rank[rank])))
    while len(ledger.standings.places) < LABELS and ledger.standings.hidden[bad]:
        rank = lottery.draw(ledger, bad)
        ledger.record(Graded(int(audit.order[rank]), rank, bad, float(by_rank[rank])))
        if ledger.passed and missed[ledger.passed - 1] > audit.plan.may_miss:
            return True
    return False
