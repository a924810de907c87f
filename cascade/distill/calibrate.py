"""Learn how far to trust an answer: P(the teacher agrees), the novelty gate and the stack.

Knows out-of-fold answers and the teacher's labels; knows no model file and no price. Everything is
fitted twice: across the folds for honest confidences of the training rows, and once on all of them
for serving. Calibration orders and bets, it never carries the guarantee.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from sklearn.covariance import ledoit_wolf

from cascade.distill.fit import FOLDS, Answerer, Indices, Singles, check_signal
from cascade.tiers.agreement import AgreementModel, Floats, floored_log, sigmoid
from cascade.tiers.novelty import MOST_ROWS, Familiarity, Neighbourhood, NoveltyGate
from cascade.tiers.proxy import PROXY_FEATURES, proxy_features
from cascade.tiers.stacked import STACK_FEATURES, Stack, softmax, stack_features

Bools = NDArray[np.bool_]

GATE_QUANTILE: Final = 0.995
RIDGE: Final = 10.0
"""Of a standardised coefficient, against a sum of n log-losses. With 1, thresholds chosen on the
cross-fitted confidences of 400 rows find the lucky ones: .010 more is wrong than is predicted."""

RAISES, LOWERS, EITHER = (0.0, None), (None, 0.0), (None, None)
SIGNS: Final = {
    "top": RAISES,
    "log_margin": RAISES,
    "entropy": LOWERS,
    "neighbours": RAISES,
    "distance": LOWERS,
    "mahalanobis": LOWERS,
    "log_tokens": EITHER,
    "small_margin": RAISES,
    "small_entropy": LOWERS,
    "tiers_agree": RAISES,
    "proxy_log": RAISES,
}
"""Which way a feature may move the confidence. A surer or more familiar answer is never trusted
less: with a few hundred labels the wrong sign is noise."""


@dataclass(frozen=True)
class Calibration:
    """An agreement model, and what it honestly says of the training rows.

    out_of_fold : (n,) P(agree) by a model fitted without the row's fold.
    agreed : (n,) whether the out-of-fold answer was the teacher's.
    """

    model: AgreementModel
    out_of_fold: Floats
    agreed: Bools


@dataclass(frozen=True)
class ProxyCalibration:
    """All that a proxy needs besides its answerer.

    novel : (n,) training rows that the gate turns away when they are looked at from outside.
    """

    agreement: Calibration
    neighbourhood: Neighbourhood
    gate: NoveltyGate
    novel: Bools


@dataclass(frozen=True)
class StackCalibration:
    """The small tier's stack, and how it does on the training rows.

    out_of_fold : (n, L) label probabilities by a stack fitted without the row's fold; zeros where
        the small LLM abstained.
    """

    stack: Stack
    agreement: Calibration
    out_of_fold: Floats


@dataclass(frozen=True)
class _Opinions:
    """Two opinions on rows where both were given, and the teacher's label.

    small, proxy : (n, L) label probabilities; y : (n,); mass : (n,) what each row stands for.
    """

    small: Floats
    proxy: Floats
    y: Indices
    mass: Floats

    def __getitem__(self, rows: Bools) -> _Opinions:
        return _Opinions(self.small[rows], self.proxy[rows], self.y[rows], self.mass[rows])

    def fitted_weights(self) -> Floats:
        """(2 + L,): weight of each opinion, then each label's bias (conditional logit, ridge)."""
        opinions = np.stack([floored_log(self.small), floored_log(self.proxy)])  # (2, n, L)
        n_labels = self.proxy.shape[1]
        truth, mass = np.eye(n_labels)[self.y], self.mass[:, None]

        def loss(w: Floats) -> tuple[float, Floats]:
            chance = self.combined(w)
            surplus = mass * (chance - truth)  # (n, L)
            value = -(mass * truth * np.log(np.maximum(chance, 1e-12))).sum()
            slope = np.concatenate([(opinions * surplus).sum(axis=(1, 2)), surplus.sum(axis=0)])
            return float(value + 0.5 * RIDGE * w @ w), slope + RIDGE * w

        bounds = [RAISES, RAISES, *[EITHER] * n_labels]
        start = np.append([1.0, 1.0], np.zeros(n_labels))
        found: Floats = minimize(loss, start, jac=True, bounds=bounds, method="L-BFGS-B").x
        return found

    def combined(self, weights: Floats) -> Floats:
        """(n, L), the formula of ``Stack.combine`` before there is a stack."""
        logits = weights[0] * floored_log(self.small) + weights[1] * floored_log(self.proxy)
        return softmax(logits + weights[2:])


