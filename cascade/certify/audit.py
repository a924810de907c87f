"""Freeze a ranked table, then audit it label by label. Buys nothing itself: it says which row.

``TableAudit`` is the sans-I/O core: ``draw`` rows, ``record`` in the same order whether they were
wrong, until no label is worth its price. ``audit_table`` is its thin driver.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

from cascade.certify.bounds import Bets, Deadline
from cascade.certify.buying import buy_in_order
from cascade.certify.certificate import STREAM, Certificate, seal, table
from cascade.certify.claim import Guarantee, Rung
from cascade.certify.frozen_table import freeze_digest
from cascade.certify.planner import Prices, Prospect, best_prospect
from cascade.certify.stream import Bools, StreamAudit
from cascade.certify.table import (
    Floats,
    Ledger,
    Lottery,
    TableDraw,
    TableEvidence,
    error_budget,
)
from cascade.errors import UnreadableAnswer, UsageError

FREE_BELOW = Prices()
RUNGS = 40
LEAST_SHARE = 0.10  # of the rows: the first rung, unless the error budget asks for more
KEPT = 256  # a prospect is looked for anew after a 256th more labels; always, below as many
EDGE = (0.25, 1.25)  # predicted errors, of those allowed, between which the last rung may lie


class TableAudit:
    """Look-ahead audit of one frozen table.

    Parameters
    ----------
    p_agree : (n,) calibrated P(the policy's answer agrees with the teacher's). Orders and bets;
        however wrong, it cannot break the guarantee.
    known : rows labelled before the freeze: never drawn, answered by their label.
    tier : whose threshold the rungs are; the name stands in the certificate.
    """

    def __init__(
        self,
        p_agree: Floats,
        guarantee: Guarantee,
        *,
        rng: np.random.Generator,
        prices: Prices = FREE_BELOW,
        known: Collection[int] = (),
        tier: str = "proxy",
    ) -> None:
        self.order = frozen_order(p_agree, known, rng)
        self.p_wrong = 1 - p_agree[self.order]
        self.prices = prices
        self.seed = int(rng.integers(2**63))
        errors = np.cumsum(self.p_wrong, dtype=np.float64)
        sizes = rung_sizes(errors, len(p_agree), guarantee)
        self.predicted = errors[sizes - 1].tolist()
        rungs = [
            Rung({tier: _threshold(1 - self.p_wrong, size)}, float(size / len(p_agree)))
            for size in sizes
        ]
        self.ledger = Ledger(guarantee, len(p_agree), rungs, sizes.tolist(), self.predicted)
        self.draws: list[TableDraw] = []
        self.waiting: deque[TableDraw] = deque()  # drawn, not yet recorded
        self._lottery = Lottery(self.seed)
        self._prospect: Prospect | None = None
        self._kept_until = 0

    def draw(self) -> TableDraw | None:
        """The next row to label, its answer still open.

        None while no further label is worth its price: either the audit is over, or the labels of
        the rows that are waiting may suffice. May be called again before they are recorded.
        """
        prospect = self._look_ahead()
        if prospect is None or len(self.waiting) >= prospect.labels:
            return None
        return self.draw_from(prospect.rung)

    def _look_ahead(self) -> Prospect | None:
        """The best prospect; kept for a while where so many labels hardly change it by one."""
        drawn, kept = self.ledger.labels + len(self.waiting), self._prospect
        if kept is None or drawn >= self._kept_until or kept.rung < self.ledger.passed:
            kept = self._prospect = best_prospect(self.ledger, self.prices)
            steps = 0 if kept is None else min(self.ledger.labels // KEPT, kept.labels)
            self._kept_until = drawn + steps
        return kept

    def draw_from(self, rung: int) -> TableDraw:
        """A uniform row of a rung of the caller's choice. Raises ``UsageError`` if none is left."""
        waiting = sum(draw.rank < self.ledger.sizes[rung] for draw in self.waiting)
        if self.ledger.unlabelled[rung] <= waiting:
            raise UsageError(f"every row of rung {rung} has been drawn: choose a larger rung")
        rank = self._lottery.draw(int(self.ledger.sizes[rung]))
        self.waiting.append(TableDraw(row=int(self.order[rank]), rank=rank, rung=rung))
        return self.waiting[-1]

    def record(self, draw: TableDraw, wrong: bool) -> None:
        """Take in the label of a drawn row. In the order of drawing, never of arrival.

        Raises
        ------
        UsageError : another draw is to be recorded first.
        """
        if not self.waiting or self.waiting[0] != draw:
            raise UsageError("labels are recorded in the order of drawing: wait for the earlier")
        self.waiting.popleft()
        settled = msgspec.structs.replace(draw, wrong=wrong)
        self.ledger.record(settled)
        self.draws.append(settled)

    def answered(self) -> NDArray[np.int64]:
        """Rows that the policy may answer, labelled ones left out.

        The certified prefix, which held at most B wrong rows. Those found there are fixed, so as
        many further rows are answered untested, whatever they are; without a certificate any B.
        """
        ledger = self.ledger
        certified, spare = 0, ledger.budget
        if ledger.passed:
            certified = int(ledger.sizes[ledger.passed - 1])
            spare = int(ledger.found[ledger.passed - 1])
        taken = np.zeros(len(self.order), dtype=bool)
        taken[[draw.rank for draw in [*self.draws, *self.waiting]]] = True
        beyond = certified + np.flatnonzero(~taken[certified:])[:spare]
        within = np.flatnonzero(~taken[:certified])
        return np.asarray(self.order[np.concatenate([within, beyond])])

    def evidence(self) -> TableEvidence:
        """The audit as it stands, as plain data."""
        return TableEvidence(
            guarantee=self.ledger.guarantee,
            rows=self.ledger.rows,
            rungs=self.ledger.rungs,
            sizes=self.ledger.sizes.tolist(),
            predicted=self.predicted,
            freeze=freeze_digest(self.order, self.ledger.rows, self.ledger.sizes.tolist()),
            seed=self.seed,
            draws=list(self.draws),
            log_wealths=self.ledger.highest.tolist(),
        )


