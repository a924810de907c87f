"""What the filter experiment compares with: BARGAIN, SUPG and LOTUS, at the same label budget.

Every method pays for each row that the teacher sees, whatever for, and gets the same mercy: what
the teacher called positive joins its answer, what it called negative leaves it.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
from numpy.typing import NDArray
from tables_rivals import Bools, Floats, Table, _lotus_utils

from cascade.certify import Guarantee

SUPG_STEP = 100  # ranks between the thresholds that SUPG's precision mode tries: its own default
DEFENSIVE = 0.1  # uniform share of SUPG's draws: its own default


@dataclass(frozen=True)
class Answer:
    """rows : (n,) True where the answer says positive. labels : rows that the teacher saw."""

    rows: Bools
    labels: int


def mended(table: Table, rows: Bools, seen: NDArray[np.int64]) -> Answer:
    """An answer in which the labelled rows follow their label."""
    answer = rows.copy()
    answer[seen] = table.labels[seen]
    return Answer(answer, len(np.unique(seen)))


def bargain_precision(table: Table, guarantee: Guarantee, budget: int, seed: int) -> Answer:
    """BARGAIN's precision mode (``BARGAIN_P``) with its defaults."""
    from BARGAIN import BARGAIN_P

    return _bargain(BARGAIN_P, table, guarantee, budget, seed)


def bargain_recall(table: Table, guarantee: Guarantee, budget: int, seed: int) -> Answer:
    """BARGAIN's recall mode (``BARGAIN_R``) with its defaults, the only ones with a guarantee."""
    from BARGAIN import BARGAIN_R

    return _bargain(BARGAIN_R, table, guarantee, budget, seed)


def _bargain(mode: type, table: Table, guarantee: Guarantee, budget: int, seed: int) -> Answer:
    """Its classes ask a model for one row a thread; here they look the rows up."""
    from BARGAIN import Oracle, Proxy

    class Scores(Proxy):
        def get_preds_and_scores(self, indxs: list[int], data_records: list[int]) -> object:
            return table.answers[indxs].astype(int), table.confidence[indxs]

    class Labels(Oracle):
        def get_pred(self, data_records: object, indxs: NDArray[np.int64]) -> NDArray[np.int64]:
            self.preds_dict.update(dict.fromkeys(indxs.tolist()))
            return table.labels[indxs].astype(int)

    oracle = Labels(verbose=False)
    found = mode(
        Scores(verbose=False),
        oracle,
        target=guarantee.target,
        delta=guarantee.delta,
        budget=budget,
        seed=seed,
    ).process(np.arange(len(table.labels)))
    rows = np.zeros(len(table.labels), dtype=bool)
    rows[found] = True
    return mended(table, rows, np.array(sorted(oracle.preds_dict), dtype=np.int64))


def supg_recall(table: Table, guarantee: Guarantee, budget: int, seed: int) -> Answer:
    """SUPG's recall target by importance sampling (Kang et al., VLDB 2020, IS-CI-R).

    The package of that name on PyPI is empty, so this is the paper's algorithm 4. Its bounds are
    normal approximations: valid in the limit only.
    """
    rng = np.random.default_rng(seed)
    seen, weight = _importance(table.scores, np.arange(len(table.scores)), budget, rng)
    scores, value = table.scores[seen], table.labels[seen] * weight
    threshold = _recall_threshold(scores, value, guarantee.target)
    above = _normal_bound(np.where(scores >= threshold, value, 0), guarantee.delta / 2, +1)
    below = _normal_bound(np.where(scores < threshold, value, 0), guarantee.delta / 2, -1)
    safer = above / max(above + below, 1e-12)
    threshold = _recall_threshold(scores, value, min(safer, 1.0))
    return mended(table, table.scores >= threshold, seen)


