"""Certify how far down a ranked table the policy may answer: the look-ahead audit (ALGORITHMS A).

Knows ranks, wrong answers and teacher calls; nothing of texts, labels or models.

The claim: with probability at least 1 - delta, at most a share 1 - target of *this* table's final
answers differ from the teacher's. Nothing is assumed of the data: the only randomness is ours.

Why it is valid. The null of rung g, fixed at the freeze, is "its prefix holds more than B wrong
rows", B = floor((1 - target) n). Under it, before each draw the unlabelled rows of the prefix hold
at least r = B + 1 - (wrong rows found there) wrong ones, so a uniform draw, scaled by their number
N, is Z with E[Z] >= r, and the wealth W *= 1 + bet (r - Z) is a nonnegative supermartingale
(sampling without replacement: Waudby-Smith & Ramdas 2020, arXiv 2006.04347) that reaches 1/delta
with probability at most delta (Ville 1939). Rungs are certified in order, so the first true null
must be crossed first: the whole delta for each (fixed-sequence testing, arXiv 2110.01052).
A draw counts only at rungs inside the prefix it was drawn from, where it is uniform.
"""

from __future__ import annotations

import math
from itertools import pairwise

import msgspec
import numpy as np
from numpy.typing import NDArray

from cascade.certify.claim import Claim, Conditional, Guarantee, Rung
from cascade.errors import CertificateError

Floats = NDArray[np.float64]

SAFEST = 0.95  # share of the largest bet that keeps the wealth positive
HOPELESS = 0.97  # predicted wrong rows, as a share of the null's: no bet wins any more
DOUBTS = (0.5, 1.0, 1.5)  # the predicted risk may be off: one gambler for each factor


