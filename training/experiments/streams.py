"""Does the monitor notice in time, keep quiet otherwise, and is what serves afterwards good enough?

Streams of 100,000 requests, bootstrapped from rows that neither trained nor certified the policy.
Half-way the world changes: not at all, the rare label five times as frequent, another topic, or a
teacher who contradicts so often that the risk jumps by ten points. "At the limit" is the hard case
of no change: every request's risk is 1 - target all the time. Ordinary audits are 1% of the answers
below the teacher. A change is *seen* at the first alarm after it, or at a tightening that already
brings the risk back to 1 - target; the risk afterwards counts from there to the end. What is never
seen has an infinite delay.

    python training/experiments/streams.py --data DIR --seeds 200
"""

from __future__ import annotations

import sys
from argparse import Namespace
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from common import parser, show
from numpy.typing import NDArray
from streams_lesson import Policy, World, distil, load

from cascade.certify import Guarantee, HarmMonitor, Watch
from cascade.certify.monitor import CLOSER

AIM = 15_000  # requests until a jump of ten points is seen; set before anything was measured
REQUESTS, CHANGE = 100_000, 50_000
RATE, FLOOR, DELTA = 0.01, 0.002, 0.05
ROUNDING = 1e-9
POLICIES = 4  # distilled and certified afresh; the streams take them in turn
JUMP = 0.10


@dataclass(frozen=True)
class Shift:
    """What happens half-way: the worlds before and after, made from a policy and the limit."""

    name: str
    worlds: Callable[[Policy, float], tuple[World, World]]


SHIFTS = (
    Shift("none", lambda policy, limit: (policy.home, policy.home)),
    Shift("none, at the limit", lambda policy, limit: (policy.at_risk(limit),) * 2),
    Shift("rare label x5", lambda policy, limit: (policy.home, policy.rare)),
    Shift("another topic", lambda policy, limit: (policy.home, policy.elsewhere)),
    Shift("jump from home", lambda policy, limit: _jump(policy, policy.risk)),
    Shift("jump from half the limit", lambda policy, limit: _jump(policy, limit / 2)),
    Shift("jump from the limit", lambda policy, limit: _jump(policy, limit)),
)


def _jump(policy: Policy, risk: float) -> tuple[World, World]:
    """A teacher who contradicts so often, and then ten points more often."""
    return policy.at_risk(risk), policy.at_risk(risk + JUMP)


@dataclass(frozen=True)
class Stream:
    """Requests in their order, each array (REQUESTS,). lot : uniform, decides who is audited."""

    confidence: NDArray[np.float64]
    wrong: NDArray[np.bool_]
    novel: NDArray[np.bool_]
    lot: NDArray[np.float64]

    @classmethod
    def drawn(cls, before: World, after: World, rng: np.random.Generator) -> Stream:
        """A bootstrapped stream that changes once."""
        parts = []
        for world, n in ((before, CHANGE), (after, REQUESTS - CHANGE)):
            rows = rng.choice(len(world.chance), n, p=world.chance)
            wrong = rng.random(n) < world.p_wrong[rows]
            parts.append((world.confidence[rows], wrong, world.novel[rows]))
        confidence, wrong, novel = map(np.concatenate, zip(*parts, strict=True))
        return cls(confidence, wrong, novel, rng.random(REQUESTS))

    def audited(self, threshold: float) -> dict[bool, tuple[NDArray[np.int64], NDArray[Any]]]:
        """By whether the watch looks closer: which requests are audited, and all propensities.

        ``HarmMonitor.propose`` for a whole stream at once.
        """
        answered = self.confidence >= threshold
        roots = np.sqrt(1 - self.confidence) * answered
        mean = np.maximum(np.cumsum(roots) / np.maximum(np.cumsum(answered), 1), 1e-9)
        usual = np.maximum(RATE * roots / mean, FLOOR)
        both = {False: np.minimum(usual, 1.0), True: np.minimum(CLOSER * usual, 1.0)}
        return {k: (np.flatnonzero(answered & (self.lot < p)), p) for k, p in both.items()}


@dataclass(frozen=True)
class Outcome:
    """One stream. harmful : the certified rung is worse than certified after the change.

    false_alarm : one without harm. seen : requests after the change until harm was seen, None
    without harm, or if nothing was seen by the end. wrong_after : share of wrong answers from then
    on. below : requests answered below the teacher.
    """

    harmful: bool
    false_alarm: bool
    seen: int | None
    steps: int
    fell: bool
    wrong_after: float | None
    audits: int
    below: int


