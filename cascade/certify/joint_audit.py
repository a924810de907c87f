"""Freeze a path of two or three tiers on a table, then audit it. Buys nothing itself: says which.

``JointAudit`` is the sans-I/O core: ``draw`` rows, ``record`` in the same order what was bought for
them, until nothing is worth its price, then ``answers``. ``audit_joint`` is its thin driver.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import msgspec
import numpy as np

from cascade.certify.audit import frozen_order
from cascade.certify.buying import buy_in_order
from cascade.certify.certificate import Certificate, seal, table
from cascade.certify.claim import Guarantee, Rung
from cascade.certify.frozen_table import freeze_digest
from cascade.certify.joint import JointDraw, JointEvidence, JointLedger, OpenLottery
from cascade.certify.table import error_budget
from cascade.certify.zones import Confidences, Floats, Integers, Tiers, lay_zones
from cascade.errors import UnreadableAnswer, UsageError

TEACHER = -1
"""Instead of a label index: the teacher is to be asked."""

HOPE = 1.0
"""Nats that a rung is thought to need fewer than are missing: its draws serve other rungs, too, and
teach whom to believe, and after bad news one may stop. On made tables .3 more, not 1 fewer, costs
6% more a record; no figure here can break a certificate."""
NEARLY = 0.05  # nats that are always missing
SLOWEST = 1e-6  # nats a draw; whoever learns less never wins
NAMES = Tiers()


class JointPrices(NamedTuple):
    """Of one answer, in any one unit. The proxy's are paid already."""

    small: float
    teacher: float = 1.0


class JointAudit:
    """Look-ahead audit of a frozen path on one table.

    Parameters
    ----------
    p_agree : (n,) calibrated P(the proxy agrees with the teacher); 0 where no tier below the
        teacher may answer. Orders and bets; however wrong, it cannot break the guarantee.
    path : policies whose thresholds never rise, most careful first; made without any label of the
        rows that may be drawn.
    promised : confidences of both tiers on rows like these. Only for predictions.
    known : rows labelled before the freeze: never drawn, answered by their label.

    Raises
    ------
    UsageError : a threshold rises along the path.
    """

    def __init__(
        self,
        p_agree: Floats,
        path: Sequence[Rung],
        guarantee: Guarantee,
        *,
        promised: Confidences,
        prices: JointPrices,
        rng: np.random.Generator,
        known: Collection[int] = (),
        tiers: Tiers = NAMES,
    ) -> None:
        order = frozen_order(p_agree, known, rng)
        self.order = order[p_agree[order] > 0]
        self.prices = prices
        self.seed = int(rng.integers(2**63))
        rows, budget = len(p_agree), error_budget(guarantee, len(p_agree))
        zones = lay_zones(p_agree[self.order], path, promised, tiers, least=budget)
        self.ledger = JointLedger(guarantee, rows, zones)
        self.draws: list[JointDraw] = []
        self.waiting: deque[JointDraw] = deque()  # drawn, not yet recorded
        self._lottery = OpenLottery(self.seed)

    def draw(self) -> JointDraw | None:
        """The next row to look at.

        None while nothing more is worth its price: either the audit is over, or a draw that waits
        has to be recorded first.
        """
        prospect = best_prospect(self.ledger, self.prices)
        if prospect is None or len(self.waiting) >= prospect.draws:
            return None
        # a row that waits would be missing from the open rows of a bolder rung than its own
        if any(draw.rung < prospect.rung for draw in self.waiting):
            return None
        return self.draw_from(prospect.rung)

    def draw_from(self, rung: int) -> JointDraw:
        """A uniform open row of a rung. Raises ``UsageError`` if no further one may be drawn."""
        waiting = frozenset(draw.rank for draw in self.waiting)
        if any(draw.rung < rung for draw in self.waiting):
            raise UsageError("a draw from a more careful rung waits: record it first")
        if self.ledger.open_rows[rung] <= len(waiting):
            raise UsageError(f"every open row of rung {rung} has been drawn: choose another rung")
        rank = self._lottery.draw(self.ledger, rung, waiting)
        row = int(self.order[rank])
        self.waiting.append(JointDraw(row=row, rank=rank, rung=rung, trust=self.ledger.trust(rank)))
        return self.waiting[-1]

    def wants_small(self, draw: JointDraw) -> bool:
        """Whether the small tier is to be asked about a drawn row, before anything else."""
        return self.ledger.wants_small(draw.rank, draw.rung)

    def wants_label(self, draw: JointDraw) -> bool:
        """Whether the teacher is to be asked about it; ``draw`` as it is after the small tier."""
        return self.ledger.wants_label(draw)

    def record(self, draw: JointDraw) -> None:
        """Take in a draw with all that was bought. In the order of drawing, never of arrival.

        Raises
        ------
        UsageError : another draw is to be recorded first.
        """
        if not self.waiting or self.waiting[0].rank != draw.rank:
            raise UsageError("draws are recorded in their order: wait for the earlier")
        self.waiting.popleft()
        self.ledger.record(draw)
        self.draws.append(draw)

    def to_ask(self) -> Integers:
        """Rows about which the certified rung asks the small tier, labelled ones left out."""
        if not self.ledger.passed:
            return np.empty(0, dtype=np.int64)
        best = self.ledger.passed - 1
        rows = self.order[self.ledger.proxied[best] : self.ledger.asked[best]]
        return np.asarray(rows[~np.isin(rows, self._labelled())])

    def answers(self, trusts: Floats) -> tuple[Integers, Integers]:
        """Who answers, once the small tier was asked ``to_ask``.

        The certified rung held at most B wrong rows. Those found are fixed, so the proxy answers as
        many further rows untested, whatever they are; without a certificate any B.

        Parameters
        ----------
        trusts : (m,) the small tier's confidence on each row of ``to_ask``.

        Returns
        -------
        Rows that the proxy answers, rows that the small tier answers. The others keep their label
        or escalate.
        """
        ledger, asked = self.ledger, self.to_ask()
        labelled = self._labelled()
        if not ledger.passed:
            free = self.order[~np.isin(self.order, labelled)]
            return free[: ledger.budget], asked
        best = ledger.passed - 1
        by_small = asked[trusts >= ledger.needs[best]]
        by_proxy = self.order[: ledger.proxied[best]]
        others = self.order[ledger.proxied[best] :]
        others = others[~np.isin(others, [*by_small, *labelled])]
        by_proxy = by_proxy[~np.isin(by_proxy, labelled)]
        return np.concatenate([by_proxy, others[: int(ledger.found[best])]]), by_small

    def evidence(self) -> JointEvidence:
        """The audit as it stands, as plain data."""
        zones = self.ledger.zones
        return JointEvidence(
            guarantee=self.ledger.guarantee,
            rows=self.ledger.rows,
            zones=zones,
            freeze=freeze_digest(self.order, self.ledger.rows, [*zones.proxied, *zones.asked]),
            seed=self.seed,
            draws=list(self.draws),
            log_wealths=self.ledger.highest.tolist(),
        )

    def _labelled(self) -> list[int]:
        return [draw.row for draw in self.draws if draw.proxy_wrong is not None]


