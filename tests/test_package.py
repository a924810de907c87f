"""What importing the package costs, and which way its imports point."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from cascade import reasons

HEAVY = {"torch", "mlflow", "sklearn", "lightgbm", "ray", "duckdb", "onnxruntime", "pandas"}


def run(code: str) -> str:
    """A fresh interpreter's output."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout


def test_import_loads_nothing_heavy() -> None:
    loaded = run("import cascade, sys; print(*{name.split('.')[0] for name in sys.modules})")
    assert HEAVY.isdisjoint(loaded.split())


def test_the_gateway_starts_without_training_libraries() -> None:
    code = "import cascade.gateway.asgi, sys; print(*{n.split('.')[0] for n in sys.modules})"
    assert {"torch", "mlflow", "sklearn", "lightgbm"}.isdisjoint(run(code).split())


def test_imports_point_down_only() -> None:
    linter = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([linter], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_reason_codes_are_the_documented_ones() -> None:
    assert len(reasons.ALL) == 16
    reference = Path(__file__).parents[1] / "docs" / "reference.md"
    text = reference.read_text()
    assert [code for code in sorted(reasons.ALL) if f"`{code}`" not in text] == []
