"""Find the teacher's top k of a table without grading all of it. Says which row to grade next.

``RankingAudit`` is the sans-I/O core: ``draw`` rows, ``record`` their grades in the same order,
until the certified prefix is graded. ``audit_ranking`` is its thin driver. Why the claim holds:
see ``top_k``; why several draws may wait for their grades at once: see ``table``.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

from cascade.certify.buying import buy_in_order
from cascade.certify.certificate import Certificate, seal, table
from cascade.certify.claim import Guarantee, Rung
from cascade.certify.frozen_table import freeze_digest
from cascade.certify.gain import estimated_ndcg
from cascade.certify.standings import Graded
from cascade.certify.top_k import Lottery, TopKEvidence, TopKLedger, TopKPlan
from cascade.errors import UnreadableAnswer, UsageError

Floats = NDArray[np.float64]

RUNGS = 24
LEAST_SHARE = 0.10  # of the rows, left out by the first prefix
BEYOND = 1.3  # predicted misses of the shortest prefix, over those allowed
HOPELESS = 0.97  # predicted misses, as a share of the null's: no bet wins any more
OVERSHOOT = 0.2  # a wealth jumps past the bar; mean excess, in nats


class RankingAudit:
    """Grade a prefix of the proxy's order, and draw rows behind it until it is proven long enough.

    Every grade costs the same, in the prefix or behind it: a longer prefix costs grades, a shorter
    one costs draws. The audit always works for the prefix that is expected to cost least now.

    Parameters
    ----------
    p_top : (n,) predicted P(the row is in the teacher's top k). Orders and bets; however wrong, it
        cannot break the guarantee.
    k : rows to find. ``guarantee.target`` is the share of them that must be found: where
        (1 - target) k < 1 none may be missed, which only grading nearly every row can prove.
    known : row -> grade, bought before ``p_top`` was fitted. They are not bought again.
    """

    def __init__(
        self,
        p_top: Floats,
        k: int,
        guarantee: Guarantee,
        *,
        rng: np.random.Generator,
        known: Mapping[int, float | None] | None = None,
        proxy: str = "proxy",
    ) -> None:
        if not 1 <= k <= len(p_top):
            raise UsageError(f"the top {k} of {len(p_top)} rows: k lies between 1 and the rows")
        # ties in random order: a sorted table must not decide which rows are graded
        self.order = np.lexsort((rng.random(len(p_top)), -p_top))
        ranked = p_top[self.order]
        sizes = prefix_sizes(ranked, k, guarantee)
        chances = [
            float(ranked[low:high].mean())
            for low, high in zip(sizes, [len(ranked), *sizes], strict=False)
        ]
        self.plan = TopKPlan(
            guarantee=guarantee,
            k=k,
            rows=len(ranked),
            rungs=[Rung({proxy: float(ranked[at - 1])}, 1 - at / len(ranked)) for at in sizes],
            sizes=sizes,
            chances=chances,
            freeze=freeze_digest(self.order, len(ranked), sizes),
            seed=int(rng.integers(2**63)),
        )
        self.ledger = TopKLedger(self.plan)
        self.grades: list[Graded] = []
        self.waiting: deque[Graded] = deque()  # drawn, not yet recorded
        self._lottery = Lottery(self.plan.seed)
        self._front = 0  # the first rank that may be ungraded and not waiting
        self._take_known(known or {})

    def draw(self) -> Graded | None:
        """The next row to grade, its grade still open.

        None while no further grade is worth its price: either the audit is over, or those that are
        waiting may suffice. May be called again before they are recorded.
        """
        choice = self._cheapest()
        if choice is None:
            return None
        rung, draws = choice
        standings, waiting = self.ledger.standings, {one.rank for one in self.waiting}
        behind = sum(rank >= self.plan.sizes[rung] for rank in waiting)
        if standings.unranked[rung] > len(waiting) - behind:
            return self._hand_out(self._next_in_front(waiting), None)
        if min(draws, float(standings.hidden[rung])) > behind:
            return self._hand_out(self._lottery.draw(self.ledger, rung, waiting), rung)
        return None

    def record(self, draw: Graded, grade: float | None) -> None:
        """Take in the grade of a drawn row, None where it is unreadable.

        Raises
        ------
        UsageError : another draw is to be recorded first, or the grade is not finite.
        """
        if not self.waiting or self.waiting[0] != draw:
            raise UsageError("grades are recorded in the order of drawing: wait for the earlier")
        self._settle(draw, grade)
        self.waiting.popleft()

    @property
    def done(self) -> bool:
        """A prefix is certified, and the teacher has graded all of it."""
        return self.ledger.done

    def top(self) -> NDArray[np.int64]:
        """(k,) or fewer: the best of the rows graded so far, the best first."""
        best = self.ledger.standings.top()
        return np.array([one.row for one in best if math.isfinite(one.grade)], dtype=np.int64)

    def ndcg(self) -> float:
        """Estimated nDCG@k of ``top``; no claim. Needs nonnegative grades."""
        seen = [one.grade for one in self.grades if one.grade is not None]
        return estimated_ndcg(np.array(seen), self.ledger.standings.stand_ins(), self.plan.k)

    def evidence(self) -> TopKEvidence:
        """The audit as it stands, as plain data."""
        return TopKEvidence(self.plan, list(self.grades), self.ledger.highest.tolist())

    def _take_known(self, known: Mapping[int, float | None]) -> None:
        ranks = np.empty_like(self.order)
        ranks[self.order] = np.arange(len(ranks))
        for row, grade in known.items():
            self._settle(Graded(row, int(ranks[row]), None, None), grade)

    def _settle(self, draw: Graded, grade: float | None) -> None:
        if grade is not None and not math.isfinite(grade):
            raise UsageError(f"a grade is a finite number, not {grade}: pass None for no grade")
        settled = msgspec.structs.replace(draw, grade=grade)
        self.ledger.record(settled)
        self.grades.append(settled)

    def _next_in_front(self, waiting: Collection[int]) -> int:
        """The best rank that nobody has graded or is grading."""
        while self._front in self.ledger.standings.ranks or self._front in waiting:
            self._front += 1
        return self._front

    def _hand_out(self, rank: int, rung: int | None) -> Graded:
        self.waiting.append(Graded(int(self.order[rank]), rank, rung, None))
        return self.waiting[-1]

    def _cheapest(self) -> tuple[int, float] | None:
        """The prefix that is expected to cost fewest grades, and the draws that it needs.

        None where grading the whole table costs no more.
        """
        if not self.plan.sizes:
            return None
        ledger = self.ledger
        need = draws_needed(ledger)
        need[: ledger.passed] = 0.0
        cost = ledger.standings.unranked + need
        best = int(np.argmin(cost))
        if cost[best] >= self.plan.rows - len(ledger.standings.places):
            return None
        return best, float(need[best])


def draws_needed(ledger: TopKLedger) -> Floats:
    """(G,) draws until each prefix is certified, as predicted; infinite where it cannot be.

    At least 1, even where the wealth suffices: then a longer prefix is still to be certified.
    """
    null, mean = _expected_null(ledger), ledger.expected
    rows = np.maximum(ledger.standings.hidden, 1)
    missing = np.maximum(ledger.plan.guarantee.log_bar - ledger.now + OVERSHOOT, 0.0)
    speed = np.maximum(_growth(mean / rows, null / rows), 1e-9)
    return np.where(mean < HOPELESS * null, np.maximum(missing / speed, 1.0), np.inf)


def _growth(chance: Floats, null: Floats) -> Floats:
    """Expected log wealth a draw at Kelly's bet: KL(chance || null) of two coins."""
    chance, null = np.clip(chance, 1e-9, 1 - 1e-9), np.clip(null, 1e-9, 1 - 1e-9)
    hit, miss = chance * np.log(chance / null), (1 - chance) * np.log((1 - chance) / (1 - null))
    return np.asarray(hit + miss)


def _expected_null(ledger: TopKLedger) -> NDArray[np.int64]:
    """(G,) what r will be once the prefix is graded: until then too many rows outside count."""
    standings, null = ledger.standings, ledger.null_left
    chances = np.cumsum(standings.graded * ledger.chances) * ledger.scale
    later = ledger.plan.may_miss + 1 - chances.astype(np.int64)
    return np.where(standings.unranked > 0, np.maximum(null, later), null)


def prefix_sizes(ranked: Floats, k: int, guarantee: Guarantee) -> list[int]:
    """Rows of each prefix, the longest first.

    From one that leaves out a tenth of the rows to one that is predicted to miss a little more of
    the top k than allowed. Empty where no prefix is shorter than the table.
    """
    missed = ranked.sum() - np.cumsum(ranked)  # by the prefix that ends here
    allowed = BEYOND * (guarantee.risk * k + 1)
    shortest = max(k, int(np.argmax(missed <= allowed)) + 1)
    longest = len(ranked) - max(int(LEAST_SHARE * len(ranked)), 1)
    if longest < shortest:
        return []
    sizes = np.unique(np.linspace(shortest, longest, RUNGS).astype(np.int64))
    return [int(size) for size in sizes[::-1]]


@dataclass(frozen=True)
class RankingResult:
    """What an audit leaves.

    certificate : that ``top`` holds at least its ``bound`` of the teacher's top k; None where no
        prefix was certified and graded within the budget.
    top : (k,) or fewer: the best graded rows, the best first. In the teacher's own order.
    grades : row -> grade, for every grade bought or known.
    ndcg : estimate, no claim.
    unreadable : rows whose grade could not be read; they are in no top k.
    """

    certificate: Certificate | None
    top: NDArray[np.int64]
    grades: dict[int, float]
    ndcg: float
    unreadable: tuple[int, ...]


def audit_ranking(
    audit: RankingAudit,
    oracle: Callable[[int], float],
    label_budget: int,
    table_digest: str,
    *,
    workers: int = 1,
) -> RankingResult:
    """Draw, buy and record until the certified prefix is graded or the budget is spent.

    Parameters
    ----------
    oracle : row -> the teacher's grade; may raise ``UnreadableAnswer``. Called from threads if
        ``workers > 1``.
    label_budget : most grades to buy, the prefix's included. Stopping early is always valid.
    table_digest : sha256 of the table, to which the certificate is tied.
    workers : grades bought at the same time.
    """
    known = len(audit.grades)

    def next_draw() -> Graded | None:
        bought = len(audit.grades) - known + len(audit.waiting)
        return audit.draw() if bought < label_budget else None

    def buy(draw: Graded) -> float | None:
        try:
            return oracle(draw.row)
        except UnreadableAnswer:
            return None

    buy_in_order(next_draw, buy, audit.record, workers)
    return RankingResult(
        certificate=seal(audit.evidence(), table(table_digest)) if audit.done else None,
        top=audit.top(),
        grades={one.row: one.grade for one in audit.grades if one.grade is not None},
        ndcg=audit.ndcg(),
        unreadable=tuple(one.row for one in audit.grades if one.grade is None),
    )
