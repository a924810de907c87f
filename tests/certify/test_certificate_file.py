"""A certificate proves itself, and refuses whatever was touched or is used elsewhere."""

from typing import Any

import msgspec
import numpy as np
import pytest

from cascade.certify import (
    STREAM,
    Certificate,
    Guarantee,
    Rung,
    TableAudit,
    audit_table,
    certify_stream,
    check_table,
    from_json,
    require,
    seal,
    table,
    to_json,
    verify,
)
from cascade.certify.certificate import _digest
from cascade.errors import CertificateError

REPLACE = msgspec.structs.replace


@pytest.fixture(scope="module")
def stream() -> Certificate:
    rng = np.random.default_rng(0)
    answered = rng.random((150, 1)) < np.array([0.4, 0.9])
    wrong = answered & (rng.random((150, 1)) < 0.04)
    rungs = [Rung({"proxy": 0.9, "small": 0.8}, 0.4), Rung({"proxy": 0.6, "small": 0.5}, 0.9)]
    certificate = certify_stream(answered, wrong, rungs, Guarantee(0.9, 0.05))
    assert certificate is not None
    return certificate


@pytest.fixture(scope="module")
def tabular() -> Certificate:
    rng = np.random.default_rng(1)
    p_agree = rng.uniform(0.8, 1.0, 600)
    wrong = rng.random(600) > p_agree
    audit = TableAudit(p_agree, Guarantee(0.8, 0.1), rng=rng)
    certificate = audit_table(audit, lambda row: bool(wrong[row]), 200, "ab12").certificate
    assert certificate is not None
    return certificate