def calibrate_proxy(
    X: Singles,
    y: Indices,
    tokens: Indices,
    answerer: Answerer,
    *,
    rng: np.random.Generator,
    weight: Floats | None = None,
) -> ProxyCalibration:
    """Fit the agreement model and the novelty gate of a proxy.

    Parameters
    ----------
    X : (n, d) unit embeddings; y : (n,) teacher labels; tokens : (n,) text lengths.
    answerer : fitted on the same rows in the same order.
    weight : (n,) what each row stands for, where they were not drawn alike.
    """
    mass = np.ones(len(y)) if weight is None else weight
    predicted = answerer.out_of_fold.argmax(axis=1)
    familiarity = _look_across_folds(X, y, predicted, answerer.folds, rng)
    features = proxy_features(answerer.out_of_fold, familiarity, tokens)
    calibration = fit_agreement(PROXY_FEATURES, features, predicted == y, answerer.folds, mass)
    top = answerer.out_of_fold.max(axis=1)
    gate = _fit_gate(top, familiarity, mass)
    neighbourhood = fit_neighbourhood(X, y, _kept(len(y), rng))
    return ProxyCalibration(calibration, neighbourhood, gate, gate.novel(top, familiarity))


def calibrate_stack(
    small: Floats, y: Indices, answerer: Answerer, weight: Floats | None = None
) -> StackCalibration:
    """Fit the stack of the small LLM and the proxy, and its agreement model.

    Parameters
    ----------
    small : (n, L) the small LLM's label probabilities of the rows on which the answerer was
        fitted; a row of NaN where it abstained, whose confidence is then 0.
    y : (n,) teacher labels. weight : as in ``calibrate_proxy``.

    Raises
    ------
    NotEnoughSignal
        Among the rows that the small LLM answered.
    """
    spoke = np.isfinite(small.sum(axis=1))
    check_signal(y[spoke], small.shape[1])
    mass = np.ones(len(y)) if weight is None else weight
    told = _Opinions(small[spoke], answerer.out_of_fold[spoke], y[spoke], mass[spoke])
    heard = _stack_across_folds(told, answerer.folds[spoke])
    agreement = heard.agreement
    return StackCalibration(
        stack=heard.stack,
        agreement=Calibration(
            agreement.model, _widen(agreement.out_of_fold, spoke), _widen(agreement.agreed, spoke)
        ),
        out_of_fold=_widen(heard.out_of_fold, spoke),
    )


def fit_agreement(
    names: tuple[str, ...], features: Floats, agreed: Bools, folds: Indices, weight: Floats
) -> Calibration:
    """Fit P(agree), and cross-fit it for the training rows themselves.

    Parameters
    ----------
    names : of the k columns, each with its sign in ``SIGNS``.
    features : (n, k), computed from out-of-fold answers.
    agreed : (n,) whether each of those answers was the teacher's.
    weight : (n,) what each row stands for.
    """
    out_of_fold = np.empty(len(agreed))
    for fold in range(FOLDS):
        held = folds == fold
        model = _fit_curve(names, features[~held], agreed[~held], weight[~held])
        out_of_fold[held] = model.confidence(features[held])
    return Calibration(_fit_curve(names, features, agreed, weight), out_of_fold, agreed)


def fit_neighbourhood(X: Singles, y: Indices, kept: Indices | None = None) -> Neighbourhood:
    """The training rows and their class-conditional Gaussian with a Ledoit-Wolf covariance.

    Parameters
    ----------
    X : (n, d); y : (n,); kept : the rows to keep as neighbours, all by default.
    """
    seen, index = np.unique(y, return_inverse=True)
    means = np.stack([X[y == label].mean(axis=0) for label in seen]).astype(np.float64)
    covariance, _ = ledoit_wolf(X - means[index], assume_centered=True)
    values, vectors = np.linalg.eigh(covariance)
    # identical texts have no spread at all: the floor keeps the distance finite
    whitening = vectors / np.sqrt(np.maximum(values, 1e-6))
    rows = slice(None) if kept is None else kept
    return Neighbourhood(
        rows=np.ascontiguousarray(X[rows], np.float32),
        labels=np.ascontiguousarray(y[rows], np.int64),
        whitening=np.ascontiguousarray(whitening, np.float32),
        centres=np.ascontiguousarray(means @ whitening, np.float32),
    )


