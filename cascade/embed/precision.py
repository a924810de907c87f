"""Two ways to write the weights of a model into a graph: as they are, and one byte each.

Knows lookups and matrix products; knows no model.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from cascade.embed.graph import FLOAT, Array, GraphPen

TINY = 1e-12  # keeps a token of zeros from dividing by zero


class Precision(Protocol):
    """How weights are written."""

    def table(self, pen: GraphPen, name: str, weight: Array, rows: str) -> str:
        """Look ``rows`` up in an embedding table of shape (n, dim)."""
        ...

    def dense(
        self, pen: GraphPen, name: str, weight: Array, x: str, *, least: float | None = None
    ) -> str:
        """``x @ weight.T``, weight of shape (out, in) as in PyTorch; the bias is the caller's.

        ``least``: the smallest value ``x`` can have, where one is known that is just below zero.
        """
        ...


class Float32:
    """Weights as they are: the reference, and what a GPU runs."""

    def table(self, pen: GraphPen, name: str, weight: Array, rows: str) -> str:
        return pen.op("Gather", pen.constant(name, weight), rows)

    def dense(
        self, pen: GraphPen, name: str, weight: Array, x: str, *, least: float | None = None
    ) -> str:
        return pen.op("MatMul", x, pen.constant(name, weight.T))


class Int8:
    """Weights in one byte with one scale an output, activations in one byte with one a *token*.

    ONNX Runtime's own dynamic quantisation has one activation scale for a whole call, so that a
    text's vector depends on its neighbours: cosine down to 0.96 between alone and in a batch,
    measured on 500 reviews. A scale a token makes texts independent and is more exact
    (mean cosine to float32 0.995 instead of 0.991), for a tenth of the time.

    Weights use 7 of the 8 bits. Without VNNI, x86 kernels add pairs of products in 16 bits and
    saturate silently; 2 * 255 * 63 just fits.
    """

    weight_levels = 63

    def table(self, pen: GraphPen, name: str, weight: Array, rows: str) -> str:
        codes, scale = quantise(weight, levels=127)  # looked up, not multiplied: all 8 bits
        found = pen.op("Gather", pen.constant(f"{name}.codes", codes), rows)
        scales = pen.op("Gather", pen.constant(f"{name}.scale", scale[:, None]), rows)
        return pen.op("Mul", pen.op("Cast", found, to=FLOAT), scales)

    def dense(
        self, pen: GraphPen, name: str, weight: Array, x: str, *, least: float | None = None
    ) -> str:
        codes, scale = quantise(weight, levels=self.weight_levels)
        coded = _symmetric(pen, x) if least is None else _lopsided(pen, x, least)
        weights = pen.constant(f"{name}.codes", codes.T)
        scales = pen.constant(f"{name}.scale", scale)
        product = pen.fused(
            "MatMulIntegerToFloat", coded.codes, weights, coded.step, scales, coded.zero
        )
        return pen.op("Mul", product, coded.largest)


def quantise(weight: Array, levels: int) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Codes in [-levels, levels] and a scale for each row: ``weight ~ codes * scale[:, None]``.

    >>> codes, scale = quantise(np.array([[2.0, -1.0], [0.0, 0.0]]), levels=2)
    >>> codes.tolist(), scale.tolist()
    ([[2, -1], [0, 0]], [1.0, 1.0])
    """
    scale = (np.abs(weight).max(axis=1) / levels).astype(np.float32)
    scale[scale == 0] = 1.0
    return np.rint(weight / scale[:, None]).astype(np.int8), scale


@dataclass(frozen=True, slots=True)
class _Coded:
    """Activations in one byte: ``x ~ (codes - zero) * step * largest``, one ``largest`` a token.

    ``x / largest`` has a known range, so ``step`` and ``zero`` are constants and the fused matrix
    product takes them; ``largest`` (batch, tokens, 1) is multiplied in afterwards.
    """

    codes: str
    step: str
    zero: str
    largest: str


def _symmetric(pen: GraphPen, x: str) -> _Coded:
    """Any values: 127 steps to either side of zero."""
    return _code(pen, x, pen.op("Abs", x), least_largest=TINY, zero=128, steps_above=127)


def _lopsided(pen: GraphPen, x: str, least: float) -> _Coded:
    """Values that hardly go below zero: 16 steps below it, 239 above, nearly twice as fine."""
    steps_below, steps_above = 16, 239
    floor = -least * steps_above / steps_below  # else ``least`` would need more than 16 steps
    return _code(pen, x, x, least_largest=floor, zero=steps_below, steps_above=steps_above)


def _code(
    pen: GraphPen, x: str, magnitude: str, *, least_largest: float, zero: int, steps_above: int
) -> _Coded:
    floor = pen.constant(f"largest_at_least_{steps_above}", np.array(least_largest, np.float32))
    largest = pen.op("Clip", pen.op("ReduceMax", magnitude, pen.ints(-1), keepdims=1), floor)
    step = pen.constant(f"step_{steps_above}", np.array(1 / steps_above, np.float32))
    middle = pen.constant(f"zero_{zero}", np.array(zero, np.uint8))
    codes = pen.op("QuantizeLinear", pen.op("Div", x, largest), step, middle)
    return _Coded(codes, step, middle, largest)
