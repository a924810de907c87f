"""Homes for the tests of the command line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.homes import Home, LoopbackServer, furnish, invoke, review_engine


@pytest.fixture(scope="session")
def engine() -> Iterator[LoopbackServer]:
    """Both LLM tiers, on one loopback port."""
    with LoopbackServer(review_engine) as server:
        yield server


@pytest.fixture
def home(tmp_path: Path, engine: LoopbackServer) -> Home:
    """A home of the test's own; nothing is trained."""
    return furnish(tmp_path, engine.url)


@pytest.fixture(scope="session")
def promoted(tmp_path_factory: pytest.TempPathFactory, engine: LoopbackServer) -> Home:
    """A home whose task has a champion; only for reading."""
    home = furnish(tmp_path_factory.mktemp("promoted"), engine.url)
    assert invoke("train", home.recipe, "-c", home.config, "--promote").exit_code == 0
    return home
