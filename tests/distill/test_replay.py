"""A replay and the real router agree on every row of every rung."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest

from cascade.benches import LARGE, PROXY, SMALL
from cascade.distill.distil import Distilled, distil
from cascade.distill.replay import TEACHER, Opinions, judge
from cascade.distill.workshop import Views, Workshop, ask_small, look, scores
from cascade.policies import Ladder
from cascade.router import Router
from cascade.tiers.artifact import Rung
from cascade.tiers.proxy import Proxy, ProxyTier
from cascade.tiers.stacked import StackedTier
from cascade.types import SKIP, Decision, Query
from tests.distill.workshops import (
    ALIEN,
    MAX_TOKENS,
    YES,
    Opinion,
    large_tier,
    lean,
    recipe_of,
    reviews,
    small_tier,
    workshop,
    write_table,
)

LONG = " ".join(["w1 lovely"] * MAX_TOKENS)
NOVEL = f"{ALIEN} {ALIEN} lovely"
MUTE, SCORELESS = "w3 lovely w3 indeed w3", "w4 awful w4 hardly w4"


def moody(text: str) -> Opinion:
    """Like ``lean``, but unreadable on one text and without probabilities on another."""
    if text == MUTE:
        return None, ()
    return (YES, ()) if text == SCORELESS else lean(text)


@dataclass(frozen=True)
class Made:
    shop: Workshop
    distilled: Distilled
    texts: list[str]

    @property
    def opinions(self) -> Opinions:
        small = asyncio.run(ask_small(self.shop, self.texts))
        heard = None if small is None else scores(small, 2)
        stack = self.distilled.artifact.manifest.stack
        return judge(
            Proxy(self.distilled.artifact), look(self.shop.bench, self.texts), stack, heard
        )

    def decisions(self, rung: Rung) -> list[Decision]:
        """What the gateway's parts decide."""
        bench, artifact = self.shop.bench, self.distilled.artifact
        proxy = ProxyTier(PROXY, Proxy(artifact), bench.embedder, bench.task)
        tiers = {PROXY: proxy, LARGE: bench.large}
        if bench.small is not None and artifact.manifest.stack is not None:
            stack = artifact.manifest.stack
            tiers[SMALL] = StackedTier(SMALL, bench.task, bench.small, proxy, stack)
        router = Router(tiers, Ladder(rung.thresholds, LARGE))
        return asyncio.run(router.route_many([Query.from_text(text) for text in self.texts]))


@pytest.fixture(scope="module", params=["with a small tier", "without"])
def made(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Made]:
    folder = tmp_path_factory.mktemp("replay")
    recipe = recipe_of(write_table(folder / "t.csv", reviews(800)))
    small = small_tier(moody) if request.param == "with a small tier" else None
    with workshop(folder, recipe, large_tier(), small) as shop:
        texts = [*reviews(200, seed=1), LONG, NOVEL, MUTE, SCORELESS]
        yield Made(shop, asyncio.run(distil(shop)), texts)


def test_replay_agrees_with_the_router_row_by_row(made: Made) -> None:
    opinions, labels = made.opinions, made.shop.bench.task.labels
    path = made.distilled.artifact.manifest.path
    for rung, replayed in zip(path, opinions.answers(path).T, strict=True):
        by_tier = opinions.by_tier(rung)
        decisions = made.decisions(rung)
        for row, decision in enumerate(decisions):
            assert decision.answer is not None
            tier = decision.answer.tier
            assert (replayed[row] == TEACHER) == (tier == LARGE)
            assert [name for name, rows in by_tier.items() if rows[row]] == [tier] * (tier != LARGE)
            if tier != LARGE:
                assert labels[replayed[row]] == decision.answer.text
        asked = [any(reply.tier == SMALL for reply in one.trail) for one in decisions]
        assert opinions.asks_small(rung).tolist() == asked


def test_replay_agrees_with_the_router_where_a_label_has_its_own_threshold(made: Made) -> None:
    opinions, labels = made.opinions, made.shop.bench.task.labels
    rung = Rung({PROXY: 2.0, f"{PROXY}:{YES}": 0.6}, {}, 0.0)
    (replayed,) = opinions.answers([rung]).T
    said = [one.answer.text if one.answer.tier == PROXY else None for one in made.decisions(rung)]
    assert [None if one == TEACHER else labels[one] for one in replayed] == said
    assert said.count(YES) > 20 and set(said) == {YES, None}


def test_replay_agrees_with_the_router_where_the_small_tier_is_skipped(made: Made) -> None:
    trusts = made.opinions.proxy_trust
    low, high = np.quantile(trusts[trusts >= 0], [0.3, 0.7])
    rung = Rung({PROXY: float(high), SMALL: 0.6, SKIP: float(low)}, {}, 0.0)
    if made.shop.bench.small is None:
        rung = Rung({PROXY: float(high)}, {}, 0.0)
    (replayed,) = made.opinions.answers([rung]).T
    decisions = made.decisions(rung)
    asked = [any(reply.tier == SMALL for reply in one.trail) for one in decisions]
    assert made.opinions.asks_small(rung).tolist() == asked
    below = [one.answer is not None and one.answer.tier != LARGE for one in decisions]
    assert (replayed != TEACHER).tolist() == below
    if made.shop.bench.small is not None:
        skipped = (trusts >= 0) & (trusts < low)
        assert skipped.sum() > 20 and not np.any(replayed[skipped] != TEACHER)
        assert 20 < sum(asked) < len(asked) / 2


def test_every_tier_answers_something_so_that_agreeing_means_something(made: Made) -> None:
    bold = made.distilled.artifact.manifest.path[-1]
    shares = {name: rows.mean() for name, rows in made.opinions.by_tier(bold).items()}
    assert shares[PROXY] > 0.1
    assert (shares[SMALL] > 0.1) == (made.shop.bench.small is not None)


def test_what_is_unusual_for_the_proxy_goes_to_the_teacher(made: Made) -> None:
    everything = Rung({PROXY: 0.0, SMALL: 0.0}, {}, 0.0)
    (answers,) = made.opinions.answers([everything]).T
    assert answers[made.texts.index(LONG)] == answers[made.texts.index(NOVEL)] == TEACHER


def test_small_tier_that_says_nothing_usable_passes_no_threshold(made: Made) -> None:
    only_small = Rung({PROXY: 2.0, SMALL: 0.0}, {}, 0.0)
    (answers,) = made.opinions.answers([only_small]).T
    assert answers[made.texts.index(MUTE)] == answers[made.texts.index(SCORELESS)] == TEACHER


def test_no_small_threshold_means_no_small_tier() -> None:
    sure, no_idea = np.array([0.9, 0.2]), np.array([1.0, 1.0])
    opinions = Opinions(np.array([0, 1]), sure, np.array([1, 1]), no_idea)
    rung = Rung({PROXY: 0.5}, {}, 0.0)
    assert opinions.answers([rung])[:, 0].tolist() == [0, TEACHER]
    assert not opinions.asks_small(rung).any()


def test_views_are_cut_alike() -> None:
    views = Views(np.eye(3, dtype=np.float32), np.array([1, 2, 3]), np.array([True, False, True]))
    kept = views[views.whole]
    assert kept.tokens.tolist() == [1, 3]
    assert kept.embeddings.shape == (2, 3)
