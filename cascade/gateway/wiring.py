"""Build a gateway once from its configuration. The only place that knows every part by name."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cascade.benches import connect, set_benches
from cascade.config import GatewayConfig
from cascade.errors import MissingExtra
from cascade.gateway.audit import Auditor
from cascade.gateway.builder import LaneBuilder
from cascade.gateway.champions import Champions
from cascade.gateway.decisions import Outbox
from cascade.gateway.lanes import Lanes
from cascade.gateway.observe import Metrics, observed
from cascade.gateway.refit import Fitting, Refit, admin_keys, named_models
from cascade.gateway.reload import Reload
from cascade.gateway.services import Services
from cascade.gateway.spending import Spending
from cascade.gateway.switches import StoredSwitches
from cascade.gateway.tenants import Tenants, check_tasks
from cascade.gateway.watched import Watched
from cascade.recipes import load_recipes
from cascade.registry import open_registry
from cascade.store import open_store
from cascade.types import Tier

if TYPE_CHECKING:  # OpenTelemetry is loaded only where tracing is on
    from cascade.gateway.tracing import Tracing


def build_services(config: GatewayConfig, stack: ExitStack, path: Path | None = None) -> Services:
    """Everything that ``config`` asks for, its embedded engines running.

    Parameters
    ----------
    stack : whatever must be stopped or closed in the end is put there, at once.
    path : of the file to follow; None follows none.

    Raises
    ------
    CascadeError
        A recipe is wrong, a model is missing, an engine does not start, the store does not open.
    """
    watched = None if path is None else Watched(path, Path(config.tasks))
    recipes = load_recipes(Path(config.tasks))
    check_tasks(config, recipes)
    store = open_store(config.store)
    stack.callback(store.close)
    connections = connect(config, stack)
    metrics, tracing = Metrics(), _open_tracing(config, stack)
    builder = LaneBuilder(
        set_benches(config, recipes, connections),
        partial(_watched, metrics=metrics, tracing=tracing),
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
    champions = Champions(
        recipes,
        registry,
        Path(config.models) / "live",
        builder=builder,
        install=auditor.install,
        poll_seconds=config.poll_seconds,
    )
    services = Services(
        lanes=lanes,
        models=named_models(connections),
        metrics=metrics,
        outbox=outbox,
        auditor=auditor,
        tenants=Tenants(config.callers, Spending(store.decisions.spent)),
        admin_keys=admin_keys(config),
        listen=config.listen,
        decisions=store.decisions,
        audits=store.audits,
        registry=registry,
        follower=champions,
        tracing=tracing,
    )
    if watched is not None:
        refit = Refit(services, champions, Fitting(recipes, connections, builder), stack)
        services.reload = Reload(watched, config, refit, metrics)
    return services


def _open_tracing(config: GatewayConfig, stack: ExitStack) -> Tracing | None:
    """None, and nothing imported, without an endpoint."""
    if config.tracing.endpoint is None:
        return None
    try:
        from cascade.gateway.tracing import open_tracing
    except ImportError as exc:
        raise MissingExtra("tracing", "otel") from exc
    return open_tracing(config.tracing, stack)


def _watched(
    tiers: Mapping[str, Tier], metrics: Metrics, tracing: Tracing | None
) -> Mapping[str, Tier]:
    watched = observed(tiers, metrics)
    return watched if tracing is None else tracing.tiers(watched)
