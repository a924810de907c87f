"""Freeze a ranked table, then audit it label by label. Buys nothing itself: it says which row.

``TableAudit`` is the sans-I/O core: ``draw`` a row, ``record`` whether it was wrong, until no
label is worth its price. ``audit_table`` is its thin driver.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

from cascade.certify.bounds import Bets, Deadline
from cascade.certify.certificate import STREAM, Certificate, seal, table
from cascade.certify.claim import Guarantee, Rung
from cascade.certify.planner import Prices, net_values
from cascade.certify.stream import Bools, StreamAudit
from cascade.certify.table import (
    Floats,
    Ledger,
    Lottery,
    TableDraw,
    TableEvidence,
    error_budget,
)
from cascade.errors import UnreadableAnswer

FREE_BELOW = Prices()
RUNGS = 40
LEAST_SHARE = 0.10  # of the rows: the first rung, unless the error budget asks for more


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
        free = np.setdiff1d(np.arange(len(p_agree)), np.fromiter(known, dtype=np.int64))
        # ties in random order: a sorted table must not decide who is audited
        ties = rng.random(len(free))
        self.order = free[np.lexsort((ties, -p_agree[free]))]
        self.p_wrong = 1 - p_agree[self.order]
        self.prices = prices
        self.seed = int(rng.integers(2**63))
        sizes = rung_sizes(self.p_wrong, len(p_agree), guarantee)
        self.predicted = np.cumsum(self.p_wrong)[sizes - 1].tolist()
        rungs = [
            Rung({tier: float(1 - self.p_wrong[size - 1])}, float(size / len(p_agree)))
            for size in sizes
        ]
        self.ledger = Ledger(guarantee, len(p_agree), rungs, sizes.tolist(), self.predicted)
        self.draws: list[TableDraw] = []
        self._lottery = Lottery(self.seed)

    @property
    def scale(self) -> float:
        """By how much the predicted errors were too low so far."""
        seen = sum(draw.wrong for draw in self.draws)
        expected = sum(draw.p_wrong for draw in self.draws)
        return float(np.clip((seen + 2) / (expected + 2), 0.4, 2.5))

    def draw(self) -> TableDraw | None:
        """The next row to label, its answer still open; None when no label is worth its price."""
        nets = net_values(self.ledger, self.scale, self.prices)
        if len(nets) == 0 or nets.max() <= 0:
            return None
        rung = int(np.argmax(nets))
        rank = self._lottery.draw(int(self.ledger.sizes[rung]))
        return TableDraw(
            row=int(self.order[rank]),
            rank=rank,
            rung=rung,
            wrong=False,
            p_wrong=float(self.p_wrong[rank]),
            scale=self.scale,
        )

    def record(self, draw: TableDraw, wrong: bool) -> None:
        """Take in the label of a drawn row. In the order of drawing, never of arrival."""
        settled = msgspec.structs.replace(draw, wrong=wrong)
        self.ledger.record(settled)
        self.draws.append(settled)

    def answered(self) -> NDArray[np.int64]:
        """Rows that the policy may answer: the certified prefix without the labelled rows."""
        size = int(self.ledger.sizes[self.ledger.passed - 1]) if self.ledger.passed else 0
        return np.setdiff1d(self.order[:size], [draw.row for draw in self.draws])

    def evidence(self) -> TableEvidence:
        """The audit as it stands, as plain data."""
        return TableEvidence(
            guarantee=self.ledger.guarantee,
            rows=self.ledger.rows,
            rungs=self.ledger.rungs,
            sizes=self.ledger.sizes.tolist(),
            predicted=self.predicted,
            seed=self.seed,
            draws=list(self.draws),
            log_wealths=self.ledger.highest.tolist(),
        )


@dataclass(frozen=True)
class TableResult:
    """What an audit leaves.

    certificate : None where no rung was certified; then the teacher answers every open row.
    answered : (m,) rows the policy answers. Labelled rows keep their label, the rest escalate.
    labels : row -> whether the policy was wrong there, for every label bought.
    unreadable : rows whose teacher answer could not be read; they escalate.
    """

    certificate: Certificate | None
    answered: NDArray[np.int64]
    labels: dict[int, bool]
    unreadable: tuple[int, ...]


def audit_table(
    audit: TableAudit, oracle: Callable[[int], bool], label_budget: int, table_digest: str
) -> TableResult:
    """Draw, buy and record until the budget is spent or no label is worth its price.

    Parameters
    ----------
    oracle : row -> whether the policy's frozen answer differs from the teacher's. Where it raises
        ``UnreadableAnswer`` the row counts as wrong.
    label_budget : most labels to buy. Stopping early is always valid.
    table_digest : sha256 of the table, to which the certificate is tied.
    """
    unreadable: list[int] = []
    while len(audit.draws) < label_budget and (draw := audit.draw()) is not None:
        try:
            wrong = oracle(draw.row)
        except UnreadableAnswer:
            unreadable.append(draw.row)
            wrong = True
        audit.record(draw, wrong)
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


def rung_sizes(p_wrong: Floats, rows: int, guarantee: Guarantee) -> NDArray[np.int64]:
    """Sizes of the rungs, increasing: every prefix from the least useful one to all rows."""
    first = max(error_budget(guarantee, rows) + 1, int(LEAST_SHARE * rows))
    if first > len(p_wrong):
        return np.empty(0, dtype=np.int64)
    return np.unique(np.linspace(first, len(p_wrong), RUNGS).astype(np.int64))
