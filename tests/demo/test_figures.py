"""The demo's arithmetic on replies that were written by hand."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from cascade import certify
from cascade.certify import Certificate, Deadline, Guarantee, Rung, StreamAudit
from cascade.demo.figures import Measured, at_target, report_of
from cascade.demo.picture import draw_report, print_report
from cascade.demo.traffic import Reply


def reply(tier: str, label: str, seconds: float, dollars: float) -> Reply:
    return Reply("text", label, tier, "certified", seconds, dollars)


MEASURED = Measured(
    replies=[
        reply("proxy", "yes", 0.01, 0.0),
        reply("proxy", "no", 0.03, 0.0),
        reply("small", "yes", 0.10, 0.1),
        reply("large", "no", 0.26, 0.4),
    ],
    forced=[reply("large", "yes", 0.2, 0.3)],
    teacher=["yes", "yes", "yes", "no"],
    teacher_dollars=[0.3, 0.3, 0.3],
    gold=["yes", "no", "yes", "yes"],
)


def certificate(wrong_every: int, target: float = 0.8) -> Certificate:
    """Two hundred draws, all answered below, one in ``wrong_every`` of them wrongly."""
    audit = StreamAudit(Guarantee(target, 0.05), [Rung({"proxy": 0.9}, 0.7)], Deadline(200))
    for draw in range(200):
        if not audit.done:
            wrong = np.array([draw % wrong_every == 0])
            audit.record(str(draw), np.array([True]), wrong)
    return certify.seal(audit.evidence(), certify.STREAM)


def test_agreement_counts_the_teachers_own_answers() -> None:
    assert MEASURED.agreement == 0.75
    assert MEASURED.conditional_agreement == pytest.approx(2 / 3)


def test_shares_latency_and_money() -> None:
    proxy = MEASURED.tier("proxy")
    assert proxy == pytest.approx({"share": 0.5, "p50_ms": 20, "p99_ms": 29.8, "dollars": 0})
    assert MEASURED.tier("nobody")["p50_ms"] is None
    assert MEASURED.speedup == pytest.approx(0.2 / 0.1)
    assert MEASURED.cost_reduction == pytest.approx(1.2 / 0.5)


def test_human_labels_judge_both() -> None:
    assert MEASURED.gold_accuracy() == {"cascade": 0.75, "large": 0.5}


def test_a_stricter_target_is_judged_on_the_same_draws() -> None:
    perfect = certificate(wrong_every=1000)
    assert at_target(perfect, 0.9) == {"certified": True, "share_below_large": 0.7}
    shaky = certificate(wrong_every=9)
    assert at_target(shaky, 0.9)["certified"] is False


def test_the_report_is_json_a_table_and_a_picture(tmp_path: Path) -> None:
    report = report_of(MEASURED, certificate(wrong_every=1000), "run", 12.0)
    assert json.loads(json.dumps(report))["tiers"]["small"]["share"] == 0.25
    assert report["claim_held"] is False
    console = Console(record=True, width=120)
    print_report(report, console)
    assert "DOES NOT HOLD" in console.export_text()
    draw_report(report, tmp_path / "report.png")
    assert (tmp_path / "report.png").read_bytes().startswith(b"\x89PNG")
