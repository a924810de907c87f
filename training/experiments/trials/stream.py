"""Trials of the stream certificate on synthetic requests, most at the boundary of what it says.

Every stream comes with the true risk of every policy, which an audit must not see.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from worlds import Bools, Floats, calibrated

from cascade.certify import (
    Certificate,
    Guarantee,
    OpenEnded,
    Rung,
    StreamAudit,
    certify_stream,
)
from cascade.certify.path import answered_by, threshold_path
from trials.cell import ROUNDING, Cell

JUST_ABOVE = 1.001  # times the allowed risk: the claim is false, and hardly so


CLIMB = np.append(np.linspace(0.3, 0.95, 6), JUST_ABOVE + np.arange(6) / 10)
SHARES = np.linspace(0.3, 1, 12)


class Requests(NamedTuple):
    """Draws from a stream. answered, wrong : (n, G). risks, shares : (G,) the truth."""

    answered: Bools
    wrong: Bools
    risks: Floats
    shares: Floats
    rungs: list[Rung]


Path = Callable[[np.random.Generator, int, Guarantee], Requests]


def ordinary(rng: np.random.Generator, n: int, guarantee: Guarantee) -> Requests:
    """Thresholds on calibrated scores, from well inside the limit to well beyond."""
    table = calibrated(rng, 20_000, guarantee)
    rungs = threshold_path(table.p_agree[:2_000], guarantee.target)
    return _drawn(rng, n, answered_by(table.p_agree, rungs), table.wrong, rungs)


def few_rows(rng: np.random.Generator, n: int, guarantee: Guarantee) -> Requests:
    """The stream repeats 60 requests over and over."""
    table = calibrated(rng, 60, guarantee)
    rungs = threshold_path(table.p_agree, guarantee.target)
    return _drawn(rng, n, answered_by(table.p_agree, rungs), table.wrong, rungs)


def dip(rng: np.random.Generator, n: int, guarantee: Guarantee) -> Requests:
    """Good rungs, one that is just too wrong, and good rungs after it: the path is not nested."""
    factors = np.array([0.2, 0.5, JUST_ABOVE, 0.3, 0.2, 0.1])
    return _independent(rng, n, factors * guarantee.risk)


def all_just_bad(rng: np.random.Generator, n: int, guarantee: Guarantee) -> Requests:
    """Sixteen rungs whose errors have nothing to do with one another, all just too wrong."""
    return _independent(rng, n, np.full(16, JUST_ABOVE * guarantee.risk))


def taking_turns(rng: np.random.Generator, n: int, guarantee: Guarantee) -> Requests:
    """Eight rungs, just too wrong, never two on the same request."""
    risk = JUST_ABOVE * guarantee.risk
    culprit = np.floor(rng.random(n) / risk)
    wrong = culprit[:, None] == np.arange(8)
    return Requests(np.ones((n, 8), dtype=bool), wrong, np.full(8, risk), np.ones(8), _rungs(8))


def nested(rng: np.random.Generator, n: int, guarantee: Guarantee) -> Requests:
    """Twelve rungs, each answering more; the seventh is the first that is just too wrong."""
    return _growing(rng, n, guarantee.risk * CLIMB)


def nested_answers(rng: np.random.Generator, n: int, guarantee: Guarantee) -> Requests:
    """The same, where "too wrong" counts among the requests that are answered below the teacher."""
    return _growing(rng, n, guarantee.risk * CLIMB * SHARES)


PATHS: dict[str, Path] = {
    path.__name__.replace("_", " "): path
    for path in (ordinary, few_rows, dip, all_just_bad, taking_turns, nested, nested_answers)
}


def _drawn(
    rng: np.random.Generator, n: int, answered: Bools, wrong: Bools, rungs: list[Rung]
) -> Requests:
    """n draws with replacement from rows that are the whole truth."""
    bad = answered & wrong[:, None]
    rows = rng.integers(len(wrong), size=n)
    return Requests(answered[rows], bad[rows], bad.mean(axis=0), answered.mean(axis=0), rungs)


def _growing(rng: np.random.Generator, n: int, risks: Floats) -> Requests:
    """What a rung adds to the one before begins with its wrong answers."""
    depth = rng.random(n)[:, None]
    begins = np.append(0.0, SHARES[:-1])
    wrong_here = (depth >= begins) & (depth < begins + np.diff(risks, prepend=0.0))
    wrong = np.maximum.accumulate(wrong_here, axis=1)
    return Requests(depth < SHARES, wrong, risks, SHARES, _rungs(12))


def _independent(rng: np.random.Generator, n: int, risks: Floats) -> Requests:
    wrong = rng.random((n, len(risks))) < risks
    everyone = np.ones_like(wrong)
    return Requests(everyone, wrong, risks, np.ones(len(risks)), _rungs(len(risks)))


def _rungs(count: int) -> list[Rung]:
    return [Rung({"proxy": 1 - rung / count}, 1.0) for rung in range(count)]


def stream_trial(cell: Cell, rng: np.random.Generator) -> bool:
    """As many draws as were planned; or stopped at the worst moment, if the planner says so."""
    requests = PATHS[cell.world](rng, cell.n, cell.guarantee)
    too_wrong = requests.risks > cell.guarantee.risk + ROUNDING
    if cell.planner == "worst moment":
        return _ever_false(cell, requests, too_wrong)
    certificate = _certified(cell, requests)
    return certificate is not None and bool(too_wrong[rung_of(certificate, requests)])


def conditional_trial(cell: Cell, rng: np.random.Generator) -> bool:
    """The stream certificate's second bound: agreement among the requests answered below."""
    requests = PATHS[cell.world](rng, cell.n, cell.guarantee)
    certificate = _certified(cell, requests)
    if certificate is None:
        return False
    rung = rung_of(certificate, requests)
    truth = 1 - requests.risks[rung] / requests.shares[rung]
    return bool(certificate.conditional.bound > truth + ROUNDING)


def _ever_false(cell: Cell, requests: Requests, too_wrong: Bools) -> bool:
    """Labels only where one is wanted; stopped as soon as the certificate is false."""
    audit = StreamAudit(cell.guarantee, requests.rungs, OpenEnded())
    for draw, (answered, wrong) in enumerate(zip(requests.answered, requests.wrong, strict=True)):
        audit.record(str(draw), answered, wrong if audit.wants(answered) else None)
        if audit.certified is not None and too_wrong[audit.certified]:
            return True
    return False


def _certified(cell: Cell, requests: Requests) -> Certificate | None:
    return certify_stream(requests.answered, requests.wrong, requests.rungs, cell.guarantee)


def rung_of(certificate: Certificate, requests: Requests) -> int:
    return [rung.thresholds for rung in requests.rungs].index(certificate.thresholds)
