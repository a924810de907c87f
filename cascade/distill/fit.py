"""Fit the answerer: which label the teacher would give, from an embedding.

Knows embeddings and label indices; knows no text, no threshold and no file format. Every number
that is judged later (agreement, thresholds) comes from ``Answerer.out_of_fold``, never from rows
that the model has seen.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
from lightgbm import LGBMClassifier
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from cascade.errors import NotEnoughSignal

Singles = NDArray[np.float32]
Indices = NDArray[np.int64]

FOLDS: Final = 5
LEAST_MINORITY: Final = 10
STRENGTHS: Final = (0.3, 1.0, 3.0, 10.0, 30.0)  # C of scikit-learn, for unit embeddings
TREES_UP_TO_LABELS: Final = 20
TREES_FROM_ROWS: Final = 300
COMPONENTS: Final = 32
"""LightGBM on raw embeddings takes minutes; on 32 components and one thread, seconds."""
POWERS: Final = tuple(2.0 ** (step / 2) for step in range(-4, 7))  # 1/4 to 8
SOFT_FROM: Final = 0.02
"""Teacher probabilities below this are dropped: they cost rows and say nothing."""


class Classifier(Protocol):
    """A fitted model over the labels it has seen."""

    @property
    def seen(self) -> Indices:
        """(p,), the label indices it can answer, ascending."""
        ...

    def probabilities(self, X: Singles) -> NDArray[np.float64]:
        """(n, p) for embeddings (n, d); columns as in ``seen``."""
        ...


@dataclass(frozen=True)
class Linear:
    """Multinomial logistic regression. weights : (d, p); bias : (p,)."""

    weights: NDArray[np.float64]
    bias: NDArray[np.float64]
    seen: Indices

    def probabilities(self, X: Singles) -> NDArray[np.float64]:
        """Softmax of an affine map."""
        logits = X @ self.weights + self.bias
        raised = np.exp(logits - logits.max(axis=1, keepdims=True))
        rows: NDArray[np.float64] = raised / raised.sum(axis=1, keepdims=True)
        return rows


@dataclass(frozen=True)
class Trees:
    """LightGBM on principal components. pca : fitted; model : its labels are 0..p-1."""

    pca: PCA
    model: LGBMClassifier
    seen: Indices

    def probabilities(self, X: Singles) -> NDArray[np.float64]:
        """Boosted trees on the projected rows."""
        return np.asarray(self.model.predict_proba(self.pca.transform(X)), np.float64)


@dataclass(frozen=True)
class Answerer:
    """The fitted classifier, and how it does on rows that it has not seen.

    out_of_fold : (n, L), probabilities of each training row by a model fitted without its fold.
    folds : (n,), the fold of each row.
    description : for people and for MLflow.
    """

    classifier: Classifier
    n_labels: int
    out_of_fold: NDArray[np.float64]
    folds: Indices
    description: str

    def probabilities(self, X: Singles) -> NDArray[np.float64]:
        """(n, L) for embeddings (n, d); a label absent from training has probability 0."""
        return spread(self.classifier.probabilities(X), self.classifier.seen, self.n_labels)


@dataclass(frozen=True)
class TrainingSet:
    """Training rows. y : (n,) label indices; soft : (n, L) teacher probabilities."""

    X: Singles
    y: Indices
    soft: NDArray[np.float64]

    def __getitem__(self, rows: NDArray[np.bool_]) -> TrainingSet:
        return TrainingSet(self.X[rows], self.y[rows], self.soft[rows])

    @property
    def seen(self) -> Indices:
        """Labels that occur, ascending."""
        return np.unique(self.y)

    @property
    def balanced(self) -> NDArray[np.float64]:
        """(n,), weights of mean 1 under which a label weighs as the root of its count.

        Halfway between labels as they come, which drowns the rare ones, and all labels alike,
        which gives rare ones away too freely: both agree less often with the teacher.
        """
        rows = 1.0 / np.sqrt(np.bincount(self.y)[self.y])
        return np.asarray(rows / rows.mean(), np.float64)


class Learner(Protocol):
    """A way to fit a classifier; ``str`` of it goes into the report."""

    def fit(self, sample: TrainingSet) -> Classifier: ...

    def for_all(self) -> Learner:
        """The same for all rows, after it was chosen on those outside a fold."""
        ...


@dataclass(frozen=True)
class LinearLearner:
    """Multinomial logistic regression with half-balanced classes. strength : C of scikit-learn."""

    strength: float

    def __str__(self) -> str:
        return f"logistic regression, C={self.strength:g}"

    def fit(self, sample: TrainingSet) -> Linear:
        seen, weight = sample.seen, sample.balanced
        soft = sample.soft[:, seen] / sample.soft[:, seen].sum(axis=1, keepdims=True)
        rows, target = np.nonzero(soft >= SOFT_FROM)
        model = LogisticRegression(C=self.strength, max_iter=200, tol=1e-3)
        with warnings.catch_warnings():
            # stopping early is one more shrinkage: cross-validation judges what came out
            warnings.simplefilter("ignore", ConvergenceWarning)
            # 60 rows of 50 labels are few, not a regression
            warnings.filterwarnings("ignore", "The number of unique classes", UserWarning)
            model.fit(sample.X[rows], target, sample_weight=weight[rows] * soft[rows, target])
        coef, bias = model.coef_, model.intercept_
        if len(seen) == 2:  # scikit-learn keeps one row for two labels
            coef, bias = np.vstack([-coef, coef]) / 2, np.concatenate([-bias, bias]) / 2
        return Linear(np.asarray(coef.T, np.float64), np.asarray(bias, np.float64), seen)

    def for_all(self) -> LinearLearner:
        """As much shrinkage a row: C stands against a sum over rows, so with equal C the model of
        all rows would be surer of itself than those that the calibration has seen."""
        return LinearLearner(self.strength * (FOLDS - 1) / FOLDS)


@dataclass(frozen=True)
class TreesLearner:
    """LightGBM on principal components, with half-balanced classes."""

    seed: int

    def __str__(self) -> str:
        return f"LightGBM on {COMPONENTS} components"

    def fit(self, sample: TrainingSet) -> Trees:
        pca = PCA(min(COMPONENTS, *sample.X.shape), random_state=self.seed).fit(sample.X)
        seen = sample.seen
        # one thread: with two it hung beside a busy process
        model = LGBMClassifier(
            n_estimators=60,
            learning_rate=0.08,
            num_leaves=7,
            min_child_samples=5,
            reg_lambda=5.0,
            n_jobs=1,
            random_state=self.seed,
            verbosity=-1,
        )
        target = np.searchsorted(seen, sample.y)
        model.fit(pca.transform(sample.X), target, sample_weight=sample.balanced)
        return Trees(pca, model, seen)

    def for_all(self) -> TreesLearner:
        """The same trees."""
        return self


@dataclass(frozen=True)
class _CrossFit:
    """A learner, and what it did across the folds.

    out_of_fold : (n, L); loss : (n,) weighted and at its best temperature; errors : (n,) weighted.
    """

    learner: Learner
    out_of_fold: NDArray[np.float64]
    loss: NDArray[np.float64]
    errors: NDArray[np.float64]

    @classmethod
    def of(cls, learner: Learner, sample: TrainingSet, folds: Indices) -> _CrossFit:
        """Each row answered by a model that has not seen its fold."""
        wide, weight = cross_fit(learner, sample, folds), sample.balanced
        errors = weight * (wide.argmax(axis=1) != sample.y)
        return cls(learner, wide, sharpened_loss(wide, sample.y, weight), errors)

    def clearly_better(self, other: _CrossFit) -> bool:
        """Fewer errors and a lower loss, each by more than a standard error."""
        gains = (other.loss - self.loss, other.errors - self.errors)
        return all(bool(gain.mean() > gain.std() / np.sqrt(len(gain))) for gain in gains)


def fit_answerer(
    X: Singles,
    y: Indices,
    n_labels: int,
    *,
    rng: np.random.Generator,
    soft: NDArray[np.float64] | None = None,
    learners: Sequence[Sequence[Learner]] | None = None,
) -> Answerer:
    """Fit the best of a few classifiers, chosen by cross-validation.

    All rows count alike, also those that were sought out: weighting them back to what they stand
    for would undo what they were bought for (F1 of a 3% minority .80, weighted .76). Calibration
    does weigh them.

    Parameters
    ----------
    X : (n, d) unit embeddings.
    y : (n,) the teacher's label indices in 0..n_labels-1; labels may be absent.
    soft : (n, L) the teacher's label probabilities, used as targets where given.
    learners : groups, the plainest first; ``usual_learners`` by default. A later group's best is
        kept only where its out-of-fold log-loss and errors are both lower by a standard error.

    Raises
    ------
    NotEnoughSignal
        One label only, or fewer than 10 rows with another label than the most common one.
    """
    check_signal(y, n_labels)
    hard = np.eye(n_labels)[y]
    # the label that the teacher stated always counts, whatever its engine's top list left of it
    target = hard if soft is None else np.where(hard == 1.0, np.maximum(soft, 0.1), soft)
    sample = TrainingSet(np.asarray(X, np.float32), np.asarray(y, np.int64), target)
    folds = stratified_folds(sample.y, rng)
    groups = usual_learners(n_labels, len(y), rng) if learners is None else learners
    best = _best([[_CrossFit.of(one, sample, folds) for one in group] for group in groups])
    classifier = best.learner.for_all().fit(sample)
    return Answerer(classifier, n_labels, best.out_of_fold, folds, str(best.learner))


def cross_fit(learner: Learner, sample: TrainingSet, folds: Indices) -> NDArray[np.float64]:
    """(n, L), probabilities of each row by a model that has not seen its fold."""
    n_labels = sample.soft.shape[1]
    wide = np.zeros((len(folds), n_labels))
    for fold in range(FOLDS):
        held = folds == fold
        model = learner.fit(sample[~held])
        wide[held] = spread(model.probabilities(sample.X[held]), model.seen, n_labels)
    return wide


def usual_learners(n_labels: int, n_rows: int, rng: np.random.Generator) -> list[list[Learner]]:
    """Logistic regression of several strengths; then LightGBM, where it is cheap enough to try."""
    groups: list[list[Learner]] = [[LinearLearner(strength) for strength in STRENGTHS]]
    if n_labels <= TREES_UP_TO_LABELS and n_rows >= TREES_FROM_ROWS:
        groups.append([TreesLearner(int(rng.integers(2**31)))])
    return groups


def _best(groups: Sequence[Sequence[_CrossFit]]) -> _CrossFit:
    """The lowest loss of the first group, unless that of a later one is clearly better."""
    champion, *others = [min(group, key=lambda fit: float(fit.loss.mean())) for group in groups]
    for other in others:
        champion = other if other.clearly_better(champion) else champion
    return champion


def check_signal(y: Indices, n_labels: int) -> None:
    """Raise ``NotEnoughSignal`` where there is nothing to learn from.

    >>> check_signal(np.array([0, 1] * 10), 2)
    """
    counts = np.bincount(y, minlength=n_labels)
    if np.count_nonzero(counts) < 2:
        raise NotEnoughSignal(
            f"the teacher gave one label only to {len(y)} texts: a constant answer needs no "
            "proxy, and other texts or another prompt may need one"
        )
    minority = len(y) - int(counts.max())
    if minority < LEAST_MINORITY:
        raise NotEnoughSignal(
            f"only {minority} of {len(y)} texts got another label than the most common one; "
            f"{LEAST_MINORITY} are needed: buy more labels, or seek out the rare ones"
        )


def stratified_folds(y: Indices, rng: np.random.Generator) -> Indices:
    """A fold in 0..4 for each row, labels spread evenly; rare labels are no error.

    >>> folds = stratified_folds(np.array([0] * 10 + [1] * 5), np.random.default_rng(0))
    >>> np.bincount(folds).tolist(), np.bincount(folds[10:]).tolist()
    ([3, 3, 3, 3, 3], [1, 1, 1, 1, 1])
    """
    shuffled = rng.permutation(len(y))
    by_label = shuffled[np.argsort(y[shuffled], kind="stable")]
    folds = np.empty(len(y), np.int64)
    folds[by_label] = np.arange(len(y)) % FOLDS
    return folds


def spread(probabilities: NDArray[np.float64], seen: Indices, n_labels: int) -> NDArray[np.float64]:
    """Columns of the labels that occurred, among all labels.

    >>> spread(np.array([[0.4, 0.6]]), np.array([0, 2]), 3).tolist()
    [[0.4, 0.0, 0.6]]
    """
    wide = np.zeros((len(probabilities), n_labels))
    wide[:, seen] = probabilities
    return wide


def sharpened_loss(
    probabilities: NDArray[np.float64], y: Indices, weight: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Weighted log-loss of each row at the temperature that suits the probabilities best.

    The agreement model rescales confidences anyway; without this, the plain log-loss would choose
    a less regularised model, worse in its order, only because it dares to say 0.95.

    Parameters
    ----------
    probabilities : (n, L); y : (n,) label indices; weight : (n,).

    >>> timid = np.array([[0.6, 0.4], [0.4, 0.6]])
    >>> float(sharpened_loss(timid, np.array([0, 1]), np.ones(2)).mean()) < 0.1
    True
    """
    logs = np.log(np.maximum(probabilities, 1e-6))
    losses = [weight * _log_loss(power * logs, y) for power in POWERS]
    return min(losses, key=lambda loss: float(loss.mean()))


def _log_loss(logits: NDArray[np.float64], y: Indices) -> NDArray[np.float64]:
    normaliser = np.logaddexp.reduce(logits, axis=1)
    rows: NDArray[np.float64] = normaliser - logits[np.arange(len(y)), y]
    return rows
