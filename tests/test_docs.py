"""What the documents tell a reader to run: it exists, and it runs."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.main import get_command

from cascade.cli.app import app

ROOT = Path(__file__).parents[1]
DOCUMENTS = [
    path
    for folder in (".", "docs", "serving", "training", "training/experiments", "data", "models")
    for path in sorted((ROOT / folder).glob("*.md"))
    if path.name != "CHANGELOG.md"
]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?!https?:|#)([^)#]+)")


def blocks(path: Path, *languages: str) -> list[str]:
    return [code for language, code in BLOCK.findall(path.read_text()) if language in languages]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path: Path) -> None:
    broken = [link for link in LINK.findall(path.read_text()) if not (path.parent / link).exists()]
    assert broken == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_commands_and_programs_exist(path: Path) -> None:
    lines = [line.strip() for code in blocks(path, "", "sh", "bash") for line in code.splitlines()]
    known = set(get_command(app).commands)
    commands = [line.split()[1] for line in lines if line.startswith("cascade ")]
    assert [one for one in commands if one not in known] == []
    programs = [line.split()[1] for line in lines if line.startswith("python ")]
    assert [one for one in programs if not (ROOT / one).exists()] == []


def test_every_experiment_is_there_and_is_named() -> None:
    folder = ROOT / "training" / "experiments"
    named = set(re.findall(r"`(\w+\.py)\b", (folder / "README.md").read_text()))
    assert {one for one in named if not (folder / one).exists()} == set()
    runnable = {path.name for path in folder.glob("*.py") if "__main__" in path.read_text()}
    assert runnable - named == set()


def test_the_readme_certifies_a_table() -> None:
    [code] = [one for one in blocks(ROOT / "README.md", "python") if "cascade.certify" in one]
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert re.fullmatch(
        r"\d\d% of the teacher's answers saved, \d+ bought for the proof\n", said.stdout
    )