def supg_precision(table: Table, guarantee: Guarantee, budget: int, seed: int) -> Answer:
    """SUPG's precision target in two stages (IS-CI-P, the paper's algorithm 5)."""
    rng, n = np.random.default_rng(seed), len(table.scores)
    first, weight = _importance(table.scores, np.arange(n), budget // 2, rng)
    positives = n * _normal_bound(table.labels[first] * weight, guarantee.delta / 2, +1)
    most = int(np.clip(np.ceil(positives / guarantee.target), 1, n))
    top = np.argsort(-table.scores, kind="stable")[:most]
    second, weight = _importance(table.scores, top, budget - budget // 2, rng)
    ranks = np.sort(table.scores[second])[::-1]
    candidates = ranks[SUPG_STEP - 1 :: SUPG_STEP]
    accepted = np.inf
    for threshold in candidates:
        inside = table.scores[second] >= threshold
        right = table.labels[second][inside] * weight[inside] / weight[inside].mean()
        share = guarantee.delta / (2 * len(candidates))
        if _normal_bound(right, share, -1) > guarantee.target:
            accepted = threshold
    return mended(table, table.scores >= accepted, np.concatenate([first, second]))


def lotus_recall(table: Table, guarantee: Guarantee, budget: int, seed: int) -> Answer:
    """LOTUS' thresholds with its recall target only: everything above the lower one."""
    lower, seen = _lotus(table, guarantee, budget, seed, recall=guarantee.target, precision=0.0)[1:]
    return mended(table, lower, seen)


def lotus_precision(table: Table, guarantee: Guarantee, budget: int, seed: int) -> Answer:
    """LOTUS' thresholds with its precision target only: everything above the upper one."""
    upper, _, seen = _lotus(table, guarantee, budget, seed, recall=1.0, precision=guarantee.target)
    return mended(table, upper, seen)


def _lotus(
    table: Table, guarantee: Guarantee, budget: int, seed: int, *, recall: float, precision: float
) -> tuple[Bools, Bools, NDArray[np.int64]]:
    """Rows above either threshold, and those labelled; see ``tables_rivals.lotus``."""
    utils, n = _lotus_utils(), len(table.scores)
    arguments = SimpleNamespace(
        cascade_IS_random_seed=seed,
        cascade_IS_weight=0.9,
        cascade_IS_max_sample_range=n,
        sampling_percentage=budget / n,
        cascade_num_calibration_quantiles=50,
        failure_probability=guarantee.delta,
        recall_target=recall,
        precision_target=precision,
    )
    scores = np.array(utils.calibrate_llm_logprobs(table.scores, arguments))
    seen, correction = utils.importance_sampling(scores, arguments)
    (upper, lower), _ = utils.learn_cascade_thresholds(
        scores[seen].tolist(), table.labels[seen].tolist(), correction[seen], arguments
    )
    return scores >= upper, scores > lower, seen


def _importance(
    scores: Floats, rows: NDArray[np.int64], budget: int, rng: np.random.Generator
) -> tuple[NDArray[np.int64], Floats]:
    """Rows drawn by the root of their score, with their weight in a mean over ``rows``."""
    chance = np.sqrt(np.clip(scores[rows], 0, 1)) + 1e-12
    chance = (1 - DEFENSIVE) * chance / chance.sum() + DEFENSIVE / len(rows)
    drawn = rng.choice(len(rows), budget, p=chance)
    return rows[drawn], 1 / (len(rows) * chance[drawn])


def _normal_bound(values: Floats, delta: float, side: int) -> float:
    """SUPG's bound of a mean (its equation 5): the upper one for side +1, the lower one for -1."""
    width = values.std() * np.sqrt(2 * np.log(1 / delta) / max(len(values), 1))
    return float(values.mean() + side * width)


def _recall_threshold(scores: Floats, value: Floats, target: float) -> float:
    """The largest threshold at which the sample's weighted recall reaches the target."""
    order = np.argsort(-scores, kind="stable")
    kept = np.cumsum(value[order])
    if kept[-1] <= 0:
        return -np.inf
    first = int(np.searchsorted(kept, min(target, 1.0) * kept[-1] * (1 - 1e-12)))
    return float(scores[order][min(first, len(scores) - 1)])
