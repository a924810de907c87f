"""Write ONNX graphs by hand: a pen that collects nodes and constants.

Knows ONNX and ONNX Runtime's fused operators (domain com.microsoft); knows no model. Needs onnx:
building is done once, running never imports it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cascade.errors import MissingExtra

try:
    import onnx
    from onnx import TensorProto, helper, numpy_helper
except ImportError as exc:  # pragma: no cover - the base install has no onnx
    raise MissingExtra("building an embedder", "train") from exc

FUSED = "com.microsoft"
OPSET = 18
IR_VERSION = 9  # what onnxruntime >= 1.17 reads; onnx would write its newest

Array = NDArray[Any]
FLOAT, INT32 = TensorProto.FLOAT, TensorProto.INT32  # for Cast


class GraphPen:
    """Collects nodes and constants. Values are names; each operator returns its outputs' names."""

    def __init__(self) -> None:
        self._nodes: list[Any] = []
        self._constants: dict[str, Any] = {}

    def constant(self, name: str, value: Array) -> str:
        """Store an array once under a name of its own."""
        self._constants[name] = numpy_helper.from_array(np.ascontiguousarray(value), name)
        return name

    def ints(self, *values: int) -> str:
        """A small int64 vector, for axes and shapes."""
        return self.constant("ints_" + "_".join(map(str, values)), np.array(values, np.int64))

    def op(self, kind: str, *inputs: str, domain: str = "", **attributes: Any) -> str:
        """One operator with one output."""
        return self.ops(kind, *inputs, outputs=1, domain=domain, **attributes)[0]

    def fused(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """One of ONNX Runtime's own operators."""
        return self.op(kind, *inputs, domain=FUSED, **attributes)

    def ops(
        self, kind: str, *inputs: str, outputs: int, domain: str = "", **attributes: Any
    ) -> list[str]:
        """One operator with several outputs."""
        names = [f"{kind}_{len(self._nodes)}_{number}" for number in range(outputs)]
        self._nodes.append(helper.make_node(kind, inputs, names, domain=domain, **attributes))
        return names

    def model(self, output: str, dim: int) -> bytes:
        """The finished model, ``input_ids`` and ``attention_mask`` to ``embedding``.

        The same calls give the same bytes: an embedder's version is a digest of them.
        """
        self._nodes.append(helper.make_node("Identity", [output], ["embedding"]))
        shape: list[str | int] = ["batch", "tokens"]
        inputs = [
            helper.make_tensor_value_info(name, TensorProto.INT64, shape)
            for name in ("input_ids", "attention_mask")
        ]
        result = helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["batch", dim])
        graph = helper.make_graph(
            self._nodes, "embedder", inputs, [result], list(self._constants.values())
        )
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(FUSED, 1)]
        model = helper.make_model(
            graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="cascade"
        )
        onnx.checker.check_model(model)
        content: bytes = model.SerializeToString(deterministic=True)
        return content
