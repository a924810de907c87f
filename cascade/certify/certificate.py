"""A certificate: a claim, and all the evidence for it. Knows how to seal, store and check one.

Whoever holds the file can win the claim again offline: ``verify`` replays the evidence draw by
draw and compares. The digest catches accidents and careless edits; it is no signature. Somebody
who rewrites the draws themselves and seals again has forged the evidence, and only the label store
can tell.
"""

from __future__ import annotations

import hashlib
import math

import msgspec
import numpy as np
from numpy.typing import NDArray

from cascade.certify.claim import AGREEMENT, Claim, Conditional
from cascade.certify.class_evidence import ClassEvidence
from cascade.certify.conditional import ConditionalEvidence
from cascade.certify.every_label import BY_LABEL, EveryLabelEvidence
from cascade.certify.filter_audit import FilterEvidence
from cascade.certify.joint import JointEvidence
from cascade.certify.stream import StreamEvidence
from cascade.certify.table import TableEvidence
from cascade.certify.top_k import TopKEvidence
from cascade.errors import CertificateError, UsageError

STREAM = "stream"
"""``valid_for`` of a certificate for future requests."""

TOLERANCE = 1e-9  # relative, of replayed figures: libm differs in the last digits


def table(digest: str) -> str:
    """``valid_for`` of a certificate for the one table whose sha256 is ``digest``.

    >>> table("ab12")
    'table:ab12'
    """
    return f"table:{digest}"


Evidence = (
    StreamEvidence
    | TableEvidence
    | JointEvidence
    | ClassEvidence
    | ConditionalEvidence
    | EveryLabelEvidence
    | TopKEvidence
    | FilterEvidence
)


class Certificate(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """With probability at least 1 - delta, the final answers agree with the teacher's this often.

    target, delta : what was asked for.
    thresholds : tier -> least calibrated P(agree) at which it may answer below the teacher; under
        ``tier:label`` another one for that answer.
    share : predicted share answered below the teacher; no claim.
    n : draws (stream) or rows (table).
    labels : teacher answers bought by the audit.
    bound : lower bound of the agreement over *all* rows, the teacher's own included.
    conditional : the agreement among the rows answered below the teacher.
    method : the theorem, in words.
    metric : what is at least ``bound``: ``agreement`` over all rows, or ``precision``, ``recall``,
        ``recall@<k>``, ``agreement:<label>``, ``agreement:*`` of all answers below the teacher, or
        ``agreement by label``, of each label that it may give, and so of all.
    valid_for : ``stream`` or ``table:<sha256>``; never use one for the other.
    evidence : the draws, the rungs and what each rung's wealth came to.
    digest : sha256 over the canonical JSON of all the rest.
    """

    target: float
    delta: float
    thresholds: dict[str, float]
    share: float
    n: int
    labels: int
    bound: float
    conditional: Conditional
    method: str
    valid_for: str
    evidence: Evidence
    metric: str = AGREEMENT
    digest: str = ""


CLAIMS = tuple(name for name in Certificate.__struct_fields__ if name not in {"evidence", "digest"})


def seal(evidence: Evidence, valid_for: str) -> Certificate:
    """Win the claim from the evidence and write it down.

    Raises
    ------
    CertificateError : the evidence proves nothing, or something of the other kind.
    """
    return _write(evidence, evidence.replay().claim(), valid_for)


def verify(certificate: Certificate) -> None:
    """Check the digest, replay the evidence, compare every claim and every rung's wealth.

    Raises
    ------
    CertificateError : anything does not match; the message names it.
    """
    if certificate.digest != _digest(certificate):
        raise CertificateError("the digest does not match: the certificate was changed")
    audit = certificate.evidence.replay()
    won = _write(certificate.evidence, audit.claim(), certificate.valid_for)
    for name in CLAIMS:
        if not _same(getattr(certificate, name), getattr(won, name)):
            raise CertificateError(f"the evidence does not prove the {name} that is claimed")
    if not _same(certificate.evidence.log_wealths, audit.highest.tolist()):
        raise CertificateError("the replayed e-values differ from the recorded ones")


def check_table(certificate: Certificate, order: NDArray[np.int64], rows: int) -> None:
    """Compare a certificate with its table, of which ``verify`` sees the draws only.

    Parameters
    ----------
    order : (m,) the rows that had a rank when the table was frozen, the first rank first: the
        ``order`` of the audit. For one class of a table the places within the class.
    rows : of the whole table, or of the class.

    Raises
    ------
    CertificateError : it is of a table of another size or order, or cut elsewhere, or a row that it
        drew stood at another rank; or it is a stream's.
    """
    evidence = certificate.evidence
    if isinstance(evidence, ClassEvidence):
        evidence = evidence.audit
    if not isinstance(evidence, TableEvidence | JointEvidence | TopKEvidence | FilterEvidence):
        raise CertificateError("this certificate cannot be compared with a table: use verify")
    evidence.frozen_table.check(order, rows)


def _write(evidence: Evidence, claim: Claim, valid_for: str) -> Certificate:
    stream = isinstance(evidence, StreamEvidence | ConditionalEvidence | EveryLabelEvidence)
    kind = STREAM if stream else table("")
    if not valid_for.startswith(kind) or valid_for == table(""):
        raise CertificateError(f"this evidence proves {kind}..., not {valid_for!r}")
    unsigned = Certificate(
        target=claim.guarantee.target,
        delta=claim.guarantee.delta,
        thresholds=claim.rung.thresholds,
        share=claim.rung.share,
        n=claim.n,
        labels=claim.labels,
        bound=claim.bound,
        conditional=claim.conditional,
        method=claim.method,
        metric=claim.metric,
        valid_for=valid_for,
        evidence=evidence,
    )
    return msgspec.structs.replace(unsigned, digest=_digest(unsigned))


def require(certificate: Certificate, valid_for: str) -> None:
    """Refuse a certificate that was won for something else than all answers of ``valid_for``.

    Raises
    ------
    CertificateError : ``valid_for`` or the metric differs.
    """
    if certificate.metric not in (AGREEMENT, BY_LABEL):
        raise CertificateError(
            f"this certificate speaks of {certificate.metric}, not of all answers: certify the "
            "policy's agreement"
        )
    if certificate.valid_for != valid_for:
        raise CertificateError(
            f"this certificate is valid for {certificate.valid_for}, not for {valid_for}: "
            "certify the policy where it is to be used"
        )


def to_json(certificate: Certificate) -> bytes:
    """Canonical JSON: keys sorted, so equal certificates are equal bytes."""
    return msgspec.json.encode(certificate, order="sorted")


def from_json(data: bytes | str) -> Certificate:
    """Read a certificate strictly; checks its form, not its claim (that is ``verify``).

    Raises
    ------
    CertificateError : not JSON, an unknown or missing field, a wrong type.
    """
    try:
        return msgspec.json.decode(data, type=Certificate)
    except (msgspec.DecodeError, ValueError, UsageError) as error:
        raise CertificateError(f"not a certificate: {error}") from error


def _digest(certificate: Certificate) -> str:
    unsigned = msgspec.structs.replace(certificate, digest="")
    return hashlib.sha256(to_json(unsigned)).hexdigest()


def _same(one: object, other: object) -> bool:
    """Equal, floats to ``TOLERANCE``."""
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=TOLERANCE, abs_tol=TOLERANCE)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and np.allclose(one, other, rtol=TOLERANCE, atol=TOLERANCE)
    if isinstance(one, Conditional) and isinstance(other, Conditional):
        return _same(list(msgspec.structs.astuple(one)), list(msgspec.structs.astuple(other)))
    return one == other
