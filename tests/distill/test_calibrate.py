"""Calibration: confidences keep their promise on rows that nobody has seen."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest

from cascade.distill.calibrate import (
    GATE_QUANTILE,
    SIGNS,
    ProxyCalibration,
    StackCalibration,
    calibrate_proxy,
    calibrate_stack,
    fit_agreement,
    fit_neighbourhood,
)
from cascade.distill.fit import Answerer, fit_answerer, stratified_folds
from cascade.distill.report import calibration_error, reliability_bins
from cascade.errors import NotEnoughSignal
from cascade.tiers.novelty import MOST_ROWS
from cascade.tiers.proxy import proxy_features
from cascade.tiers.stacked import softmax

DIM = 32


@dataclass(frozen=True)
class World:
    """Embeddings, the teacher's labels, and a small LLM that leans to label 0."""

    X: np.ndarray
    y: np.ndarray
    tokens: np.ndarray
    small: np.ndarray

    @classmethod
    def draw(cls, rng: np.random.Generator, n: int, labels: int) -> World:
        centres = np.random.default_rng(99).normal(size=(labels, DIM))
        y = rng.integers(0, labels, n)
        X = centres[y] + 3.0 * rng.normal(size=(n, DIM))
        X /= np.linalg.norm(X, axis=1, keepdims=True)
        lean = 2.0 * np.eye(labels)[0]
        small = softmax(2.0 * np.eye(labels)[y] + lean + rng.normal(size=(n, labels)))
        return cls(X.astype(np.float32), y, rng.integers(5, 60, n), small)


@dataclass(frozen=True)
class Trained:
    world: World
    answerer: Answerer
    proxy: ProxyCalibration
    stack: StackCalibration


@pytest.fixture(scope="module", params=[2, 20])
def trained(request: pytest.FixtureRequest) -> Trained:
    rng = np.random.default_rng(0)
    world = World.draw(rng, 400, request.param)
    answerer = fit_answerer(world.X, world.y, request.param, rng=rng)
    proxy = calibrate_proxy(world.X, world.y, world.tokens, answerer, rng=rng)
    return Trained(world, answerer, proxy, calibrate_stack(world.small, world.y, answerer))


@pytest.fixture
def fresh(trained: Trained) -> World:
    return World.draw(np.random.default_rng(1), 2_000, trained.answerer.n_labels)


def test_the_proxys_confidence_keeps_its_promise(trained: Trained, fresh: World) -> None:
    scores = trained.answerer.probabilities(fresh.X)
    labels = scores.argmax(axis=1)
    familiarity = trained.proxy.neighbourhood.look(fresh.X, labels)
    features = proxy_features(scores, familiarity, fresh.tokens)
    confidence = trained.proxy.agreement.model.confidence(features)
    agreed = labels == fresh.y
    assert abs(confidence.mean() - agreed.mean()) < 0.05
    assert calibration_error(reliability_bins(confidence, agreed)) < 0.06
    assert agreed[confidence >= np.median(confidence)].mean() > agreed.mean() + 0.05


def test_out_of_fold_confidence_foretells_the_fresh_one(trained: Trained, fresh: World) -> None:
    agreed = trained.answerer.probabilities(fresh.X).argmax(axis=1) == fresh.y
    assert abs(trained.proxy.agreement.out_of_fold.mean() - agreed.mean()) < 0.06
    assert abs(trained.proxy.agreement.agreed.mean() - agreed.mean()) < 0.06
    honest = trained.proxy.agreement
    assert calibration_error(reliability_bins(honest.out_of_fold, honest.agreed)) < 0.1


def test_the_gate_lets_nearly_all_fresh_rows_pass(trained: Trained, fresh: World) -> None:
    scores = trained.answerer.probabilities(fresh.X)
    familiarity = trained.proxy.neighbourhood.look(fresh.X, scores.argmax(axis=1))
    assert trained.proxy.gate.novel(scores.max(axis=1), familiarity).mean() < 0.03
    assert trained.proxy.novel.mean() <= 0.015


