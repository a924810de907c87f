"""Freeze a scored table, then audit what a filter accepts and rejects unseen. Buys nothing itself.

``FilterAudit`` is the sans-I/O core: ``draw`` a row, ``record`` whether it is positive. Every draw
is recorded for every aim. ``FilterEvidence`` is one aim's part, from which the claim is won again.
See ``aims`` for the nulls and ``weighted`` for the wealth.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Protocol

import msgspec
import numpy as np

from cascade.certify.aims import Aim, Bools, Found, Frozen, Precision, Recall
from cascade.certify.bounds import leading
from cascade.certify.claim import Claim, Rung, Seed
from cascade.certify.filter_cells import cell_edges
from cascade.certify.frozen_table import FrozenTable, freeze_digest
from cascade.certify.weighted import Floats, Ints, Plan, WeightedLedger, WeightedLottery
from cascade.errors import CertificateError, UsageError


class KnownRow(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A row labelled before the freeze.

    positive : None where the teacher's answer could not be read.
    propensity : chance of its draw when it was drawn (pilot); 1 where it was chosen.
    """

    row: int
    positive: bool | None
    propensity: float


class WeightedDraw(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One bought label of the audit.

    row : index in the table. rank : its place in the frozen order.
    plan : which plan weighed the draw. propensity : chance of this row, given the earlier draws.
    positive : None while the label is open, or where the teacher's answer could not be read.
    """

    row: int
    rank: int
    plan: int
    propensity: float
    positive: bool | None


class Book:
    """The wealth and the finds of one aim. Records draws; does not choose them."""

    def __init__(self, aim: Aim, frozen: Frozen, rungs: Sequence[Rung]) -> None:
        self.aim = aim
        self.frozen = frozen
        self.rungs = rungs
        self.ledger = WeightedLedger(aim.values(frozen), aim.owed(frozen), frozen.sizes)
        counts = np.zeros((3, len(frozen.sizes)), dtype=np.int64)
        self.found = Found(*counts)
        self._p_left = np.zeros(len(frozen.sizes))

    @property
    def highest(self) -> Floats:
        """(G,) the largest log wealth that each rung reached."""
        return self.ledger.highest

    @property
    def passed(self) -> int:
        """How many rungs are certified, from the first onward."""
        crossed = (self.highest >= self.aim.guarantee.log_bar) | self.ledger.refuted
        crossed &= self.aim.tenable(self.frozen, self.found)
        return leading(crossed)

    @property
    def zone(self) -> Bools:
        """(C,) cells that the best certified rung answers unseen."""
        if not self.passed:
            return np.zeros(len(self.frozen.sizes), dtype=np.bool_)
        return np.asarray(self.aim.zone(self.frozen)[self.passed - 1])

    def record(self, cell: int, positive: bool | None, plan: Plan) -> None:
        """Take in a label that was drawn from ``cell`` by ``plan``."""
        self._p_left = np.asarray(plan.p_positive)
        chances = plan.chances(self.ledger.unlabelled)
        p_event = self.aim.p_event(self._p_left)
        self.ledger.record(cell, self.aim.event(positive), chances, p_event)
        counts = self.found.unreadable if positive is None else self.found.negative
        counts = self.found.positive if positive else counts
        counts[cell] += 1

    def claim(self) -> Claim:
        """What the draws so far prove. Raises ``CertificateError`` where they prove nothing."""
        best = self.passed - 1
        if best < 0:
            raise CertificateError(
                f"no rung reached its target of {self.aim.guarantee.target:.3f}: buy more labels, "
                "improve the scores or lower the target"
            )
        return self.aim.claim(self.frozen, self.found, best, self.rungs[best], self._p_left)


class FilterEvidence(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="filter"):
    """Everything needed to win one aim's claim again, offline.

    sizes : (C,) rows of each cell. stops, rungs : (G,) see ``Frozen``.
    freeze : ``freeze_digest`` of the order and of where the cells end.
    seed : of the draws; a replay draws the same ranks.
    log_wealths : (G,) the largest log wealth each rung reached; a replay must find the same.
    """

    aim: Aim
    sizes: list[int]
    stops: list[int]
    rungs: list[Rung]
    known: list[KnownRow]
    freeze: str
    seed: Seed
    plans: list[Plan]
    draws: list[WeightedDraw]
    log_wealths: list[float]

    def replay(self) -> Book:
        """Run the audit again, draw by draw.

        Raises
        ------
        CertificateError : the rungs make no path, a row counts twice, or a draw is not the one
            that seed and plan give.
        """
        self._check()
        frozen = freeze(self.sizes, self.stops, self.known)
        book = Book(self.aim, frozen, self.rungs)
        lottery = WeightedLottery(frozen.sizes, self.seed)
        for draw in self.draws:
            self._replay_draw(draw, book, lottery)
        return book

    @property
    def frozen_table(self) -> FrozenTable:
        """What can be compared with the table; the rows known beforehand have no rank."""
        cuts, places = cell_ends(self.sizes), [(draw.row, draw.rank) for draw in self.draws]
        outside = [row.row for row in self.known]
        return FrozenTable(self.freeze, sum(self.sizes) + len(outside), cuts, places, outside)

    def _replay_draw(self, draw: WeightedDraw, book: Book, lottery: WeightedLottery) -> None:
        problem = CertificateError(f"row {draw.row} is not the one that seed and plan draw")
        if not 0 <= draw.plan < len(self.plans):
            raise problem
        plan = self.plans[draw.plan]
        try:
            chances = plan.chances(book.ledger.unlabelled)
        except UsageError as error:
            raise CertificateError(f"an impossible plan: {error}") from error
        rank = lottery.draw(chances)
        cell = lottery.cell(rank)
        propensity = float(chances[cell] / book.ledger.unlabelled[cell])
        if rank != draw.rank or not np.isclose(propensity, draw.propensity, rtol=1e-9, atol=0):
            raise problem
        if len(plan.p_positive) != len(self.sizes):
            raise CertificateError("a plan forecasts other cells than it draws from")
        book.record(cell, draw.positive, plan)

    def _check(self) -> None:
        steps = np.diff(self.stops)
        rising = np.all(steps > 0) if isinstance(self.aim, Precision) else np.all(steps < 0)
        inside = all(0 <= stop <= len(self.sizes) for stop in self.stops)
        if not (rising and inside and len(self.stops) == len(self.rungs) > 0):
            raise CertificateError("the rungs of the evidence are no path")
        if min(self.sizes, default=0) <= 0:
            raise CertificateError("the cells of the evidence hold no rows")
        rows = [row.row for row in self.known] + [draw.row for draw in self.draws]
        if len(set(rows)) < len(rows):
            raise CertificateError("the evidence counts a row twice")


class Planner(Protocol):
    """Chooses the next draw. No choice can break a claim, only waste labels."""

    def plan(self, audit: FilterAudit, labels_left: int) -> Plan | None:
        """How to weigh the next draw; None to stop.

        May read what ``audit`` knows, but not its seed: who knew the next draw could steer it.
        """
        ...


class FilterAudit:
    """Audit one frozen table for one or two aims.

    Parameters
    ----------
    p_positive : (n,) calibrated P(positive). Orders and bets; however wrong, it cannot break a
        guarantee.
    aims : the promises; each has a delta of its own.
    known : rows labelled before the freeze: never drawn, answered by their label.
    """

    def __init__(
        self,
        p_positive: Floats,
        aims: Sequence[Aim],
        *,
        rng: np.random.Generator,
        known: Sequence[KnownRow] = (),
    ) -> None:
        taken = np.array([row.row for row in known], dtype=np.int64)
        free = np.setdiff1d(np.arange(len(p_positive)), taken)
        # ties in random order: a sorted table must not decide who is audited
        self.order = free[np.lexsort((rng.random(len(free)), -p_positive[free]))]
        if not len(self.order):
            raise UsageError("every row is labelled already: there is nothing left to audit")
        self.known = list(known)
        self._p_known = p_positive[taken]
        self.seed = int(rng.integers(2**63))
        p = p_positive[self.order]
        edges = cell_edges(p, aims, sum(row.positive is True for row in known))
        self.sizes: Ints = np.diff(edges)
        self.freeze = freeze_digest(self.order, len(p_positive), cell_ends(self.sizes))
        self.p_positive: Floats = np.add.reduceat(p, edges[:-1]) / self.sizes
        self.books = [self._book(aim, p[edges[:-1]]) for aim in aims]
        self.plans: list[Plan] = []
        self.draws: list[WeightedDraw] = []
        self.waiting: deque[WeightedDraw] = deque()
        self.open_rows: Ints = self.sizes.copy()
        """(C,) rows of each cell that no draw has taken."""
        self._lottery = WeightedLottery(self.sizes, self.seed)

    def _book(self, aim: Aim, highest_p: Floats) -> Book:
        cells = len(self.sizes)
        stops = np.arange(1, cells + 1) if isinstance(aim, Precision) else np.arange(cells)[::-1]
        frozen = freeze(self.sizes.tolist(), stops.tolist(), self.known)
        shares = aim.zone(frozen) @ self.sizes / frozen.rows
        levels = np.append(highest_p, 0.0)[stops]
        name = "accept" if isinstance(aim, Precision) else "reject"
        rungs = [
            Rung({name: float(at)}, float(share)) for at, share in zip(levels, shares, strict=True)
        ]
        return Book(aim, frozen, rungs)

    @property
    def accepted(self) -> Bools:
        """(C,) cells answered yes unseen: the certified ones, or what a recall does not reject."""
        precision, recall = self.book(Precision), self.book(Recall)
        if precision is not None:
            return precision.zone
        assert recall is not None  # there is an aim
        return ~recall.zone

    @property
    def rejected(self) -> Bools:
        """(C,) cells answered no unseen: the certified ones, or what no precision accepts."""
        recall = self.book(Recall)
        return ~self.accepted if recall is None else recall.zone & ~self.accepted

    def book(self, kind: type[Aim]) -> Book | None:
        """The one of this kind of aim."""
        return next((book for book in self.books if isinstance(book.aim, kind)), None)

    def can_draw(self, plan: Plan) -> bool:
        """Whether a cell that has a weight has a row that no draw has taken."""
        return bool(np.any((np.asarray(plan.weights) > 0) & (self.open_rows > 0)))

    def draw(self, plan: Plan) -> WeightedDraw:
        """The next row to label, its answer still open. Raises ``UsageError`` on a bad plan.

        May be called again before earlier draws are recorded.
        """
        chances = plan.chances(self.open_rows)
        if not self.plans or plan is not self.plans[-1]:
            self.plans.append(plan)
        rank = self._lottery.draw(chances)
        cell = self._lottery.cell(rank)
        propensity = float(chances[cell] / self.open_rows[cell])
        self.open_rows[cell] -= 1
        draw = WeightedDraw(int(self.order[rank]), rank, len(self.plans) - 1, propensity, None)
        self.waiting.append(draw)
        return draw

    def record(self, draw: WeightedDraw, positive: bool | None) -> None:
        """Take in the label of a drawn row; None where the answer could not be read.

        Raises
        ------
        UsageError : not in the order of drawing. Quick answers would come before slow ones, and a
            bet could know what it is made on.
        """
        if not self.waiting or self.waiting[0] != draw:
            raise UsageError(f"row {draw.row} is not next: record labels in the order of drawing")
        self.waiting.popleft()
        cell = self._lottery.cell(draw.rank)
        for book in self.books:
            book.record(cell, positive, self.plans[draw.plan])
        self.draws.append(msgspec.structs.replace(draw, positive=positive))

    def labelled(self) -> tuple[Floats, Bools]:
        """(m,) the forecast at the freeze and the label of every row that was read so far."""
        cells = [self._lottery.cell(draw.rank) for draw in self.draws]
        p = np.concatenate([self._p_known, self.p_positive[cells]])
        labels = [row.positive for row in self.known] + [draw.positive for draw in self.draws]
        read = np.array([label is not None for label in labels], dtype=np.bool_)
        return p[read], np.array([bool(label) for label in labels], dtype=np.bool_)[read]

    def cells(self, zone: Bools) -> Ints:
        """Rows of the cells marked in ``zone``, (C,), that have no label, likeliest first."""
        inside = np.repeat(zone, self.sizes)
        inside[[draw.rank for draw in self.draws]] = False
        return self.order[inside]

    def evidence(self, book: Book) -> FilterEvidence:
        """The audit of one aim as it stands, as plain data."""
        return FilterEvidence(
            aim=book.aim,
            sizes=self.sizes.tolist(),
            stops=book.frozen.stops.tolist(),
            rungs=list(book.rungs),
            known=list(self.known),
            freeze=self.freeze,
            seed=self.seed,
            plans=list(self.plans),
            draws=list(self.draws),
            log_wealths=book.highest.tolist(),
        )


def freeze(sizes: Sequence[int], stops: Sequence[int], known: Sequence[KnownRow]) -> Frozen:
    """The table at the freeze, as numbers."""
    return Frozen(
        sizes=np.asarray(sizes, dtype=np.int64),
        stops=np.asarray(stops, dtype=np.int64),
        known=len(known),
        positive=sum(row.positive is True for row in known),
    )


def cell_ends(sizes: Sequence[int] | Ints) -> list[int]:
    """(C,) the rank at which each cell ends.

    >>> cell_ends([3, 2])
    [3, 5]
    """
    return [int(end) for end in np.cumsum(sizes)]
