"""The one loop, with doubles for tiers."""

from __future__ import annotations

from cascade import Query, Usage, reasons
from cascade.policies import Ladder
from cascade.router import Router
from cascade.testing import FakeTier

PROXY = {"easy": ("yes", 0.99), "middling": ("yes", 0.5), "hard": ("yes", 0.5)}
SMALL = {"middling": ("no", 0.9), "hard": ("no", 0.2)}


def make_router() -> tuple[Router, dict[str, FakeTier]]:
    tiers = {
        "proxy": FakeTier("proxy", PROXY, Usage(seconds=1)),
        "small": FakeTier("small", SMALL, Usage(seconds=10)),
        "large": FakeTier(
            "large", {"hard": ("maybe", 1.0), "odd": ("no", 1.0)}, Usage(seconds=100)
        ),
    }
    return Router(tiers, Ladder({"proxy": 0.9, "small": 0.8}, teacher="large")), tiers


async def test_each_query_ends_at_the_cheapest_tier_that_is_sure() -> None:
    router, tiers = make_router()
    texts = ["hard", "easy", "middling", "odd", "lost"]
    decisions = await router.route_many([Query.from_text(text) for text in texts])
    ends = [decision.answer and decision.answer.tier for decision in decisions]
    assert ends == ["large", "proxy", "small", "large", None]
    assert tiers["small"].asked == ["hard", "middling"]


async def test_a_tier_is_asked_once_a_round() -> None:
    router, tiers = make_router()
    await router.route_many([Query.from_text("easy")] * 5)
    assert tiers["proxy"].asked == ["easy"] * 5
    assert tiers["small"].asked == tiers["large"].asked == []


async def test_everything_spent_is_counted() -> None:
    router, _ = make_router()
    decision = await router.route(Query.from_text("hard"))
    assert decision.usage.seconds == 111
    assert [reply.tier for reply in decision.trail] == ["proxy", "small", "large"]


async def test_no_answer_is_a_decision_with_a_reason() -> None:
    router, _ = make_router()
    decision = await router.route(Query.from_text("lost"))
    assert decision.answer is None
    assert decision.reason == reasons.TIER_UNAVAILABLE


async def test_no_queries_no_decisions() -> None:
    router, _ = make_router()
    assert await router.route_many([]) == []