def test_the_gate_stops_what_lies_elsewhere() -> None:
    rng = np.random.default_rng(2)
    world = World.draw(rng, 200, 2)
    here = np.hstack([world.X, np.zeros_like(world.X)])
    answerer = fit_answerer(here, world.y, 2, rng=rng)
    proxy = calibrate_proxy(here, world.y, world.tokens, answerer, rng=rng)
    look = proxy.neighbourhood.look(np.roll(here, DIM, axis=1), world.y)
    assert proxy.gate.novel(np.ones(200), look).all()  # however sure of itself


def test_the_gate_expects_as_few_neighbours_as_serving_has() -> None:
    """Among all of 4,000 rows everything is nearer than among the 1,000 that are kept."""
    rng = np.random.default_rng(8)
    world, fresh = World.draw(rng, 4 * MOST_ROWS, 2), World.draw(rng, 4_000, 2)
    folds = stratified_folds(world.y, rng)
    answerer = Answerer(None, 2, world.small, folds, "")  # type: ignore[arg-type]
    proxy = calibrate_proxy(world.X, world.y, world.tokens, answerer, rng=rng)
    promised = proxy.gate.distance
    seen = proxy.neighbourhood.look(fresh.X, fresh.y)
    assert (seen.distance > promised).mean() < 0.01
    everything = fit_neighbourhood(world.X, world.y).look(fresh.X, fresh.y)
    assert (seen.distance > np.quantile(everything.distance, GATE_QUANTILE)).mean() > 0.015


def test_the_stack_beats_both_opinions(trained: Trained, fresh: World) -> None:
    proxy = trained.answerer.probabilities(fresh.X)
    stacked = trained.stack.stack.combine(fresh.small, proxy)
    alone = [(one.argmax(axis=1) == fresh.y).mean() for one in (proxy, fresh.small)]
    together = (stacked.argmax(axis=1) == fresh.y).mean()
    assert together > max(alone) + 0.02
    assert (
        abs((trained.stack.out_of_fold.argmax(axis=1) == trained.world.y).mean() - together) < 0.06
    )
    confidence = trained.stack.stack.confidence(stacked, fresh.small, proxy)
    agreed = stacked.argmax(axis=1) == fresh.y
    assert calibration_error(reliability_bins(confidence, agreed)) < 0.06


def test_the_stack_undoes_the_lean(trained: Trained) -> None:
    bias = trained.stack.stack.bias
    assert bias[0] == min(bias)
    assert trained.stack.stack.small > 0 and trained.stack.stack.proxy >= 0


def test_silence_of_the_small_tier_is_no_confidence(trained: Trained) -> None:
    small = trained.world.small.copy()
    small[::7] = np.nan
    calibration = calibrate_stack(small, trained.world.y, trained.answerer)
    assert (calibration.agreement.out_of_fold[::7] == 0.0).all()
    assert not calibration.agreement.agreed[::7].any()
    assert (calibration.agreement.out_of_fold[1::7] > 0.0).all()
    assert np.isfinite(calibration.stack.bias).all()
    with pytest.raises(NotEnoughSignal):
        calibrate_stack(np.full_like(small, np.nan), trained.world.y, trained.answerer)


def test_no_coefficient_has_the_wrong_sign(trained: Trained) -> None:
    for model in (trained.proxy.agreement.model, trained.stack.agreement.model):
        for name, coefficient in zip(model.features, model.coef, strict=True):
            low, high = SIGNS[name]
            assert (low is None or coefficient >= 0) and (high is None or coefficient <= 0)


def test_noise_with_the_wrong_sign_is_ignored() -> None:
    rng = np.random.default_rng(3)
    margin = rng.normal(size=(300, 1))
    agreed = rng.random(300) < 1 / (1 + np.exp(margin[:, 0]))  # a larger margin, less agreement
    model = fit_agreement(("log_margin",), margin, agreed, np.arange(300) % 5, np.ones(300)).model
    assert model.coef == (0.0,)


