"""Read the texts of a recipe from its table. Knows file formats; knows no label and no model.

Nothing is dropped in silence: whatever does not come back as a row is counted.
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np

from cascade.errors import MissingExtra, RecipeError
from cascade.recipes import Source
from cascade.tasks import Window

MOST_CHARACTERS = 200_000
"""Of one text inside its window: about 50,000 tokens, more than a teacher can be asked."""

MOST_FIELD_CHARACTERS = 16_000_000
"""Of one CSV field. Longer ones are an unclosed quote that swallows the rest of the file."""

PARQUET_ROWS = 8192  # in memory at a time

FETCHED = ("data", "raw")  # the folder that data/fetch.py fills

Cell = tuple[str, str | None]  # text, gold


@dataclass(frozen=True)
class Rows:
    """The distinct texts of a table, in its order, and what became of the others.

    texts : cropped to the task's window; each occurs once.
    gold : a human label for each text; empty when the recipe names no gold column.
    read : rows in the table = ``len(texts) + empty + repeated + oversized + unsampled``.
    oversized : longer than ``MOST_CHARACTERS`` inside the window.
    unsampled : left out at random because of the recipe's ``limit``.
    """

    texts: tuple[str, ...]
    gold: tuple[str, ...]
    read: int
    empty: int
    repeated: int
    oversized: int
    unsampled: int

    def __str__(self) -> str:
        """One sentence with every count that is not zero.

        >>> print(Rows(("a", "b"), (), read=5, empty=1, repeated=2, oversized=0, unsampled=0))
        2 texts of 5 rows (1 empty, 2 repeated)
        """
        fates = ("empty", "repeated", "oversized", "unsampled")
        lost = [f"{n} {fate}" for fate in fates if (n := getattr(self, fate))]
        return f"{len(self.texts)} texts of {self.read} rows" + (
            f" ({', '.join(lost)})" if lost else ""
        )


def read_rows(source: Source, window: Window, rng: np.random.Generator) -> Rows:
    """Read a table once, from front to back; only the kept texts stay in memory.

    Parameters
    ----------
    source : its ``table`` is a ``.csv``, ``.tsv`` or ``.parquet`` file; a relative path starts at
        the working directory.
    window : texts are cropped to it before they are compared.
    rng : chooses ``source.limit`` of the texts, each subset with the same chance.

    Raises
    ------
    RecipeError
        The file is missing, is none of these formats, is damaged, is not UTF-8 (with the line),
        lacks a column (with those it has), or holds no text.
    MissingExtra
        Parquet without pyarrow.
    """
    path = Path(source.table)
    sieve = _Sieve(window, source.limit, rng)
    for text, gold in _reader(path)(path, source):
        sieve.take(text, gold)
    rows = sieve.rows(with_gold=source.gold is not None)
    if not rows.texts:
        raise RecipeError(f"{path}: {rows}; column {source.column.column!r} holds no usable text")
    return rows


def look_at(source: Source) -> None:
    """Read a table's header and its first record; raises like ``read_rows``."""
    path = Path(source.table)
    next(_reader(path)(path, source), None)


@dataclass
class _Sieve:
    """Keep distinct texts; past the limit, a uniform sample of them (Vitter 1985, algorithm R)."""

    window: Window
    limit: int | None
    rng: np.random.Generator
    kept: list[tuple[int, str, str | None]] = field(default_factory=list)
    seen: set[bytes] = field(default_factory=set)
    read: int = 0
    empty: int = 0
    repeated: int = 0
    oversized: int = 0

    def take(self, text: str, gold: str | None) -> None:
        self.read += 1
        text = self.window.crop(text)
        digest = hashlib.sha256(text.encode()).digest()
        if not text.strip():
            self.empty += 1
        elif len(text) > MOST_CHARACTERS:
            self.oversized += 1
        elif digest in self.seen:
            self.repeated += 1
        else:
            self.seen.add(digest)
            self._sample((self.read, text, gold))

    def _sample(self, row: tuple[int, str, str | None]) -> None:
        if self.limit is None or len(self.kept) < self.limit:
            self.kept.append(row)
            return
        place = int(self.rng.integers(len(self.seen)))
        if place < self.limit:
            self.kept[place] = row

    def rows(self, *, with_gold: bool) -> Rows:
        kept = sorted(self.kept)  # in the table's order: the sample has lost it
        return Rows(
            texts=tuple(text for _, text, _ in kept),
            gold=tuple(gold or "" for _, _, gold in kept) if with_gold else (),
            read=self.read,
            empty=self.empty,
            repeated=self.repeated,
            oversized=self.oversized,
            unsampled=len(self.seen) - len(kept),
        )