class TableDraw(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One bought label.

    row : index in the table. rank : its place in the frozen order, 0 the surest.
    rung : the rung from whose prefix it was drawn. p_wrong : predicted P(the policy is wrong).
    scale : by how much predictions were too low, as known before the draw.
    """

    row: int
    rank: int
    rung: int
    wrong: bool
    p_wrong: float
    scale: float


class TableEvidence(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="table"):
    """Everything needed to win the certificate again, offline.

    rows : of the whole table, those labelled before the freeze included.
    rungs, sizes : (G,) policies, and how many unlabelled rows each answered at the freeze.
    predicted : (G,) expected wrong rows in each prefix at the freeze. Only steers the bets.
    seed : of the draws; a replay draws the same ranks.
    log_wealths : (G,) the largest log wealth each rung reached; a replay must find the same.
    """

    guarantee: Guarantee
    rows: int
    rungs: list[Rung]
    sizes: list[int]
    predicted: list[float]
    seed: int
    draws: list[TableDraw]
    log_wealths: list[float]

    def replay(self) -> Ledger:
        """Run the audit again, draw by draw.

        Raises
        ------
        CertificateError : the rungs make no path, or a draw is not the one that the seed gives.
        """
        self._check_path()
        ledger = Ledger(self.guarantee, self.rows, self.rungs, self.sizes, self.predicted)
        lottery = Lottery(self.seed)
        for draw in self.draws:
            possible = 0 <= draw.rung < len(self.sizes) and ledger.unlabelled[draw.rung] > 0
            if not possible or lottery.draw(self.sizes[draw.rung]) != draw.rank:
                raise CertificateError(f"row {draw.row} is not the one that the seed draws")
            ledger.record(draw)
        return ledger

    def _check_path(self) -> None:
        lengths = {len(self.rungs), len(self.sizes), len(self.predicted)}
        edges = [0, *self.sizes, self.rows + 1]
        if len(lengths) != 1 or any(high <= low for low, high in pairwise(edges)):
            raise CertificateError("the rungs of the evidence are no path of growing prefixes")
        if len({draw.row for draw in self.draws}) < len(self.draws):
            raise CertificateError("the evidence counts a row twice")


def error_budget(guarantee: Guarantee, rows: int) -> int:
    """B: the most wrong rows that may be left in a table.

    >>> error_budget(Guarantee(0.9, 0.1), 1000)
    100
    """
    # rounded: (1 - 0.9) * 1000 is 99.99999999999997 in floating point
    return math.floor(round(guarantee.risk * rows, 6))


class Lottery:
    """Uniform draws without replacement from ever changing prefixes; the same for the same seed.

    >>> lottery = Lottery(0)
    >>> sorted(lottery.draw(3) for _ in range(3))
    [0, 1, 2]
    """

    def __init__(self, seed: int) -> None:
        self._rng = np.random.Generator(np.random.PCG64(seed))
        self._drawn: set[int] = set()

    def draw(self, size: int) -> int:
        """A rank below ``size`` that was never drawn. The caller knows that one is left."""
        rank = int(self._rng.random() * size)
        while rank in self._drawn:  # rejection keeps it uniform on the rest
            rank = int(self._rng.random() * size)
        self._drawn.add(rank)
        return rank


class Ledger:
    """Every rung's wealth. Records draws; does not choose them."""

    def __init__(
        self,
        guarantee: Guarantee,
        rows: int,
        rungs: list[Rung],
        sizes: list[int],
        predicted: list[float],
    ) -> None:
        self.guarantee = guarantee
        self.rows = rows
        self.rungs = rungs
        self.sizes = np.asarray(sizes, dtype=np.int64)
        self.left_wrong = np.asarray(predicted, dtype=np.float64)  # expected, among unlabelled
        self.budget = error_budget(guarantee, rows)
        self.found = np.zeros(len(sizes), dtype=np.int64)  # wrong rows found in each prefix
        self.drawn = np.zeros(len(sizes), dtype=np.int64)
        self.log_wealth = np.zeros((len(sizes), len(DOUBTS)))
        self.highest = np.zeros(len(sizes))
        self.labels = 0

    @property
    def unlabelled(self) -> NDArray[np.int64]:
        """(G,) rows of each prefix without a label."""
        return self.sizes - self.drawn

    @property
    def null_wrong(self) -> NDArray[np.int64]:
        """(G,) wrong rows that the null says are still unlabelled in each prefix, at least."""
        return self.budget + 1 - self.found

    @property
    def now(self) -> Floats:
        """(G,) log wealth of each rung: the mean over its gamblers, which is an e-value too."""
        return _log_mean_exp(self.log_wealth)

    @property
    def passed(self) -> int:
        """How many rungs are certified, from the first upward."""
        crossed = (self.highest >= self.guarantee.log_bar) & (self.null_wrong > 0)
        return int(np.argmin(crossed)) if not crossed.all() else len(self.sizes)

    def bets(self, scale: float) -> Floats:
        """(G, gamblers) Kelly's bet if the unlabelled rows hold ``scale`` times the expected wrong.

        A wrong answer then multiplies the wealth by expected/null, a right one by
        (1 - expected/N) / (1 - null/N): the likelihood ratio (Kelly 1956).
        """
        null = self.null_wrong[:, None].astype(np.float64)
        others = np.maximum(self.unlabelled[:, None] - null, 1.0)
        expected = self.left_wrong[:, None] * scale * np.asarray(DOUBTS)
        kelly = (null - expected) / (np.maximum(null, 1.0) * others)
        return np.asarray(np.clip(kelly, 0.0, SAFEST / others))

    def record(self, draw: TableDraw) -> None:
        """Settle a draw at every rung that holds it and is no larger than the one drawn from."""
        holds = draw.rank < self.sizes
        plays = holds & (np.arange(len(self.sizes)) <= draw.rung) & (self.null_wrong > 0)
        gain = self.null_wrong - self.unlabelled * draw.wrong
        self.log_wealth[plays] += np.log1p(self.bets(draw.scale) * gain[:, None])[plays]
        self.highest = np.maximum(self.highest, self.now)
        # errors count wherever they lie, played or not: else the null's number stays too high
        self.found += holds * draw.wrong
        self.drawn += holds
        self.left_wrong = self.left_wrong - holds * draw.p_wrong
        self.labels += 1

    def claim(self) -> Claim:
        """What the draws so far prove. Raises ``CertificateError`` where they prove nothing.

        Errors that were found are fixed, so both bounds count only what the budget leaves.
        """
        best = self.passed - 1
        if best < 0:
            raise CertificateError(
                f"no prefix of the table reached {self.guarantee.target:.3f} agreement: "
                "buy more labels, improve the scores or lower the target"
            )
        spare = self.budget - int(self.found[best])
        answered = int(self.unlabelled[best])
        return Claim(
            guarantee=self.guarantee,
            rung=self.rungs[best],
            n=self.rows,
            labels=self.labels,
            bound=1 - spare / self.rows,
            conditional=Conditional(
                estimate=1 - float(self.left_wrong[best]) / max(answered, 1),
                bound=max(1 - spare / max(answered, 1), 0.0),
                rows=answered,
            ),
            method="fixed-sequence betting without replacement (Waudby-Smith & Ramdas; Ville)",
        )


def _log_mean_exp(logs: Floats) -> Floats:
    top = logs.max(axis=-1, keepdims=True)
    return np.asarray(top[..., 0] + np.log(np.exp(logs - top).mean(axis=-1)))
