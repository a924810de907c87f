"""Certificates: how often a cascade's answers may differ from the teacher's, and the proof.

Usable without the rest of Cascade; needs numpy and msgspec. See docs/certificates.md.
"""

from cascade.certify.aggregates import Aggregate, MeanAudit, MeanEvidence, ValueDraw
from cascade.certify.aims import Precision, Recall
from cascade.certify.audit import TableAudit, TableResult, audit_table, certify_stream
from cascade.certify.bounds import Deadline, OpenEnded, agreement_lower
from cascade.certify.certificate import (
    STREAM,
    Certificate,
    check_table,
    from_json,
    require,
    seal,
    table,
    to_json,
    verify,
)
from cascade.certify.claim import Conditional, Guarantee, Rung
from cascade.certify.class_path import (
    certify_answers,
    certify_classes,
    conditional_path,
    label_certificates,
    plan_classes,
)
from cascade.certify.classes import ClassAudit, ClassResult, audit_classes
from cascade.certify.conditional import ConditionalAudit
from cascade.certify.every_label import EveryLabelAudit, label_thresholds
from cascade.certify.filters import FilterResult, certify_filter, filter_flow
from cascade.certify.joint_audit import (
    JointAudit,
    JointPrices,
    JointResult,
    Said,
    audit_joint,
)
from cascade.certify.labelling import LabelledTable, certify_table, scores_digest
from cascade.certify.monitor import HarmMonitor
from cascade.certify.planner import Prices
from cascade.certify.promotion import Economics, Rule, Sample, Verdict, promotion_verdict
from cascade.certify.ranking import RankingAudit, RankingResult, audit_ranking
from cascade.certify.stratified import StratifiedSample, stratify
from cascade.certify.stream import StreamAudit
from cascade.certify.watch import Step, Watch, certified_rungs, reopened
from cascade.certify.zones import Confidences

__all__ = [
    "LabelledTable",
    "certify_table",
    "STREAM",
    "Aggregate",
    "Certificate",
    "ClassAudit",
    "ClassResult",
    "Conditional",
    "ConditionalAudit",
    "Confidences",
    "Deadline",
    "Economics",
    "EveryLabelAudit",
    "FilterResult",
    "Guarantee",
    "HarmMonitor",
    "MeanAudit",
    "MeanEvidence",
    "OpenEnded",
    "JointAudit",
    "JointPrices",
    "JointResult",
    "Precision",
    "Prices",
    "RankingAudit",
    "RankingResult",
    "Recall",
    "Rule",
    "Rung",
    "Said",
    "Sample",
    "Step",
    "StratifiedSample",
    "StreamAudit",
    "TableAudit",
    "TableResult",
    "ValueDraw",
    "Verdict",
    "Watch",
    "agreement_lower",
    "audit_joint",
    "audit_classes",
    "audit_ranking",
    "audit_table",
    "certified_rungs",
    "certify_answers",
    "certify_classes",
    "certify_filter",
    "certify_stream",
    "check_table",
    "conditional_path",
    "filter_flow",
    "from_json",
    "label_certificates",
    "label_thresholds",
    "plan_classes",
    "promotion_verdict",
    "reopened",
    "require",
    "scores_digest",
    "seal",
    "stratify",
    "table",
    "to_json",
    "verify",
]
