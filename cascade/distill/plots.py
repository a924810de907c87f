"""Three pictures of a distillation. Knows how to draw a report; computes nothing.

Every function returns a figure of its own (no pyplot, so no global state and no window).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from cascade.distill.report import DistillReport, ReliabilityBin
from cascade.tiers.artifact import Rung

INK: Final = "#1f2933"
MUTED: Final = "#7b8794"
LINE: Final = "#d9e2ec"
BLUE: Final = "#2563eb"
ORANGE: Final = "#ea7317"
GREEN: Final = "#18864b"
MOST_NUMBERED_LABELS: Final = 12  # beyond, the counts would not fit into the cells
MOST_NAMED_LABELS: Final = 40
TEACHER: Final = "large"


def write_plots(report: DistillReport, folder: Path) -> list[Path]:
    """Draw everything into ``folder`` as PNG; the files."""
    figures = {
        "confusion.png": draw_confusion(report),
        "reliability.png": draw_reliability(report.reliability),
        "frontier.png": draw_frontier(report),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, figure in figures.items():
        figure.savefig(folder / name, dpi=150, facecolor="white")
    return [folder / name for name in figures]


def draw_confusion(report: DistillReport) -> Figure:
    """What the proxy says (columns) where the teacher says something (rows)."""
    labels = report.identity.labels
    side = float(np.clip(2.6 + 0.42 * len(labels), 4.2, 12))
    figure, axes = _canvas(side, side)
    rows = report.confusion.sum(axis=1, keepdims=True)
    shares = report.confusion / np.maximum(rows, 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    _name_labels(axes, labels)
    if len(labels) <= MOST_NUMBERED_LABELS:
        _number_cells(axes, report)
    axes.set_xlabel("proxy", color=MUTED)
    axes.set_ylabel("teacher", color=MUTED)
    _title(
        axes, f"{report.task}: agreement {report.agreement:.1%}", "darker: larger share of the row"
    )
    return figure


def draw_reliability(bins: Sequence[ReliabilityBin]) -> Figure:
    """Stated confidence against how often the teacher agreed, with 95% Wilson intervals."""
    figure, axes = _canvas(6.4, 5.2)
    confidence = np.array([one.confidence for one in bins])
    agreement = np.array([one.agreement for one in bins])
    counts = np.array([one.answers for one in bins])
    low, high = _wilson(agreement, counts)
    floor = float(np.clip(min([*confidence, *low, 0.9]) - 0.05, 0, 1))
    axes.plot([floor, 1], [floor, 1], color=MUTED, linewidth=1, linestyle=(0, (4, 4)), zorder=1)
    axes.vlines(confidence, low, high, color=BLUE, alpha=0.35, linewidth=3, zorder=2)
    axes.scatter(confidence, agreement, s=46, color=BLUE, edgecolor="white", zorder=3)
    axes.set(xlim=(floor, 1.01), ylim=(floor, 1.01))
    _percent(axes)
    axes.set_xlabel("confidence: stated chance that the teacher agrees", color=MUTED)
    axes.set_ylabel("the teacher did agree", color=MUTED)
    _grid(axes)
    _title(axes, "Reliability", f"{int(counts.sum()):,} answers; dashed: perfectly calibrated")
    return figure


def draw_frontier(report: DistillReport) -> Figure:
    """What each rung of the path would save, and what it would risk."""
    figure, axes = _canvas(7.4, 5.2)
    shares = np.array([1 - rung.shares.get(TEACHER, 0.0) for rung in report.path])
    risks = np.array([rung.risk for rung in report.path])
    allowed = 1 - report.target
    axes.axhspan(0, allowed, color=GREEN, alpha=0.07, linewidth=0, zorder=0)
    axes.axhline(allowed, color=GREEN, linewidth=1.2, zorder=1)
    axes.plot(shares, risks, color=BLUE, linewidth=1.8, zorder=2)
    axes.scatter(shares, risks, s=42, color=BLUE, edgecolor="white", zorder=3)
    top = 1.15 * max([allowed, *risks])
    axes.set(xlim=(0, 1.02), ylim=(0, top))
    axes.annotate(
        f"allowed: {allowed:.0%}", (0.01, allowed), (0, 4), textcoords="offset points", color=GREEN
    )
    if report.certified is not None:
        _mark(axes, report.path[report.certified])
    _percent(axes)
    axes.set_xlabel("requests that never reach the teacher (predicted)", color=MUTED)
    axes.set_ylabel("final answers that differ (predicted)", color=MUTED)
    _grid(axes)
    _title(axes, f"{report.task}: what it saves, what it risks", _subtitle(report))
    return figure


def _subtitle(report: DistillReport) -> str:
    rungs = f"{len(report.path)} rungs, the most conservative on the left"
    if report.by_label:
        return f"{rungs}; each label is certified on one of its own"
    return rungs if report.certified is not None else f"{rungs}; none is certified"


def _mark(axes: Axes, rung: Rung) -> None:
    """Point at the certified rung, with a note that never leaves the picture."""
    share = 1 - rung.shares.get(TEACHER, 0.0)
    axes.scatter([share], [rung.risk], s=150, color=ORANGE, edgecolor="white", zorder=4)
    left = share > 0.6
    axes.annotate(
        f"certified: {share:.0%} stay below",
        (share, rung.risk),
        (-14 if left else 14, 14),
        textcoords="offset points",
        color=ORANGE,
        weight="bold",
        ha="right" if left else "left",
    )


def _name_labels(axes: Axes, labels: Sequence[str]) -> None:
    if len(labels) > MOST_NAMED_LABELS:
        axes.set(xticks=[], yticks=[])
        return
    long = len(labels) > 3 or max(map(len, labels)) > 8
    places = range(len(labels))
    axes.set_xticks(places, labels, rotation=45 if long else 0, ha="right" if long else "center")
    axes.set_yticks(places, labels)
    axes.tick_params(colors=INK, length=0)


def _number_cells(axes: Axes, report: DistillReport) -> None:
    rows = np.maximum(report.confusion.sum(axis=1), 1)
    for (row, column), count in np.ndenumerate(report.confusion):
        dark = count / rows[row] > 0.55
        axes.text(
            column, row, f"{count:,}", ha="center", va="center", color="white" if dark else INK
        )


def _canvas(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.spines[:].set_visible(False)
    axes.tick_params(colors=MUTED, length=0)
    return figure, axes


def _grid(axes: Axes) -> None:
    axes.grid(color=LINE, linewidth=0.8)
    axes.set_axisbelow(True)


def _percent(axes: Axes) -> None:
    axes.xaxis.set_major_formatter(PercentFormatter(1, 0))
    axes.yaxis.set_major_formatter(PercentFormatter(1, 0))


def _title(axes: Axes, title: str, subtitle: str) -> None:
    axes.set_title(subtitle, loc="left", fontsize=9, color=MUTED, pad=10)
    axes.figure.suptitle(title, x=0.02, ha="left", fontsize=13, color=INK, weight="bold")


def _wilson(share: np.ndarray, count: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """95% interval of a share (Wilson 1927); stays inside [0, 1] for small counts."""
    z = 1.96
    centre = (share + z**2 / (2 * count)) / (1 + z**2 / count)
    half = z * np.sqrt(share * (1 - share) / count + z**2 / (4 * count**2)) / (1 + z**2 / count)
    return centre - half, centre + half
