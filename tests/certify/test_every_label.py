"""Every label's answers on a stream under one certificate: its delta, its rungs, its forgeries."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest

from cascade.certify import (
    STREAM,
    Certificate,
    Guarantee,
    Rung,
    certified_rungs,
    from_json,
    label_certificates,
    require,
    seal,
    table,
    to_json,
    verify,
)
from cascade.certify.certificate import _digest
from cascade.certify.class_path import BY_TEACHER
from cascade.certify.every_label import EveryLabelAudit, EveryLabelEvidence, Strings
from cascade.errors import CertificateError
from tests.binomial import binomial_limit

WANTED = Guarantee(0.9, 0.1)
PATH = [Rung({"proxy": at}, share) for at, share in [(0.9, 0.1), (0.8, 0.2), (0.7, 0.3)]]
REPLACE = msgspec.structs.replace


def draws(rng: np.random.Generator, n: int, error: dict[str, float]) -> tuple[Strings, Strings]:
    """(n, G) answers and (n,) the teacher's labels; on each label the proxy errs so often."""
    labels = rng.choice(list(error), n)
    least = np.array([rung.thresholds["proxy"] for rung in PATH])
    sure = rng.uniform(0.6, 1.0, n)
    answers = np.where(sure[:, None] >= least, labels[:, None], BY_TEACHER)
    wrong = rng.random(n) < np.array([error[label] for label in labels])
    return answers, np.where(wrong, "other", labels)


def audited(answers: Strings, teacher: Strings, plan: dict[str, list[Rung]]) -> EveryLabelAudit:
    audit = EveryLabelAudit.over(answers, plan, WANTED)
    for draw, (given, said) in enumerate(zip(answers, teacher, strict=True)):
        if audit.wants(given):
            audit.record(str(draw), given, str(said))
    return audit


def plan_of(*labels: str) -> dict[str, list[Rung]]:
    return {label: PATH for label in labels}


@pytest.fixture(scope="module")
def audit() -> EveryLabelAudit:
    """One label passes on all of its rungs, one only on the careful ones, one on none."""
    rng = np.random.default_rng(1)
    answers, teacher = draws(rng, 1500, {"fine": 0.01, "edge": 0.02, "bad": 0.5})
    bold = (answers[:, 1] == BY_TEACHER) & (answers[:, 2] == "edge")
    teacher = np.where(bold, "other", teacher)
    return audited(answers, teacher, plan_of("fine", "edge", "bad"))


@pytest.fixture(scope="module")
def certificate(audit: EveryLabelAudit) -> Certificate:
    return seal(audit.evidence(), STREAM)


def test_each_label_is_answered_from_its_own_threshold(certificate: Certificate) -> None:
    verify(from_json(to_json(certificate)))
    require(certificate, STREAM)
    assert certificate.metric == "agreement by label"
    assert certificate.thresholds == {"proxy": 2.0, "proxy:fine": 0.7, "proxy:edge": 0.8}
    assert certificate.share == pytest.approx(0.5) and certificate.delta == 0.1
    assert certificate.bound == certificate.conditional.bound == 0.9
    assert certificate.conditional.estimate > 0.95


def test_each_label_has_a_certificate_of_its_own_at_its_share_of_delta(
    audit: EveryLabelAudit, certificate: Certificate
) -> None:
    own = label_certificates(audit)
    assert list(own) == ["fine", "edge"]
    for label, one in own.items():
        verify(one)
        assert one.delta == pytest.approx(0.1 / 3)
        assert one.thresholds["proxy"] == certificate.thresholds[f"proxy:{label}"]


def test_labels_are_bought_only_for_a_race_that_is_open(audit: EveryLabelAudit) -> None:
    assert audit.done and not audit.wants(np.array(["bad"] * 3))
    lost = {one.label: len(one.draws) / one.bets[-1].draws for one in audit.audits}
    assert lost["bad"] < 0.3 and audit.labels == certificate_labels(audit)


def certificate_labels(audit: EveryLabelAudit) -> int:
    return seal(audit.evidence(), STREAM).labels


def test_a_step_back_tightens_every_label_that_has_a_rung_left(certificate: Certificate) -> None:
    """And only to rungs that were certified: "edge" has two of them."""
    rungs = [rung.thresholds for rung in certified_rungs(certificate)]
    assert rungs == [
        {"proxy": 2.0, "proxy:fine": 0.9, "proxy:edge": 0.9},
        {"proxy": 2.0, "proxy:fine": 0.8, "proxy:edge": 0.9},
        certificate.thresholds,
    ]


