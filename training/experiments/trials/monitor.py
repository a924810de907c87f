"""Trials of the stream monitor: does it alarm although no harm was done?

The risk follows the monitor's own epochs, as far as its null allows: from every start of an epoch
on, the running mean stays at the limit or below.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from cascade.certify import HarmMonitor
from cascade.certify.monitor import EPOCH_AUDITS
from trials.cell import Cell

RATE, FLOOR = 0.05, 0.01

Risk = Callable[[int, float, float], float]
"""(requests since the epoch began, their risks' sum, limit) -> the next request's risk."""


def at_limit(request: int, spent: float, limit: float) -> float:
    """Always just allowed."""
    return limit


def in_turn(request: int, spent: float, limit: float) -> float:
    """Safe and risky requests in turn."""
    return 2 * limit * (request % 2)


def in_bursts(request: int, spent: float, limit: float) -> float:
    """Harmless for long, then as harmful as the running mean still allows."""
    return 0.0 if request % 400 < 300 else min(limit * (request + 1) - spent, 1.0)


WORLDS: dict[str, Risk] = {risk.__name__: risk for risk in (at_limit, in_turn, in_bursts)}


def monitor_trial(cell: Cell, rng: np.random.Generator) -> bool:
    """Whether the monitor ever alarms; audits by its own propensities, or by an even rate."""
    monitor, next_risk = HarmMonitor(cell.guarantee, RATE, FLOOR), WORLDS[cell.world]
    began, spent = 0, 0.0
    guesses, audits, outcomes = rng.beta(0.5, 5, cell.n), rng.random(cell.n), rng.random(cell.n)
    for request in range(cell.n):
        risk = next_risk(request - began, spent, cell.guarantee.risk)
        spent += risk
        chance = monitor.propose(float(guesses[request])) if cell.planner == "own" else RATE
        if audits[request] >= chance:
            monitor.skip()
            continue
        monitor.record(bool(outcomes[request] < risk), chance)
        if monitor.audits % EPOCH_AUDITS == 0:
            began, spent = request + 1, 0.0
    return monitor.alarm
