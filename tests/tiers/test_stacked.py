"""The small tier: two opinions combined, and an abstention wherever one of them is missing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cascade import reasons
from cascade.tasks import Task
from cascade.testing import FakeTier
from cascade.tiers.agreement import AgreementModel
from cascade.tiers.stacked import STACK_FEATURES, Stack, StackedTier, stack_features
from cascade.types import Abstention, Answer, Query, Reply, Usage

TASK = Task("t", "filter", "Good?", ("yes", "no"))
K = len(STACK_FEATURES)
CURVE = AgreementModel(STACK_FEATURES, (0.0,) * K, (1.0,) * K, (1.0, *[0.0] * (K - 1)), 0.0)
STACK = Stack(small=1.0, proxy=1.0, bias=(0.0, 0.0), agreement=CURVE)
COST = Usage(prompt_tokens=7, dollars=0.5)


class Scored:
    """A language tier with fixed label probabilities."""

    name = "llm"

    def __init__(self, scores: Mapping[str, tuple[float, ...]]) -> None:
        self._scores = scores

    async def answer(self, queries: list[Query]) -> list[Reply]:
        return [
            Answer("llm", "yes", 1.0, COST, self._scores.get(query.text or "", ()))
            for query in queries
        ]


class Opinions:
    """A proxy with one opinion on everything."""

    def __init__(self, *row: float) -> None:
        self._row = row

    def scores_of(self, queries: Sequence[Query]) -> np.ndarray:
        return np.tile(np.array(self._row, np.float32), (len(queries), 1))


async def test_two_opinions_are_combined() -> None:
    language = Scored({"a": (0.6, 0.4), "b": (0.9, 0.1)})
    tier = StackedTier("small", TASK, language, Opinions(0.2, 0.8), STACK)
    first, second = await tier.answer([Query.from_text("a"), Query.from_text("b")])
    assert isinstance(first, Answer) and isinstance(second, Answer)
    assert (first.text, second.text) == ("no", "yes")  # .6*.2 < .4*.8, .9*.2 > .1*.8
    assert second.scores == pytest.approx((0.18 / 0.26, 0.08 / 0.26))
    assert (first.tier, first.usage) == ("small", COST)
    assert second.confidence == pytest.approx(1 / (1 + np.exp(-0.18 / 0.26)))


async def test_what_only_a_language_model_may_answer_is_not_asked() -> None:
    language = Scored({"a": (0.6, 0.4)})
    tier = StackedTier("small", TASK, language, Opinions(0.2, 0.8), STACK)
    turns = Query("id", tuple({"role": "user", "content": "a"} for _ in range(2)))
    blank, good, several = await tier.answer([Query.from_text(" "), Query.from_text("a"), turns])
    assert isinstance(blank, Abstention) and blank.reason == reasons.UNSUPPORTED_INPUT
    assert isinstance(good, Answer)
    assert isinstance(several, Abstention) and several.reason == reasons.MULTI_TURN
    assert await tier.answer([]) == []


async def test_an_abstention_passes_through() -> None:
    language = FakeTier("llm", {}, COST)
    tier = StackedTier("small", TASK, language, Opinions(0.2, 0.8), STACK)
    assert await tier.answer([Query.from_text("a")]) == [
        Abstention("small", reasons.TIER_UNAVAILABLE, COST)
    ]


async def test_an_answer_without_probabilities_is_no_answer() -> None:
    tier = StackedTier("small", TASK, Scored({}), Opinions(0.2, 0.8), STACK)
    (reply,) = await tier.answer([Query.from_text("a")])
    assert isinstance(reply, Abstention) and "logprobs" in reply.detail
    assert (reply.reason, reply.usage) == (reasons.UNREADABLE, COST)


def test_the_bias_undoes_a_collapsed_prior() -> None:
    collapsed = np.array([[0.95, 0.05], [0.8, 0.2]])
    stack = Stack(1.0, 0.0, (-1.0, 1.0), CURVE)
    assert stack.combine(collapsed, np.full((2, 2), 0.5)).argmax(axis=1).tolist() == [0, 1]


def test_features_say_whether_the_opinions_support_each_other() -> None:
    small, proxy = np.array([[0.9, 0.1]]), np.array([[0.2, 0.8]])
    row = dict(zip(STACK_FEATURES, stack_features(small, small, proxy)[0], strict=True))
    assert row["tiers_agree"] == 0.0
    assert row["proxy_log"] == pytest.approx(np.log(0.2))
    assert row["small_margin"] == pytest.approx(np.log(9))


probabilities = st.lists(st.floats(0, 1), min_size=3, max_size=3).filter(lambda row: sum(row) > 0.1)


@given(probabilities, probabilities)
def test_any_two_opinions_give_probabilities(one: list[float], two: list[float]) -> None:
    small, proxy = np.array([one]) / sum(one), np.array([two]) / sum(two)
    stack = Stack(1.3, 0.7, (0.1, 0.2, -0.3), CURVE)
    stacked = stack.combine(small, proxy)
    assert stacked.sum() == pytest.approx(1.0) and (stacked >= 0).all()
    assert 0.0 <= stack.confidence(stacked, small, proxy)[0] <= 1.0
