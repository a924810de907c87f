"""Build a gateway once from its configuration. The only place that knows every part by name."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from pathlib import Path

import numpy as np

from cascade.benches import Connection, connect, set_benches
from cascade.config import GatewayConfig
from cascade.gateway.audit import Auditor
from cascade.gateway.builder import LaneBuilder
from cascade.gateway.champions import Champions
from cascade.gateway.decisions import Outbox
from cascade.gateway.keys import Keys
from cascade.gateway.lanes import Lanes
from cascade.gateway.observe import Metrics, observed
from cascade.gateway.passthrough import NamedModel
from cascade.gateway.services import Services
from cascade.gateway.switches import StoredSwitches
from cascade.recipes import load_recipes
from cascade.registry import open_registry
from cascade.store import open_store


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
    connections = connect(config, stack)
    metrics = Metrics()
    builder = LaneBuilder(
        set_benches(config, recipes, connections),
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
        models=[_named(connection) for connection in connections.values()],
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
            install=auditor.install,
            poll_seconds=config.poll_seconds,
        ),
    )


def _named(connection: Connection) -> NamedModel:
    """A tier as callers may ask it by name."""
    model = connection.model
    return NamedModel(connection.tier, model.model, connection.endpoint, model.price)