@pytest.fixture(params=["stream", "tabular"])
def certificate(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue(request.param)


def reseal(certificate: Certificate, **changes: Any) -> Certificate:
    """A forger who knows how digests are made."""
    forged = REPLACE(certificate, **changes)
    return REPLACE(forged, digest=_digest(forged))


def test_a_certificate_survives_its_file(certificate: Certificate) -> None:
    again = from_json(to_json(certificate))
    verify(again)
    assert again == certificate and to_json(again) == to_json(certificate)


@pytest.mark.parametrize("old", [b'"target":0.', b'"wrong":false', b'"outcome":"+', b'"seed":'])
def test_an_edited_file_is_refused(certificate: Certificate, old: bytes) -> None:
    data = to_json(certificate)
    if old not in data:
        pytest.skip("the other kind of certificate")
    new = {b'"wrong":false': b'"wrong":true', b'"outcome":"+': b'"outcome":"x'}
    edited = data.replace(old, new.get(old, old + b"1"), 1)
    with pytest.raises(CertificateError, match="was changed"):
        verify(from_json(edited))


@pytest.mark.parametrize("field", ["target", "delta", "bound", "share", "n", "labels", "method"])
def test_a_resealed_claim_that_the_evidence_does_not_prove_is_refused(
    certificate: Certificate, field: str
) -> None:
    value = getattr(certificate, field)
    changed = value + "!" if isinstance(value, str) else value * 1.01 if value < 1 else value + 1
    with pytest.raises(CertificateError, match=f"does not prove the {field}"):
        verify(reseal(certificate, **{field: changed}))


def test_resealed_thresholds_and_conditionals_are_refused(certificate: Certificate) -> None:
    with pytest.raises(CertificateError, match="thresholds"):
        verify(reseal(certificate, thresholds={"proxy": 0.0}))
    better = REPLACE(certificate.conditional, bound=1.0)
    with pytest.raises(CertificateError, match="conditional"):
        verify(reseal(certificate, conditional=better))


def test_resealed_e_values_are_refused(certificate: Certificate) -> None:
    wealths = [value + 0.1 for value in certificate.evidence.log_wealths]
    evidence = REPLACE(certificate.evidence, log_wealths=wealths)
    with pytest.raises(CertificateError, match="e-values differ"):
        verify(reseal(certificate, evidence=evidence))


def test_dropping_the_draws_leaves_nothing_to_claim(certificate: Certificate) -> None:
    evidence = REPLACE(certificate.evidence, draws=[])
    with pytest.raises(CertificateError, match="no (rung|prefix)"):
        verify(reseal(certificate, evidence=evidence))


@pytest.mark.parametrize("change", [{"rank": 0}, {"rung": -1}, {"rung": 99}])
def test_a_row_that_the_seed_did_not_draw_is_refused(
    tabular: Certificate, change: dict[str, int]
) -> None:
    draws = list(tabular.evidence.draws)
    draws[0] = REPLACE(draws[0], **change)
    evidence = REPLACE(tabular.evidence, draws=draws)
    with pytest.raises(CertificateError, match="not the one that the seed draws"):
        verify(reseal(tabular, evidence=evidence))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sizes": [10]}, "no path"),
        ({"sizes": []}, "no path"),
        ({"rows": 3}, "no path"),
    ],
)
def test_impossible_rungs_are_refused(
    tabular: Certificate, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(CertificateError, match=message):
        verify(reseal(tabular, evidence=REPLACE(tabular.evidence, **change)))


def test_a_row_is_counted_once(tabular: Certificate) -> None:
    draws = list(tabular.evidence.draws)
    draws[1] = REPLACE(draws[1], row=draws[0].row)
    with pytest.raises(CertificateError, match="counts a row twice"):
        verify(reseal(tabular, evidence=REPLACE(tabular.evidence, draws=draws)))


@pytest.mark.parametrize(
    ("outcome", "message"), [("+", "impossible"), ("zz", "impossible"), ("??", "cannot have been")]
)
def test_an_impossible_draw_is_refused(stream: Certificate, outcome: str, message: str) -> None:
    draws = list(stream.evidence.draws)
    draws[0] = REPLACE(draws[0], outcome=outcome)
    with pytest.raises(CertificateError, match=message):
        verify(reseal(stream, evidence=REPLACE(stream.evidence, draws=draws)))


def test_each_kind_is_refused_for_the_other(stream: Certificate, tabular: Certificate) -> None:
    require(stream, STREAM)
    require(tabular, table("ab12"))
    for certificate, use in [(stream, table("ab12")), (tabular, STREAM), (tabular, table("cd"))]:
        with pytest.raises(CertificateError, match="certify the policy where it is to be used"):
            require(certificate, use)
    with pytest.raises(CertificateError, match="this evidence proves"):
        seal(stream.evidence, table("ab12"))
    with pytest.raises(CertificateError, match="this evidence proves"):
        verify(reseal(tabular, valid_for=STREAM))


@pytest.mark.parametrize("data", [b"", b"{}", b"[1]", b'{"target": "0.9"}'])
def test_what_is_no_certificate_is_refused(data: bytes) -> None:
    with pytest.raises(CertificateError, match="not a certificate"):
        from_json(data)


def test_impossible_guarantees_are_refused(stream: Certificate) -> None:
    with pytest.raises(CertificateError, match="strictly between"):
        from_json(to_json(stream).replace(b'"target":0.9}', b'"target":1.9}'))


def test_unknown_fields_are_refused(stream: Certificate) -> None:
    with pytest.raises(CertificateError, match="unknown field"):
        from_json(to_json(stream).replace(b'"bound"', b'"extra":1,"bound"', 1))


def test_a_stream_has_no_table_to_compare(stream: Certificate) -> None:
    with pytest.raises(CertificateError, match="cannot be compared with a table"):
        check_table(stream, np.arange(150), 150)


def test_a_seed_that_no_generator_takes_is_refused(tabular: Certificate) -> None:
    forged = reseal(tabular, evidence=REPLACE(tabular.evidence, seed=-1))
    with pytest.raises(CertificateError, match="seed"):
        from_json(to_json(forged))
