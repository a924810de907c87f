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


def representative(weights: NDArray[np.float64]) -> NDArray[np.intp]:
    """Rows, some twice and some not at all, that stand for the whole without weights.

    Systematic resampling: a row of weight w among n of mean 1 comes floor(w) or ceil(w) times
    (Carpenter, Clifford & Fearnhead 1999).

    Parameters
    ----------
    weights : (n,), positive.

    Returns
    -------
    (n,), ascending.

    >>> representative(np.array([1.0, 0.5, 0.5, 2.0])).tolist()
    [0, 2, 3, 3]
    """
    ends = np.floor(weights.cumsum() * len(weights) / weights.sum() + 1e-9).astype(np.intp)
    return np.repeat(np.arange(len(weights)), np.diff(ends, prepend=0))