class Prospect(NamedTuple):
    """What one rung promises. draws : expected until it is certified or given up."""

    rung: int
    net: float
    draws: int


def best_prospect(ledger: JointLedger, prices: JointPrices) -> Prospect | None:
    """The rung to draw from; None where no draw is worth its price. Any choice is valid.

    For every rung, and every number of draws after which one might give up: its worth in the
    opinion of all gamblers together, less what the draws cost and the small tier's answers that
    the rung would need.
    """
    first, opinion = ledger.passed, ledger.opinion
    if first == len(ledger.asked):
        return None
    worth, price = _worth(ledger, prices), _price(ledger, prices)
    base = worth[first - 1] if first else ledger.budget * prices.teacher
    need = _draws_needed(ledger).T[first:]  # (G, C)
    horizon = np.where(np.isfinite(need), need, 0.0)[:, :, None]
    wins = (need[:, None, :] <= horizon) @ opinion
    draws = np.minimum(need[:, None, :], horizon) @ opinion
    nets = (worth[first:] - base)[:, None] * wins - price[first:, None] * draws
    rung, stop = np.unravel_index(np.argmax(nets), nets.shape)
    if nets[rung, stop] <= 0:
        return None
    least = max(1, math.ceil(draws[rung, stop]))
    return Prospect(first + int(rung), float(nets[rung, stop]), least)


def _worth(ledger: JointLedger, prices: JointPrices) -> Floats:
    """(G,) what each rung saves over asking the teacher everything that is open."""
    proxied, asked = _open_by_kind(ledger)
    stands = np.asarray(ledger.zones.stands)
    return np.asarray(prices.teacher * (proxied + stands * asked) - prices.small * asked)


def _price(ledger: JointLedger, prices: JointPrices) -> Floats:
    """(G,) expected price of one draw."""
    proxied, asked = _open_by_kind(ledger)
    a_draw = prices.small + prices.teacher * np.asarray(ledger.zones.stands)
    return np.asarray((prices.teacher * proxied + a_draw * asked) / np.maximum(proxied + asked, 1))


def _open_by_kind(ledger: JointLedger) -> tuple[Floats, Floats]:
    """(G,) open rows that the proxy answers, and those about which the small tier is asked."""
    proxied = (ledger.open * ledger.zones.by_proxy).sum(axis=1)
    return np.asarray(proxied), np.asarray(ledger.open.sum(axis=1) - proxied)


def _draws_needed(ledger: JointLedger) -> Floats:
    """(C, G) draws until each rung is certified, if gambler c is right; inf if it never is."""
    missing = np.maximum(ledger.guarantee.log_bar - ledger.now - HOPE, NEARLY)
    growth = ledger.stakes.growth
    need = missing / np.maximum(growth, SLOWEST)
    return np.asarray(np.where((growth > SLOWEST) & (need <= ledger.open_rows), need, np.inf))


