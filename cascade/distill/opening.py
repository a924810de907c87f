"""Open a workshop for one step: engines, store and registry, all closed afterwards."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TypeVar

from cascade.benches import connect, set_benches
from cascade.config import GatewayConfig
from cascade.distill.workshop import ProgressOf, Workshop
from cascade.recipes import Recipe
from cascade.registry import open_registry
from cascade.store import open_store

Result = TypeVar("Result")


async def in_workshop(
    config: GatewayConfig,
    recipe: Recipe,
    step: Callable[[Workshop], Awaitable[Result]],
    *,
    progress: ProgressOf,
    limit_dollars: float = float("inf"),
) -> Result:
    """Run one step in a workshop whose embedded engines live for exactly that long.

    Parameters
    ----------
    limit_dollars : most to spend on labels, of every tier together.

    Raises
    ------
    CascadeError
        Something could not be opened, or the step failed.
    """
    with ExitStack() as stack:
        store = open_store(config.store)
        stack.callback(store.close)
        connections = connect(config, stack)
        shop = Workshop(
            recipe=recipe,
            bench=set_benches(config, {recipe.name: recipe}, connections)[recipe.name],
            store=store,
            registry=open_registry(config.registry),
            work=Path(config.models) / "work",
            progress=progress,
            tracking=config.registry if "://" in config.registry else None,
            limit_dollars=limit_dollars,
            audit_rate=config.audit.rate,
            concurrency=config.tiers.large.concurrency,
        )
        try:
            return await step(shop)
        finally:
            for connection in connections.values():
                await connection.endpoint.close()
