"""Promotion: a useful proxy passes, a useless one never does, whatever certificate it holds."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.linear_model import LogisticRegression

from cascade.certify import (
    STREAM,
    Certificate,
    Economics,
    EveryLabelAudit,
    Guarantee,
    Rule,
    Rung,
    Sample,
    Verdict,
    certify_stream,
    promotion_verdict,
    seal,
    table,
)
from cascade.certify.path import answered_by, threshold_path

MONEY = Economics(volume=100_000, teacher=0.001, below=0.00001, labels=700, audit_rate=0.01)


def world(
    rng: np.random.Generator, n: int, majority: float, signal: float
) -> tuple[np.ndarray, np.ndarray]:
    """Features and teacher labels; ``signal`` 0 is a task that nothing can learn."""
    features = rng.normal(size=(n, 12))
    score = signal * features[:, 0] + rng.normal(size=n)
    cut = np.sqrt(signal**2 + 1) * norm.ppf(majority)
    return features, (score > cut).astype(int)


def distil(seed: int, majority: float, signal: float, target: float = 0.9) -> Verdict:
    """A whole distillation: 400 labels to train and lay the path, 250 draws, the verdict."""
    rng = np.random.default_rng(seed)
    features, labels = world(rng, 400, majority, signal)
    model = LogisticRegression(C=0.3).fit(features[:250], labels[:250])
    path = threshold_path(model.predict_proba(features[250:]).max(axis=1), target)
    features, teacher = world(rng, 250, majority, signal)
    chance = model.predict_proba(features)
    answered, said = answered_by(chance.max(axis=1), path), chance.argmax(axis=1)
    wrong = answered & (said != teacher)[:, None]
    certificate = certify_stream(answered, wrong, path, Guarantee(target, 0.05))
    below = np.zeros(250, dtype=bool)
    if certificate is not None:
        below = chance.max(axis=1) >= certificate.thresholds["proxy"]
    confusion = np.zeros((2, 2), dtype=int)
    np.add.at(confusion, (teacher[below], said[below]), 1)
    sample = Sample(("no", "yes"), np.bincount(labels, minlength=2), confusion)
    return promotion_verdict(certificate, STREAM, MONEY, sample)


@pytest.mark.parametrize("majority", [0.5, 0.7, 0.85, 0.95])
def test_shuffled_labels_are_never_promoted(majority: float) -> None:
    assert not any(distil(seed, majority, signal=0.0).promote for seed in range(20))


def test_useful_proxies_are_promoted_usually() -> None:
    verdicts = [distil(seed, majority=0.6, signal=4.0) for seed in range(10)]
    assert np.mean([verdict.promote for verdict in verdicts]) >= 0.9


@pytest.fixture(scope="module")
def certificate() -> Certificate:
    rng = np.random.default_rng(0)
    p_agree = rng.uniform(0.7, 1, 250)
    path = threshold_path(rng.uniform(0.7, 1, 1000), 0.9)
    answered = answered_by(p_agree, path)
    wrong = answered & (rng.random(250) < 0.3 * (1 - p_agree))[:, None]
    certificate = certify_stream(answered, wrong, path, Guarantee(0.9, 0.05))
    assert certificate is not None
    return certificate


SAMPLE = Sample(("no", "yes"), np.array([300, 100]), np.array([[150, 3], [2, 40]]))


def failed(verdict: Verdict) -> list[str]:
    return [condition.name for condition in verdict.conditions if not condition.met]


def test_all_conditions_hold(certificate: Certificate) -> None:
    verdict = promotion_verdict(certificate, STREAM, MONEY, SAMPLE)
    assert verdict.promote and verdict.reasons == []
    assert "agreement >= 0.900, 95.0% sure" in verdict.conditions[0].reason


def test_without_a_certificate_nothing_is_promoted() -> None:
    verdict = promotion_verdict(None, STREAM, MONEY, SAMPLE)
    assert not verdict.promote and "no rung" in verdict.reasons[0]


def test_the_wrong_kind_is_refused(certificate: Certificate) -> None:
    assert failed(promotion_verdict(certificate, table("ab"), MONEY, SAMPLE)) == ["certificate"]


def test_a_saving_that_does_not_pay_for_its_labels_is_refused(certificate: Certificate) -> None:
    rare = replace(MONEY, volume=100)
    verdict = promotion_verdict(certificate, STREAM, rare, SAMPLE)
    assert failed(verdict) == ["saving"] and "over 100 requests" in verdict.reasons[0]


def test_the_constant_answer_must_be_beaten_by_the_margin(certificate: Certificate) -> None:
    easy = replace(SAMPLE, teacher=np.array([390, 10]))
    assert failed(promotion_verdict(certificate, STREAM, MONEY, easy)) == ["better than a constant"]
    strict = Rule(margin=0.3)
    verdict = promotion_verdict(certificate, STREAM, MONEY, SAMPLE, strict)
    assert failed(verdict) == ["better than a constant"]


def by_label(*labels: str) -> Certificate:
    """Each label's answers are always right."""
    answers = np.repeat(labels, 200)[:, None]
    path = [Rung({"proxy": 0.9}, 0.3)]
    audit = EveryLabelAudit.over(answers, dict.fromkeys(labels, path), Guarantee(0.9, 0.05))
    for draw, given in enumerate(answers):
        if audit.wants(given):
            audit.record(str(draw), given, str(given[0]))
    return seal(audit.evidence(), STREAM)


def test_two_labels_that_hold_are_more_than_a_constant_one_is_not() -> None:
    """With a target below the commonest label's share, which a constant answer would hold too."""
    easy = replace(SAMPLE, teacher=np.array([390, 10]))
    both = promotion_verdict(by_label("no", "yes"), STREAM, MONEY, easy)
    assert both.promote and "each of 2 labels agrees >= 0.900" in both.conditions[2].reason
    assert both.conditions[0].reason == "agreement by label >= 0.900, 95.0% sure"
    one = promotion_verdict(by_label("no"), STREAM, MONEY, easy)
    assert failed(one) == ["better than a constant"]


def test_a_class_that_is_always_missed_is_refused_unless_allowed(certificate: Certificate) -> None:
    blind = replace(SAMPLE, confusion=np.array([[190, 0], [5, 0]]))
    verdict = promotion_verdict(certificate, STREAM, MONEY, blind)
    assert failed(verdict) == ["classes"]
    assert verdict.reasons[0].startswith("wherever the teacher says yes, the policy says")
    allowed = Rule(may_miss=frozenset({"yes"}))
    assert promotion_verdict(certificate, STREAM, MONEY, blind, allowed).promote
    too_few = replace(SAMPLE, confusion=np.array([[190, 0], [4, 0]]))
    assert promotion_verdict(certificate, STREAM, MONEY, too_few).promote