def test_all_labels_hold_together_with_one_delta() -> None:
    error = {"one": 0.1, "two": 0.1, "three": 0.1, "fine": 0.0}
    failures, runs = 0, 300
    for seed in range(runs):
        answers, teacher = draws(np.random.default_rng(seed), 300, error)
        found = audited(answers, teacher, plan_of(*error)).certified
        failures += any(one.label != "fine" for one in found)
    assert failures <= binomial_limit(WANTED.delta, runs)


def test_trap_the_whole_delta_for_every_label_is_too_much() -> None:
    error = {f"label {i}": 0.1 for i in range(4)}
    failures, runs = 0, 300
    greedy = Guarantee(WANTED.target, WANTED.delta * len(error))  # so that each has all of it
    for seed in range(runs):
        answers, teacher = draws(np.random.default_rng(seed), 300, error)
        audit = EveryLabelAudit.over(answers, plan_of(*error), greedy)
        for draw, (given, said) in enumerate(zip(answers, teacher, strict=True)):
            audit.record(str(draw), given, str(said))
        failures += bool(audit.certified)
    assert failures > binomial_limit(WANTED.delta, runs)


def test_nothing_is_sealed_where_no_label_holds() -> None:
    answers, teacher = draws(np.random.default_rng(3), 300, {"bad": 0.5})
    with pytest.raises(CertificateError, match="no label's answers reached 0.900"):
        seal(audited(answers, teacher, plan_of("bad")).evidence(), STREAM)
    with pytest.raises(CertificateError, match="one audit for each of its labels"):
        seal(EveryLabelAudit.over(answers, {}, WANTED).evidence(), STREAM)
    assert certified_labels(EveryLabelAudit.over(answers, {}, WANTED)) == []


def certified_labels(audit: EveryLabelAudit) -> list[str]:
    return [one.label for one in audit.certified]


def test_trap_labels_of_two_tiers_are_not_certified_together() -> None:
    """Where the proxy says one thing and the small tier another, one label's threshold decides
    what the other label gets."""
    two = [Rung({"proxy": 0.9, "small": 0.8}, 0.1)]
    answers, teacher = draws(np.random.default_rng(4), 600, {"fine": 0.0})
    with pytest.raises(CertificateError, match="one tier only"):
        seal(audited(answers, teacher, {"fine": two}).evidence(), STREAM)


def test_it_is_no_certificate_of_a_table(certificate: Certificate) -> None:
    with pytest.raises(CertificateError, match="this evidence proves stream"):
        seal(certificate.evidence, table("ab12"))


def reseal(certificate: Certificate, **changes: Any) -> Certificate:
    """A forger who knows how digests are made."""
    forged = REPLACE(certificate, **changes)
    return REPLACE(forged, digest=_digest(forged))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("metric", "agreement"),
        ("delta", 0.01),
        ("bound", 0.99),
        ("thresholds", {"proxy": 0.5}),
        ("thresholds", {"proxy": 2.0, "proxy:fine": 0.7, "proxy:edge": 0.7}),
        ("thresholds", {"proxy": 2.0, "proxy:fine": 0.7, "proxy:edge": 0.8, "proxy:bad": 0.9}),
    ],
)
def test_a_forged_claim_is_refused(certificate: Certificate, field: str, value: Any) -> None:
    with pytest.raises(CertificateError, match="was changed"):
        verify(REPLACE(certificate, **{field: value}))
    with pytest.raises(CertificateError, match=f"does not prove the {field}"):
        verify(reseal(certificate, **{field: value}))


def test_forged_evidence_is_refused(certificate: Certificate) -> None:
    evidence = certificate.evidence
    assert isinstance(evidence, EveryLabelEvidence)
    first = evidence.audits[0]
    nobody = [REPLACE(rung, thresholds={}) for rung in first.rungs]
    worse = REPLACE(
        first,
        draws=[REPLACE(draw, outcome=draw.outcome.replace("+", "x")) for draw in first.draws],
    )
    whole = [REPLACE(one, guarantee=WANTED) for one in evidence.audits]
    for audits, message in [
        (evidence.audits[:2], "has to be audited at"),  # the lost one is kept secret
        (whole, "has to be audited at"),
        ([REPLACE(one, rungs=nobody) for one in evidence.audits], "one tier only"),
        ([REPLACE(first, rungs=nobody), *evidence.audits[1:]], "one tier only"),
        ([first, first, first], "one audit for each of its labels"),
        ([REPLACE(first, label="*"), *evidence.audits[1:]], "one audit for each of its labels"),
        ([worse, *evidence.audits[1:]], "does not prove the thresholds"),
        ([REPLACE(first, label="bold"), *evidence.audits[1:]], "does not prove the thresholds"),
    ]:
        forged = REPLACE(evidence, audits=audits)
        with pytest.raises(CertificateError, match=message):
            verify(reseal(certificate, evidence=forged))
