"""Certify how far down a ranked table the policy may answer: the look-ahead audit.

Knows ranks, wrong answers and teacher calls; nothing of texts, labels or models.

The claim: with probability at least 1 - delta, at most a share 1 - target of *this* table's final
answers differ from the teacher's. Nothing is assumed of the data: the only randomness is ours.

Why it is valid. The null of rung g, fixed at the freeze, is "its prefix holds more than B wrong
rows", B = floor((1 - target) n). Under it, before each draw the unlabelled rows of the prefix hold
at least r = B + 1 - (wrong rows found there) wrong ones. So a uniform draw multiplies the wealth of
every fair bet against r (``gamblers``) by at most 1 on average: it is a nonnegative supermartingale
(sampling without replacement: Waudby-Smith & Ramdas 2020, arXiv 2006.04347) that reaches 1/delta
with probability at most delta (Ville 1939). Rungs are certified in order, so the first true null
must be crossed first: the whole delta for each (fixed-sequence testing, arXiv 2110.01052).
A draw counts only at rungs inside the prefix it was drawn from, where it is uniform.

Several draws may wait for their labels at once, as long as they are recorded in the order of
drawing. The t-th row is uniform among the rows of its rung that none of the t - 1 earlier draws
took, given those rows and their labels, for its rung was chosen knowing some of these labels and
no others. Its bet is fixed by the t - 1 earlier labels. So the wealth, in the order of drawing, is
the same supermartingale. Recorded as they arrive, quick wrong answers would come before slow right
ones, and no bet would be fixed before its draw.
"""

from __future__ import annotations

import math
from itertools import pairwise

import msgspec
import numpy as np
from numpy.typing import NDArray

from cascade.certify import gamblers
from cascade.certify.bounds import leading
from cascade.certify.claim import Claim, Conditional, Guarantee, Rung, Seed
from cascade.certify.frozen_table import FrozenTable
from cascade.errors import CertificateError

Floats = NDArray[np.float64]

PRIOR = np.append((1 - gamblers.LEARNER) * gamblers.PRIOR, gamblers.LEARNER)  # (C,) gamblers
FRESH = 8  # bets are planned anew after an eighth more labels


