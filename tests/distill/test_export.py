"""The parity gate: an export answers like the fitted model, or there is none."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from cascade.distill.export import PARITY_ROWS, check_parity, enough_rows, export, to_onnx
from cascade.distill.fit import Answerer, Linear, Trees, fit_answerer
from cascade.errors import ParityError
from cascade.tiers.proxy import open_answerer


def unit(rng: np.random.Generator, n: int, dim: int = 12) -> np.ndarray:
    X = rng.normal(size=(n, dim))
    return (X / np.linalg.norm(X, axis=1, keepdims=True)).astype(np.float32)


def linear(rng: np.random.Generator) -> tuple[Answerer, np.ndarray]:
    X = unit(rng, 300)
    y = np.array([0, 2, 3])[X[:, :3].argmax(axis=1)]
    return fit_answerer(X, y, 5, rng=rng), X


def trees(rng: np.random.Generator, labels: int) -> tuple[Answerer, np.ndarray]:
    X = unit(rng, 600, dim=6)
    corners = (X[:, 0] > 0) ^ (X[:, 1] > 0)
    y = (
        np.where(corners, 3, 1)
        if labels == 2
        else np.where(corners, 3, np.where(X[:, 2] > 0, 1, 0))
    )
    return fit_answerer(X, y, 5, rng=rng), X


def test_a_linear_answerer_is_exact() -> None:
    rng = np.random.default_rng(0)
    answerer, X = linear(rng)
    model, parity = export(answerer, X, rng=rng)
    assert parity.largest < 1e-6 and parity.agreement == 1.0 and parity.rows >= PARITY_ROWS
    (found,) = open_answerer(model).run(None, {"embedding": X[:1]})
    assert found.shape == (1, 5) and found.dtype == np.float32
    assert found[0, [1, 4]].tolist() == [0.0, 0.0]


@pytest.mark.parametrize("labels", [2, 3])
def test_trees_are_exact_behind_their_projection(labels: int) -> None:
    rng = np.random.default_rng(1)
    answerer, X = trees(rng, labels)
    assert isinstance(answerer.classifier, Trees)
    model, parity = export(answerer, X, rng=rng)
    assert parity.largest < 1e-4 and parity.agreement == 1.0
    (found,) = open_answerer(model).run(None, {"embedding": X})
    assert found.shape == (600, 5) and found[:, [2, 4]].max() == 0.0


def spoiled(model: bytes, change: str) -> bytes:
    """The same graph with its two first columns of weights changed."""
    parsed = onnx.load_from_string(model)
    weights = next(one for one in parsed.graph.initializer if one.name == "weights")
    values = numpy_helper.to_array(weights).copy()
    if change == "swapped":
        values[:, [0, 2]] = values[:, [2, 0]]
    elif change == "scaled":
        values *= 1.01
    else:
        values[:] = np.nan
    weights.CopyFrom(numpy_helper.from_array(values, "weights"))
    return parsed.SerializeToString()


@pytest.mark.parametrize("change", ["swapped", "scaled", "not numbers"])
def test_a_wrong_export_is_caught(change: str) -> None:
    rng = np.random.default_rng(2)
    answerer, X = linear(rng)
    with pytest.raises(ParityError, match="is not the fitted one"):
        check_parity(answerer, spoiled(to_onnx(answerer, X.shape[1]), change), X)


def test_an_export_without_all_labels_is_caught() -> None:
    rng = np.random.default_rng(3)
    answerer, X = linear(rng)
    wider = dataclasses.replace(answerer, n_labels=6)
    with pytest.raises(ParityError, match=r"shape \(300, 5\), not \(300, 6\)"):
        check_parity(wider, to_onnx(answerer, X.shape[1]), X)


def test_an_unknown_classifier_is_refused() -> None:
    rng = np.random.default_rng(4)
    answerer, X = linear(rng)
    with pytest.raises(TypeError, match="no export for object"):
        to_onnx(dataclasses.replace(answerer, classifier=object()), X.shape[1])  # type: ignore[arg-type]


def test_few_rows_are_filled_with_mixtures() -> None:
    X = unit(np.random.default_rng(5), 40)
    rows = enough_rows(X, np.random.default_rng(6))
    assert len(rows) == PARITY_ROWS and np.array_equal(rows[:40], X)
    assert np.linalg.norm(rows, axis=1) == pytest.approx(1.0, abs=1e-5)
    assert len(np.unique(rows, axis=0)) == PARITY_ROWS
    assert len(enough_rows(unit(np.random.default_rng(7), 700), np.random.default_rng(8))) == 700


def test_the_linear_graph_is_its_formula() -> None:
    weights, bias = np.array([[1.0, -1.0]]), np.array([0.5, 0.0])
    classifier = Linear(weights, bias, np.array([0, 1]))
    answerer = Answerer(classifier, 2, np.zeros((0, 2)), np.zeros(0, np.int64), "by hand")
    (found,) = open_answerer(to_onnx(answerer, 1)).run(None, {"embedding": np.ones((1, 1), "f4")})
    assert found[0, 0] == pytest.approx(1 / (1 + np.exp(-2.5)))
