"""The demo's figures as one table for a terminal and one picture for a browser."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table

COLOURS: Final = {"proxy": "#18864b", "small": "#2563eb", "large": "#ea7317"}


def print_report(report: dict[str, Any], console: Console) -> None:
    """Share, latency, cost and what is promised."""
    table = Table(title=f"{report['held_back_requests']} held-back requests")
    for name in ("tier", "share", "p50 ms", "p99 ms", "dollars"):
        table.add_column(name, justify="left" if name == "tier" else "right")
    for name, tier in report["tiers"].items():
        times = [f"{tier[key]:.0f}" if tier[key] else "-" for key in ("p50_ms", "p99_ms")]
        table.add_row(name, f"{tier['share']:.1%}", *times, f"{tier['dollars']:.6f}")
    console.print(table)
    for line in sentences(report):
        console.print(line, highlight=False, soft_wrap=True)


def sentences(report: dict[str, Any]) -> list[str]:
    """The figures in words."""
    stricter = report["at_target_0.95"]
    would = (
        f"{stricter['share_below_large']:.0%} below the large tier"
        if stricter["certified"]
        else "no certificate: more draws are needed"
    )
    gold = ", ".join(f"{name} {value:.1%}" for name, value in report["gold_accuracy"].items())
    return [
        f"agreement with the teacher: {report['agreement']:.1%} of all answers, "
        f"{report['conditional_agreement']:.1%} of those given below it",
        f"certificate: at least {report['target']:.0%} with probability "
        f"{1 - report['delta']:.0%}, for requests like these "
        f"({'holds' if report['claim_held'] else 'DOES NOT HOLD'} on the held-back requests)",
        f"at a target of 95% the same labels would give {would}",
        f"right by human labels: {gold or 'the recipe names no gold column'}",
        f"{report['speedup_vs_large']:.1f}x faster and {report['cost_reduction_vs_large']:.1f}x "
        "cheaper than always asking the large tier",
    ]


def draw_report(report: dict[str, Any], path: Path) -> None:
    """Shares and latencies side by side."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    shares, times = figure.subplots(1, 2)
    names = list(report["tiers"])
    colours = [COLOURS[name] for name in names]
    tiers = [report["tiers"][name] for name in names]
    bars = shares.bar(names, [100 * tier["share"] for tier in tiers], color=colours)
    shares.bar_label(bars, fmt="%.0f%%")
    shares.set_title("who answers", loc="left")
    shares.set_ylabel("% of requests")
    half, slow = ([tier[key] or 1.0 for tier in tiers] for key in ("p50_ms", "p99_ms"))
    tall = times.bar(names, slow, color=colours, alpha=0.35)
    times.bar(names, half, color=colours)
    times.bar_label(tall, [f"{a:.0f} / {b:.0f}" for a, b in zip(half, slow, strict=True)])
    times.set_yscale("log")
    times.set_title("how long it takes: p50 / p99, ms (log)", loc="left")
    for axes in (shares, times):
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(
        f"{report['agreement']:.1%} as the teacher (certified {report['target']:.0%}), "
        f"{report['speedup_vs_large']:.1f}x faster, "
        f"{report['cost_reduction_vs_large']:.1f}x cheaper"
    )
    figure.savefig(path, dpi=150, facecolor="white")
