"""What a table's certificate costs besides its labels: CPU seconds and peak memory, by table size.

    python training/experiments/scale.py --json -

Every size is measured in a process of its own, so that its peak memory is its own. The teacher is
an array, and its answers are nearly free; the time to look up the rows that are left to it counts.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import time
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import numpy as np
from common import show
from tables_made import made

from cascade.certify import Guarantee, certify_table

MEGABYTE = 1024**2
SKILL, RATE = 1.2, 0.25  # of the made table: some 7% of the proxy's answers are wrong


def measured(rows: int, guarantee: Guarantee, seed: int) -> dict[str, Any]:
    """One row of the result. Run in a fresh process: memory is counted from its start."""
    rng = np.random.default_rng(seed)
    scores, positive = made(rng, rows, RATE, SKILL, "over")
    labels = positive.astype(np.int8)
    before, began = peak_megabytes(), time.process_time()
    table = certify_table(scores, labels.__getitem__, guarantee, rng=rng)
    seconds = time.process_time() - began
    return {
        "rows": rows,
        "target": guarantee.target,
        "delta": guarantee.delta,
        "cpu_seconds": seconds,
        "peak_megabytes": peak_megabytes(),
        "megabytes_before": before,
        "labels": table.labels,
        "escalated": int(table.by_teacher.sum()) - table.labels,
        "avoided": table.avoided,
        "agreement": float(np.mean(table.answers == labels)),
    }


def peak_megabytes() -> float:
    """Of this process, so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / MEGABYTE  # KiB on Linux


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 1_000_000, 10_000_000])
    parser.add_argument("--target", type=float, default=0.9)
    parser.add_argument("--delta", type=float, default=0.1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", metavar="FILE", help="write the rows as JSON; - for stdout")
    arguments = parser.parse_args()

    guarantee = Guarantee(arguments.target, arguments.delta)
    fresh = multiprocessing.get_context("spawn")
    results = []
    for rows in arguments.rows:
        with ProcessPoolExecutor(1, mp_context=fresh) as process:
            results.append(process.submit(measured, rows, guarantee, arguments.seed).result())
    show(results, arguments.json)


if __name__ == "__main__":
    main()
