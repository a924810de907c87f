"""The model card says what it must, in Markdown that renders."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import numpy as np
import pytest

from cascade.certify.bounds import OpenEnded
from cascade.certify.certificate import STREAM, Certificate, table
from cascade.certify.claim import Conditional, Guarantee
from cascade.certify.stream import StreamEvidence
from cascade.distill.card import claim_in_words, model_card
from tests.distill.reports import make_report


def certificate(valid_for: str = STREAM) -> Certificate:
    return Certificate(
        target=0.9,
        delta=0.05,
        thresholds={"proxy": 0.81, "small": 0.9},
        share=0.62,
        n=320,
        labels=210,
        bound=0.913,
        conditional=Conditional(0.94, 0.87, 199),
        method="betting",
        valid_for=valid_for,
        evidence=StreamEvidence(Guarantee(0.9, 0.05), [], OpenEnded(), [], []),
    )


@pytest.mark.parametrize(
    "said",
    ["# Proxy `review-positive`", "`yes`, `no`", "`qwen-1.5b`", "first 200 words", "abababab",
     "cdcdcdcd", "400 texts", "| log loss | 0.41 |", "cascade rollback review-positive",
     "| `proxy` | 0.810 |", "at least **90%**", "It is certified"],
)  # fmt: skip
def test_card_says(said: str) -> None:
    assert said in model_card(make_report(), certificate())


def test_card_without_certificate_forbids_answering() -> None:
    card = model_card(make_report())
    assert "**not certified: it must not answer alone**" in card
    assert "None. Every request goes on to the next tier." in card


def test_card_names_labels_that_are_always_missed_or_were_never_seen() -> None:
    report = replace(
        make_report(("a", "b", "c")), confusion=np.array([[3, 0, 0], [2, 0, 0], [0] * 3])
    )
    card = model_card(report)
    assert "**Never given where the teacher gives it:** `b`." in card
    assert "The evaluation held no text with `c`." in card


def test_card_of_labels_that_are_certified_one_by_one() -> None:
    own = msgspec.structs.replace(
        certificate(), thresholds={"proxy": 2.0, "proxy:a": 0.7}, metric="agreement by label"
    )
    card = model_card(make_report(("a", "b")), own)
    assert "**each** of these labels holds: `a`. Among the requests" in card
    assert "| `a` | 0.700 |" in card and "| `b` | left to the teacher |" in card
    assert "The claim is about each label that it gives, not about each group of texts." in card


def test_claim_of_a_table_is_for_that_table_only() -> None:
    assert "one table only (sha256 `0123456789ab`)" in claim_in_words(
        certificate(table("0123456789abcd"))
    )
    assert "arrive like the ones" in claim_in_words(certificate())


def test_bar_in_a_label_does_not_break_the_table() -> None:
    report = replace(make_report(), label_counts={"a|b": 1})
    assert r"| `a\|b` | 1 |" in model_card(report)
