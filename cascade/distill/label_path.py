"""The path where every label is held to the target by itself: one tier, each label its own rungs.

Knows honest confidences and answers of the training rows; knows no teacher's label and no model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cascade import certify
from cascade.benches import LARGE, PROXY
from cascade.certify.class_path import BY_TEACHER
from cascade.certify.every_label import shared
from cascade.distill.replay import TEACHER
from cascade.errors import NotEnoughSignal
from cascade.tiers.agreement import Floats
from cascade.tiers.artifact import Rung

Strings = NDArray[np.str_]


@dataclass(frozen=True)
class LabelPlan:
    """Frozen before the first draw.

    path : the rungs that all labels share, the most careful first.
    labels : label -> the rungs of its own path, which are the last of the shared ones. The labels
        left out are given by the teacher alone.
    """

    path: tuple[Rung, ...]
    labels: Mapping[str, Sequence[certify.Rung]]


def plan_labels(
    said: NDArray[np.int64],
    sure: Floats,
    names: Sequence[str],
    guarantee: certify.Guarantee,
    draws: int,
) -> LabelPlan:
    """Which labels can be held to the target with so many draws, and how boldly to try.

    Parameters
    ----------
    said : (n,) the proxy's label index on training rows, out of sample.
    sure : (n,) its P(teacher agrees), likewise; 0 where a gate would turn a row away.
    names : (L,) the labels.
    draws : uniform requests that the audit will look at.

    Raises
    ------
    NotEnoughSignal
        The proxy would answer nothing at all.
    """
    usual = sure > 0
    if not usual.any():
        raise NotEnoughSignal("the proxy would not answer anything: buy more labels")
    share = shared(guarantee, len(names))  # a label has about so much of delta and of the draws
    mine = int(draws * usual.mean()) // len(names)
    path = certify.conditional_path(sure[usual], share, mine, tier=PROXY)
    least = np.array([rung.thresholds[PROXY] for rung in path])
    answers = np.where(sure[:, None] >= least, said[:, None], TEACHER)
    plan = certify.plan_classes(named(answers, names), sure, path, guarantee, draws)
    return LabelPlan(tuple(_described(rung, sure) for rung in path), plan)


def named(answers: NDArray[np.int64], names: Sequence[str]) -> Strings:
    """Label indices, ``TEACHER`` included, as ``certify`` wants them.

    >>> named(np.array([[1, TEACHER]]), ["yes", "no"]).tolist()
    [['no', '']]
    """
    known: Strings = np.array([*names, BY_TEACHER])
    return known[answers]  # the teacher's index is -1: the last


def _described(rung: certify.Rung, sure: Floats) -> Rung:
    by_proxy = sure >= rung.thresholds[PROXY]
    shares = {PROXY: float(by_proxy.mean()), LARGE: float(1.0 - by_proxy.mean())}
    return Rung(dict(rung.thresholds), shares, float(((1.0 - sure) * by_proxy).mean()))
