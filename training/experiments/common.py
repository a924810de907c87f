"""What the experiments share: their arguments, embeddings kept on disk, and how results are shown.

Knows no algorithm and no data set; every experiment reads its own files.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cascade.embed import load_embedder

ROOT = Path(__file__).resolve().parents[2]


def parser(about: str, *, seeds: int) -> argparse.ArgumentParser:
    """Arguments that every experiment takes. seeds : by default; more make figures steadier."""
    arguments = argparse.ArgumentParser(description=about)
    arguments.add_argument("--data", type=Path, required=True, help="folder with the data sets")
    arguments.add_argument("--seeds", type=int, default=seeds)
    arguments.add_argument("--json", metavar="FILE", help="write the rows as JSON; - for stdout")
    arguments.add_argument("--plot", type=Path, metavar="FILE.png")
    return arguments


def show(rows: Sequence[dict[str, Any]], json_to: str | None) -> None:
    """A table for people on stdout; with ``--json -`` only JSON goes there, the table to stderr."""
    if json_to == "-":
        print(json.dumps(list(rows)))
    elif json_to is not None:
        Path(json_to).write_text(json.dumps(list(rows), indent=1) + "\n")
    print(table_of(rows), file=sys.stderr if json_to == "-" else sys.stdout)


def table_of(rows: Sequence[dict[str, Any]]) -> str:
    """Rows of equal keys as aligned columns."""
    if not rows:
        return "nothing was measured"
    cells = [list(rows[0]), *([_cell(value) for value in row.values()] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in cells
    )


def read_csv(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file with a header."""
    csv.field_size_limit(10**7)
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def embeddings(
    texts: Sequence[str],
    *,
    embedder: str = "minilm-int8",
    models: Path = ROOT / "models",
    cache: Path = ROOT / "data" / "embeddings",
) -> NDArray[np.float32]:
    """(n, d) unit rows, computed once and kept under ``cache``."""
    digest = hashlib.sha256("\0".join([embedder, *texts]).encode()).hexdigest()[:24]
    kept = cache / f"{digest}.npy"
    if kept.exists():
        found: NDArray[np.float32] = np.load(kept)
        return found
    print(f"embedding {len(texts):,} texts with {embedder}", file=sys.stderr)
    computed = load_embedder(embedder, models).encode(list(texts))
    cache.mkdir(parents=True, exist_ok=True)
    partial = kept.with_suffix(".partial.npy")
    np.save(partial, computed)
    partial.replace(kept)
    return computed


def _cell(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
