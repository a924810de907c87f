"""What several areas of the tests share: the pulled models, and a real MLflow server."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.register_assert_rewrite("tests.contracts")  # before anything imports it

pytest_plugins = ["tests.mlflow_server"]

REPOSITORY = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def models_dir() -> Path:
    """The folder of pulled models. ``make test`` pulls what the tests use."""
    folder = REPOSITORY / "models"
    if not (folder / "minilm-int8").is_dir():
        pytest.fail("models are missing: run `make models`")
    return folder


@pytest.fixture(scope="session")
def small_llm(models_dir: Path) -> Path:
    """A language model small enough for tests of the engine."""
    path = models_dir / "qwen2.5-coder-0.5b.gguf"
    if not path.is_file():
        pytest.fail("the 0.5B is missing: run `make models`")
    return path
