"""Nine easy requests for every hard one: what a champion does with them, beside always-large.

How the mix is made: rows whose teacher labels are in the store and that the champion was not fitted
on, in the order of the teacher's margin (log-probability of its label minus that of the next one).
Easy requests come from the upper half, hard ones from the lowest fifth. No LLM is asked: the large
tier answers from the store, and the small tier is left out.

    python training/experiments/mix.py training/recipes/spam.yaml
"""

from __future__ import annotations

import argparse
import asyncio
import csv
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from cascade.config import GatewayConfig, load_config
from cascade.embed import Embedder, load_embedder
from cascade.policies import Ladder
from cascade.recipes import Recipe, load_recipe
from cascade.registry.opening import open_registry
from cascade.store import LabelKey, open_store
from cascade.tiers.artifact import Artifact
from cascade.tiers.proxy import Proxy, ProxyTier
from cascade.types import Accept, Query, Reply

EASY_FROM, HARD_TO = 0.5, 0.2
SAME_ROW = 0.999  # int8 embeddings of one text differ a little from batch to batch


@dataclass(frozen=True)
class Request:
    """A text, what the teacher said of it, its margin in nats, and what a person said."""

    text: str
    label: str
    margin: float
    gold: str | None


def bought(recipe: Recipe, config: GatewayConfig, teacher: str) -> list[Request]:
    """Every row of the recipe's table that the teacher has answered."""
    column, gold = recipe.source.column.column, recipe.source.gold or ""
    with Path(recipe.source.table).open(encoding="utf-8", newline="") as file:
        rows = {LabelKey.of(recipe.task, teacher, r[column]): r for r in csv.DictReader(file)}
    with open_store(config.store) as store:
        labels = store.labels.get_many(rows)
    requests = []
    for key, label in labels.items():
        if label.answer is not None and len(label.scores) > 1:
            second, first = np.log(np.maximum(np.sort(label.scores)[-2:], 1e-9))
            text = recipe.task.window.crop(rows[key][column])
            requests.append(Request(text, label.answer, first - second, rows[key].get(gold)))
    return requests


def held_back(requests: list[Request], embedder: Embedder, artifact: Artifact) -> list[Request]:
    """The requests whose embedding is not among those that the champion was fitted on."""
    embeddings = embedder.encode([one.text for one in requests])
    nearest = (embeddings @ artifact.arrays["rows"].astype(np.float32).T).max(axis=1)
    return [one for one, cosine in zip(requests, nearest, strict=True) if cosine < SAME_ROW]


def made_mix(requests: list[Request], rng: np.random.Generator) -> list[Request]:
    """Nine easy requests for every hard one, as many as there are."""
    ordered = sorted(requests, key=lambda one: (one.margin, one.text))
    hard = ordered[: int(HARD_TO * len(ordered))]
    easy = ordered[int(EASY_FROM * len(ordered)) :]
    tenths = min(len(easy) // 9, len(hard))
    drawn = ((easy, 9 * tenths), (hard, tenths))
    return [part[i] for part, size in drawn for i in rng.choice(len(part), size, replace=False)]


def outcome(mix: list[Request], replies: list[Reply], threshold: float) -> str:
    """Share at the proxy, agreement with always-large, and how often each is right."""
    policy = Ladder({"proxy": threshold}, "large")
    moves = [policy.decide(Query(id="", messages=()), (reply,)) for reply in replies]
    stayed = [move.answer.text if isinstance(move, Accept) else None for move in moves]
    said = [text or one.label for text, one in zip(stayed, mix, strict=True)]
    share = np.mean([text is not None for text in stayed])
    agreed = np.mean([text == one.label for text, one in zip(said, mix, strict=True)])
    right = np.mean([text == one.gold for text, one in zip(said, mix, strict=True)])
    large_right = np.mean([one.label == one.gold for one in mix])
    return f"{threshold:9.3f} {share:9.1%} {agreed:10.1%} {right:7.1%} {large_right:12.1%}"


def main() -> None:
    parser = argparse.ArgumentParser(description="A champion on 90% easy and 10% hard requests.")
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--config", type=Path, default=Path("serving/gateway.yaml"))
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    recipe, config = load_recipe(arguments.recipe), load_config(arguments.config)

    registry = open_registry(config.registry)
    version = registry.champion(recipe.name)
    if version is None:
        raise SystemExit(f"no champion: run 'cascade train {arguments.recipe} --promote'")
    with TemporaryDirectory() as folder:
        artifact = Artifact.load(registry.load(recipe.name, version, Path(folder)))
    manifest, embedder = artifact.manifest, load_embedder(recipe.embedder, Path(config.models))

    requests = held_back(bought(recipe, config, manifest.identity.teacher), embedder, artifact)
    mix = made_mix(requests, np.random.default_rng(arguments.seed))
    print(f"{len(requests)} requests not trained on, {len(mix)} in the mix")
    print("threshold  at proxy  agreement   right  large right")
    tier = ProxyTier("proxy", Proxy(artifact), embedder, recipe.task)
    replies = asyncio.run(tier.answer([Query.from_text(one.text) for one in mix]))
    certified = (manifest.thresholds or {}).get("proxy")
    for threshold in sorted({rung.thresholds["proxy"] for rung in manifest.path}):
        print(outcome(mix, replies, threshold), "certified" if threshold == certified else "")


if __name__ == "__main__":
    main()
