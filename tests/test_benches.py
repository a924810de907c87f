"""Benches as the configuration describes them: real embedder and endpoints, nothing is asked."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from cascade.benches import LARGE, SMALL, Connection, connect, set_benches
from cascade.config import GatewayConfig, LanguageModel, Tiers
from cascade.errors import ModelUnavailable
from cascade.tiers.teacher import Teacher
from cascade.types import Answer, Price, Query
from tests.cli.homes import LoopbackServer, review_engine
from tests.distill.workshops import make_embedder, recipe_of, taste

PRICE = Price(input=1.0, output=2.0)


@pytest.fixture
def url() -> Iterator[str]:
    with LoopbackServer(review_engine) as server:
        yield server.url


def config(models: Path, url: str, *, small: bool = True) -> GatewayConfig:
    large = LanguageModel("big-model", replicas=(url,), price=PRICE)
    other = LanguageModel("small-model", replicas=(url,)) if small else None
    return GatewayConfig(version=1, tiers=Tiers(large=large, small=other), models=str(models))


async def close(connections: dict[str, Connection]) -> None:
    for one in connections.values():
        await one.endpoint.close()


async def test_bench_has_everything_a_task_needs(tmp_path: Path, url: str) -> None:
    embedder = make_embedder(tmp_path)
    loaded, recipe = config(tmp_path, url), recipe_of(tmp_path / "t.csv")
    with ExitStack() as stack:
        connections = connect(loaded, stack)
        bench = set_benches(loaded, {"mood": recipe}, connections)["mood"]
        assert list(connections) == [SMALL, LARGE]
        assert bench.task == recipe.task
        assert bench.identity.teacher == "big-model"
        assert bench.identity.embedder == f"toy@{embedder.version}"
        assert isinstance(bench.large, Teacher)
        assert list(bench.language) == [SMALL, LARGE]
        assert bench.models == {SMALL: "small-model", LARGE: "big-model"}
        assert bench.prices[LARGE] == PRICE
        (reply,) = await bench.large.answer([Query.from_text("w1 lovely great")])
        await close(connections)
    assert isinstance(reply, Answer)
    assert (reply.text, reply.confidence) == (taste("w1 lovely great"), 1.0)
    assert reply.usage.dollars == pytest.approx(42e-6)


async def test_small_tier_may_be_absent(tmp_path: Path, url: str) -> None:
    make_embedder(tmp_path)
    loaded = config(tmp_path, url, small=False)
    with ExitStack() as stack:
        connections = connect(loaded, stack)
        bench = set_benches(loaded, {"mood": recipe_of(tmp_path / "t.csv")}, connections)["mood"]
        await close(connections)
    assert bench.small is None
    assert list(bench.language) == [LARGE]


async def test_recipes_with_the_same_embedder_share_it(tmp_path: Path, url: str) -> None:
    make_embedder(tmp_path)
    make_embedder(tmp_path, "other")
    table = tmp_path / "t.csv"
    recipes = {
        "a": recipe_of(table, name="a"),
        "b": recipe_of(table, name="b"),
        "c": recipe_of(table, name="c", embedder="other"),
    }
    loaded = config(tmp_path, url)
    with ExitStack() as stack:
        connections = connect(loaded, stack)
        benches = set_benches(loaded, recipes, connections)
        await close(connections)
    assert benches["a"].embedder is benches["b"].embedder
    assert benches["c"].embedder is not benches["a"].embedder


async def test_endpoints_need_no_embedded_models(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even the list of what could be pulled, which an installed package may lack."""
    monkeypatch.setattr("cascade.benches.open_models", None)
    with ExitStack() as stack:
        await close(connect(config(tmp_path, url), stack))


def test_missing_embedder_says_how_to_get_it(tmp_path: Path, url: str) -> None:
    recipe = recipe_of(tmp_path / "t.csv", embedder="minilm-int8")
    with pytest.raises(ModelUnavailable, match="cascade models pull minilm-int8"):
        set_benches(config(tmp_path, url), {"mood": recipe}, {})


def test_missing_embedded_model_says_how_to_get_it(tmp_path: Path) -> None:
    model = LanguageModel("qwen2.5-coder-0.5b", engine="embedded")
    loaded = GatewayConfig(version=1, tiers=Tiers(large=model), models=str(tmp_path))
    with ExitStack() as stack, pytest.raises(ModelUnavailable, match="cascade models pull"):
        connect(loaded, stack)
