"""Certify the answers below the teacher for the stream: all of them, or every label's by itself.

Plans which labels and which rungs, from training rows; then drives one ``ConditionalAudit`` each.
Knows labels, confidences and a path of frozen policies; nothing of models.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from cascade.certify.bounds import allowed_wrong, binomial_cdf
from cascade.certify.certificate import STREAM, Certificate, seal
from cascade.certify.claim import Guarantee, Rung
from cascade.certify.classes import affordable
from cascade.certify.conditional import ANY, ConditionalAudit
from cascade.certify.every_label import EveryLabelAudit, shared
from cascade.certify.path import BEYOND, RUNGS
from cascade.errors import UsageError

Strings = NDArray[np.str_]
Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]

BY_TEACHER = ""
"""Instead of a label, where a rung leaves a request to the teacher."""

DOUBT = 1.5  # a path begins where it would pass even if so much more were wrong than predicted
AS_LIKELY = 0.01  # a chance to pass that is lower by no more than that is as good
PLACES = 60  # at which the beginning is sought


def conditional_path(
    p_agree: Floats,
    guarantee: Guarantee,
    draws: int,
    *,
    tier: str = "proxy",
    rungs: int = RUNGS,
) -> list[Rung]:
    """A path of one tier for ``certify_answers``, from training rows, before the first draw.

    From the boldest rung that will hardly fail (a more careful one answers so few draws that one
    wrong answer stops the path) to one whose predicted risk, among the answered, is a little beyond
    the limit.

    Parameters
    ----------
    p_agree : (n,) calibrated P(agree) on rows like those to come, out of sample.
    draws : requests that will be drawn for the audit.

    >>> path = conditional_path(np.linspace(0.5, 1, 101), Guarantee(0.9, 0.1), 400, rungs=5)
    >>> [(round(rung.thresholds["proxy"], 2), round(rung.share, 2)) for rung in path]
    [(0.98, 0.06), (0.92, 0.17), (0.86, 0.29), (0.8, 0.4), (0.74, 0.51)]
    """
    surest = np.sort(p_agree)[::-1]
    risk = np.cumsum(1 - surest) / np.arange(1, len(surest) + 1)
    last = max(int(np.searchsorted(risk, BEYOND * guarantee.risk, side="right")), 1)
    places = np.unique(np.linspace(1, last, PLACES).astype(np.int64))
    first = places[_beginning(draws * places / len(surest), risk[places - 1], guarantee)]
    sizes = np.unique(np.linspace(first, last, rungs).astype(np.int64))
    thresholds = dict.fromkeys(float(surest[size - 1]) for size in sizes)  # no ties
    return [Rung({tier: at}, float(np.mean(p_agree >= at))) for at in thresholds]


def _beginning(draws: Floats, risks: Floats, guarantee: Guarantee) -> int:
    """The boldest rung that is as likely to pass as any, if it is ``DOUBT`` times as often wrong.

    draws, risks : (G,) as predicted, of each rung.
    """
    chances = np.zeros(len(draws))
    for place, (count, risk) in enumerate(zip(draws.astype(np.int64).tolist(), risks, strict=True)):
        allowed = allowed_wrong(count, guarantee.risk, guarantee.delta) if count else -1
        if allowed >= 0:
            doubted = float(np.clip(DOUBT * risk, 1e-9, 1 - 1e-9))
            chances[place] = binomial_cdf(count, doubted)[allowed]
    return int(np.flatnonzero(chances >= chances.max() - AS_LIKELY)[-1])


def plan_classes(
    answers: Strings,
    p_agree: Floats,
    rungs: Sequence[Rung],
    guarantee: Guarantee,
    draws: int,
) -> dict[str, list[Rung]]:
    """Which labels can be held to the target with so many draws, and each one's path.

    Parameters
    ----------
    answers : (m, G) what each rung answers to *training* rows, ``BY_TEACHER`` where it escalates.
        From the audit's own draws the choice would not be valid.
    p_agree : (m,) calibrated P(the teacher agrees) with those answers, out of sample.
    rungs : G policies, most conservative first. A class has but its share of the draws and of
        delta: a ``conditional_path`` for these begins carefully enough.
    draws : requests that will be drawn for the audit.

    Returns
    -------
    label -> its path: the rungs from the boldest one that will hardly fail on, each with the share
    of requests that it answers with the label. Labels left out always escalate.

    >>> answers = np.array([["yes", "yes"], ["", "yes"], ["", "no"], ["", ""]])
    >>> path = [Rung({"proxy": 0.9}, 0.25), Rung({"proxy": 0.6}, 0.75)]
    >>> plan = plan_classes(answers, np.array([1, 1, 0.7, 0.6]), path, Guarantee(0.9, 0.1), 100)
    >>> [(label, [rung.share for rung in rungs]) for label, rungs in plan.items()]
    [('yes', [0.5])]
    """
    labels = [str(label) for label in np.unique(answers) if label != BY_TEACHER]
    if ANY in labels:
        raise UsageError(f"no label may be called {ANY!r}: it stands for all answers")
    shares = {label: (answers == label).mean(axis=0) for label in labels}  # (G,) each
    kept = affordable([draws * shares[label].max() for label in labels], guarantee)
    share_of_delta = shared(guarantee, len(kept))
    plan = {}
    for label in (labels[index] for index in kept):
        errors = (1 - p_agree) @ (answers == label)  # (G,) expected among the training rows
        risks = errors / np.maximum((answers == label).sum(axis=0), 1)
        plan[label] = [
            msgspec.structs.replace(rung, share=float(share))
            for rung, share in zip(rungs, shares[label], strict=True)
        ][_beginning(draws * shares[label], risks, share_of_delta) :]
    return plan


def certify_classes(
    answers: Strings, teacher: Strings, plan: Mapping[str, Sequence[Rung]], guarantee: Guarantee
) -> dict[str, Certificate]:
    """Certify each label's answers from draws whose labels are all known.

    Parameters
    ----------
    answers : (n, G) in the order of drawing: what each rung answers, ``BY_TEACHER`` where it
        escalates. G is the length of the whole path, of which each label's is the end.
    teacher : (n,) the teacher's labels; one that could not be read equals no answer.
    plan : from ``plan_classes``, made before the draws.

    Returns
    -------
    label -> certificate at delta / len(plan). The others escalate.
    """
    audit = EveryLabelAudit.over(answers, plan, guarantee)
    for draw, (given, said) in enumerate(zip(answers, teacher, strict=True)):
        audit.record(str(draw), given, str(said))
    return label_certificates(audit)


def label_certificates(audit: EveryLabelAudit) -> dict[str, Certificate]:
    """A certificate of its own for each certified label, at its share of delta."""
    return {one.label: seal(one.evidence(), STREAM) for one in audit.certified}


def certify_answers(
    answered: Bools, wrong: Bools, rungs: Sequence[Rung], guarantee: Guarantee, *, label: str = ANY
) -> Certificate | None:
    """Certify the agreement among the requests answered below the teacher, by themselves.

    Parameters
    ----------
    answered : (n, G) in the order of drawing: rung g answers below the teacher (with ``label``).
    wrong : (n,) and that answer differs from the teacher's. Ignored where nobody answers.

    Returns
    -------
    The certificate; None where no rung passed.

    >>> draw = np.arange(200)
    >>> answered = np.column_stack([draw % 2 == 0, draw >= 0])
    >>> path = [Rung({"proxy": 0.95}, 0.5), Rung({"proxy": 0.60}, 1.0)]
    >>> certificate = certify_answers(answered, draw % 4 == 1, path, Guarantee(0.9, 0.05))
    >>> certificate.metric, certificate.thresholds, certificate.bound
    ('agreement:*', {'proxy': 0.95}, 0.9)
    """
    audit = ConditionalAudit(guarantee, rungs, answered.sum(axis=0).tolist(), label)
    for draw, (below, bad) in enumerate(zip(answered, wrong, strict=True)):
        if audit.wants(below):
            audit.record(str(draw), below, bool(bad))
    return seal(audit.evidence(), STREAM) if audit.passed else None
