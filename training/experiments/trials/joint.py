"""Trials of the certificate for two and three tiers: the final answer, whoever gave it."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import msgspec
import numpy as np
from worlds import Bools, Floats

from cascade.certify import Confidences, JointAudit, JointPrices, Rung, Said, audit_joint
from cascade.certify.table import error_budget
from trials.cell import Cell

LABELS = 400
PRICES = JointPrices(small=0.1)


class Tiers(NamedTuple):
    """All (n,). p_agree, trust : the confidences of proxy and small LLM. Then who is wrong."""

    p_agree: Floats
    trust: Floats
    proxy_wrong: Bools
    small_wrong: Bools


def calibrated(rng: np.random.Generator, cell: Cell) -> Tiers:
    """Both confidences mean what they say."""
    p_agree, trust = 1 - rng.beta(0.8, 4, cell.n), 1 - rng.beta(0.6, 6, cell.n)
    return Tiers(p_agree, trust, rng.random(cell.n) > p_agree, rng.random(cell.n) > trust)


def adversarial(rng: np.random.Generator, cell: Cell) -> Tiers:
    """Where a tier is sure, it is wrong."""
    p_agree, trust = rng.uniform(0.6, 1, cell.n), rng.uniform(0.6, 1, cell.n)
    return Tiers(p_agree, trust, p_agree > 0.9, trust > 0.9)


def boundary(rng: np.random.Generator, cell: Cell) -> Tiers:
    """One wrong final answer too many at the middle rung, anywhere among those it gives."""
    p_agree, trust = np.linspace(0.995, 0.6, cell.n), rng.uniform(0.6, 1, cell.n)
    right = np.zeros(cell.n, dtype=bool)
    audit = joint_audit(cell, Tiers(p_agree, trust, right, right), np.random.default_rng(0))
    zones = audit.ledger.zones
    middle = len(zones.rungs) // 2
    ranks = np.arange(cell.n)
    proxied = ranks < zones.proxied[middle]
    stands = ~proxied & (ranks < zones.asked[middle]) & (trust >= zones.needs[middle])
    given = np.flatnonzero(proxied | stands)
    excess = min(error_budget(cell.guarantee, cell.n) + 1, len(given))
    bad = np.isin(ranks, rng.choice(given, excess, replace=False))
    return Tiers(p_agree, trust, bad & proxied, bad & stands)


WORLDS: dict[str, Callable[[np.random.Generator, Cell], Tiers]] = {
    world.__name__: world for world in (calibrated, adversarial, boundary)
}


def joint_audit(cell: Cell, tiers: Tiers, rng: np.random.Generator) -> JointAudit:
    """A path of a dozen rungs: the proxy answers more and more, and asks more and more."""
    steps = np.linspace(0, 1, 12)
    path = [
        Rung({"proxy": 0.99 - 0.2 * s, "small": 0.98 - 0.2 * s, "skip": 0.9 - 0.3 * s}, float(s))
        for s in steps.tolist()
    ]
    promised = Confidences(tiers.p_agree[:500], tiers.trust[:500])
    return JointAudit(
        tiers.p_agree, path, cell.guarantee, promised=promised, prices=PRICES, rng=rng
    )


def joint_trial(cell: Cell, rng: np.random.Generator) -> bool:
    """With the own planner the final answers are counted; with others, any false certificate."""
    tiers = WORLDS[cell.world](rng, cell)
    audit = joint_audit(cell, tiers, rng)
    if cell.planner != "own":
        return _ever_false(audit, tiers, cell.planner, rng)
    result = audit_joint(  # the teacher always says 0
        audit,
        tiers.proxy_wrong.astype(np.int64),
        lambda rows: Said(tiers.small_wrong[rows].astype(np.int64), tiers.trust[rows]),
        lambda row: 0,
        label_budget=LABELS,
        table_digest="00",
    )
    return int((result.answers == 1).sum()) > audit.ledger.budget


def _ever_false(audit: JointAudit, tiers: Tiers, planner: str, rng: np.random.Generator) -> bool:
    ledger = audit.ledger
    too_wrong = _wrong_answers(audit, tiers) > ledger.budget
    bad = int(np.argmax(too_wrong)) if too_wrong.any() else len(too_wrong) - 1
    for _ in range(LABELS):
        knows = planner == "knowing"
        rung = bad if knows else min(ledger.passed, len(too_wrong) - 1)
        if ledger.open_rows[rung] <= 0:
            return False
        draw = audit.draw_from(rung)
        if audit.wants_small(draw):
            draw = msgspec.structs.replace(draw, trust=float(tiers.trust[draw.row]))
        if audit.wants_label(draw):
            small = None if draw.trust is None else bool(tiers.small_wrong[draw.row])
            proxy = bool(tiers.proxy_wrong[draw.row])
            draw = msgspec.structs.replace(draw, proxy_wrong=proxy, small_wrong=small)
        audit.record(draw)
        if ledger.passed and too_wrong[ledger.passed - 1]:
            return True
    return False


def _wrong_answers(audit: JointAudit, tiers: Tiers) -> Floats:
    """(G,) rows that each rung answers below the teacher, wrongly."""
    proxy, small = tiers.proxy_wrong[audit.order], tiers.small_wrong[audit.order]
    ranks, trust = np.arange(len(proxy)), tiers.trust[audit.order]
    zones = audit.ledger.zones
    counts = [
        np.where(ranks < proxied, proxy, small & (ranks < asked) & (trust >= need)).sum()
        for proxied, asked, need in zip(zones.proxied, zones.asked, zones.needs, strict=True)
    ]
    return np.asarray(counts, dtype=np.float64)