def run(stream: Stream, thresholds: Sequence[float], after: World, guarantee: Guarantee) -> Outcome:
    """Watch one stream from end to end; requests between two audits pass in one step."""
    monitor = HarmMonitor(guarantee, RATE, FLOOR)
    watch = Watch("1", monitor, len(thresholds) - 1, guarantee.delta)
    audited = {watch.rung: stream.audited(thresholds[-1])}
    served = np.full(REQUESTS, thresholds[-1])
    now = 0
    while watch.rung is not None:
        rows, propensity = audited[watch.rung][monitor.uneasy or watch.novelty.roused]
        place = bisect_left(rows, now)
        if place == len(rows):
            break
        request = int(rows[place])
        for novel in stream.novel[now : request + 1].tolist():
            watch.notice(novel)
        watch.skip(request - now)
        now = request + 1
        step = watch.record(bool(stream.wrong[request]), float(propensity[request]), watch.rung)
        if step is not None:
            served[now:] = np.inf if step.rung is None else thresholds[step.rung]
            if step.rung is not None:
                audited[step.rung] = stream.audited(thresholds[step.rung])
    below = stream.confidence >= served
    harmful = after.risk(thresholds[-1]) > guarantee.risk + ROUNDING
    innocent = CHANGE if harmful else REQUESTS
    seen = _seen(watch, thresholds, after, guarantee.risk) if harmful else None
    return Outcome(
        harmful=harmful,
        false_alarm=any(step.alarm and step.request <= innocent for step in watch.steps),
        seen=None if seen is None else seen - CHANGE,
        steps=len(watch.steps),
        fell=watch.fallen,
        wrong_after=None if seen is None else float((stream.wrong & below)[seen:].mean()),
        audits=monitor.audits,
        below=int(below.sum()),
    )


def _seen(watch: Watch, thresholds: Sequence[float], after: World, limit: float) -> int | None:
    for step in watch.steps:
        cured = step.rung is None or after.risk(thresholds[step.rung]) <= limit
        if step.request > CHANGE and (step.alarm or cured):
            return step.request
    return None


def row(
    shift: Shift, policies: Sequence[Policy], guarantee: Guarantee, seeds: int
) -> dict[str, Any]:
    """All streams of one shift, one line of the table."""
    pairs = [shift.worlds(policy, guarantee.risk) for policy in policies]
    outcomes = []
    for seed in range(seeds):
        policy, (before, after) = (each[seed % len(policies)] for each in (policies, pairs))
        stream = Stream.drawn(before, after, np.random.default_rng(seed))
        outcomes.append(run(stream, policy.thresholds, after, guarantee))
    tops = [policy.thresholds[-1] for policy in policies]
    risks = [
        _mean(pair[i].risk(top) for pair, top in zip(pairs, tops, strict=True)) for i in (0, 1)
    ]
    harmful = [one for one in outcomes if one.harmful]
    seen = [one for one in harmful if one.seen is not None]
    delays = [np.inf if one.seen is None else one.seen for one in harmful] or [np.nan]
    return {
        "data": policies[0].name,
        "target": guarantee.target,
        "shift": shift.name,
        "risk before": risks[0],
        "risk after": risks[1],
        "false": float(np.mean([one.false_alarm for one in outcomes])),
        "stepped": float(np.mean([one.steps > 0 for one in outcomes])),
        "to teacher": float(np.mean([one.fell for one in outcomes])),
        "harmful": len(harmful),
        "seen": len(seen),
        "delay median": float(np.median(delays)),
        "delay 90%": float(np.quantile(delays, 0.9, method="higher")),
        "risk then": _mean(one.wrong_after for one in seen),
        "audits": _mean(one.audits for one in outcomes),
        "audited": sum(one.audits for one in outcomes) / sum(one.below for one in outcomes),
        "seeds": seeds,
    }


def _mean(values: Any) -> float:
    found = list(values)
    return float(np.mean(found)) if found else float("nan")


def plot(rows: Sequence[dict[str, Any]], to: Path) -> None:
    """Delays of the shifts that raise the risk above the limit."""
    harmful = [row for row in rows if row["seen"]]
    names = [f"{row['data']}, {row['target']}\n{row['shift']}" for row in harmful]
    figure, axes = plt.subplots(figsize=(7, 0.6 * len(harmful) + 1.5))
    axes.barh(
        names, [min(row["delay 90%"], REQUESTS) for row in harmful], color="lightgrey", label="90%"
    )
    axes.barh(
        names, [min(row["delay median"], REQUESTS) for row in harmful], label="median", height=0.4
    )
    axes.axvline(AIM, color="black", linewidth=1, label="aim")
    axes.set_xlabel("requests until the change is seen")
    axes.legend()
    figure.savefig(to, bbox_inches="tight", dpi=150)


def read_arguments() -> Namespace:
    arguments = parser("The stream monitor on constructed shifts.", seeds=200)
    arguments.add_argument("--target", type=float, nargs="+", default=[0.9])
    return arguments.parse_args()


def main() -> None:
    arguments = read_arguments()
    tables, rows = load(arguments.data), []
    for data, foreign in (tables, tables[::-1]):
        for target in arguments.target:
            guarantee = Guarantee(target, DELTA)
            tries = [
                distil(data, foreign, guarantee, np.random.default_rng(i)) for i in range(POLICIES)
            ]
            policies = [policy for policy in tries if policy is not None]
            for shift in SHIFTS if policies else ():
                rows.append(row(shift, policies, guarantee, arguments.seeds))
                print(rows[-1], file=sys.stderr, flush=True)
    show(rows, arguments.json)
    if arguments.plot:
        plot(rows, arguments.plot)


if __name__ == "__main__":
    main()