class TableDraw(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One bought label.

    row : index in the table. rank : its place in the frozen order, 0 the surest.
    rung : the rung from whose prefix it was drawn. wrong : the policy differs from the teacher.
    """

    row: int
    rank: int
    rung: int
    wrong: bool = False


class TableEvidence(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="table"):
    """Everything needed to win the certificate again, offline.

    rows : of the whole table, those labelled before the freeze included.
    rungs, sizes : (G,) policies, and how many unlabelled rows each answered at the freeze.
    predicted : (G,) expected wrong rows in each prefix at the freeze. Only steers the bets.
    freeze : ``freeze_digest`` of the order, with ``sizes`` for cuts.
    seed : of the draws; a replay draws the same ranks.
    log_wealths : (G,) the largest log wealth each rung reached; a replay must find the same.
    """

    guarantee: Guarantee
    rows: int
    rungs: list[Rung]
    sizes: list[int]
    predicted: list[float]
    freeze: str
    seed: Seed
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

    @property
    def frozen_table(self) -> FrozenTable:
        """What can be compared with the table."""
        places = [(draw.row, draw.rank) for draw in self.draws]
        return FrozenTable(self.freeze, self.rows, self.sizes, places)

    def _check_path(self) -> None:
        lengths = {len(self.rungs), len(self.sizes), len(self.predicted)}
        edges = [0, *self.sizes, self.rows + 1]
        if len(lengths) != 1 or any(high <= low for low, high in pairwise(edges)):
            raise CertificateError("the rungs of the evidence are no path of growing prefixes")
        if not all(map(math.isfinite, self.predicted)):
            raise CertificateError("the evidence predicts no finite number of wrong rows")
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
    """Every rung's wealth. Records draws; does not choose them.

    Parameters
    ----------
    rows : of the whole table.
    sizes : (G,) growing; rung g is the first ``sizes[g]`` ranks.
    predicted : (G,) expected wrong rows among them, growing.
    """

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
        self.budget = error_budget(guarantee, rows)
        # segment s: the ranks that rung s has and rung s - 1 has not
        self.left = np.diff(self.sizes, prepend=0).astype(np.float64)  # (S,) unlabelled rows
        self.p_wrong = np.diff(predicted, prepend=0.0) / self.left  # (S,) at the freeze
        self.found = np.zeros(len(sizes), dtype=np.int64)  # wrong rows found in each prefix
        self.drawn = np.zeros(len(sizes), dtype=np.int64)
        self.log_wealth = np.zeros((len(sizes), len(PRIOR)))
        self.highest = np.zeros(len(sizes))
        self.labels = 0
        if sizes:
            self._plan_bets()

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
        top = self.log_wealth.max(axis=1)
        return np.asarray(top + np.log(np.exp(self.log_wealth - top[:, None]) @ PRIOR))

    @property
    def passed(self) -> int:
        """How many rungs are certified, from the first upward."""
        return leading((self.highest >= self.guarantee.log_bar) & (self.null_wrong > 0))

    @property
    def opinion(self) -> Floats:
        """(C,) how likely each gambler is to be the one whose predictions are right."""
        wrong, right = self._seen
        fits = np.log(self.believed) @ wrong + np.log1p(-self.believed) @ right
        likely = PRIOR * np.exp(fits - fits.max())
        return np.asarray(likely / likely.sum())

    @property
    def left_wrong(self) -> Floats:
        """(G,) wrong rows expected among the unlabelled ones, in the light of the draws."""
        return np.cumsum(self.opinion @ self.believed * self.left)

    def record(self, draw: TableDraw) -> None:
        """Settle a draw at every rung that holds it and is no larger than the one drawn from."""
        segment = int(np.searchsorted(self.sizes, draw.rank, side="right"))
        null = np.maximum(self.null_wrong, 1)  # a rung that has lost plays on, and stays lost
        plays = slice(segment, draw.rung + 1)
        factors = gamblers.settle(self.bets, self.left, null, (segment, draw.rung, draw.wrong))
        self.log_wealth[plays] += factors
        self.highest[plays] = np.maximum(self.highest[plays], self.now[plays])
        # errors count wherever they lie, played or not: else the null's number stays too high
        self.found[segment:] += draw.wrong
        self.drawn[segment:] += 1
        self.left[segment] -= 1
        self.labels += 1
        if self.labels >= self._fresh_until:
            self._plan_bets()

    @property
    def _seen(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """(S,) wrong and (S,) right rows among those drawn of each segment."""
        wrong = np.diff(self.found, prepend=0)
        return wrong, np.diff(self.drawn, prepend=0) - wrong

    def _plan_bets(self) -> None:
        learned = gamblers.drift(self.p_wrong, *self._seen)
        self.believed = gamblers.beliefs(self.p_wrong, np.append(gamblers.SHIFTS, learned))
        null = np.maximum(self.null_wrong, 1).astype(np.float64)
        self.bets = gamblers.plan_bets(self.believed, self.left, null)
        self._fresh_until = self.labels + max(1, self.labels // FRESH)

    def claim(self) -> Claim:
        """What the draws so far prove. Raises ``CertificateError`` where they prove nothing.

        Wrong rows that were found are fixed. As many other rows may be answered in their place,
        whatever they are (``TableAudit.answered``), so at most B wrong answers are left.
        """
        best = self.passed - 1
        if best < 0:
            raise CertificateError(
                f"no prefix of the table reached {self.guarantee.target:.3f} agreement: "
                "buy more labels, improve the scores or lower the target"
            )
        answered = int(self.unlabelled[best])
        widest = answered + int(self.found[best])
        return Claim(
            guarantee=self.guarantee,
            rung=self.rungs[best],
            n=self.rows,
            labels=self.labels,
            bound=1 - self.budget / self.rows,
            conditional=Conditional(
                estimate=1 - float(self.left_wrong[best]) / max(answered, 1),
                bound=max(1 - self.budget / max(widest, 1), 0.0),
                rows=answered,
            ),
            method="fixed-sequence betting without replacement (Waudby-Smith & Ramdas; Ville)",
        )
