"""Tables as people have them, and what becomes of every row."""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cascade.distill.source import MOST_CHARACTERS, Rows, read_rows
from cascade.errors import MissingExtra, RecipeError
from cascade.recipes import Source
from cascade.tasks import Window

EVERYTHING = Window()


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def read(path: Path, *, gold: str | None = None, limit: int | None = None, seed: int = 0) -> Rows:
    return read_rows(Source(str(path), "text", gold, limit), EVERYTHING, rng(seed))


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_every_row_has_a_fate(tmp_path: Path) -> None:
    table = write(tmp_path / "t.csv", 'id,text\n1,good\n2,\n3,"  "\n4,bad\n5,good\n')
    rows = read(table)
    assert rows.texts == ("good", "bad")
    assert (rows.read, rows.empty, rows.repeated) == (5, 2, 1)
    assert str(rows) == "2 texts of 5 rows (2 empty, 1 repeated)"


def test_gold_goes_with_its_text(tmp_path: Path) -> None:
    table = write(tmp_path / "t.csv", "text,label\ngood,yes\n,no\nbad,no\n")
    assert read(table, gold="label").gold == ("yes", "no")
    assert read(table).gold == ()


def test_texts_are_compared_inside_the_window(tmp_path: Path) -> None:
    table = write(tmp_path / "t.csv", "text\none two three\none two four\n")
    rows = read_rows(Source(str(table), "text"), Window(2), rng())
    assert rows.texts == ("one two",)
    assert rows.repeated == 1


def test_quotes_separators_and_line_ends_inside_a_field(tmp_path: Path) -> None:
    table = write(tmp_path / "t.csv", 'text,x\r\n"a, ""b""\nc",1\r\n\r\nd,2\r\n')
    assert read(table).texts == ('a, "b"\nc', "d")


def test_tabs_and_a_byte_order_mark(tmp_path: Path) -> None:
    table = write(tmp_path / "t.tsv", b"\xef\xbb\xbftext\tx\na, b\t1\n")
    assert read(table).texts == ("a, b",)


def test_a_text_of_a_megabyte_is_counted_or_cropped(tmp_path: Path) -> None:
    table = write(tmp_path / "t.csv", "text\n" + "word " * 200_000 + "\nshort\n")
    rows = read(table)
    assert (rows.texts, rows.oversized) == (("short",), 1)
    cropped = read_rows(Source(str(table), "text"), Window(3), rng())
    assert cropped.texts == ("word word word", "short")


def test_a_text_of_exactly_the_limit_stays(tmp_path: Path) -> None:
    table = write(tmp_path / "t.csv", "text\n" + "x" * MOST_CHARACTERS + "\n")
    assert read(table).oversized == 0


def test_a_quote_left_open(tmp_path: Path) -> None:
    table = write(tmp_path / "t.csv", 'text\nfine\n"never closed\nlost\n')
    with pytest.raises(RecipeError, match="line 4.*quote"):
        read(table)


def test_a_stray_separator(tmp_path: Path) -> None:
    table = write(tmp_path / "t.csv", "text,x\nfine,1\ngood, but dear,2\n")
    with pytest.raises(RecipeError, match="record 2: 3 fields where the header has 2"):
        read(table)


def test_invalid_utf8_names_its_line(tmp_path: Path) -> None:
    table = write(tmp_path / "t.csv", b"text\nfine\ncaf\xe9\n")
    with pytest.raises(RecipeError, match="line 3: not UTF-8.*iconv"):
        read(table)


def test_a_missing_column_lists_the_others(tmp_path: Path) -> None:
    table = write(tmp_path / "t.csv", "body,label\nfine,yes\n")
    with pytest.raises(RecipeError, match="no column 'text', 'gold'; it has 'body', 'label'"):
        read(table, gold="gold")


def test_an_empty_file(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="it has no columns"):
        read(write(tmp_path / "t.csv", ""))


def test_a_table_without_a_usable_text(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="0 texts of 2 rows .2 empty.*'text'"):
        read(write(tmp_path / "t.csv", 'text\n" "\n""\n'))


def test_a_missing_file_and_its_next_step(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="does not exist: check source.table"):
        read(tmp_path / "t.csv")
    with pytest.raises(RecipeError, match="run python data/fetch.py bbc"):
        read(tmp_path / "data/raw/bbc.csv")


def test_an_unknown_format(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="a .csv, .tsv or .parquet file"):
        read(tmp_path / "t.xlsx")


def test_limit_is_a_uniform_subset_in_the_tables_order(tmp_path: Path) -> None:
    table = write(tmp_path / "t.csv", "text\n" + "".join(f"{i:03}\n" for i in range(100)))
    rows = read(table, limit=10)
    assert len(rows.texts) == 10
    assert rows.unsampled == 90
    assert list(rows.texts) == sorted(rows.texts)
    assert read(table, limit=10) == rows
    assert read(table, limit=10, seed=1).texts != rows.texts


def test_every_row_has_the_same_chance_under_a_limit(tmp_path: Path) -> None:
    table = write(tmp_path / "t.csv", "text\n" + "".join(f"{i}\n" for i in range(20)))
    drawn = [int(text) for seed in range(1000) for text in read(table, limit=4, seed=seed).texts]
    expected = 1000 * 4 / 20
    chi2 = float(((np.bincount(drawn, minlength=20) - expected) ** 2 / expected).sum())
    assert chi2 < 43.8  # 99.9% of chi2(19); the seeds are fixed, so this never flickers


def test_a_limit_above_the_table(tmp_path: Path) -> None:
    rows = read(write(tmp_path / "t.csv", "text\na\nb\n"), limit=5)
    assert (rows.texts, rows.unsampled) == (("a", "b"), 0)


def parquet(path: Path, **columns: list[object]) -> Path:
    pyarrow.parquet.write_table(pyarrow.table(columns), path)
    return path


def test_parquet(tmp_path: Path) -> None:
    table = parquet(tmp_path / "t.parquet", x=[1, 2, 3], text=["a", None, "b"], gold=[1, None, 0])
    rows = read(table, gold="gold")
    assert rows.texts == ("a", "b")
    assert rows.gold == ("1", "0")
    assert rows.empty == 1


def test_parquet_over_more_than_one_batch(tmp_path: Path) -> None:
    table = parquet(tmp_path / "t.parquet", text=[f"{i}" for i in range(20_000)])
    assert len(read(table).texts) == 20_000


def test_parquet_with_a_missing_column(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="it has 'body'"):
        read(parquet(tmp_path / "t.parquet", body=["a"]))


def test_damaged_parquet(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="cannot be read as Parquet"):
        read(write(tmp_path / "t.parquet", "PAR1 but not really PAR1"))


def test_parquet_without_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = parquet(tmp_path / "t.parquet", text=["a"])
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtra, match="train"):
        read(table)


@given(texts=st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\x00"))))
def test_whatever_was_written_is_read(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str]
) -> None:
    path = tmp_path_factory.mktemp("any") / "t.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, quoting=csv.QUOTE_ALL)
        writer.writerows([["text"], *([text] for text in texts)])
    distinct = list(dict.fromkeys(text for text in texts if text.strip()))
    if not distinct:
        with pytest.raises(RecipeError):
            read(path)
        return
    rows = read(path)
    assert list(rows.texts) == distinct
    assert rows.read == len(rows.texts) + rows.empty + rows.repeated
