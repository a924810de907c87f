"""The policies with three answers and no event loop."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cascade import Abstention, Accept, Answer, Ask, GiveUp, Query, reasons
from cascade.policies import Hurried, Ladder, Straight
from cascade.types import SKIP, Reply, Usage

QUERY = Query.from_text("is it good?")
LADDER = Ladder({"proxy": 0.9, "small": 0.8}, teacher="large")
CONFIDENCE = st.floats(0, 1)
THRESHOLDS = st.tuples(CONFIDENCE, CONFIDENCE, CONFIDENCE).map(
    lambda drawn: dict(zip(("proxy", "small", SKIP), drawn, strict=True))  # cheapest tier first
)
LADDERS = THRESHOLDS.map(lambda thresholds: Ladder(thresholds, teacher="large"))
SAYING = st.fixed_dictionaries({"proxy": CONFIDENCE, "small": CONFIDENCE})


def answer(tier: str, confidence: float = 1.0) -> Answer:
    return Answer(tier, "yes", confidence)


def test_cheapest_tier_first() -> None:
    assert LADDER.decide(QUERY, ()) == Ask("proxy")


def test_without_tiers_below_the_teacher_is_asked() -> None:
    assert Ladder({}, teacher="large").decide(QUERY, ()) == Ask("large")


def test_confidence_at_the_threshold_is_enough() -> None:
    sure = answer("proxy", 0.9)
    assert LADDER.decide(QUERY, (sure,)) == Accept(sure, reasons.CERTIFIED)


def test_below_threshold_climbs_one_step() -> None:
    assert LADDER.decide(QUERY, (answer("proxy", 0.89),)) == Ask("small")
    trail = (answer("proxy", 0.5), answer("small", 0.5))
    assert LADDER.decide(QUERY, trail) == Ask("large")


def test_a_label_may_have_a_threshold_of_its_own() -> None:
    ladder = Ladder({"proxy": 2.0, "proxy:yes": 0.7, "small": 0.8}, teacher="large")
    sure, other = Answer("proxy", "yes", 0.7), Answer("proxy", "no", 1.0)
    assert ladder.decide(QUERY, (sure,)) == Accept(sure, reasons.CERTIFIED)
    assert ladder.decide(QUERY, (other,)) == Ask("small")
    assert ladder.decide(QUERY, (other, Answer("small", "yes", 0.75))) == Ask("large")


def walk(ladder: Ladder, saying: dict[str, float]) -> list[str]:
    """The tiers that were asked, the last of which answered."""
    trail: tuple[Reply, ...] = ()
    while isinstance(move := ladder.decide(QUERY, trail), Ask):
        trail = (*trail, answer(move.tier, saying.get(move.tier, 1.0)))
    assert isinstance(move, Accept) and move.answer == trail[-1]
    return [reply.tier for reply in trail]


def test_a_proxy_that_is_quite_lost_skips_the_small_tier() -> None:
    ladder = Ladder({"proxy": 0.9, "small": 0.8, SKIP: 0.3}, teacher="large")
    assert ladder.decide(QUERY, (answer("proxy", 0.3),)) == Ask("small")
    assert ladder.decide(QUERY, (answer("proxy", 0.29),)) == Ask("large")
    large = answer("large")
    skipped = ladder.decide(QUERY, (answer("proxy", 0.1), large))
    assert skipped == Accept(large, reasons.BELOW_THRESHOLD)


def test_a_small_tier_that_was_asked_is_never_skipped() -> None:
    ladder = Ladder({"proxy": 0.9, "small": 0.2, "medium": 0.9, SKIP: 0.5}, teacher="large")
    assert ladder.decide(QUERY, (answer("proxy", 0.6), answer("small", 0.1))) == Ask("medium")


@pytest.mark.parametrize("order", [[SKIP, "proxy", "small"], ["proxy", SKIP, "small"]])
def test_the_skip_is_no_tier(order: list[str]) -> None:
    ladder = Ladder(dict.fromkeys(order, 0.5), teacher="large")
    assert ladder.decide(QUERY, ()) == Ask("proxy")
    assert walk(ladder, {"proxy": 0.4, "small": 0.9}) == ["proxy", "large"]


@pytest.mark.parametrize("tier", ["proxy", "small"])
def test_abstention_goes_straight_to_the_teacher(tier: str) -> None:
    assert LADDER.decide(QUERY, (Abstention(tier, reasons.NOVEL),)) == Ask("large")


def test_the_teacher_is_always_accepted_and_says_why_it_was_asked() -> None:
    large = answer("large")
    unsure, strange = answer("proxy", 0.1), Abstention("proxy", reasons.MULTI_TURN)
    assert LADDER.decide(QUERY, (unsure, large)) == Accept(large, reasons.BELOW_THRESHOLD)
    assert LADDER.decide(QUERY, (strange, large)) == Accept(large, reasons.MULTI_TURN)


def test_nobody_left_gives_up_with_the_reason() -> None:
    gone = Abstention("large", reasons.TIER_UNAVAILABLE, detail="refused")
    assert LADDER.decide(QUERY, (gone,)) == GiveUp(reasons.TIER_UNAVAILABLE, "refused")


@given(ladder=LADDERS, saying=SAYING, tier=st.sampled_from(["proxy", "small"]), higher=CONFIDENCE)
def test_raising_a_threshold_never_lets_more_requests_end_at_that_tier(
    ladder: Ladder, saying: dict[str, float], tier: str, higher: float
) -> None:
    raised = max(higher, ladder.thresholds[tier])
    stricter = Ladder({**ladder.thresholds, tier: raised}, teacher="large")
    if walk(stricter, saying)[-1] == tier:
        assert walk(ladder, saying)[-1] == tier


@given(ladder=LADDERS, saying=SAYING, higher=CONFIDENCE)
def test_raising_the_skip_never_asks_the_small_tier_more(
    ladder: Ladder, saying: dict[str, float], higher: float
) -> None:
    raised = max(higher, ladder.thresholds[SKIP])
    asked = walk(Ladder({**ladder.thresholds, SKIP: raised}, teacher="large"), saying)
    if "small" in asked:
        assert walk(ladder, saying) == asked


@given(ladder=LADDERS, saying=SAYING, lower=THRESHOLDS)
def test_lowering_all_thresholds_never_sends_more_to_the_teacher(
    ladder: Ladder, saying: dict[str, float], lower: dict[str, float]
) -> None:
    bolder = Ladder(lowest(ladder.thresholds, lower), teacher="large")
    if walk(bolder, saying)[-1] == "large":
        assert walk(ladder, saying)[-1] == "large"


@given(thresholds=THRESHOLDS, saying=SAYING)
def test_no_skip_is_a_skip_at_zero(thresholds: dict[str, float], saying: dict[str, float]) -> None:
    at_zero = Ladder({**thresholds, SKIP: 0.0}, teacher="large")
    without = Ladder({tier: thresholds[tier] for tier in ("proxy", "small")}, teacher="large")
    assert walk(at_zero, saying) == walk(without, saying)


def lowest(one: Mapping[str, float], other: Mapping[str, float]) -> dict[str, float]:
    return {key: min(one[key], other[key]) for key in one}


def test_straight_asks_one_tier_and_takes_what_it_says() -> None:
    straight, said = Straight("small", reasons.FORCED), answer("small", 0.0)
    assert straight.decide(QUERY, ()) == Ask("small")
    assert straight.decide(QUERY, (said,)) == Accept(said, reasons.FORCED)
    silent = Abstention("small", reasons.UNREADABLE)
    assert straight.decide(QUERY, (silent,)) == GiveUp(reasons.UNREADABLE)


def took(tier: str, seconds: float, confidence: float = 0.5) -> Answer:
    return Answer(tier, "yes", confidence, usage=Usage(seconds=seconds))


@pytest.mark.parametrize(("budget", "next_tier"), [(0.59, "large"), (0.61, "small")])
def test_a_budget_spans_what_was_spent_the_next_tier_and_the_teacher(
    budget: float, next_tier: str
) -> None:
    hurried = Hurried(LADDER, "large", budget, {"small": 0.2, "large": 0.3})
    assert hurried.decide(QUERY, ()) == Ask("proxy")
    assert hurried.decide(QUERY, (took("proxy", 0.1),)) == Ask(next_tier)


def test_an_answer_that_only_the_budget_escalated_says_so() -> None:
    trail = (took("proxy", 0.1), answer("large"))
    late = Hurried(LADDER, "large", 0.2, {"small": 0.2})
    assert late.decide(QUERY, trail) == Accept(trail[-1], reasons.SLO)
    early = Hurried(LADDER, "large", 9.0, {"small": 0.2})
    assert early.decide(QUERY, trail) == Accept(trail[-1], reasons.BELOW_THRESHOLD)


def test_a_sure_proxy_and_a_late_teacher_answer_whatever_the_budget() -> None:
    hurried = Hurried(LADDER, "large", 0.001, {"small": 1.0, "large": 1.0})
    sure = took("proxy", 0.1, confidence=0.95)
    assert hurried.decide(QUERY, (sure,)) == Accept(sure, reasons.CERTIFIED)
    strange = Abstention("proxy", reasons.NOVEL)
    said = (strange, answer("large"))
    assert hurried.decide(QUERY, (strange,)) == Ask("large")
    assert hurried.decide(QUERY, said) == Accept(said[-1], reasons.NOVEL)


@given(LADDERS, SAYING, st.floats(0, 2))
def test_a_budget_only_ever_leaves_a_tier_to_the_teacher(
    ladder: Ladder, saying: Mapping[str, float], budget: float
) -> None:
    hurried = Hurried(ladder, "large", budget, {"small": 0.5, "large": 0.5})
    trail: tuple[Reply, ...] = ()
    while isinstance(move := hurried.decide(QUERY, trail), Ask):
        usual = ladder.decide(QUERY, trail)
        assert move in (usual, Ask("large"))
        trail = (*trail, took(move.tier, 0.1, saying.get(move.tier, 1.0)))
    assert isinstance(move, Accept)
