"""Compare a champion with its teacher on rows that nothing else has touched."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cascade.distill.replay import TEACHER, judge
from cascade.distill.workshop import Workshop, ask_small, ask_teacher, indices, look, scores
from cascade.errors import RegistryError
from cascade.tiers.artifact import Artifact, Rung
from cascade.tiers.proxy import Proxy


async def evaluate(shop: Workshop) -> dict[str, Any]:
    """Shares, agreement and (with gold labels) accuracy on the held-back rows.

    Raises
    ------
    RegistryError
        There is no champion, it is not certified, or it was made for something else.
    """
    artifact = champion(shop)
    texts = shop.texts(shop.pools.evaluate)
    truth = indices(await ask_teacher(shop, texts), shop.bench.task.labels)
    small = await ask_small(shop, texts)
    heard = None if small is None else scores(small, len(shop.bench.task.labels))
    opinions = judge(Proxy(artifact), look(shop.bench, texts), artifact.manifest.stack, heard)
    rung = Rung(artifact.manifest.thresholds or {}, {}, 0.0)
    tiers = opinions.by_tier(rung)
    below = opinions.answers([rung])[:, 0]
    final = np.where(below == TEACHER, truth, below)
    answered = below != TEACHER
    return {
        "task": shop.recipe.name,
        "rows": len(texts),
        "shares": {tier: float(rows.mean()) for tier, rows in tiers.items()},
        "agreement": float((final == truth).mean()),
        "conditional_agreement": float((final == truth)[answered].mean()) if any(answered) else 1.0,
        "gold_accuracy": _accuracy(shop, {"teacher": truth, "cascade": final}),
        "proxy_alone_agreement": float((opinions.proxy == truth).mean()),
    }


def champion(shop: Workshop) -> Artifact:
    """The champion's artifact, if it is for this very task, teacher and embedder."""
    name = shop.recipe.name
    version = shop.registry.champion(name)
    if version is None:
        raise RegistryError(f"{name} has no champion: cascade train <recipe> --promote")
    with TemporaryDirectory() as folder:
        artifact = Artifact.load(shop.registry.load(name, version, Path(folder)))
    if artifact.manifest.thresholds is None:
        raise RegistryError(
            f"{name} version {version} has no certificate: cascade promote <recipe>"
        )
    differing = artifact.manifest.identity.differences(shop.bench.identity)
    if differing:
        raise RegistryError(
            f"{name} version {version} was made for another {', '.join(differing)}: train again"
        )
    return artifact


def _accuracy(shop: Workshop, answers: dict[str, NDArray[np.int64]]) -> dict[str, float]:
    """Share of the human labels that each gives; empty where no row has one."""
    gold = shop.rows.gold
    place = {label: index for index, label in enumerate(shop.bench.task.labels)}
    known = [i for i, row in enumerate(shop.pools.evaluate) if gold and gold[row] in place]
    if not known:
        return {}
    human = np.array([place[gold[shop.pools.evaluate[i]]] for i in known])
    return {name: float((said[known] == human).mean()) for name, said in answers.items()}
