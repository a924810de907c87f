"""What a configuration and a recipe need of this machine: models, packages, tables, folders.

Knows where to look; knows no YAML. Every answer is a sentence that ends with the next step.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from importlib.util import find_spec
from pathlib import Path

import msgspec

from cascade.benches import LARGE, SMALL
from cascade.config import GatewayConfig, LanguageModel
from cascade.distill.source import look_at
from cascade.embed.card import read_card
from cascade.errors import CascadeError, ConfigError, MissingExtra
from cascade.gateway.tenants import task_misfits
from cascade.models import open_store
from cascade.models.manifest import Llm
from cascade.models.store import ModelStatus
from cascade.recipes import Source
from cascade.registry.mlflow_connection import database_file
from cascade.shapes import KeyPath, Misfit, instead
from cascade.store.database import read_url
from cascade.tiers.endpoint import Endpoint

REGISTRIES = ("http", "https", "sqlite", "postgresql", "mysql", "mssql")
"""What the URI of an MLflow begins with; anything without ``://`` is a folder."""

SOME_URL = "http://127.0.0.1/v1"


def config_misfits(
    config: GatewayConfig, written: Collection[KeyPath], tasks: Collection[str]
) -> Iterator[Misfit]:
    """What keeps this machine from serving ``config``.

    Parameters
    ----------
    written : the keys that the file has; the others are defaults.
    tasks : names of the recipes; with one, the gateway is going to say what it saves.
    """
    for tier, model in {SMALL: config.tiers.small, LARGE: config.tiers.large}.items():
        if model is None:
            continue
        path = ("tiers", tier)
        if tasks and (*path, "price") not in written:
            price = "price: {input: 0.60, cached_input: 0.12, output: 1.20}"
            yield Misfit(path, f"without a price nobody knows what is saved: add `{price}`")
        engine_of = _embedded_misfits if model.engine == "embedded" else _endpoint_misfits
        for misfit in engine_of(model, config.models):
            yield Misfit((*path, *misfit.path), misfit.message)
    if not Path(config.tasks).is_dir():
        message = f"{config.tasks} is no folder of recipes: make it, or see 'cascade init --help'"
        yield Misfit(("tasks",), message)
    yield from task_misfits(config, tasks)
    if config.tracing.endpoint is not None and find_spec("opentelemetry") is None:
        yield Misfit(("tracing", "endpoint"), str(MissingExtra("tracing", "otel")))
    yield from _store_misfits(config.store)
    yield from _registry_misfits(config.registry)


def embedder_misfits(name: str, models: Path) -> Iterator[Misfit]:
    """Whether a recipe's embedder is in the folder of the models."""
    try:
        read_card(models / name)
    except (CascadeError, OSError) as exc:
        known = [one.model.name for one in _statuses(models) if not isinstance(one.model, Llm)]
        yield Misfit(("embedder",), f"{exc}{'' if name in known else instead(name, known)}")


def table_misfits(source: Source) -> Iterator[Misfit]:
    """The file, the text column or the gold column: the first of them that is missing."""
    key = "text" if Path(source.table).is_file() else "table"
    try:
        look_at(msgspec.structs.replace(source, gold=None))
        key = "gold"
        look_at(source)
    except (CascadeError, OSError) as exc:
        yield Misfit(("source", key), str(exc))


def _embedded_misfits(model: LanguageModel, models: str) -> Iterator[Misfit]:
    if find_spec("xllamacpp") is None:
        yield Misfit(("engine",), str(MissingExtra("the embedded engine", "embedded")))
    llms = {one.model.name: one for one in _statuses(Path(models)) if isinstance(one.model, Llm)}
    if model.model not in llms:
        message = f"no embedded model is called {model.model!r}{instead(model.model, llms)}"
        yield Misfit(("model",), message)
    elif not llms[model.model].path.exists():
        message = f"{model.model} is not here: run 'cascade models pull {model.model}'"
        yield Misfit(("model",), message)


def _endpoint_misfits(model: LanguageModel, models: str) -> Iterator[Misfit]:
    for place, url in enumerate(model.replicas):
        try:
            Endpoint(model.model, [url])
        except ConfigError as exc:
            yield Misfit(("replicas", place), str(exc))
    try:
        Endpoint(model.model, [SOME_URL], model.api_key)
    except ConfigError as exc:
        yield Misfit(("api_key",), str(exc))


def _store_misfits(url: str) -> Iterator[Misfit]:
    try:
        parsed = read_url(url)
    except CascadeError as exc:
        yield Misfit(("store",), str(exc))
        return
    if parsed.get_backend_name() == "sqlite":
        yield from _folder_misfits("store", Path(parsed.database or "").parent)
    elif find_spec("psycopg") is None:
        yield Misfit(("store",), str(MissingExtra("a PostgreSQL store", "postgres")))


def _registry_misfits(uri: str) -> Iterator[Misfit]:
    scheme, address, _ = uri.partition("://")
    if not address:
        yield from _folder_misfits("registry", Path(uri))
        return
    if scheme.partition("+")[0] not in REGISTRIES:
        near = instead(scheme, REGISTRIES)
        message = f"{scheme}:// is no registry{near}; a path without :// is a folder"
        yield Misfit(("registry",), message)
        return
    if find_spec("mlflow") is None:
        yield Misfit(("registry",), str(MissingExtra("MLflow", "train")))
    file = database_file(uri)
    if file is not None:
        yield from _folder_misfits("registry", file.parent)


def _folder_misfits(key: str, folder: Path) -> Iterator[Misfit]:
    """Whether something can be written there; missing folders are made when it is needed."""
    there = next(one for one in (folder, *folder.absolute().parents) if one.exists())
    if not there.is_dir():
        yield Misfit((key,), f"{there} is a file, and a folder is needed there: name another path")
    elif not os.access(there, os.W_OK):
        yield Misfit((key,), f"{there} cannot be written: change its permissions or the path")


def _statuses(models: Path) -> list[ModelStatus]:
    return open_store({"CASCADE_MODELS": str(models)}).list()
