"""The pictures: they are drawn for any number of labels, with and without a certificate."""

from __future__ import annotations

from pathlib import Path

import pytest

from cascade.distill.plots import draw_confusion, draw_frontier, write_plots
from tests.distill.reports import make_report, without_certificate

PNG = b"\x89PNG\r\n"


@pytest.mark.parametrize("count", [2, 20, 77])
def test_three_pictures_are_written(tmp_path: Path, count: int) -> None:
    labels = tuple(f"topic {i}" for i in range(count))
    written = write_plots(make_report(labels), tmp_path / "plots")
    assert [path.name for path in written] == ["confusion.png", "reliability.png", "frontier.png"]
    assert all(path.read_bytes().startswith(PNG) for path in written)


def test_cells_are_numbered_while_they_fit() -> None:
    few, many = (draw_confusion(make_report(tuple(map(str, range(count))))) for count in (3, 20))
    assert (len(few.axes[0].texts), len(many.axes[0].texts)) == (9, 0)


def test_certified_rung_is_marked() -> None:
    report = make_report()
    marked = [text.get_text() for text in draw_frontier(report).axes[0].texts]
    assert marked == ["allowed: 10%", "certified: 62% stay below"]
    bare = [text.get_text() for text in draw_frontier(without_certificate(report)).axes[0].texts]
    assert bare == ["allowed: 10%"]
