"""A skip that a path asks for is certified, sealed, and does in the gateway what was certified."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np

from cascade import certify
from cascade.benches import PROXY, SMALL
from cascade.distill.certification import certify_stream
from cascade.distill.distil import Distilled, distil
from cascade.distill.replay import TEACHER, Opinions, judge
from cascade.distill.workshop import Workshop, ask_small, look, scores
from cascade.gateway.builder import LaneBuilder
from cascade.tiers.artifact import Rung
from cascade.tiers.proxy import Proxy
from cascade.types import SKIP, Query
from tests.distill.workshops import (
    large_tier,
    recipe_of,
    reviews,
    small_tier,
    workshop,
    write_table,
)


def skipping(distilled: Distilled, opinions: Opinions) -> Distilled:
    """The same proxy with a path that skips the small tier on the half it knows least about."""
    low, middle, high = np.quantile(opinions.proxy_trust, [0.5, 0.6, 0.7])
    path = tuple(
        Rung({PROXY: float(at), SMALL: 0.7, SKIP: float(low)}, {"large": 0.5}, 0.0)
        for at in (high, middle)
    )
    manifest = msgspec.structs.replace(distilled.artifact.manifest, path=path)
    return replace(distilled, artifact=replace(distilled.artifact, manifest=manifest))


async def opinions_of(shop: Workshop, distilled: Distilled, texts: list[str]) -> Opinions:
    said = await ask_small(shop, texts)
    assert said is not None
    views, stack = look(shop.bench, texts), distilled.artifact.manifest.stack
    return judge(Proxy(distilled.artifact), views, stack, scores(said, 2))


async def test_a_skip_is_certified_and_served(tmp_path: Path) -> None:
    recipe = recipe_of(write_table(tmp_path / "t.csv", reviews(800)))
    texts = reviews(200, seed=1)
    with workshop(tmp_path, recipe, large_tier(), small_tier()) as shop:
        distilled = await distil(shop)
        opinions = await opinions_of(shop, distilled, texts)
        certified = await certify_stream(shop, skipping(distilled, opinions))
        certificate = certified.certificate
        assert certificate is not None and certificate.thresholds[SKIP] > 0
        certify.verify(certificate)

        certified.artifact.save(tmp_path / "proxy")
        builder = LaneBuilder({"mood": shop.bench}, watching=dict)
        lane = builder.build("mood", "1", tmp_path / "proxy")
        decisions = await lane.router.route_many([Query.from_text(text) for text in texts])

    rung = Rung(certificate.thresholds, {}, 0.0)
    asked = [any(reply.tier == SMALL for reply in one.trail) for one in decisions]
    assert opinions.asks_small(rung).tolist() == asked
    assert 10 < sum(asked) < 80
    by_teacher = [one.answer is not None and one.answer.tier == "large" for one in decisions]
    assert (opinions.answers([rung])[:, 0] == TEACHER).tolist() == by_teacher
