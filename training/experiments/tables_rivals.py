"""What the table experiment compares with: BARGAIN, SUPG and LOTUS, on the same rows and target.

All of them get the proxy's answer (score at least a half) and its confidence max(s, 1 - s), may
answer rows by the proxy or by the teacher, and pay for every row that the teacher sees.
"""

from __future__ import annotations

import importlib.util
import logging
import sys
from dataclasses import dataclass
from types import ModuleType, SimpleNamespace

import numpy as np
from numpy.typing import NDArray

from cascade.certify import Guarantee

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

SAMPLE_SHARE, SAMPLE_MOST = 0.10, 400  # labels of SUPG and LOTUS: LOTUS' own default, capped
SUPG_THRESHOLDS = 20  # as many as BARGAIN tries


@dataclass(frozen=True)
class Table:
    """name : of its file. scores : (n,) P(positive). labels : (n,) the teacher's."""

    name: str
    scores: Floats
    labels: Bools

    @property
    def answers(self) -> Bools:
        """(n,) the proxy's."""
        return self.scores >= 0.5

    @property
    def confidence(self) -> Floats:
        """(n,) how sure the proxy is of its answer, in [.5, 1]."""
        return np.maximum(self.scores, 1 - self.scores)


@dataclass(frozen=True)
class Outcome:
    """agreement : share of final answers that are the teacher's. avoided : share of rows that the
    teacher never saw. labels : bought to choose the threshold."""

    agreement: float
    avoided: float
    labels: int


def outcome(table: Table, answers: Bools, by_proxy: Bools, sampled: NDArray[np.int64]) -> Outcome:
    """Sampled rows are answered by their label, whatever the threshold says."""
    below = by_proxy.copy()
    below[sampled] = False
    right = np.where(below, answers == table.labels, True)
    return Outcome(float(right.mean()), float(below.mean()), len(np.unique(sampled)))


def bargain(table: Table, guarantee: Guarantee, seed: int) -> Outcome:
    """BARGAIN's accuracy mode (``BARGAIN_A``) with its defaults: 20 thresholds, adaptive sampling.

    Its classes ask a model for one row a thread; here they look the rows up, no decision changes.
    Every row it validated counts as a teacher call, and is answered by the label.
    """
    from BARGAIN import BARGAIN_A, Oracle, Proxy

    class Scores(Proxy):
        def get_preds_and_scores(self, indxs: list[int], data_records: list[int]) -> object:
            return table.answers[indxs], table.confidence[indxs]

    class Labels(Oracle):
        seen: set[int] = set()

        def is_answer_correct(
            self, data_indxs: NDArray[np.int64], data_records: object, proxy_output_at_indxs: Bools
        ) -> Bools:
            self.seen = self.seen | set(data_indxs.tolist())
            return table.labels[data_indxs] == proxy_output_at_indxs

        def get_pred(self, data_records: object, indxs: NDArray[np.int64]) -> Bools:
            return table.labels[indxs]

    oracle = Labels(verbose=False)
    search = BARGAIN_A(
        Scores(verbose=False),
        oracle,
        target=guarantee.target,
        delta=guarantee.delta,
        verbose=False,
        seed=seed,
    )
    answers, asked = search.process(np.arange(len(table.labels)), return_oracle_usage=True)
    agreement = float(np.mean(np.array(answers, dtype=bool) == table.labels))
    return Outcome(agreement, 1 - float(np.mean(asked)), len(oracle.seen))


