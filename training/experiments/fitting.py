"""How long a proxy takes to fit: 1,000 labels on 384-dimensional embeddings, by number of classes.

python training/experiments/fitting.py
"""

from __future__ import annotations

import time

import numpy as np

from cascade.distill.fit import TREES_UP_TO_LABELS, fit_answerer

ROWS, DIM = 1000, 384


def main() -> None:
    print("classes  LightGBM tried  CPU s  wall s  chosen")
    for classes in (2, 5, 20, 77, 150):
        rng = np.random.default_rng(classes)
        y = rng.integers(0, classes, ROWS)
        X = rng.normal(size=(classes, DIM))[y] + 2.0 * rng.normal(size=(ROWS, DIM))
        X = (X / np.linalg.norm(X, axis=1, keepdims=True)).astype(np.float32)
        cpu, wall = time.process_time(), time.perf_counter()
        fitted = fit_answerer(X, y, classes, rng=rng)
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        tried = "yes" if classes <= TREES_UP_TO_LABELS else "no"
        print(f"{classes:7}  {tried:14}  {cpu:5.1f}  {wall:6.1f}  {fitted.description}")


if __name__ == "__main__":
    main()
