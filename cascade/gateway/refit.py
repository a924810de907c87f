"""Make the running parts of a gateway serve another configuration, without a dropped request.

What can fail comes first and touches nothing; then every part is swapped whole. A request that is
under way keeps the lane, the endpoint and the price it began with.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

from cascade.benches import Connection, connect, set_benches
from cascade.config import GatewayConfig, LanguageModel
from cascade.gateway.admission import Gate
from cascade.gateway.builder import LaneBuilder
from cascade.gateway.champions import Champions
from cascade.gateway.keys import Keys
from cascade.gateway.passthrough import NamedModel
from cascade.gateway.services import Services
from cascade.gateway.tenants import check_tasks
from cascade.recipes import Recipe, load_recipes
from cascade.tiers.endpoint import Endpoint


class Fitting(NamedTuple):
    """What one configuration needs: read, connected and loaded, but not in use yet."""

    recipes: Mapping[str, Recipe]
    connections: Mapping[str, Connection]
    builder: LaneBuilder


@dataclass
class Refit:
    """Takes over one configuration after the other.

    stack : closes at the gateway's end. retired : endpoints that were replaced.
    """

    services: Services
    champions: Champions
    fitting: Fitting
    stack: ExitStack
    retired: list[Endpoint] = field(default_factory=list)

    async def fit(self, config: GatewayConfig) -> None:
        """Serve ``config`` from the next request on.

        Raises
        ------
        CascadeError
            Something of it cannot be read or opened; the configuration before is served.
        """
        new = await asyncio.to_thread(self._prepare, config)
        await asyncio.to_thread(self.services.tenants.install, config.callers)
        self.services.admin_keys = admin_keys(config)
        self.services.models[:] = named_models(new.connections, self.services.models)
        self.services.auditor.tune(config.audit)
        await asyncio.to_thread(self.champions.reseat, new.recipes, new.builder)
        for task in self.fitting.recipes.keys() - new.recipes.keys():
            self.services.lanes.remove(task)
        before, self.fitting = self.fitting, new
        used = {one.endpoint for one in new.connections.values()}
        self.retired += {one.endpoint for one in before.connections.values()} - used

    async def tidy(self) -> None:
        """Close the connections of replaced endpoints that serve nobody at the moment.

        They stay on the list: an audit may come back to its old lane minutes later.
        """
        for endpoint in self.retired:
            if endpoint.idle:
                await endpoint.close()

    async def close(self) -> None:
        """Close the connections of all replaced endpoints."""
        for endpoint in self.retired:
            await endpoint.close()

    def _prepare(self, config: GatewayConfig) -> Fitting:
        before = self.fitting
        recipes = load_recipes(Path(config.tasks))
        check_tasks(config, recipes)
        connections = connect(config, self.stack, before.connections)
        embedders = {
            before.recipes[task].embedder: bench.embedder
            for task, bench in before.builder.benches.items()
        }
        benches = set_benches(config, recipes, connections, embedders)
        return Fitting(recipes, connections, replace(before.builder, benches=benches))


def named_models(
    connections: Mapping[str, Connection], earlier: Sequence[NamedModel] = ()
) -> list[NamedModel]:
    """The LLM tiers as callers may ask them by name.

    earlier : whose queue goes on where the endpoint does; a second one would let in twice as many.
    """
    gates = {one.upstream: one.gate for one in earlier}
    return [
        NamedModel(
            tier=one.tier,
            model=one.model.model,
            upstream=one.endpoint,
            price=one.model.price,
            gate=gates.get(one.endpoint) or _gate(one.model),
        )
        for one in connections.values()
    ]


def _gate(model: LanguageModel) -> Gate:
    return Gate(model.concurrency, model.queue_seconds)


def admin_keys(config: GatewayConfig) -> Keys:
    """The key of the admin pages, if there is one."""
    return Keys([config.admin_key] if config.admin_key else [])
