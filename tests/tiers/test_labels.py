"""Reading labels and probabilities from chat completions."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cascade.errors import UnreadableAnswer
from cascade.tasks import Task
from cascade.tiers.labels import (
    Alternative,
    Position,
    Reading,
    label_probabilities,
    read_response,
    usage_of,
)
from cascade.types import Price

REVIEW = Task("review", "filter", "Is it positive?", ("yes", "no"))
TRUTH = Task("truth", "classify", "Is it true?", ("True", "False"))
MANY = Task("many", "classify", "Which?", tuple(f"topic number {i}" for i in range(30)))


def position(*alternatives: tuple[str, float]) -> Position:
    """The first alternative is the one that was written."""
    listed = tuple(Alternative(token, math.log(p)) for token, p in alternatives)
    return Position(listed[0].token, listed[0].logprob, listed)


def completion(text: Any, *positions: Position) -> dict[str, Any]:
    content = [
        {
            "token": one.token,
            "logprob": one.logprob,
            "top_logprobs": [{"token": a.token, "logprob": a.logprob} for a in one.top_logprobs],
        }
        for one in positions
    ]
    return {"choices": [{"message": {"content": text}, "logprobs": {"content": content}}]}


def probabilities(task: Task, *positions: Position) -> tuple[float, ...]:
    return label_probabilities(positions, task.codes)


def test_spellings_of_one_code_are_summed() -> None:
    spoken = position((" True", 0.4), ("true", 0.2), ('"TRUE', 0.1), ("False", 0.1), ("The", 0.2))
    assert probabilities(TRUTH, spoken) == pytest.approx((0.875, 0.125))


def test_a_token_that_begins_one_code_only_counts_for_it() -> None:
    assert probabilities(TRUTH, position(("Tr", 0.6), ("F", 0.2))) == pytest.approx((0.75, 0.25))


def test_leading_white_space_tokens_are_passed_over() -> None:
    found = probabilities(REVIEW, position(("\n", 1.0)), position(("no", 0.9), ("yes", 0.1)))
    assert found == pytest.approx((0.1, 0.9))


def test_a_label_that_is_not_listed_gets_the_rest_but_less_than_any_listed() -> None:
    likely = probabilities(REVIEW, position(("yes", 0.9), ("maybe", 0.09)))
    assert likely[1] == pytest.approx(0.01 / 0.91)
    unlikely = probabilities(REVIEW, position(("yes", 0.5), ("maybe", 0.02)))
    assert unlikely[1] == pytest.approx(0.02 / 0.52)


def test_without_alternatives_the_written_token_alone_counts() -> None:
    assert label_probabilities([Position("yes", math.log(0.9))], ["yes", "no"]) == pytest.approx(
        (0.9, 0.1)
    )


def test_two_letter_codes_are_followed_to_the_second_token() -> None:
    found = probabilities(
        MANY, position(("A", 0.8), ("B", 0.2)), position(("C", 0.75), ("D", 0.25))
    )
    assert MANY.codes[2] == "AC" and len(MANY.codes) - 26 == 4
    assert found[2] == pytest.approx(0.6, abs=1e-6)
    assert found[3] == pytest.approx(0.2, abs=1e-6)
    assert found[26:] == pytest.approx([0.05] * 4, abs=1e-6)  # nobody knows how "B" would go on


def test_two_letter_codes_may_be_one_token() -> None:
    found = probabilities(MANY, position(("AC", 0.9), ("BA", 0.1)))
    assert found[2] == pytest.approx(0.9, abs=1e-6)


def test_a_whole_code_means_itself_even_where_another_begins_with_it() -> None:
    found = label_probabilities([position(("no", 0.7), ("not", 0.3))], ["no", "nothing"])
    assert found == pytest.approx((0.7, 0.3))


def test_nothing_to_do_with_a_label_gives_no_probabilities() -> None:
    assert probabilities(REVIEW, position(("The", 0.9), ("", 0.1))) == ()
    assert probabilities(REVIEW, position((" ", 1.0))) == ()
    assert probabilities(REVIEW) == ()


def test_confidence_is_the_probability_of_the_label_that_was_written() -> None:
    split = position(("No", 0.4), ("yes", 0.35), ("Yes", 0.25))
    assert read_response(completion("No", split), REVIEW) == Reading(
        "no", pytest.approx((0.6, 0.4)), pytest.approx(0.4)
    )


@pytest.mark.parametrize("logprobs", [None, {}, {"content": None}, {"content": [{"token": 1}]}, 7])
def test_missing_or_odd_logprobs_leave_the_label_readable(logprobs: object) -> None:
    response = {"choices": [{"message": {"content": " Yes."}, "logprobs": logprobs}]}
    assert read_response(response, REVIEW) == Reading("yes", (), 0.0)


@pytest.mark.parametrize(
    "response",
    [
        {},
        {"choices": []},
        {"choices": None},
        {"choices": [{"message": None}]},
        completion(None),
        completion(["yes"]),
        completion(""),
        completion("yes and no"),
        completion("<think>\n"),
    ],
)
def test_nobody_guesses(response: dict[str, Any]) -> None:
    with pytest.raises(UnreadableAnswer, match="review"):
        read_response(response, REVIEW)


def test_codes_are_read_back_as_labels() -> None:
    assert read_response(completion(" ac"), MANY).label == "topic number 2"


TOKENS = st.sampled_from(["A", " a", "B", "AC", "ac ", "BA", "b", "Z", "", " ", "C", "D", "The"])
POSITIONS = st.lists(
    st.builds(
        lambda listed: Position(listed[0].token, listed[0].logprob, tuple(listed)),
        st.lists(st.builds(Alternative, TOKENS, st.floats(-9999, 0.001)), min_size=1, max_size=8),
    ),
    max_size=4,
)


@given(POSITIONS)
def test_probabilities_are_a_distribution_with_finite_logarithms(positions: list[Position]) -> None:
    found = label_probabilities(positions, MANY.codes)
    if found:
        assert len(found) == 30 and math.fsum(found) == pytest.approx(1.0)
        assert all(p > 0 for p in found)


@given(POSITIONS, st.permutations(range(30)))
def test_the_order_of_labels_does_not_matter(positions: list[Position], order: list[int]) -> None:
    straight = label_probabilities(positions, MANY.codes)
    turned = label_probabilities(positions, [MANY.codes[i] for i in order])
    assert turned == pytest.approx(tuple(straight[i] for i in order) if straight else ())


@given(st.floats(0.01, 0.98), st.floats(0.001, 0.01))
def test_more_mass_on_a_label_never_lowers_its_probability(mass: float, more: float) -> None:
    less_sure = probabilities(REVIEW, position(("yes", mass), ("no", 0.01)))
    surer = probabilities(REVIEW, position(("yes", mass + more), ("no", 0.01)))
    assert surer[0] >= less_sure[0]


def test_usage_counts_cached_and_hidden_tokens() -> None:
    said = {
        "prompt_tokens": 100,
        "completion_tokens": 5,
        "total_tokens": 125,
        "prompt_tokens_details": {"cached_tokens": 60},
    }
    usage = usage_of({"usage": said}, Price(input=1.0, cached_input=0.5, output=2.0), 0.25)
    assert (usage.cached_tokens, usage.output_tokens, usage.seconds) == (60, 25, 0.25)
    assert usage.dollars == pytest.approx((40 + 30 + 50) / 1e6)


@pytest.mark.parametrize(
    "said",
    [
        None,
        [],
        {"prompt_tokens": None, "total_tokens": "7"},
        {"prompt_tokens": -4, "prompt_tokens_details": {"cached_tokens": 9}},
    ],
)
def test_usage_that_makes_no_sense_costs_nothing(said: object) -> None:
    usage = usage_of({"usage": said}, Price(1.0, 1.0, 1.0), 1.0)
    assert (usage.prompt_tokens, usage.cached_tokens, usage.dollars) == (0, 0, 0.0)
