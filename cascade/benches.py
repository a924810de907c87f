"""What a task can be answered with: its LLM tiers connected, its embedder loaded.

Knows the configuration and every kind of engine; knows no champion, no threshold and no gateway.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import msgspec

from cascade.config import GatewayConfig, LanguageModel
from cascade.embed import Embedder, load_embedder
from cascade.embed.cached import Cached
from cascade.models import open_store as open_models
from cascade.recipes import Recipe
from cascade.tasks import Identity, Task
from cascade.tiers.embedded import EmbeddedEngine
from cascade.tiers.endpoint import Endpoint
from cascade.tiers.language import LanguageTier
from cascade.tiers.teacher import Teacher
from cascade.types import Price, Tier

PROXY, SMALL, LARGE = "proxy", "small", "large"

NOTHING: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True)
class Connection:
    """One LLM tier of the configuration, connected."""

    tier: str
    model: LanguageModel
    endpoint: Endpoint


@dataclass(frozen=True)
class Bench:
    """What a task can be answered with, whoever is champion.

    large, small : language tiers. embedder : of the task's proxies.
    models, prices : what stands behind each LLM tier, and what it charges.
    """

    task: Task
    identity: Identity
    embedder: Embedder
    large: Tier
    small: Tier | None
    models: Mapping[str, str]
    prices: Mapping[str, Price] = field(default_factory=dict)

    @property
    def language(self) -> dict[str, Tier]:
        """The tiers that need no proxy."""
        small = {SMALL: self.small} if self.small else {}
        return {**small, LARGE: self.large}


def connect(
    config: GatewayConfig, stack: ExitStack, earlier: Mapping[str, Connection] = NOTHING
) -> dict[str, Connection]:
    """The LLM tiers by name, cheapest first, their embedded engines running.

    Parameters
    ----------
    stack : whatever must be stopped in the end is put there, at once.
    earlier : connections whose endpoint goes on where nothing but the price is another.

    Raises
    ------
    CascadeError
        A model is missing or an engine does not start.
    """
    tiers = {SMALL: config.tiers.small, LARGE: config.tiers.large}
    found = {}
    for tier, model in tiers.items():
        if model is not None:
            endpoint = _unchanged(earlier.get(tier), model)
            endpoint = endpoint or _endpoint(model, config.models, stack)
            found[tier] = Connection(tier, model, endpoint)
    return found


def set_benches(
    config: GatewayConfig,
    recipes: Mapping[str, Recipe],
    connections: Mapping[str, Connection],
    loaded: Mapping[str, Embedder] = NOTHING,
) -> dict[str, Bench]:
    """A bench for every recipe; recipes with the same embedder share it, also one that is loaded
    already."""
    proxy = config.tiers.proxy
    embedders = {
        name: loaded.get(name)
        or Cached(
            load_embedder(
                name, Path(config.models), threads=proxy.threads, providers=proxy.providers
            )
        )
        for name in {recipe.embedder for recipe in recipes.values()}
    }
    return {
        name: _bench(recipe, embedders[recipe.embedder], connections)
        for name, recipe in recipes.items()
    }


def _unchanged(earlier: Connection | None, model: LanguageModel) -> Endpoint | None:
    if earlier is None or msgspec.structs.replace(earlier.model, price=model.price) != model:
        return None
    return earlier.endpoint


def _endpoint(model: LanguageModel, models: str, stack: ExitStack) -> Endpoint:
    urls, key = model.replicas, model.api_key
    if model.engine == "embedded":
        path = open_models({"CASCADE_MODELS": models}).path(model.model)
        engine = stack.enter_context(EmbeddedEngine(path, slots=model.concurrency))
        urls, key = (engine.base_url,), engine.api_key
    return Endpoint(
        model.model,
        urls,
        key,
        timeout_seconds=model.timeout_seconds,
        attempts=model.attempts,
        concurrency=model.concurrency,
    )


def _bench(recipe: Recipe, embedder: Embedder, connections: Mapping[str, Connection]) -> Bench:
    task = recipe.task
    tiers = {
        tier: LanguageTier(tier, task, one.endpoint, one.model.price)
        for tier, one in connections.items()
    }
    return Bench(
        task=task,
        identity=task.identity(
            connections[LARGE].model.model, f"{embedder.name}@{embedder.version}"
        ),
        embedder=embedder,
        large=Teacher(tiers[LARGE]),
        small=tiers.get(SMALL),
        models={tier: one.model.model for tier, one in connections.items()},
        prices={tier: one.model.price for tier, one in connections.items()},
    )
