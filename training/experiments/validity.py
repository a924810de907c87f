"""How often is a certificate false? On the worst synthetic worlds, for every kind of certificate.

    python training/experiments/validity.py --seeds 1000 --json -

A row is one cell: a kind of certificate, a world, a planner. ``failures`` of ``seeds`` certificates
were false; with ``limit`` of them or fewer, a one-sided test at 99% cannot say that a certificate
is false more often than ``delta``, and the cell has ``held``.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any
from zlib import crc32

import numpy as np
from common import show
from scipy.stats import binom
from trials.cell import Cell, Trial
from trials.classes import answers_trial, classes_trial
from trials.filters import precision_trial, recall_trial
from trials.joint import joint_trial
from trials.monitor import monitor_trial
from trials.ranking import ranking_trial
from trials.stream import conditional_trial, stream_trial
from trials.table import table_trial

TRIALS: dict[str, Trial] = {
    "table": table_trial,
    "stream": stream_trial,
    "stream conditional": conditional_trial,
    "precision": precision_trial,
    "recall": recall_trial,
    "classes": classes_trial,
    "answers": answers_trial,
    "three tiers": joint_trial,
    "ranking": ranking_trial,
    "monitor": monitor_trial,
}

CELLS = (
    Cell("table", "calibrated", "own", 1_000, 0.90, 0.10),
    Cell("table", "calibrated", "own", 50_000, 0.95, 0.10),
    Cell("table", "noisy", "own", 2_000, 0.90, 0.05),
    Cell("table", "noisy", "with pilot", 1_000, 0.90, 0.10),
    Cell("table", "adversarial", "with pilot", 2_000, 0.80, 0.10),
    Cell("table", "duplicated", "with pilot", 1_000, 0.90, 0.10),
    Cell("table", "flat", "own", 200, 0.80, 0.10),
    Cell("table", "flat", "richest", 5_000, 0.90, 0.10),
    Cell("table", "near_tied", "erratic", 500, 0.90, 0.10),
    Cell("table", "adversarial", "cheapest", 1_000, 0.80, 0.10),
    Cell("table", "duplicated", "own", 2_000, 0.90, 0.10),
    Cell("table", "duplicated", "knowing", 1_000, 0.90, 0.10),
    Cell("table", "boundary", "own", 200, 0.90, 0.10),
    Cell("table", "boundary", "knowing", 40, 0.80, 0.20),
    Cell("table", "boundary", "knowing", 1_000, 0.90, 0.10),
    Cell("table", "boundary", "knowing", 50_000, 0.95, 0.01),
    Cell("table", "boundary", "richest", 300, 0.80, 0.20),
    Cell("table", "cliff", "own", 500, 0.90, 0.10),
    Cell("table", "cliff", "knowing", 500, 0.90, 0.10),
    Cell("table", "staircase", "cheapest", 200, 0.90, 0.10),
    Cell("table", "staircase", "erratic", 400, 0.95, 0.10),
    Cell("stream", "ordinary", "own", 250, 0.90, 0.05),
    Cell("stream", "few rows", "worst moment", 300, 0.90, 0.10),
    Cell("stream", "dip", "worst moment", 400, 0.90, 0.10),
    Cell("stream", "dip", "own", 250, 0.90, 0.05),
    Cell("stream", "all just bad", "own", 250, 0.90, 0.10),
    Cell("stream", "taking turns", "worst moment", 400, 0.90, 0.10),
    Cell("stream", "nested", "own", 200, 0.90, 0.10),
    Cell("stream", "nested", "worst moment", 300, 0.80, 0.05),
    Cell("stream conditional", "nested", "own", 250, 0.90, 0.10),
    Cell("precision", "calibrated", "even", 2_000, 0.80, 0.10),
    Cell("precision", "calibrated", "own", 2_000, 0.90, 0.10),
    Cell("precision", "adversarial", "knowing", 1_000, 0.90, 0.10),
    Cell("precision", "boundary", "knowing", 1_000, 0.90, 0.10),
    Cell("precision", "boundary", "erratic", 300, 0.80, 0.10),
    Cell("recall", "calibrated", "erratic", 2_000, 0.80, 0.10),
    Cell("recall", "rare", "even", 20_000, 0.80, 0.10),
    Cell("recall", "rare", "own", 20_000, 0.80, 0.10),
    Cell("recall", "calibrated", "own", 1_000, 0.80, 0.10),
    Cell("recall", "boundary", "knowing", 1_000, 0.90, 0.10),
    Cell("recall", "boundary", "even", 500, 0.80, 0.10),
    Cell("recall", "boundary", "erratic", 500, 0.80, 0.10),
    Cell("classes", "boundary", "knowing", 600, 0.80, 0.10),
    Cell("classes", "noisy", "own", 1_500, 0.80, 0.10),
    Cell("answers", "nested answers", "own", 300, 0.90, 0.10),
    Cell("three tiers", "calibrated", "own", 2_000, 0.90, 0.10),
    Cell("three tiers", "adversarial", "cheapest", 2_000, 0.80, 0.10),
    Cell("three tiers", "boundary", "knowing", 500, 0.90, 0.10),
    Cell("three tiers", "boundary", "cheapest", 1_000, 0.80, 0.10),
    Cell("ranking", "calibrated", "own", 1_000, 0.80, 0.10),
    Cell("ranking", "few_grades", "own", 500, 0.80, 0.10),
    Cell("ranking", "flat", "knowing", 2_000, 0.90, 0.10),
    Cell("ranking", "boundary", "knowing", 1_000, 0.90, 0.10),
    Cell("monitor", "at_limit", "own", 10_000, 0.90, 0.10),
    Cell("monitor", "in_turn", "even", 10_000, 0.90, 0.10),
    Cell("monitor", "in_bursts", "own", 10_000, 0.90, 0.10),
)


def tally(cell: Cell, seeds: range) -> tuple[int, float]:
    """(false certificates, CPU seconds) over these seeds."""
    began = time.process_time()
    stream = crc32("|".join(map(str, cell)).encode())  # the same draws whatever else is run
    false = sum(TRIALS[cell.mode](cell, np.random.default_rng([stream, s])) for s in seeds)
    return false, time.process_time() - began


def judged(cell: Cell, tallies: Sequence[tuple[int, float]], seeds: int) -> dict[str, Any]:
    """One row of the result."""
    failures = sum(false for false, _ in tallies)
    # the largest count that a false rate of delta reaches with more than 1%
    limit = int(binom.ppf(0.99, seeds, cell.delta))
    return {
        **cell._asdict(),
        "failures": failures,
        "seeds": seeds,
        "limit": limit,
        "held": failures <= limit,
    }


def measured(cells: Sequence[Cell], seeds: int, workers: int) -> list[dict[str, Any]]:
    """Every cell, its seeds split among the workers."""
    parts = [range(first, seeds, workers) for first in range(workers)]
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=spawn) as pool:
        running = [[pool.submit(tally, cell, part) for part in parts] for cell in cells]
        rows = []
        for cell, futures in zip(cells, running, strict=True):
            tallies = [future.result() for future in futures]
            rows.append(judged(cell, tallies, seeds))
            seconds = sum(cpu for _, cpu in tallies) / seeds
            print(f"{len(rows)}/{len(cells)} {seconds:.3f} s a run: {rows[-1]}", file=sys.stderr)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description="How often is a certificate false?")
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--modes", nargs="+", choices=list(TRIALS), default=list(TRIALS))
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--json", metavar="FILE", help="write the rows as JSON; - for stdout")
    arguments = parser.parse_args()

    cells = [cell for cell in CELLS if cell.mode in arguments.modes]
    rows = measured(cells, arguments.seeds, arguments.workers)
    show(rows, arguments.json)
    if not all(row["held"] for row in rows):
        raise SystemExit("a guarantee is broken: see the cells that did not hold")


if __name__ == "__main__":
    main()