def test_agreement_on_every_row_is_confident_and_finite() -> None:
    features = np.random.default_rng(4).normal(size=(100, 1))
    calibration = fit_agreement(
        ("top",), features, np.ones(100, bool), np.arange(100) % 5, np.ones(100)
    )
    assert (calibration.out_of_fold > 0.9).all() and (calibration.out_of_fold < 1.0).all()


def test_a_constant_feature_is_harmless() -> None:
    calibration = fit_agreement(
        ("top",), np.ones((50, 1)), np.arange(50) % 2 == 0, np.arange(50) % 5, np.ones(50)
    )
    assert calibration.out_of_fold == pytest.approx(0.5, abs=0.05)


def test_identical_texts_and_few_rows_do_not_break_the_neighbourhood() -> None:
    X = np.tile(np.eye(1, 8, dtype=np.float32), (6, 1))
    y = np.array([0, 0, 0, 1, 1, 1])
    look = fit_neighbourhood(X, y).look(X, y)
    assert look.neighbours.tolist() == [0.5] * 6  # 6 rows, fewer than 10 neighbours
    assert np.isfinite(look.mahalanobis).all() and look.distance == pytest.approx(0.0)


def test_only_so_many_rows_are_kept() -> None:
    rng = np.random.default_rng(6)
    world = World.draw(rng, MOST_ROWS + 50, 2)
    folds = stratified_folds(world.y, rng)
    answerer = Answerer(None, 2, world.small, folds, "")  # type: ignore[arg-type]
    kept = calibrate_proxy(world.X, world.y, world.tokens, answerer, rng=rng).neighbourhood
    assert kept.rows.shape == (MOST_ROWS, DIM) and kept.labels.shape == (MOST_ROWS,)


def test_weights_undo_that_doubtful_rows_were_sought_out() -> None:
    """The trap: rows bought because they are hard make every row look hard."""
    rng = np.random.default_rng(9)
    margin = rng.normal(size=4_000)
    agreed = rng.random(4_000) < 1 / (1 + np.exp(-1 - margin))
    chance = np.where(agreed, 0.25, 0.75)
    bought = rng.random(4_000) < chance
    weight = 0.25 / chance[bought]
    features, right, folds = margin[bought, None], agreed[bought], np.arange(bought.sum()) % 5

    def promised(weight: np.ndarray) -> float:
        model = fit_agreement(("log_margin",), features, right, folds, weight).model
        return float(model.confidence(margin[:, None]).mean())

    assert promised(weight) == pytest.approx(agreed.mean(), abs=0.03)
    assert promised(np.ones_like(weight)) < agreed.mean() - 0.15


def test_a_weightless_row_teaches_the_stack_nothing(trained: Trained) -> None:
    world, answerer, n = trained.world, trained.answerer, len(trained.world.y)
    twice = replace(
        answerer,
        out_of_fold=np.tile(answerer.out_of_fold, (2, 1)),
        folds=np.tile(answerer.folds, 2),
    )
    labels = np.concatenate([world.y, np.roll(world.y, 1)])  # the second half is nonsense
    small, weight = np.tile(world.small, (2, 1)), np.repeat([1.0, 1e-9], n)
    stack = calibrate_stack(small, labels, twice, weight).stack
    assert stack.small == pytest.approx(trained.stack.stack.small, rel=1e-2)
    assert calibrate_stack(small, labels, twice).stack.small < 0.8 * trained.stack.stack.small


def test_the_gate_asks_what_is_usual_and_not_what_was_sought_out() -> None:
    rng = np.random.default_rng(10)
    world = World.draw(rng, 220, 2)
    X = np.hstack([world.X, np.zeros_like(world.X)])
    X[-10:] = np.roll(X[-10:], DIM, axis=1)  # ten far rows, bought for being far
    weight = np.append(np.ones(210), np.full(10, 0.05))
    answerer = fit_answerer(X, world.y, 2, rng=rng)
    limits = [
        calibrate_proxy(X, world.y, world.tokens, answerer, rng=rng, weight=one).gate.distance
        for one in (weight, None)
    ]
    assert limits[0] < limits[1]
