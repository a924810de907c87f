"""Choose a filter's teacher zone and its draws. Any choice is valid; these are cheap.

Knows forecasts and wealths. Nothing here can break a certificate, only waste labels. A draw weighs
one thing: a label is worth one row, whether it moves a stop by one row or fixes one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from cascade.certify.aims import Aim, Precision, Recall
from cascade.certify.filter_audit import Book, FilterAudit
from cascade.certify.pilot import fit_platt
from cascade.certify.weighted import (
    Floats,
    Ints,
    Plan,
    WeightedLedger,
    fastest_bets,
    gains,
    outcomes,
)

OVERSHOOT = 0.3  # a wealth jumps past the bar; nats to plan for
UNIFORM = (0.4, 0.6, 0.8, 0.95)  # of the draws in a zone; the rest by the root of the forecast
HELP = (0.05, 0.15, 0.3)  # of the draws outside it, where help may be found
PRIOR = 2  # events of the rarer kind that a forecast counts for, beside those found in its cell
DOUBTFUL = 3  # how fast the chance of a rung falls with the labels that it lacks
DOUBT = 0.3  # chance that an audit fails although the forecast says it will not
SAFETY = 1.15  # labels set aside, over those that the forecast asks for


class Zone(NamedTuple):
    """Ranks from ``start`` up to ``stop``, to be labelled before the freeze."""

    start: int
    stop: int


@dataclass(frozen=True)
class Thrifty:
    """Draw for the rung that gains most rows for its labels; stop where none gains any."""

    def plan(self, audit: FilterAudit, labels_left: int) -> Plan | None:
        """See ``Planner``."""
        p_positive = recalibrated(audit)
        best: tuple[float, Floats] = (0.0, np.empty(0))
        for book in audit.books:
            net, chances = _bargain(book, p_positive, labels_left, len(audit.books))
            if net > best[0]:
                best = net, chances
        return Plan(best[1].tolist(), p_positive.tolist()) if best[0] > 0 else None


def recalibrated(audit: FilterAudit) -> Floats:
    """(C,) forecast share of positive rows in each cell, with what the labels say of it so far."""
    p, positive = audit.labelled()
    if len(p) == 0:
        return audit.p_positive
    curve = fit_platt(p, positive)(audit.p_positive)
    # two labels of a curve bend all of it; the draws of a cell speak for it alone
    found = audit.books[0].found
    prior = PRIOR / np.clip(np.minimum(curve, 1 - curve), 1e-6, 1.0)
    return (prior * curve + found.positive) / (prior + found.positive + found.negative)


def _bargain(book: Book, p_positive: Floats, labels_left: int, worth: int) -> tuple[float, Floats]:
    """Rows gained net of labels by the best rung of an aim, and the chances that win it.

    worth : labels that a row is worth. With two aims more than one: a recall is lost altogether if
        not all rows between the two stops can be labelled.
    """
    ledger, zones = book.ledger, book.aim.zone(book.frozen)
    p_event = book.aim.p_event(p_positive)
    unlabelled = ledger.unlabelled.astype(np.float64)
    mixes = _mixes(ledger.values, unlabelled, p_event)  # (K, G, C)
    speed = _speed(ledger, mixes, p_event)  # (K, G)
    fastest = np.argmax(speed, axis=0)
    rungs = np.arange(len(ledger.owed))
    short = np.maximum(book.aim.guarantee.log_bar - ledger.now + OVERSHOOT, 0.0)
    need = SAFETY * short / np.maximum(speed[fastest, rungs], 1e-9)
    rows = zones @ ledger.unlabelled
    certified = book.zone @ ledger.unlabelled
    chance = np.minimum(labels_left / np.maximum(need, 1.0), 1.0) ** DOUBTFUL
    cost = np.minimum(need, labels_left)
    if isinstance(book.aim, Precision):
        # what is drawn in vain, and was not certified yet, would have been bought anyway
        twice = mixes[fastest, rungs] @ book.zone
        cost = cost * (chance + (1 - chance) * twice)
    net = worth * chance * (rows - certified) - cost
    net = np.where(rungs >= book.passed, net, 0.0)
    rung = int(np.argmax(net))
    return float(net[rung]), mixes[fastest[rung], rung]


def _mixes(values: Floats, unlabelled: Floats, p_event: Floats) -> Floats:
    """(K, G, C) ways to draw: uniform in the zone, by root forecasts there, by them outside.

    Uniform draws make the largest safe bet large, root forecasts find the events that there are:
    q proportional to the root of the forecast has the least variance, and a floor under it caps
    1/q.
    """
    root = unlabelled * np.sqrt(p_event)
    even, sharp = (_normal((values > 0) * weight) for weight in (unlabelled, root))
    help_ = _normal((values < 0) * root)
    helps = help_.sum(axis=1, keepdims=True) > 0
    return np.array(
        [
            (1 - share * helps) * (uniform * even + (1 - uniform) * sharp) + share * help_
            for uniform in UNIFORM
            for share in (HELP if helps.any() else HELP[:1])
        ]
    )


def _normal(weights: Floats) -> Floats:
    return np.asarray(weights / np.maximum(weights.sum(axis=1, keepdims=True), 1e-12))


def _speed(ledger: WeightedLedger, mixes: Floats, p_event: Floats) -> Floats:
    """(K, G) expected log wealth a draw, at the best bet, if the forecast is right."""
    won = gains(ledger.values, ledger.owed, ledger.unlabelled, mixes, p_event)
    chances = outcomes(mixes, p_event)
    bets = fastest_bets(won, chances)
    return np.asarray((chances * np.log1p(bets[..., None, None] * won)).sum(axis=(-2, -1)))


def teacher_zone(p_positive: Floats, aims: Sequence[Aim], known_positive: int, labels: int) -> Zone:
    """The rows that are best labelled before the freeze.

    Precision alone looks for the most positive rows in the answer, recall alone for the fewest
    negative ones. With both, the zone is what lies between the two stops, as small as the audits
    allow; where it is still too large, the recall is given up.

    p_positive : (n,) of the unlabelled rows, falling. labels : that may still be bought.
    """
    table = _Forecasts(p_positive, known_positive)
    precision = next((aim for aim in aims if isinstance(aim, Precision)), None)
    recall = next((aim for aim in aims if isinstance(aim, Recall)), None)
    if precision and recall:
        zone = _between(table, precision, recall, labels)
        return zone or _below_accepted(table, precision, labels)
    if precision:
        return _below_accepted(table, precision, labels)
    assert recall is not None
    return _above_rejected(table, recall, labels)


class _Forecasts:
    """Cumulated forecasts over ranks, and the labels that an audit would need."""

    def __init__(self, p_positive: Floats, known_positive: int) -> None:
        self.rows = len(p_positive)
        self.known = known_positive
        self.positive = np.concatenate([[0.0], np.cumsum(p_positive)])
        fine = np.linspace(0, self.rows, 200)
        coarse = np.geomspace(1, max(self.rows, 2), 100)
        self.ranks = np.unique(np.concatenate([fine, coarse]).astype(np.int64))
        self.ranks = self.ranks[self.ranks <= self.rows]

    def precision_labels(self, aim: Precision, accepted: Ints, stop: Ints) -> Floats:
        """To certify the first ``accepted`` rows, when those up to ``stop`` are labelled."""
        found = self.positive[stop] - self.positive[accepted] + self.known
        allowed = aim.guarantee.risk * (accepted + found)
        return _labels(aim, accepted - self.positive[accepted], allowed, accepted)

    def recall_labels(self, aim: Recall, kept: Ints) -> Floats:
        """To certify that the rows after the first ``kept`` may be rejected."""
        allowed = aim.rho * (self.positive[kept] + self.known)
        return _labels(aim, self.positive[-1] - self.positive[kept], allowed, self.rows - kept)


def _labels(aim: Aim, harm: Floats, allowed: Floats, rows: Ints) -> Floats:
    """Labels to certify ``rows`` rows that hold ``harm`` and may hold ``allowed``."""
    size = np.maximum(rows, 1.0)
    speed = _divergence(harm / size, (allowed + 1) / size)
    need = SAFETY * (aim.guarantee.log_bar + OVERSHOOT) / np.maximum(speed, 1e-9)
    need = need / (1 + need / size)  # without replacement
    return np.asarray(np.where(rows <= allowed, 0.0, np.where(harm < allowed, need, np.inf)))


def _divergence(risk: Floats, null: Floats) -> Floats:
    """KL(risk || null) of two coins: the growth of log wealth at Kelly's bet, in nats a draw."""
    risk, null = (np.clip(share, 1e-9, 1 - 1e-9) for share in (risk, null))
    return np.asarray(risk * np.log(risk / null) + (1 - risk) * np.log((1 - risk) / (1 - null)))


