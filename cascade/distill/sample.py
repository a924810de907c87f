"""Choose rows: who trains, who certifies, who is held back. Knows no label and no model.

A row that helped to choose a model never certifies it, so the pools are disjoint and the two that
judge are drawn uniformly, before anything is known about any row.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cascade.errors import RecipeError
from cascade.recipes import Labels

CANDIDATES_A_LABEL = 4
"""Train candidates for each label that is bought: more cost embedding time and add little."""


TWINS = 1e-5
"""Squared distance up to which two rows count as one: float32 leaves about 1e-7 between equal rows,
and that would pass for diversity."""


@dataclass(frozen=True)
class Pools:
    """Disjoint rows of one table, as indices into it.

    train : (c,) candidates, at most ``CANDIDATES_A_LABEL`` a label.
    certify : (m,) in the order in which a certificate draws them; every order is as likely.
    evaluate : (e,) held back until the end.
    """

    train: NDArray[np.intp]
    certify: NDArray[np.intp]
    evaluate: NDArray[np.intp]


@dataclass(frozen=True)
class Sample:
    """Candidates whose labels are bought to train on, in the order of their drawing.

    rows : (n,) indices into the candidates.
    propensities : (n,) chance of each row when it was drawn, given all earlier draws.
    uniform : (n,) whether the row came from the uniform part.
    """

    rows: NDArray[np.intp]
    propensities: NDArray[np.float64]
    uniform: NDArray[np.bool_]


def split(n_rows: int, buy: Labels, rng: np.random.Generator) -> Pools:
    """Deal the rows of a table into three pools.

    Raises
    ------
    RecipeError
        The table has fewer rows than labels are to be bought.

    Examples
    --------
    >>> pools = split(1000, Labels(train=40, certify=30, evaluate=20), np.random.default_rng(0))
    >>> len(pools.train), len(pools.certify), len(pools.evaluate)
    (160, 30, 20)
    """
    wanted = buy.train + buy.certify + buy.evaluate
    if n_rows < wanted:
        raise RecipeError(
            f"{n_rows} distinct texts for {wanted} labels (train {buy.train}, certify "
            f"{buy.certify}, evaluate {buy.evaluate}): add texts, or lower `buy` in the recipe"
        )
    order = rng.permutation(n_rows)
    judges = buy.evaluate + buy.certify
    return Pools(
        # from the other end: raising `certify` later keeps the training labels already bought
        train=order[judges:][::-1][: CANDIDATES_A_LABEL * buy.train],
        certify=order[buy.evaluate : judges],
        evaluate=order[: buy.evaluate],
    )


def draw_train(
    embeddings: NDArray[np.float32],  # (c, d), unit rows
    n: int,
    rng: np.random.Generator,
) -> Sample:
    """Half uniform, half diverse: k-means++ seeding that starts from the uniform half.

    The diverse half takes a row with a chance proportional to its squared distance from the
    nearest row taken so far (Arthur & Vassilvitskii 2007).

    Raises
    ------
    ValueError
        ``n`` is not in 1..c.

    Examples
    --------
    >>> corners = np.eye(4, dtype=np.float32).repeat(25, axis=0)
    >>> sample = draw_train(corners, 8, np.random.default_rng(0))
    >>> len(set(sample.rows // 25)), int(sample.uniform.sum())
    (4, 4)
    """
    candidates = len(embeddings)
    if not 1 <= n <= candidates:
        raise ValueError(f"{n} rows of {candidates} candidates")
    n_uniform = (n + 1) // 2
    uniform = rng.permutation(candidates)[:n_uniform]
    diverse, chances = _spread(embeddings, uniform, n - n_uniform, rng)
    return Sample(
        rows=np.concatenate([uniform, diverse]),
        propensities=np.concatenate([1 / (candidates - np.arange(n_uniform)), chances]),
        uniform=np.arange(n) < n_uniform,
    )


def _spread(
    embeddings: NDArray[np.float32],
    taken: NDArray[np.intp],
    n: int,
    rng: np.random.Generator,
) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Rows (n,) far from those taken and from one another, and the chance of each draw (n,)."""
    nearest = (embeddings @ embeddings[taken].T).max(axis=1)  # (c,) cosine to the nearest one taken
    free = np.ones(len(embeddings), dtype=bool)
    free[taken] = False
    rows, chances = np.empty(n, np.intp), np.empty(n)
    for i in range(n):
        weights = _weights(nearest, free)
        row = rng.choice(len(weights), p=weights)
        rows[i], chances[i], free[row] = row, weights[row], False
        nearest = np.maximum(nearest, embeddings @ embeddings[row])
    return rows, chances


def _weights(nearest: NDArray[np.float32], free: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Chance of each row (c,); uniform over the free ones when each is some taken row's twin."""
    distances = 2 - 2 * nearest.astype(np.float64)  # squared, between unit vectors
    weights = np.where(free & (distances > TWINS), distances, 0.0)
    if not weights.any():
        weights = free.astype(np.float64)
    chances: NDArray[np.float64] = weights / weights.sum()
    return chances