def supg(table: Table, guarantee: Guarantee, seed: int) -> Outcome:
    """SUPG's precision target by importance sampling (Kang et al., VLDB 2020, IS-CI-P).

    The package of that name on PyPI is empty, so this is the paper's estimator: rows drawn with
    probability proportional to the root of the score, mixed with a tenth uniform; a normal lower
    bound at delta over the number of thresholds. SUPG knows no accuracy target. Its nearest honest
    equivalent takes "the proxy is right" as the predicate and confidence as the score, and asks
    the k rows above a threshold for the precision at which the whole table reaches the target.
    """
    rng, n = np.random.default_rng(seed), len(table.labels)
    weight = np.sqrt(table.confidence)
    weight = 0.9 * weight / weight.sum() + 0.1 / n
    sampled = rng.choice(n, sample_size(n), p=weight)
    correction = 1 / (n * weight[sampled])
    right = (table.answers == table.labels)[sampled]
    ranks = np.empty(n, dtype=np.int64)
    ranks[np.argsort(-table.confidence, kind="stable")] = np.arange(n)
    prefix = 0
    for size in np.linspace(0, n, SUPG_THRESHOLDS + 1).astype(np.int64)[1:]:
        inside = ranks[sampled] < size
        needed = 1 - guarantee.risk * n / size
        bound = _normal_lower(right[inside], correction[inside], guarantee.delta / SUPG_THRESHOLDS)
        if bound >= needed:
            prefix = int(size)
    return outcome(table, table.answers, ranks < prefix, sampled)


def _normal_lower(right: Bools, weight: Floats, delta: float) -> float:
    """SUPG's lower bound of a weighted mean (its equation 5)."""
    if not len(right):
        return -np.inf
    values = right * weight / weight.mean()
    return float(values.mean() - values.std() * np.sqrt(2 * np.log(1 / delta) / len(right)))


def lotus(table: Table, guarantee: Guarantee, seed: int) -> Outcome:
    """LOTUS' two thresholds (``learn_cascade_thresholds``) on its quantile-calibrated scores.

    Accepted above the upper one, rejected below the lower one, the teacher in between. LOTUS knows
    recall and precision targets only. The nearest honest equivalent of an accuracy target lets
    missed positives and false ones each use up half of the allowed wrong answers, with the share
    of positives as estimated from LOTUS' own sample. It samples from the whole table; its default
    looks at the first 200 rows only.
    """
    utils, n = _lotus_utils(), len(table.labels)
    arguments = SimpleNamespace(
        cascade_IS_random_seed=seed,
        cascade_IS_weight=0.9,
        cascade_IS_max_sample_range=n,
        sampling_percentage=sample_size(n) / n,
        cascade_num_calibration_quantiles=50,
        failure_probability=guarantee.delta,
    )
    scores = np.array(utils.calibrate_llm_logprobs(table.scores, arguments))
    sampled, correction = utils.importance_sampling(scores, arguments)
    labels = table.labels[sampled]
    positive = max(float(np.mean(labels * correction[sampled])), 1 / n)
    spare = min(guarantee.risk / (2 * positive), 0.99)
    arguments.recall_target, arguments.precision_target = 1 - spare, 1 / (1 + spare)
    (upper, lower), _ = utils.learn_cascade_thresholds(
        scores[sampled].tolist(), labels.tolist(), correction[sampled], arguments
    )
    by_proxy = (scores >= upper) | (scores <= lower)
    return outcome(table, scores >= upper, by_proxy, sampled)


def sample_size(rows: int) -> int:
    """Labels that SUPG and LOTUS buy."""
    return min(int(SAMPLE_SHARE * rows), SAMPLE_MOST)


def _lotus_utils() -> ModuleType:
    """LOTUS' one module, without its dependencies (litellm, pandas, ...): it needs a logger."""
    package = importlib.util.find_spec("lotus")
    if package is None or not package.submodule_search_locations:
        raise ModuleNotFoundError("lotus")
    if "lotus_cascade_utils" in sys.modules:
        return sys.modules["lotus_cascade_utils"]
    path = f"{package.submodule_search_locations[0]}/sem_ops/cascade_utils.py"
    spec = importlib.util.spec_from_file_location("lotus_cascade_utils", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    stand_in, types = ModuleType("lotus"), ModuleType("lotus.types")
    stand_in.logger = logging.getLogger("lotus")  # type: ignore[attr-defined]
    types.CascadeArgs = SimpleNamespace  # type: ignore[attr-defined]
    sys.modules.update({"lotus": stand_in, "lotus.types": types})
    try:
        spec.loader.exec_module(module)
    finally:
        del sys.modules["lotus"], sys.modules["lotus.types"]
    sys.modules["lotus_cascade_utils"] = module
    return module
