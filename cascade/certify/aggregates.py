"""The share, count or mean of something over one table, from few teacher values and a proxy.

Knows rows, values and predictions; nothing of texts, models or thresholds. Buys nothing itself:
it says which row. The interval is *exact*, not asymptotic: for any values, however wrong the
predictions, whatever made us stop, it holds the table's mean with probability at least 1 - delta.
The only randomness is ours. Each end is a bound at delta / 2 (``means``, with the proof);
``stratified`` has a narrower interval that is asymptotic.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import numpy as np

from cascade.certify.means import (
    Floats,
    Trail,
    estimated_mean,
    first_chances,
    flipped,
    lower_mean,
    require_unit,
)
from cascade.errors import CertificateError, UsageError

EVEN = 0.7  # share of the draws that ignore the predictions: no row weighs more than 1 / EVEN


class Aggregate(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A mean over the whole table, and an interval that holds it.

    rows : of the table: times them, a share is a count. labels : teacher values it rests on.
    """

    mean: float
    low: float
    high: float
    delta: float
    rows: int
    labels: int

    @property
    def total(self) -> tuple[float, float, float]:
        """(estimate, low, high) of the sum: the count, where values are 0 or 1."""
        return self.mean * self.rows, self.low * self.rows, self.high * self.rows


class ValueDraw(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One bought value, None where the teacher's answer could not be read."""

    row: int
    value: float | None = None


class MeanEvidence(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Everything needed to find the interval again, offline.

    predictions : (n,) in [0, 1]. known : values at hand before the first draw.
    """

    predictions: list[float]
    known: dict[int, float]
    labels: int
    seed: int
    draws: list[ValueDraw]

    def replay(self) -> MeanAudit:
        """Run the audit again.

        Raises
        ------
        CertificateError : a draw is not the one that the seed gives, or a value is impossible.
        """
        try:
            audit = MeanAudit(
                np.asarray(self.predictions), labels=self.labels, seed=self.seed, known=self.known
            )
            for draw in self.draws:
                audit.draw()
                audit.record(draw, draw.value)
        except UsageError as error:
            raise CertificateError(f"the evidence cannot have been bought so: {error}") from error
        return audit


class MeanAudit:
    """Estimate a table's mean: ``draw`` a row, ``record`` its value, look at the ``interval``.

    Rows whose prediction is unsure are drawn more often. Draws do not depend on values, so many
    can be asked for at once; record them in the order of drawing, never of arrival.

    Parameters
    ----------
    predictions : (n,) predicted values in [0, 1]: P(yes) of a predicate, or a scaled number.
        However wrong, they cost width only.
    labels : how many values are planned. The interval is tightest there, and valid anywhere.
    seed : of the draws.
    known : row -> value, for rows whose value was at hand beforehand; never drawn.

    Raises
    ------
    UsageError : predictions or values lie outside [0, 1].

    Examples
    --------
    Every fifth of 1,000 rows is a yes, and the predictions nearly know it.

    >>> yes = np.arange(1000) % 5 == 0
    >>> audit = MeanAudit(np.where(yes, 0.9, 0.05), labels=100, seed=0)
    >>> for _ in range(100):
    ...     draw = audit.draw()
    ...     audit.record(draw, float(yes[draw.row]))
    >>> found = audit.interval(delta=0.05)
    >>> found.low < 0.2 < found.high, found.high - found.low < 0.1
    (True, True)
    """

    def __init__(
        self,
        predictions: Floats,
        *,
        labels: int,
        seed: int,
        known: Mapping[int, float] | None = None,
    ) -> None:
        self.predictions = np.asarray(predictions, dtype=np.float64)
        self.labels = labels
        self.seed = seed
        self.known = dict(known or {})
        require_unit(self.predictions)
        require_unit(list(self.known.values()))
        if not set(self.known) <= set(range(len(self.predictions))):
            raise UsageError("a known value belongs to a row that is not in the table")
        self.open = np.setdiff1d(np.arange(len(predictions)), np.fromiter(self.known, np.int64))
        self.chances = first_chances(self.predictions[self.open], EVEN)
        self.draws: list[ValueDraw] = []
        self._rng = np.random.Generator(np.random.PCG64(seed))
        self._edges = np.cumsum(self.chances)
        self._places: list[int] = []  # drawn so far, as places in ``open``
        self._taken: set[int] = set()

    def draw(self) -> ValueDraw | None:
        """The next row whose value is wanted; None when every row has been drawn."""
        if len(self._places) == len(self.open):
            return None
        place = self._any_place()
        while place in self._taken:  # rejection keeps the chances of the rest in proportion
            place = self._any_place()
        self._places.append(place)
        self._taken.add(place)
        return ValueDraw(int(self.open[place]))

    def record(self, draw: ValueDraw, value: float | None) -> None:
        """Take in the value of a drawn row.

        None where the teacher's answer cannot be read: it then counts as 0 for the lower end of
        the interval and as 1 for the upper. Left out, it would bias the sample.

        Raises
        ------
        UsageError : the row is not the next one in the order of drawing.
        """
        turn = len(self.draws)
        if turn >= len(self._places) or self.open[self._places[turn]] != draw.row:
            raise UsageError(f"row {draw.row} is not the next one: record in the order of drawing")
        if value is not None:
            require_unit([value])
        self.draws.append(ValueDraw(draw.row, value))

    def interval(self, delta: float) -> Aggregate:
        """The mean over all rows, and bounds that hold it with probability at least 1 - delta.

        Look at it after as many draws as you like, and stop when it is narrow enough.
        """
        low = lower_mean(self._trail(unread=0.0), self.labels, delta / 2)
        high = 1 - lower_mean(flipped(self._trail(unread=1.0)), self.labels, delta / 2)
        high = max(low, high)  # both ends fail together only where the interval is false anyway
        middle = float(np.clip(estimated_mean(self._trail(unread=0.5)), low, high))
        low, middle, high = map(self._over_all_rows, (low, middle, high))
        return Aggregate(middle, low, high, delta, len(self.predictions), len(self.draws))

    def evidence(self) -> MeanEvidence:
        """The audit as it stands, as plain data."""
        return MeanEvidence(
            self.predictions.tolist(), self.known, self.labels, self.seed, list(self.draws)
        )

    def _any_place(self) -> int:
        where = self._rng.random() * self._edges[-1]
        return min(int(np.searchsorted(self._edges, where, side="right")), len(self.open) - 1)

    def _over_all_rows(self, open_mean: float) -> float:
        known = sum(self.known.values())
        return (open_mean * len(self.open) + known) / len(self.predictions)

    def _trail(self, unread: float) -> Trail:
        places = self._places[: len(self.draws)]
        values = [unread if draw.value is None else draw.value for draw in self.draws]
        return Trail(
            self.predictions[self.open],
            self.chances,
            np.asarray(places, dtype=np.int64),
            np.asarray(values, dtype=np.float64),
        )
