"""Synthetic tables on which a certificate is most likely to be false. Knows no audit's result.

A table is what an audit sees, a calibrated P(agree) for every row, and what it must not see: which
rows are wrong. Some tables are ordinary, most stand at the very boundary of what a certificate
says: there a false one is as likely as it can be.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cascade.certify import Guarantee, TableAudit
from cascade.certify.table import error_budget

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


class Table(NamedTuple):
    """p_agree : (n,) as predicted. wrong : (n,) where the policy differs from the teacher."""

    p_agree: Floats
    wrong: Bools


World = Callable[[np.random.Generator, int, Guarantee], Table]


def calibrated(rng: np.random.Generator, n: int, guarantee: Guarantee) -> Table:
    """Scores that mean what they say."""
    p_agree = 1 - rng.beta(0.6, 4, n)
    return Table(p_agree, rng.random(n) > p_agree)


def noisy(rng: np.random.Generator, n: int, guarantee: Guarantee) -> Table:
    """Calibrated before the teacher answered 5% of the rows at random."""
    table = calibrated(rng, n, guarantee)
    return Table(table.p_agree, table.wrong ^ (rng.random(n) < 0.05))


def flat(rng: np.random.Generator, n: int, guarantee: Guarantee) -> Table:
    """One score for all rows, and one wrong row too many in the whole table, sorted by outcome."""
    return Table(np.full(n, 0.95), np.arange(n) <= error_budget(guarantee, n))


def near_tied(rng: np.random.Generator, n: int, guarantee: Guarantee) -> Table:
    """As flat, but the scores differ in the 13th digit, so that their order is fixed."""
    wrong = rng.permutation(n) <= error_budget(guarantee, n)
    return Table(0.95 + 1e-13 * np.arange(n), wrong)


def adversarial(rng: np.random.Generator, n: int, guarantee: Guarantee) -> Table:
    """The surest rows are the wrong ones, half as many again as allowed."""
    p_agree = rng.uniform(0.9, 1, n)
    return Table(p_agree, p_agree >= np.quantile(p_agree, 1 - 1.5 * guarantee.risk))


def duplicated(rng: np.random.Generator, n: int, guarantee: Guarantee) -> Table:
    """Every row stands there ten times: errors come in tens, and so do scores."""
    copies = np.arange(n) // 10
    p_agree = 1 - rng.beta(0.6, 4, n)[copies]
    wrong = rng.permutation(copies[-1] + 1)[copies] <= error_budget(guarantee, n) // 10
    return Table(p_agree, wrong)


def boundary(rng: np.random.Generator, n: int, guarantee: Guarantee) -> Table:
    """One wrong row too many, evenly in the middle rung: half the rungs good, half just bad."""
    p_agree, sizes = _path(n, guarantee)
    wrong = np.zeros(n, dtype=bool)
    bad = int(sizes[len(sizes) // 2])
    wrong[rng.choice(bad, error_budget(guarantee, n) + 1, replace=False)] = True
    return Table(p_agree, wrong)


def cliff(rng: np.random.Generator, n: int, guarantee: Guarantee) -> Table:
    """A good prefix that ends in a block of nothing but wrong rows: one too many."""
    p_agree, sizes = _path(n, guarantee)
    wrong = np.zeros(n, dtype=bool)
    end, excess = int(sizes[len(sizes) // 2]), error_budget(guarantee, n) + 1
    block = min(int(np.diff(sizes, prepend=0)[len(sizes) // 2]), excess)
    wrong[end - block : end] = True
    wrong[rng.choice(end - block, excess - block, replace=False)] = True
    return Table(p_agree, wrong)


def staircase(rng: np.random.Generator, n: int, guarantee: Guarantee) -> Table:
    """Bad from the first rung on, and every rung a little worse: labels make each good in turn."""
    p_agree, sizes = _path(n, guarantee)
    wrong = np.zeros(n, dtype=bool)
    wrong[rng.choice(int(sizes[0]), error_budget(guarantee, n) + 1, replace=False)] = True
    for low, high in zip(sizes[:-1], sizes[1:], strict=True):
        wrong[low : low + (high - low + 3) // 4] = True
    return Table(p_agree, wrong)


WORLDS: dict[str, World] = {
    world.__name__: world
    for world in (
        calibrated,
        noisy,
        flat,
        near_tied,
        adversarial,
        duplicated,
        boundary,
        cliff,
        staircase,
    )
}


def _path(n: int, guarantee: Guarantee) -> tuple[Floats, NDArray[np.int64]]:
    """Distinct scores in the order of the rows, and the rungs that an audit makes of them."""
    p_agree = np.linspace(0.995, 0.93, n)
    return p_agree, TableAudit(p_agree, guarantee, rng=np.random.default_rng(0)).ledger.sizes