class Said(NamedTuple):
    """What a tier said. labels : (m,) any integers. trusts : (m,) P(the teacher agrees), -1 where
    the tier abstained."""

    labels: Integers
    trusts: Floats


@dataclass(frozen=True)
class JointResult:
    """What a joint audit leaves.

    certificate : None where no rung was certified.
    answers : (n,) the final label of each row; ``TEACHER`` where the teacher is still to be asked,
        and on rows that were labelled before the audit.
    labels : row -> the teacher's label, for every one bought.
    unreadable : rows whose teacher answer could not be read; they escalate.
    small_asked : answers of the small tier that were bought.
    """

    certificate: Certificate | None
    answers: Integers
    labels: dict[int, int]
    unreadable: tuple[int, ...]
    small_asked: int


def audit_joint(
    audit: JointAudit,
    proxy: Integers,
    small: Callable[[Integers], Said],
    teacher: Callable[[int], int],
    *,
    label_budget: int,
    table_digest: str,
    workers: int = 1,
) -> JointResult:
    """Draw, ask, record until nothing is worth its price; then ask what the certified rung asks.

    Parameters
    ----------
    proxy : (n,) the proxy's frozen labels.
    small : rows -> what the small tier says of them. Asked about each row at most once.
    teacher : row -> its label. Where it raises ``UnreadableAnswer`` every tier counts as wrong.
    label_budget : most labels to buy. Stopping early is always valid.
    table_digest : sha256 of the table, to which the certificate is tied.
    workers : purchases at the same time; the two callables are then called from threads.
    """
    counter = _Counter(audit, proxy, small, teacher, label_budget)
    buy_in_order(counter.next_draw, counter.buy, counter.record, workers)
    asked = audit.to_ask()
    said = counter.hear(asked)
    by_proxy, by_small = audit.answers(said.trusts)
    answers = np.full(len(proxy), TEACHER)
    answers[by_proxy] = proxy[by_proxy]
    place = dict(zip(asked.tolist(), said.labels.tolist(), strict=True))
    answers[by_small] = [place[row] for row in by_small.tolist()]
    for row, label in counter.labels.items():
        answers[row] = label
    return JointResult(
        certificate=seal(audit.evidence(), table(table_digest)) if audit.ledger.passed else None,
        answers=answers,
        labels=counter.labels,
        unreadable=tuple(counter.unreadable),
        small_asked=len(counter.heard),
    )


class _Counter:
    """Where draws are paid for: remembers what was bought, so that nothing is bought twice."""

    def __init__(
        self,
        audit: JointAudit,
        proxy: Integers,
        small: Callable[[Integers], Said],
        teacher: Callable[[int], int],
        label_budget: int,
    ) -> None:
        self.heard: dict[int, tuple[int, float]] = {}
        self.labels: dict[int, int] = {}
        self.unreadable: list[int] = []
        self._audit, self._proxy, self._small, self._teacher = audit, proxy, small, teacher
        self._left = label_budget

    def next_draw(self) -> tuple[JointDraw, bool] | None:
        """The audit's next draw, while the budget lasts for it and for those that wait; and whether
        it needs the small tier. That is settled here: in a thread it would hang on the moment."""
        draw = self._audit.draw() if self._left > len(self._audit.waiting) else None
        return None if draw is None else (draw, self._audit.wants_small(draw))

    def buy(self, ask: tuple[JointDraw, bool]) -> JointDraw:
        """Ask whom the draw needs."""
        draw, wants_small = ask
        if wants_small:
            (trust,) = self.hear(np.array([draw.row])).trusts.tolist()
            draw = msgspec.structs.replace(draw, trust=trust)
        if not self._audit.wants_label(draw):
            return draw
        said = None if draw.trust is None else self.heard[draw.row][0]
        try:
            label = self.labels[draw.row] = self._teacher(draw.row)
        except UnreadableAnswer:
            self.unreadable.append(draw.row)
            label = None
        return msgspec.structs.replace(
            draw,
            proxy_wrong=bool(label is None or label != self._proxy[draw.row]),
            small_wrong=None if said is None else bool(label is None or label != said),
        )

    def record(self, ask: tuple[JointDraw, bool], bought: JointDraw) -> None:
        """Hand the audit what was bought for a draw."""
        self._left -= bought.proxy_wrong is not None
        self._audit.record(bought)

    def hear(self, rows: Integers) -> Said:
        """What the small tier says; asked only about rows that it was not asked about before."""
        fresh = np.array([row for row in rows.tolist() if row not in self.heard], dtype=np.int64)
        if len(fresh):
            said = self._small(fresh)
            pairs = zip(said.labels.tolist(), said.trusts.tolist(), strict=True)
            self.heard.update(zip(fresh.tolist(), pairs, strict=True))
        both = [self.heard[row] for row in rows.tolist()]
        return Said(
            np.array([label for label, _ in both], dtype=np.int64),
            np.array([trust for _, trust in both], dtype=np.float64),
        )
