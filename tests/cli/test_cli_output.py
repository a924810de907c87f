"""Progress: a bar on a terminal, a few plain lines elsewhere."""

from __future__ import annotations

import io

import pytest

from cascade.cli.models import pulling
from cascade.cli.output import print_fields, print_json, progress


class Terminal(io.StringIO):
    """Something that says it is a terminal."""

    def isatty(self) -> bool:
        """It is."""
        return True


def work(title: str, total: int) -> None:
    with progress(title) as report:
        for done in range(total + 1):
            report(done, total, done * 0.5)


def test_a_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr("sys.stderr", terminal)
    work("labels from x", 40)
    assert "labels from x" in terminal.getvalue()
    assert "40/40" in terminal.getvalue() and "$20.0000" in terminal.getvalue()


def test_a_line_at_every_tenth_elsewhere(capsys: pytest.CaptureFixture[str]) -> None:
    work("labels from x", 1000)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 11
    assert lines[-1] == "labels from x: 1000/1000 $500.0000"


def test_nothing_to_do_is_done(capsys: pytest.CaptureFixture[str]) -> None:
    work("labels", 0)
    assert capsys.readouterr().err == "labels: 0/0 $0.0000\n"


def test_fields_and_json(capsys: pytest.CaptureFixture[str]) -> None:
    print_fields({"task": "mood", "share": 0.5})
    print_json({"none": float("inf")})
    assert capsys.readouterr().out == 'task: mood\nshare: 0.5\n{\n  "none": null\n}\n'


def test_download_bar_is_silent_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with pulling() as report:
        report("model.gguf", 1, 10)
        report("model.gguf", 10, 10)
    assert "model.gguf" not in capsys.readouterr().out
