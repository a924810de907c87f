"""Five ways to decide which rows are answered below the teacher: four certified, and TRACER's.

Each takes a split and the proxy trained on it, and returns (t,) the label of every test row,
``TEACHER`` where it escalates. Knows nothing of how the answers are judged.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from classes_lesson import Corpus, Integers, Proxy, Split
from numpy.typing import NDArray

from cascade import certify
from cascade.certify import Guarantee, Rung
from cascade.certify.class_path import BY_TEACHER
from cascade.certify.path import answered_by, threshold_path
from cascade.distill.calibrate import calibrate_stack
from cascade.distill.path import Costs, build_path
from cascade.distill.replay import TEACHER, Opinions
from cascade.tiers.agreement import Floats

SMALL_PRICE = 0.1  # of an answer of GPT-3.5; the teacher's is 1
FINE = 60  # rungs: between two of sixteen lie five percent of the requests
SLOW = ("gbt", "rf")  # of TRACER's models: most of its time, and not the best in the splits tried


def all_answers(data: Corpus, split: Split, proxy: Proxy, guarantee: Guarantee) -> Integers:
    """Certify the agreement over all rows, the teacher's own included."""
    path = threshold_path(proxy.promised, guarantee.target, rungs=FINE)
    answered = answered_by(proxy.trust[split.draws], path)
    wrong = (proxy.label != data.teacher)[split.draws]
    found = certify.certify_stream(answered, answered & wrong[:, None], path, guarantee)
    return below(proxy, split, found.thresholds["proxy"] if found else np.inf)


def answered_alone(data: Corpus, split: Split, proxy: Proxy, guarantee: Guarantee) -> Integers:
    """Certify the agreement among the rows answered below the teacher."""
    path = certify.conditional_path(proxy.promised, guarantee, len(split.draws))
    answered = answered_by(proxy.trust[split.draws], path)
    wrong = (proxy.label != data.teacher)[split.draws]
    found = certify.certify_answers(answered, wrong, path, guarantee)
    return below(proxy, split, found.thresholds["proxy"] if found else np.inf)


def every_class(data: Corpus, split: Split, proxy: Proxy, guarantee: Guarantee) -> Integers:
    """Certify the agreement among the answers of each class, as many classes as can be."""
    share = Guarantee(guarantee.target, guarantee.delta / data.n_labels)
    path = certify.conditional_path(proxy.promised, share, len(split.draws) // data.n_labels)
    held_out = proxy.answerer.out_of_fold.argmax(axis=1)
    trained = said(held_out, proxy.promised, path)
    plan = certify.plan_classes(trained, proxy.promised, path, guarantee, len(split.draws))
    answers = said(proxy.label[split.draws], proxy.trust[split.draws], path)
    found = certify.certify_classes(answers, data.teacher[split.draws].astype(str), plan, guarantee)
    least = np.full(data.n_labels, np.inf)
    for label, certificate in found.items():
        least[int(label)] = certificate.thresholds["proxy"]
    return below(proxy, split, least[proxy.label[split.test]])


def with_small(data: Corpus, split: Split, proxy: Proxy, guarantee: Guarantee) -> Integers:
    """As ``all_answers``, with the small tier between the proxy and the teacher."""
    # an answer beyond the task's labels is none: a row of NaN, and no trust
    small = np.vstack([np.eye(data.n_labels), np.full(data.n_labels, np.nan)])[data.small]
    stack = calibrate_stack(small[split.train], data.teacher[split.train], proxy.answerer)
    stacked = stack.stack.combine(small, proxy.scores)
    trust = stack.stack.confidence(stacked, small, proxy.scores)
    opinions = Opinions(
        proxy=proxy.label,
        proxy_trust=proxy.trust,
        small=stacked.argmax(axis=1),
        small_trust=np.where(np.isnan(trust), -1.0, trust),
    )
    costs = Costs(SMALL_PRICE, 1.0)
    path = build_path(
        proxy.promised,
        stack.agreement.out_of_fold,
        costs,
        target=guarantee.target,
        rungs=FINE,
    )
    answers = opinions.answers(path)
    answered = answers[split.draws] != TEACHER
    wrong = answered & (answers != data.teacher[:, None])[split.draws]
    rungs = [Rung(rung.thresholds, 1 - rung.shares["large"]) for rung in path]
    found = certify.certify_stream(answered, wrong, rungs, guarantee)
    if found is None:
        return np.full(len(split.test), TEACHER)
    best = next(i for i, rung in enumerate(rungs) if rung.thresholds == found.thresholds)
    return answers[split.test, best]


def by_tracer(data: Corpus, split: Split, proxy: Proxy, guarantee: Guarantee) -> Integers:
    """TRACER's own models, acceptor and gate; without its novelty gate, which answers less."""
    from tracer.fit.pipeline import fit_frontier, route_pipeline

    rows = np.concatenate([split.train, split.draws])
    seen, y = np.unique(data.teacher[rows], return_inverse=True)
    frontier, _ = fit_frontier(data.X[rows], y, [guarantee.target], skip=SLOW)
    best = frontier[0]["best"]
    if best is None:
        return np.full(len(split.test), TEACHER)
    label, handled, _ = route_pipeline(best["stages"], data.X[split.test])
    return np.where(handled, seen[label], TEACHER)


def said(label: Integers, trust: Floats, path: Sequence[Rung]) -> NDArray[np.str_]:
    """(m, G) what each rung answers."""
    return np.where(answered_by(trust, path), label.astype(str)[:, None], BY_TEACHER)


def below(proxy: Proxy, split: Split, threshold: float | Floats) -> Integers:
    """(t,) the proxy's label of the test rows where it is trusted enough."""
    trusted = proxy.trust[split.test] >= threshold
    return np.where(trusted, proxy.label[split.test], TEACHER)
