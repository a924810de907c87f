"""Make tables of known shapes, as CSV: what the constants of the table audit were chosen on.

A label and one normal piece of evidence give an exact log-odds; the shape distorts it as language
models distort theirs. Several shapes, shares of positives, skills and sizes.

    python training/experiments/tables_made.py DIR
    python training/experiments/tables.py --data DIR --method ours --seeds 12
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

RATES = (0.02, 0.1, 0.25, 0.25, 0.5)
COUNT, SMALLEST, LARGEST = 24, 500, 25_000
UNSEEN = 0.04  # of the labels of the shape "floor": no score can tell


def sigmoid(odds: Floats) -> Floats:
    """From log-odds to probability."""
    return np.asarray(0.5 * (1 + np.tanh(odds / 2)))


SHAPES: dict[str, Callable[[Floats], Floats]] = {
    "calibrated": sigmoid,
    "over": lambda odds: sigmoid(4 * odds + 1.5),
    "over_negative": lambda odds: sigmoid(5 * odds - 2),
    "under": lambda odds: sigmoid(0.3 * odds),
    "steps": lambda odds: np.round(sigmoid(odds) * 5) / 5 * 0.98 + 0.01,
    "floor": lambda odds: sigmoid(3 * odds),
    "lopsided": lambda odds: np.where(odds > 0, sigmoid(6 * odds), sigmoid(0.8 * odds)),
    "flat": lambda odds: np.full(len(odds), 0.5),
}


def made(
    rng: np.random.Generator, rows: int, rate: float, skill: float, shape: str
) -> tuple[Floats, NDArray[np.bool_]]:
    """(n,) scores and (n,) labels."""
    labels = rng.random(rows) < rate
    evidence = rng.normal(size=rows) + skill * (2 * labels - 1)
    scores = SHAPES[shape](np.log(rate / (1 - rate)) + 2 * skill * evidence)
    return scores, labels ^ (rng.random(rows) < UNSEEN) if shape == "floor" else labels


def main() -> None:
    parser = argparse.ArgumentParser(description="Made tables of known shapes.")
    parser.add_argument("to", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    arguments.to.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(arguments.seed)
    for index in range(COUNT):
        shape = list(SHAPES)[index % len(SHAPES)]
        largest = 2_000 if index % 3 else LARGEST
        rows = int(np.exp(rng.uniform(np.log(SMALLEST), np.log(largest))))
        scores, labels = made(rng, rows, RATES[index % 5], rng.uniform(0.8, 1.6), shape)
        with (arguments.to / f"{index:02}-{shape}.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["id", "label", "proxy_score"])
            writer.writerows(zip(range(rows), labels.astype(int), scores, strict=True))


if __name__ == "__main__":
    main()
