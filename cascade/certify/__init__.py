"""Certificates: how often a cascade's answers may differ from the teacher's, and the proof.

Usable without the rest of Cascade; needs numpy and msgspec. See docs/certificates.md.
"""

from cascade.certify.audit import TableAudit, TableResult, audit_table, certify_stream
from cascade.certify.bounds import Deadline, OpenEnded, agreement_lower, draws_needed
from cascade.certify.certificate import (
    STREAM,
    Certificate,
    from_json,
    require,
    seal,
    table,
    to_json,
    verify,
)
from cascade.certify.claim import Conditional, Guarantee, Rung
from cascade.certify.monitor import HarmMonitor
from cascade.certify.planner import Prices
from cascade.certify.promotion import Economics, Rule, Sample, Verdict, promotion_verdict
from cascade.certify.stream import StreamAudit

__all__ = [
    "STREAM",
    "Certificate",
    "Conditional",
    "Deadline",
    "Economics",
    "Guarantee",
    "HarmMonitor",
    "OpenEnded",
    "Prices",
    "Rule",
    "Rung",
    "Sample",
    "StreamAudit",
    "TableAudit",
    "TableResult",
    "Verdict",
    "agreement_lower",
    "audit_table",
    "certify_stream",
    "draws_needed",
    "from_json",
    "promotion_verdict",
    "require",
    "seal",
    "table",
    "to_json",
    "verify",
]
