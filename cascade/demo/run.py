"""Distil, certify and promote where that is not done yet; then serve, ask, measure and tell."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
from rich.console import Console

from cascade import certify
from cascade.benches import LARGE
from cascade.certify import Certificate
from cascade.config import GatewayConfig, load_config
from cascade.demo.figures import Measured, report_of
from cascade.demo.picture import draw_report, print_report
from cascade.demo.traffic import Reply, gateway, send
from cascade.distill import pipeline
from cascade.distill.opening import in_workshop
from cascade.distill.workshop import Material, ProgressOf, Workshop, ask_teacher
from cascade.embed import load_embedder
from cascade.recipes import Recipe, load_recipe
from cascade.registry import open_registry
from cascade.store import Label, LabelKey, open_store
from cascade.tiers.artifact import Artifact

FORCED = 10
"""Requests that are sent to the large tier to know what always asking it would take."""

AGAIN_SECONDS = 12.0
"""How long a later run sends requests: it shows that what was made still answers."""


@dataclass(frozen=True)
class Champion:
    """What is promoted: its certificate, and the tracking run that made it."""

    certificate: Certificate
    run: str | None


def run(config_path: Path, recipe_path: Path, progress: ProgressOf, seconds: float | None) -> None:
    """The demo.

    Parameters
    ----------
    seconds : how long held-back requests are sent; by default all of them after a distillation,
        and ``AGAIN_SECONDS`` where the champion was there already.

    Raises
    ------
    CascadeError
        Something is missing or fails; what was bought until then is kept.
    """
    started, console = time.monotonic(), Console(stderr=True)
    config, recipe = load_config(config_path), load_recipe(recipe_path)
    there = find_champion(config, recipe)
    if there is None:
        console.print(f"[bold]1[/] distil, certify and promote {recipe.name} (labels are bought)")
        asyncio.run(in_workshop(config, recipe, pipeline.promote, progress=progress))
        limit = float("inf") if seconds is None else seconds
    else:
        console.print("[bold]1[/] the champion of an earlier run is there: nothing to buy")
        limit = AGAIN_SECONDS if seconds is None else seconds
    champion = there or find_champion(config, recipe)
    assert champion is not None
    console.print("[bold]2[/] start the gateway and send held-back requests")
    measured = measure(config, recipe, progress, limit)
    taken = time.monotonic() - started
    report = report_of(measured, champion.certificate, champion.run, taken)
    print_report(report, Console())
    write_report(report, Path("demo-report.json"), console)
    console.print(
        f"next: cascade ui ({config.registry}) shows the run; cascade serve starts the gateway; "
        f'cascade ask --model task/{recipe.name} "..." asks it'
    )


def write_report(report: dict[str, Any], path: Path, console: Console) -> None:
    """Keep the report and its picture, unless a longer run of the same certificate left its own."""
    earlier = json.loads(path.read_text()) if path.exists() else {}
    same = earlier.get("certificate", {}).get("digest") == report["certificate"]["digest"]
    if same and earlier["held_back_requests"] > report["held_back_requests"]:
        sent = earlier["held_back_requests"]
        console.print(f"{path} of the run with {sent} requests is kept; delete it to replace it")
        return
    path.write_text(json.dumps(report, indent=2) + "\n")
    draw_report(report, path.with_suffix(".png"))
    console.print(f"wrote {path} and {path.with_suffix('.png')}")


def find_champion(config: GatewayConfig, recipe: Recipe) -> Champion | None:
    """The champion, if it was made for this recipe, teacher, embedder and guarantee."""
    registry = open_registry(config.registry)
    version = registry.champion(recipe.name)
    if version is None:
        return None
    with TemporaryDirectory() as folder:
        artifact = Artifact.load(registry.load(recipe.name, version, Path(folder)))
    embedder = load_embedder(recipe.embedder, Path(config.models))
    wanted = recipe.task.identity(config.tiers.large.model, f"{embedder.name}@{embedder.version}")
    if artifact.certificate is None or artifact.manifest.identity != wanted:
        return None
    certificate = certify.from_json(artifact.certificate)
    asked = (recipe.guarantee.target, recipe.guarantee.delta)
    if (certificate.target, certificate.delta) != asked:
        return None
    return Champion(certificate, registry.describe(recipe.name, version).run)


def measure(
    config: GatewayConfig, recipe: Recipe, progress: ProgressOf, seconds: float
) -> Measured:
    """Held-back requests through a real gateway, then the teacher's label of every one."""
    material = Material(recipe)
    texts = material.texts(material.pools.evaluate)
    model, private = f"task/{recipe.name}", _private(config)
    with gateway(private) as base_url, progress("requests") as report:
        replies = []
        for reply in send(base_url, model, texts, seconds=seconds):
            replies.append(reply)
            report(len(replies), len(texts), sum(one.dollars for one in replies))
        forced = list(send(base_url, model, texts[:FORCED], tier=LARGE))
    sent = texts[: len(replies)]
    bought = teacher_labels(config, recipe, replies, progress)
    gold = material.rows.gold
    return Measured(
        replies=replies,
        forced=forced,
        teacher=_in_order(replies, [one.answer for one in bought]),
        teacher_dollars=[one.usage.dollars for one in bought],
        gold=None if gold is None else [gold[row] for row in material.pools.evaluate[: len(sent)]],
    )


def teacher_labels(
    config: GatewayConfig, recipe: Recipe, replies: Sequence[Reply], progress: ProgressOf
) -> list[Label]:
    """The teacher's label of every text that it did not answer itself, bought where none is there.

    Where the gateway asked it, its answer is the label: it is not asked twice.
    """
    texts = [reply.text for reply in replies if reply.tier != LARGE]
    keys = [LabelKey.of(recipe.task, config.tiers.large.model, text) for text in texts]
    store = open_store(config.store)
    try:
        have = store.labels.get_many(keys)
    finally:
        store.close()
    if all(key in have for key in keys):
        return [have[key] for key in keys]

    async def buy(shop: Workshop) -> list[Label]:
        return await ask_teacher(shop, texts)

    return asyncio.run(in_workshop(config, recipe, buy, progress=progress))


def _in_order(replies: Sequence[Reply], bought: Sequence[str | None]) -> list[str | None]:
    """The teacher's label of each reply's text: its own answers, and what was bought beside."""
    rest = iter(bought)
    return [reply.label if reply.tier == LARGE else next(rest) for reply in replies]


def _private(config: GatewayConfig) -> GatewayConfig:
    """The same gateway on a free port of loopback, without keys."""
    listen = msgspec.structs.replace(config.listen, host="127.0.0.1", port=0)
    return msgspec.structs.replace(config, listen=listen, api_keys=(), admin_key=None)
