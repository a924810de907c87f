"""Turn a fitted answerer into ONNX, and refuse unless both answer alike.

Knows graphs and how far two models differ; knows no calibration: calibrators stay in JSON, because
converting them has gone wrong silently (CalibratedClassifierCV over LightGBM).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import singledispatch
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, compose, helper, numpy_helper
from onnxmltools import convert_lightgbm
from onnxmltools.convert.common.data_types import FloatTensorType

from cascade.distill.fit import Answerer, Linear, Singles, Trees
from cascade.errors import ParityError
from cascade.tiers.proxy import open_answerer

OPSET: Final = 15  # the newest that onnxmltools converts to
ML_OPSET: Final = 3
IR_VERSION: Final = 8  # the oldest that these opsets allow: any ONNX Runtime since 1.14 reads it
PARITY_ROWS: Final = 500
TOLERANCE: Final = 1e-4
ABSENT: Final = -1e4  # a logit whose probability is exactly 0 in float32


@dataclass(frozen=True)
class Parity:
    """How far an exported model is from the fitted one.

    largest : max |difference of a probability|; agreement : share of rows with the same label.
    """

    rows: int
    largest: float
    agreement: float


def export(answerer: Answerer, X: Singles, *, rng: np.random.Generator) -> tuple[bytes, Parity]:
    """An ONNX model that passed the parity gate.

    Parameters
    ----------
    X : (n, d) real embeddings to compare on; where n < 500, mixtures of them are added.

    Returns
    -------
    The model, "embedding" (n, d) to "probabilities" (n, L), both float32; and how close it is.

    Raises
    ------
    ParityError
        The converted model answers differently.
    """
    model = to_onnx(answerer, X.shape[1])
    return model, check_parity(answerer, model, enough_rows(X, rng))


def to_onnx(answerer: Answerer, dim: int) -> bytes:
    """The serialised graph, unchecked."""
    graph = _graph(answerer.classifier, answerer.n_labels, dim)
    domains = [helper.make_opsetid("", OPSET), helper.make_opsetid("ai.onnx.ml", ML_OPSET)]
    model = helper.make_model(
        graph, opset_imports=domains, ir_version=IR_VERSION, producer_name="cascade"
    )
    onnx.checker.check_model(model)
    serialised: bytes = model.SerializeToString()
    return serialised


def check_parity(answerer: Answerer, model: bytes, X: Singles) -> Parity:
    """Compare a model with what was fitted, row by row.

    Raises
    ------
    ParityError
        A probability is off by more than 1e-4, or a label differs.
    """
    expected = answerer.probabilities(X)
    (found,) = open_answerer(model).run(None, {"embedding": X})
    if found.shape != expected.shape:
        raise ParityError(f"the export has shape {found.shape}, not {expected.shape}: report this")
    parity = Parity(
        rows=len(X),
        largest=float(np.abs(found - expected).max()),
        agreement=float((found.argmax(axis=1) == expected.argmax(axis=1)).mean()),
    )
    # written so that NaN fails, too
    if not (parity.largest <= TOLERANCE and parity.agreement == 1.0):
        raise ParityError(
            f"the exported model is not the fitted one: on {parity.rows} rows probabilities "
            f"differ by up to {parity.largest:.1e} and {1 - parity.agreement:.1%} of the labels "
            "differ; nothing was saved: report this with the versions of onnx and lightgbm"
        )
    return parity


def enough_rows(X: Singles, rng: np.random.Generator) -> Singles:
    """At least 500 unit rows: the given ones, and random mixtures of pairs of them."""
    lacking = max(PARITY_ROWS - len(X), 0)
    first = rng.integers(len(X), size=lacking)
    second = (first + rng.integers(1, len(X), size=lacking)) % len(X)  # never the first
    part = rng.random((lacking, 1))
    mixed = part * X[first] + (1.0 - part) * X[second]
    length = np.maximum(np.linalg.norm(mixed, axis=1, keepdims=True), 1e-12)
    return np.vstack([X, mixed / length]).astype(np.float32)


@singledispatch
def _graph(classifier: Any, n_labels: int, dim: int) -> onnx.GraphProto:
    """The graph of one kind of classifier."""
    raise TypeError(f"no export for {type(classifier).__name__}")


@_graph.register
def _linear(classifier: Linear, n_labels: int, dim: int) -> onnx.GraphProto:
    weights = np.zeros((dim, n_labels))
    weights[:, classifier.seen] = classifier.weights
    bias = np.full(n_labels, ABSENT)
    bias[classifier.seen] = classifier.bias
    nodes = [
        helper.make_node("MatMul", ["embedding", "weights"], ["scaled"]),
        helper.make_node("Add", ["scaled", "bias"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
    ]
    return _closed(nodes, [_constant("weights", weights), _constant("bias", bias)], dim, n_labels)


@_graph.register
def _trees(classifier: Trees, n_labels: int, dim: int) -> onnx.GraphProto:
    """Centre and project, the converted trees, then one column for each label."""
    components = classifier.pca.components_
    converted = convert_lightgbm(
        classifier.model,
        initial_types=[("projected", FloatTensorType([None, len(components)]))],
        target_opset=OPSET,
        zipmap=False,
    )
    trees = compose.add_prefix_graph(converted.graph, "trees_")
    inner = f"trees_{converted.graph.output[1].name}"  # output 0 is the label
    outer = f"trees_{converted.graph.input[0].name}"
    nodes = [
        helper.make_node("Sub", ["embedding", "mean"], ["centred"]),
        helper.make_node("MatMul", ["centred", "components"], [outer]),
        *trees.node,
        helper.make_node("MatMul", [inner, "columns"], ["probabilities"]),
    ]
    constants = [
        _constant("mean", classifier.pca.mean_),
        _constant("components", components.T),
        _constant("columns", np.eye(n_labels)[classifier.seen]),
        *trees.initializer,
    ]
    return _closed(nodes, constants, dim, n_labels)


def _closed(
    nodes: Sequence[onnx.NodeProto], constants: Sequence[Any], dim: int, n_labels: int
) -> onnx.GraphProto:
    """A graph with the input and the output that every answerer has."""
    return helper.make_graph(
        nodes,
        "answerer",
        [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["n", dim])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["n", n_labels])],
        constants,
    )


def _constant(name: str, values: NDArray[np.floating]) -> onnx.TensorProto:
    return numpy_helper.from_array(np.ascontiguousarray(values, np.float32), name)