def _below_accepted(table: _Forecasts, aim: Precision, labels: int) -> Zone:
    accepted, size = np.meshgrid(table.ranks, np.linspace(0, labels, 41).astype(np.int64))
    stop = np.minimum(accepted + size, table.rows)
    need = table.precision_labels(aim, accepted, stop)
    # an audit that succeeds saves its rows; else the labels go to the likeliest of them
    won = np.interp(accepted + labels - need, np.arange(table.rows + 1), table.positive)
    lost = table.positive[stop] - table.positive[accepted]
    lost = lost + table.positive[np.minimum(accepted, labels - size)]
    value = np.where(size + need <= labels, (1 - DOUBT) * won + DOUBT * lost, -1.0)
    best = int(np.argmax(value))
    return Zone(int(accepted.flat[best]), int(stop.flat[best]))


def _above_rejected(table: _Forecasts, aim: Recall, labels: int) -> Zone:
    spare = labels - table.recall_labels(aim, table.ranks)
    start = np.maximum(table.ranks - np.maximum(spare, 0), 0).astype(np.int64)
    wrongly = np.where(spare >= 0, start - table.positive[start], np.inf)
    best = int(np.argmin(wrongly))
    return Zone(int(start[best]), int(table.ranks[best]))


def _between(table: _Forecasts, precision: Precision, recall: Recall, labels: int) -> Zone | None:
    start, stop = np.meshgrid(table.ranks, table.ranks)
    stop = np.maximum(start, stop)
    audits = table.precision_labels(precision, start, stop) + table.recall_labels(recall, stop)
    best = int(np.argmin(stop - start + audits))
    if (stop - start + audits).flat[best] > labels:
        return None
    return Zone(int(start.flat[best]), int(stop.flat[best]))