@dataclass(frozen=True)
class TableResult:
    """What an audit leaves.

    certificate : None where no rung was certified.
    answered : (m,) rows the policy answers; without a certificate as few as can never break the
        target. Labelled rows keep their label, the rest escalate.
    labels : row -> whether the policy was wrong there, for every label bought.
    unreadable : rows whose teacher answer could not be read; they escalate.
    """

    certificate: Certificate | None
    answered: NDArray[np.int64]
    labels: dict[int, bool]
    unreadable: tuple[int, ...]


def _threshold(ranked: NDArray[np.float64], size: int) -> float:
    """Least confidence that only rows of the prefix reach: of a tie that it cuts, none."""
    last = ranked[size - 1]
    cut = size < len(ranked) and ranked[size] == last
    return float(np.nextafter(last, 2.0) if cut else last)


def audit_table(
    audit: TableAudit,
    oracle: Callable[[int], bool],
    label_budget: int,
    table_digest: str,
    *,
    workers: int = 1,
) -> TableResult:
    """Draw, buy and record until the budget is spent or no label is worth its price.

    Parameters
    ----------
    oracle : row -> whether the policy's frozen answer differs from the teacher's. Where it raises
        ``UnreadableAnswer`` the row counts as wrong. Called from threads if ``workers > 1``.
    label_budget : most labels to buy. Stopping early is always valid.
    table_digest : sha256 of the table, to which the certificate is tied.
    workers : labels bought at the same time. The draws depend on their number, never on which
        label arrives first.
    """
    unreadable: list[int] = []

    def next_draw() -> TableDraw | None:
        spent = len(audit.draws) + len(audit.waiting)
        return audit.draw() if spent < label_budget else None

    def buy(draw: TableDraw) -> bool | None:
        try:
            return oracle(draw.row)
        except UnreadableAnswer:
            return None

    def record(draw: TableDraw, wrong: bool | None) -> None:
        if wrong is None:
            unreadable.append(draw.row)
        audit.record(draw, True if wrong is None else bool(wrong))

    buy_in_order(next_draw, buy, record, workers)
    return TableResult(
        certificate=seal(audit.evidence(), table(table_digest)) if audit.ledger.passed else None,
        answered=audit.answered(),
        labels={draw.row: draw.wrong for draw in audit.draws},
        unreadable=tuple(unreadable),
    )


def certify_stream(
    answered: Bools,
    wrong: Bools,
    rungs: Sequence[Rung],
    guarantee: Guarantee,
    bets: Bets | None = None,
) -> Certificate | None:
    """Certify from draws whose labels are all known.

    Parameters
    ----------
    answered : (n, G) in the order of drawing: rung g answers below the teacher.
    wrong : (n, G) and its answer differs from the teacher's. Ignored where nobody answers.
    rungs : G frozen policies, most conservative first; see ``StreamAudit`` for advice.
    bets : ``Deadline(n)`` where the number of draws was fixed beforehand (the default);
        ``OpenEnded()`` where something else ended the sampling.

    Returns
    -------
    The certificate; None where no rung passed.

    Examples
    --------
    Two policies answer half and all of 250 requests; the second is wrong on every eighth.

    >>> draw = np.arange(250)
    >>> answered = np.column_stack([draw % 2 == 0, draw >= 0])
    >>> wrong = np.column_stack([draw % 50 == 0, draw % 8 == 0])
    >>> path = [Rung({"proxy": 0.95}, 0.5), Rung({"proxy": 0.60}, 1.0)]
    >>> certificate = certify_stream(answered, wrong, path, Guarantee(0.90, 0.05))
    >>> certificate.thresholds, certificate.bound, round(certificate.conditional.bound, 2)
    ({'proxy': 0.95}, 0.9, 0.88)
    """
    audit = StreamAudit(guarantee, rungs, bets or Deadline(len(answered)))
    for draw, (below, bad) in enumerate(zip(answered, wrong, strict=True)):
        audit.record(str(draw), below, bad & below if below.any() else None)
    return seal(audit.evidence(), STREAM) if audit.passed else None


def frozen_order(
    p_agree: Floats, known: Collection[int], rng: np.random.Generator
) -> NDArray[np.int64]:
    """Unlabelled rows, surest first, ties in random order: a sorted table must not decide."""
    shuffled = rng.permutation(len(p_agree))
    order = shuffled[np.argsort(-p_agree[shuffled], kind="stable")]
    if not len(known):
        return order
    labelled = np.zeros(len(p_agree), dtype=bool)
    labelled[np.fromiter(known, dtype=np.int64)] = True
    return np.asarray(order[~labelled[order]])


def rung_sizes(errors: Floats, rows: int, guarantee: Guarantee) -> NDArray[np.int64]:
    """Sizes of the rungs, increasing, from the least useful prefix to all rows.

    Half of them evenly; half where the last one to be certified probably lies.

    Parameters
    ----------
    errors : (m,) predicted number of wrong rows in each prefix of the unlabelled rows.
    """
    budget = error_budget(guarantee, rows)
    first = max(budget + 1, int(LEAST_SHARE * rows))
    if first > len(errors):
        return np.empty(0, dtype=np.int64)
    low, high = np.clip(np.searchsorted(errors, budget * np.array(EDGE)), first, len(errors))
    even = np.linspace(first, len(errors), RUNGS // 2)
    return np.unique(np.concatenate([even, np.linspace(low, high, RUNGS // 2)]).astype(np.int64))