def _reader(path: Path) -> Callable[[Path, Source], Iterator[Cell]]:
    readers = {".csv": _read_csv, ".tsv": _read_tsv, ".parquet": _read_parquet}
    if path.suffix not in readers:
        raise RecipeError(f"{path}: a table is a .csv, .tsv or .parquet file")
    if not path.is_file():
        raise RecipeError(f"{path} does not exist: {_how_to_get(path)}")
    return readers[path.suffix]


def _how_to_get(path: Path) -> str:
    """The next step for a missing table.

    >>> _how_to_get(Path("data/raw/reviews.csv"))
    'run python data/fetch.py reviews'
    """
    if path.parent.parts[-2:] == FETCHED:
        return f"run python data/fetch.py {path.stem}"
    return "check source.table in the recipe; a relative path starts at the working directory"


def _read_csv(path: Path, source: Source) -> Iterator[Cell]:
    return _read_separated(path, source, ",")


def _read_tsv(path: Path, source: Source) -> Iterator[Cell]:
    return _read_separated(path, source, "\t")


def _read_separated(path: Path, source: Source, delimiter: str) -> Iterator[Cell]:
    # csv's own limit of 131,072 characters is less than a long mail, and is one for the process
    csv.field_size_limit(MOST_FIELD_CHARACTERS)
    with path.open("rb") as file:
        reader = csv.reader(_lines(path, file), delimiter=delimiter, strict=True)
        try:
            yield from _cells(path, source, reader)
        except csv.Error as exc:
            raise RecipeError(
                f"{path}, line {reader.line_num}: {exc}; is a quote left open, or not doubled?"
            ) from exc


def _lines(path: Path, file: BinaryIO) -> Iterator[str]:
    for number, line in enumerate(file, start=1):
        try:
            yield line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as exc:
            raise RecipeError(
                f"{path}, line {number}: not UTF-8; convert it, for example with "
                f"iconv -f latin1 -t utf-8"
            ) from exc


def _cells(path: Path, source: Source, reader: Iterable[list[str]]) -> Iterator[Cell]:
    records = iter(reader)
    header = next(records, [])
    text, gold = _places(path, source, header)
    for number, record in enumerate((one for one in records if one), start=1):
        # a stray comma would cut the text short without anybody noticing
        if len(record) != len(header):
            raise RecipeError(
                f"{path}, record {number}: {len(record)} fields where the header has "
                f"{len(header)}; quote fields that hold the separator"
            )
        yield record[text], None if gold is None else record[gold]


def _places(path: Path, source: Source, header: list[str]) -> tuple[int, int | None]:
    """Where the text and the gold label are in every record."""
    named = [source.column.column] + ([source.gold] if source.gold is not None else [])
    missing = [name for name in named if name not in header]
    if missing:
        raise RecipeError(
            f"{path} has no column {', '.join(map(repr, missing))}; "
            f"it has {', '.join(map(repr, header)) or 'no columns'}"
        )
    return header.index(named[0]), header.index(named[1]) if source.gold is not None else None


def _read_parquet(path: Path, source: Source) -> Iterator[Cell]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as exc:
        raise MissingExtra("reading Parquet", "train") from exc
    try:
        with pyarrow.parquet.ParquetFile(path) as table:
            header = table.schema_arrow.names
            text, gold = _places(path, source, header)
            named = [header[text]] + ([header[gold]] if gold is not None else [])
            for batch in table.iter_batches(PARQUET_ROWS, columns=named):
                yield from _batch_cells(*(batch.column(name).to_pylist() for name in named))
    except (pyarrow.ArrowException, UnicodeDecodeError) as exc:
        raise RecipeError(f"{path} cannot be read as Parquet: {exc}") from exc


def _batch_cells(texts: list[object], gold: list[object] | None = None) -> Iterator[Cell]:
    """Other types as they print; a null text is empty, a null gold label too."""
    for text, label in zip(texts, gold or [None] * len(texts), strict=True):
        yield "" if text is None else str(text), None if label is None else str(label)
