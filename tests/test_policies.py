"""The policies with three answers and no event loop."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cascade import Abstention, Accept, Answer, Ask, GiveUp, Query, reasons
from cascade.policies import Ladder, Straight

QUERY = Query.from_text("is it good?")
LADDER = Ladder({"proxy": 0.9, "small": 0.8}, teacher="large")
CONFIDENCE = st.floats(0, 1)


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


@given(confidence=CONFIDENCE, low=CONFIDENCE, high=CONFIDENCE)
def test_a_higher_threshold_never_accepts_more(confidence: float, low: float, high: float) -> None:
    low, high = sorted((low, high))
    strict, loose = (Ladder({"proxy": t}, teacher="large") for t in (high, low))
    said = (answer("proxy", confidence),)
    if isinstance(strict.decide(QUERY, said), Accept):
        assert isinstance(loose.decide(QUERY, said), Accept)


def test_straight_asks_one_tier_and_takes_what_it_says() -> None:
    straight, said = Straight("small", reasons.FORCED), answer("small", 0.0)
    assert straight.decide(QUERY, ()) == Ask("small")
    assert straight.decide(QUERY, (said,)) == Accept(said, reasons.FORCED)
    silent = Abstention("small", reasons.UNREADABLE)
    assert straight.decide(QUERY, (silent,)) == GiveUp(reasons.UNREADABLE)
