"""What an embedding costs here: one sentence, batches, and what int8 changes. No gateway, no LLM.

CPU time stands beside wall time: where the two differ, somebody else had the core.

    python serving/bench/embedding.py data/raw/reviews.csv --json > embedding.json
"""

from __future__ import annotations

import argparse
import csv
import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from cascade.embed import Embedder, load_embedder

EMBEDDERS = ("minilm-int8", "minilm-fp32", "wordllama-256")
BATCH = 32  # texts


def sentences(table: Path, rows: int) -> list[str]:
    """The first texts of a fetched table: its rows are in a random order already."""
    with table.open(encoding="utf-8", newline="") as file:
        return [row["text"] for _, row in zip(range(rows), csv.DictReader(file), strict=False)]


def clock(work: Callable[[], object]) -> tuple[float, float]:
    """Wall and CPU seconds of one call."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


def measure(embedder: Embedder, texts: list[str]) -> dict[str, float]:
    """Milliseconds a sentence, one at a time on one core; texts a second in batches."""
    embedder.encode(texts[:BATCH])  # the first call allocates
    single = 1e3 * np.array([clock(partial(embedder.encode, [text])) for text in texts])
    batches = [texts[start : start + BATCH] for start in range(0, len(texts), BATCH)]
    whole = np.array([clock(partial(embedder.encode, batch)) for batch in batches])
    return {
        "p50_ms": float(np.percentile(single[:, 0], 50)),
        "p95_ms": float(np.percentile(single[:, 0], 95)),
        "p50_cpu_ms": float(np.percentile(single[:, 1], 50)),
        "p95_cpu_ms": float(np.percentile(single[:, 1], 95)),
        "texts_per_s": len(texts) / whole[:, 0].sum(),
        "texts_per_cpu_s": len(texts) / whole[:, 1].sum(),
    }


def compare(one: Embedder, other: Embedder, texts: list[str]) -> dict[str, float]:
    """Cosine between two embedders' vectors of the same texts."""
    cosine = (one.encode(texts) * other.encode(texts)).sum(axis=1)
    return {
        "mean": float(cosine.mean()),
        "p01": float(np.percentile(cosine, 1)),
        "least": float(cosine.min()),
    }


def show(found: dict[str, Any]) -> None:
    """A table for people."""
    rows = found["embedders"]
    columns = list(next(iter(rows.values())))
    print(" " * 15 + "".join(f"{name:>16}" for name in columns))
    for name, figures in rows.items():
        print(f"{name:<15}" + "".join(f"{figures[column]:16.2f}" for column in columns))
    parts = ", ".join(f"{name} {value:.4f}" for name, value in found["int8_fp32_cosine"].items())
    print(f"cosine of int8 and fp32 on {found['texts']} texts: {parts}")


def main() -> None:
    """Measure every embedder on the same texts, on one core."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("table", type=Path, nargs="?", default=Path("data/raw/reviews.csv"))
    parser.add_argument("--rows", type=int, default=500)
    parser.add_argument("--models", type=Path, default=Path("models"))
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    texts = sentences(args.table, args.rows)
    embedders = {name: load_embedder(name, args.models) for name in EMBEDDERS}
    found = {
        "texts": len(texts),
        "batch": BATCH,
        "embedders": {name: measure(one, texts) for name, one in embedders.items()},
        "int8_fp32_cosine": compare(embedders["minilm-int8"], embedders["minilm-fp32"], texts),
    }
    print(json.dumps(found, indent=2)) if args.json else show(found)


if __name__ == "__main__":
    main()
