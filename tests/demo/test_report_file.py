"""Which report a later, shorter run leaves behind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rich.console import Console

from cascade.demo.run import write_report

TIER = {"share": 1.0, "p50_ms": 1.0, "p99_ms": None, "dollars": 0.0}


def report(requests: int, digest: str = "same") -> dict[str, Any]:
    return {
        "held_back_requests": requests,
        "tiers": {"proxy": TIER},
        "certificate": {"digest": digest},
        "agreement": 1.0,
        "target": 0.9,
        "speedup_vs_large": 2.0,
        "cost_reduction_vs_large": 2.0,
    }


def kept(folder: Path, *reports: dict[str, Any]) -> int:
    """Requests of the report that is there after all of them were written."""
    path, console = folder / "demo-report.json", Console(record=True)
    for one in reports:
        write_report(one, path, console)
    found: int = json.loads(path.read_text())["held_back_requests"]
    return found


def test_a_shorter_run_keeps_the_longer_ones_report(tmp_path: Path) -> None:
    assert kept(tmp_path, report(300), report(17)) == 300
    assert (tmp_path / "demo-report.png").exists()


def test_another_certificate_replaces_it(tmp_path: Path) -> None:
    assert kept(tmp_path, report(300), report(17, digest="other")) == 17


def test_a_run_of_the_same_length_replaces_it(tmp_path: Path) -> None:
    assert kept(tmp_path, report(17), report(300), report(300)) == 300