def _look_across_folds(
    X: Singles, y: Indices, predicted: Indices, folds: Indices, rng: np.random.Generator
) -> Familiarity:
    """Each row as it looks to a neighbourhood of the other folds."""
    columns = np.empty((3, len(y)))
    for fold in range(FOLDS):
        held = folds == fold
        # as few rows as serving keeps: among more, everything would look nearer than it will
        others = fit_neighbourhood(X[~held], y[~held], _kept(int((~held).sum()), rng))
        seen = others.look(X[held], predicted[held])
        columns[:, held] = seen.neighbours, seen.distance, seen.mahalanobis
    return Familiarity(*columns)


def _kept(n: int, rng: np.random.Generator) -> Indices:
    """Which of n rows are kept as neighbours, ascending."""
    return np.sort(rng.permutation(n)[:MOST_ROWS])


def _fit_gate(top: Floats, familiarity: Familiarity, weight: Floats) -> NoveltyGate:
    """Limits that nearly all rows keep; one deviation of doubt weighs one of distance."""
    doubt = float(familiarity.distance.std() / max(top.std(), 1e-9))
    strangeness = familiarity.distance + doubt * (1.0 - top)
    return NoveltyGate(
        distance=_limit(familiarity.distance, weight),
        doubt=doubt,
        strangeness=_limit(strangeness, weight),
    )


def _limit(strangeness: Floats, weight: Floats) -> float:
    """What all but the strangest 0.5% keep."""
    limit = np.quantile(strangeness, GATE_QUANTILE, weights=weight, method="inverted_cdf")
    return float(limit)


def _stack_across_folds(told: _Opinions, folds: Indices) -> StackCalibration:
    stacked = np.empty_like(told.proxy)
    for fold in range(FOLDS):
        held = folds == fold
        stacked[held] = told[held].combined(told[~held].fitted_weights())
    features = stack_features(stacked, told.small, told.proxy)
    agreed = stacked.argmax(axis=1) == told.y
    calibration = fit_agreement(STACK_FEATURES, features, agreed, folds, told.mass)
    weights = told.fitted_weights()
    bias = tuple(weights[2:].tolist())
    stack = Stack(float(weights[0]), float(weights[1]), bias, calibration.model)
    return StackCalibration(stack, calibration, stacked)


def _fit_curve(
    names: tuple[str, ...], features: Floats, agreed: Bools, weight: Floats
) -> AgreementModel:
    """A ridge logistic regression whose coefficients keep their sign.

    The ridge counts as prior rows would: one more agreeing and one more disagreeing row keep the
    intercept finite where every answer was right.
    """
    mean, scale = features.mean(axis=0), features.std(axis=0)
    scale = np.where(scale > 1e-9, scale, 1.0)
    X = np.column_stack([(features - mean) / scale, np.ones(len(features))])
    X = np.vstack([X, np.eye(1, X.shape[1], X.shape[1] - 1), np.eye(1, X.shape[1], X.shape[1] - 1)])
    y = np.append(agreed, [True, False]).astype(np.float64)
    mass = np.append(weight, [1.0, 1.0])

    def loss(w: Floats) -> tuple[float, Floats]:
        logits = X @ w
        losses = np.logaddexp(0.0, logits) - y * logits
        value = float(mass @ losses + 0.5 * RIDGE * w[:-1] @ w[:-1])
        return value, X.T @ (mass * (sigmoid(logits) - y)) + RIDGE * np.append(w[:-1], 0.0)

    bounds = [*(SIGNS[name] for name in names), EITHER]
    w = minimize(loss, np.zeros(X.shape[1]), jac=True, bounds=bounds, method="L-BFGS-B").x
    return AgreementModel(
        features=names,
        mean=tuple(mean.tolist()),
        scale=tuple(scale.tolist()),
        coef=tuple(w[:-1].tolist()),
        intercept=float(w[-1]),
    )


def _widen(rows: NDArray[Any], where: Bools) -> NDArray[Any]:
    """The rows at their places among all rows; zeros elsewhere."""
    wide = np.zeros((len(where), *rows.shape[1:]), rows.dtype)
    wide[where] = rows
    return wide
