"""Build a gateway once from its configuration. The only place that knows every part by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from cascade.config import GatewayConfig, LanguageModel
from cascade.embed import Embedder, load_embedder
from cascade.gateway.audit import Auditor
from cascade.gateway.builder import LARGE, SMALL, Bench, LaneBuilder
from cascade.gateway.champions import Champions
from cascade.gateway.decisions import Outbox
from cascade.gateway.keys import Keys
from cascade.gateway.lanes import Lane, Lanes
from cascade.gateway.observe import Metrics, observed
from cascade.gateway.passthrough import NamedModel
from cascade.gateway.services import Services
from cascade.gateway.switches import StoredSwitches
from cascade.models import ModelStore
from cascade.models import open_store as open_models
from cascade.recipes import Recipe, load_recipes
from cascade.registry import open_registry
from cascade.store import open_store
from cascade.tiers.embedded import EmbeddedEngine
from cascade.tiers.endpoint import Endpoint
from cascade.tiers.language import LanguageTier
from cascade.tiers.teacher import Teacher


@dataclass(frozen=True)
class Connection:
    """One LLM tier of the configuration, connected."""

    tier: str
    model: LanguageModel
    endpoint: Endpoint

    @property
    def named(self) -> NamedModel:
        """As callers may ask it by name."""
        return NamedModel(self.tier, self.model.model, self.endpoint, self.model.price)


def build_services(config: GatewayConfig, stack: ExitStack) -> Services:
    """Everything that ``config`` asks for, its embedded engines running.

    Parameters
    ----------
    stack : whatever must be stopped or closed in the end is put there, at once.

    Raises
    ------
    CascadeError
        A recipe is wrong, a model is missing, an engine does not start, the store does not open.
    """
    recipes = load_recipes(Path(config.tasks))
    store = open_store(config.store)
    stack.callback(store.close)
    connections = _connect_all(config, stack)
    metrics = Metrics()
    builder = LaneBuilder(
        _benches(config, recipes, connections),
        partial(observed, metrics=metrics),
        config.tiers.proxy.threads,
    )
    lanes = Lanes({task: builder.blank(task) for task in recipes}, StoredSwitches(store.flags))
    outbox = Outbox(store.decisions.append, metrics)
    auditor = Auditor(
        lanes,
        metrics,
        config.audit,
        rng=np.random.default_rng(),  # from the system's entropy: callers must not guess it
        keep=outbox.put,
        log=store,
    )
    registry = open_registry(config.registry)
    return Services(
        lanes=lanes,
        models=[connection.named for connection in connections.values()],
        metrics=metrics,
        outbox=outbox,
        auditor=auditor,
        keys=Keys(config.api_keys),
        admin_keys=Keys([config.admin_key] if config.admin_key else []),
        listen=config.listen,
        decisions=store.decisions,
        registry=registry,
        follower=Champions(
            recipes,
            registry,
            Path(config.models) / "live",
            builder=builder,
            install=_installing(lanes, auditor),
            poll_seconds=config.poll_seconds,
        ),
    )


def _installing(lanes: Lanes, auditor: Auditor) -> Callable[[Lane], None]:
    def install(lane: Lane) -> None:
        auditor.watch(lane)  # reads the store here, in the follower's thread
        lanes.install(lane)

    return install


def _connect_all(config: GatewayConfig, stack: ExitStack) -> dict[str, Connection]:
    """The LLM tiers by name, cheapest first."""
    tiers = {SMALL: config.tiers.small, LARGE: config.tiers.large}
    models = open_models({"CASCADE_MODELS": config.models})
    return {
        tier: Connection(tier, model, _connect(model, models, stack))
        for tier, model in tiers.items()
        if model is not None
    }


def _connect(model: LanguageModel, models: ModelStore, stack: ExitStack) -> Endpoint:
    urls, key = model.replicas, model.api_key
    if model.engine == "embedded":
        path = models.path(model.model)
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


def _benches(
    config: GatewayConfig, recipes: Mapping[str, Recipe], connections: Mapping[str, Connection]
) -> dict[str, Bench]:
    embedders = {
        name: load_embedder(name, Path(config.models), threads=config.tiers.proxy.threads)
        for name in {recipe.embedder for recipe in recipes.values()}
    }
    return {
        name: _bench(recipe, embedders[recipe.embedder], connections)
        for name, recipe in recipes.items()
    }


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
    )
