"""The answerer: chosen and judged on rows that it has not seen, whatever the labels look like."""

from __future__ import annotations

import numpy as np
import pytest

from cascade.distill.fit import (
    Classifier,
    Linear,
    LinearLearner,
    TrainingSet,
    Trees,
    check_signal,
    fit_answerer,
    stratified_folds,
)
from cascade.errors import NotEnoughSignal


def clusters(
    rng: np.random.Generator, y: np.ndarray, spread: float = 2.0, dim: int = 48
) -> np.ndarray:
    """Unit rows around one random centre a label."""
    centres = rng.normal(size=(int(y.max()) + 1, dim))
    X = centres[y] + spread * rng.normal(size=(len(y), dim))
    return (X / np.linalg.norm(X, axis=1, keepdims=True)).astype(np.float32)


def test_it_learns_what_can_be_learned() -> None:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 600)
    X = clusters(rng, y)
    answerer = fit_answerer(X[:400], y[:400], 2, rng=rng)
    assert (answerer.probabilities(X[400:]).argmax(axis=1) == y[400:]).mean() > 0.95
    assert answerer.probabilities(X).sum(axis=1) == pytest.approx(1.0)


def test_out_of_fold_answers_are_honest() -> None:
    rng = np.random.default_rng(1)
    y = rng.integers(0, 2, 300)
    X = clusters(rng, np.zeros_like(y), dim=300)  # nothing to learn, and room to memorise
    answerer = fit_answerer(X, y, 2, rng=rng)
    assert (answerer.out_of_fold.argmax(axis=1) == y).mean() < 0.6


def test_twenty_labels_and_a_rare_one() -> None:
    rng = np.random.default_rng(2)
    y = rng.integers(0, 19, 600)
    y[:2] = 19  # fewer rows than folds
    X = clusters(rng, y)
    answerer = fit_answerer(X, y, 20, rng=rng)
    assert answerer.out_of_fold.shape == (600, 20)
    assert (answerer.out_of_fold.argmax(axis=1) == y).mean() > 0.7


def test_an_absent_label_has_probability_zero() -> None:
    rng = np.random.default_rng(3)
    y = rng.choice([0, 2], 200)
    answerer = fit_answerer(clusters(rng, y), y, 4, rng=rng)
    assert answerer.out_of_fold[:, [1, 3]].max() == 0.0
    assert answerer.probabilities(clusters(rng, y))[:, [1, 3]].max() == 0.0


def test_the_minority_is_neither_drowned_nor_given_away() -> None:
    """As they come, 38% of the rare rows are found; weighted to be as common, 5.5% are wrong."""
    rng = np.random.default_rng(4)
    y = (rng.random(800) < 0.04).astype(np.int64)
    X = clusters(rng, y, spread=3.0)
    found = fit_answerer(X, y, 2, rng=rng).out_of_fold.argmax(axis=1)
    assert (found[y == 1] == 1).mean() > 0.42
    assert (found == y).mean() > 0.96


def test_soft_labels_carry_the_teachers_doubt() -> None:
    rng = np.random.default_rng(5)
    y = rng.integers(0, 2, 400)
    X = clusters(rng, y, spread=1.0)
    doubtful = np.where(np.eye(2)[y] == 1, 0.6, 0.4)
    hard = fit_answerer(X, y, 2, rng=rng).probabilities(X).max(axis=1).mean()
    soft = fit_answerer(X, y, 2, rng=rng, soft=doubtful).probabilities(X).max(axis=1).mean()
    assert soft < 0.7 < hard


def test_a_stated_label_counts_where_its_probability_got_lost() -> None:
    rng = np.random.default_rng(11)
    y = rng.integers(0, 3, 200)
    lost = np.zeros((200, 3))
    answerer = fit_answerer(clusters(rng, y), y, 3, rng=rng, soft=lost)
    assert (answerer.out_of_fold.argmax(axis=1) == y).mean() > 0.9


def test_trees_are_kept_only_where_they_are_better() -> None:
    rng = np.random.default_rng(7)
    X = clusters(rng, np.zeros(600, np.int64), dim=6)
    corners = ((X[:, 0] > 0) ^ (X[:, 1] > 0)).astype(np.int64)  # no plane separates them
    assert isinstance(fit_answerer(X, corners, 2, rng=rng).classifier, Trees)
    halves = (X[:, 0] + X[:, 1] > 0).astype(np.int64)
    answerer = fit_answerer(X, halves, 2, rng=rng)
    assert isinstance(answerer.classifier, Linear)
    assert "logistic regression" in answerer.description


def test_equal_seeds_give_equal_models() -> None:
    y = np.random.default_rng(8).integers(0, 3, 350)
    X = clusters(np.random.default_rng(9), y)
    one, two = (fit_answerer(X, y, 3, rng=np.random.default_rng(0)) for _ in range(2))
    assert np.array_equal(one.out_of_fold, two.out_of_fold)
    assert np.array_equal(one.probabilities(X), two.probabilities(X))


@pytest.mark.parametrize(
    ("y", "message"),
    [
        ([1] * 50, "one label only to 50 texts"),
        ([0] * 50 + [1] * 9, "only 9 of 59 texts"),
        ([0] * 50 + [1, 2, 3, 4], "only 4 of 54 texts"),
    ],
)
def test_without_signal_there_is_no_proxy(y: list[int], message: str) -> None:
    with pytest.raises(NotEnoughSignal, match=message):
        fit_answerer(np.ones((len(y), 4), np.float32), np.array(y), 5, rng=np.random.default_rng())


def test_many_small_labels_are_enough_signal() -> None:
    check_signal(np.repeat(np.arange(50), 3), 150)


def test_folds_spread_every_label() -> None:
    y = np.repeat([0, 1, 2], [101, 40, 7])
    folds = stratified_folds(y, np.random.default_rng(0))
    for label in range(3):
        counts = np.bincount(folds[y == label], minlength=5)
        assert counts.max() - counts.min() <= 1


@pytest.mark.slow
def test_a_thousand_labels_of_150_kinds_are_learnt() -> None:
    rng = np.random.default_rng(10)
    y = rng.integers(0, 150, 1000)
    answerer = fit_answerer(clusters(rng, y, dim=384), y, 150, rng=rng)
    assert (answerer.out_of_fold.argmax(axis=1) == y).mean() > 0.5


def test_the_served_model_is_no_surer_than_those_that_were_calibrated() -> None:
    """The trap: with one C for folds and for all rows, a quarter more rows shrink it less."""
    rng = np.random.default_rng(12)
    X = clusters(rng, np.zeros(600, np.int64), dim=64)
    y = (X[:, 0] + 0.1 * rng.normal(size=600) > 0).astype(np.int64)
    rows = TrainingSet(X[:200], y[:200], np.eye(2)[y[:200]])
    learner = LinearLearner(1.0)

    def sureness(classifier: Classifier) -> float:
        return float(classifier.probabilities(X[200:]).max(axis=1).mean())

    folds = stratified_folds(rows.y, rng)
    calibrated = np.mean([sureness(learner.fit(rows[folds != fold])) for fold in range(5)])
    served = sureness(fit_answerer(rows.X, rows.y, 2, rng=rng, learners=[[learner]]).classifier)
    assert served == pytest.approx(calibrated, abs=0.006)
    assert sureness(learner.fit(rows)) > calibrated + 0.008
