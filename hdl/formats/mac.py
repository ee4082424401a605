# SPDX-License-Identifier: Apache-2.0
"""What a multiply-accumulate neuron computes, in integers.

The one definition that hardware, integer model and benches share. ``compute`` takes NumPy arrays whose last axis is the
neuron's inputs; leading axes broadcast.
"""

import dataclasses
import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike

from bmhw.hdl.checks import check_choice, check_range

from .choices import BOUNDARIES, ELEMENT, LARGEST_BIAS_BITS, REQUANTIZATIONS, RESULTS, set_default
from .codes import Integers, LinearCode

__all__ = ["FittedMacFormat", "MacFormat"]


@dataclass(frozen=True, kw_only=True)
class MacFormat:
    """Multiply-accumulate neuron ``y = sum_i x_i * w_i + bias``.

    Parameters: ``inputs`` n >= 1; ``bits`` of each input (2..16); ``signed_inputs``; ``weight_bits`` of each
    signed weight (default ``bits``); ``bias_bits`` of the signed bias (default ``bits + weight_bits``).
    Ports: ``x`` (n * bits), ``w`` (n * weight_bits), ``bias``, ``y`` (never overflows); and with ``residual_bits`` a
    signed number ``r`` in the unit of y that is added to it.

    ``boundary="layer"``: from activation code to activation code. With ``result="code"`` (the default there) ReLU
    and requantisation follow: ``z = min((max(y, 0) * scale + half) >> requantize_shift, 2^code_bits - 1)`` with a port
    ``scale`` (``scale_bits`` wide, unsigned) for ``requantize="scale"`` and without it (scale 1) for ``"shift"``;
    half is ``2^(requantize_shift - 1)``. ``requantize_shift`` defaults to half the headroom of the sum: a sum of n
    independent products grows with the square root of n, and what exceeds it saturates. ``code_bits``: width of z, the
    next layer's input (default ``bits``).

    ``boundary="element"``: what takes one input and one weight a cycle and has no bias and no end: y is its
    accumulator, the narrowest one that holds every sum of n products, or with ``flush`` K of K products, after which a
    wider one elsewhere takes it over.
    """

    inputs: int
    bits: int
    signed_inputs: bool = False
    weight_bits: int | None = None
    bias_bits: int | None = None
    boundary: str = "neuron"
    result: str | None = None
    requantize: str = "scale"
    scale_bits: int = 8
    requantize_shift: int | None = None
    residual_bits: int = 0
    flush: int | None = None
    code_bits: int | None = None

    def __post_init__(self):
        check_choice("Boundary", self.boundary, (*BOUNDARIES, ELEMENT))
        set_default(self, "result", "code" if self.boundary == "layer" else "linear")
        check_choice("Result", self.result, RESULTS)
        if self.boundary != "layer" and self.result == "code":
            raise ValueError("A multiply-accumulate neuron gives a linear result; a code needs boundary layer")
        check_choice("Requantisation", self.requantize, REQUANTIZATIONS)
        check_range("Scale width in bits", self.scale_bits, 2, 32)
        check_range("Number of inputs", self.inputs, 1)
        check_range("Width in bits", self.bits, 2, 16)
        set_default(self, "weight_bits", self.bits)
        check_range("Weight width in bits", self.weight_bits, 2, 16)
        set_default(self, "code_bits", self.bits)
        check_range("Width of the result in bits", self.code_bits, 2, 16)
        set_default(self, "bias_bits", self.bits + self.weight_bits)
        check_range("Bias width in bits", self.bias_bits, 1, LARGEST_BIAS_BITS)
        if self.flush is not None:
            if self.boundary != ELEMENT:
                raise ValueError(f"Flush {self.flush} needs boundary element, not {self.boundary}")
            check_range("Flush", self.flush, 1, self.inputs)
        if self.boundary == ELEMENT and self.residual_bits:
            raise ValueError(f"Boundary element stops at the sum of products: residual_bits must be 0, not "
                             f"{self.residual_bits}")
        if self.residual_bits:
            check_range("Residual width in bits", self.residual_bits, 1, LARGEST_BIAS_BITS)
        scale = self.scale_bits if self.requantize == "scale" else 0
        headroom = math.ceil(math.log2(self.inputs) / 2)
        set_default(self, "requantize_shift", self.weight_bits - 1 + headroom + scale)
        if self.boundary != ELEMENT:
            check_range("Requantisation shift", self.requantize_shift, 1, self.y.bits + scale)

    @property
    def x(self) -> LinearCode:
        return LinearCode(bits=self.bits, signed=self.signed_inputs)

    @property
    def scale(self) -> LinearCode:
        return LinearCode(bits=self.scale_bits)

    @property
    def z(self) -> LinearCode:
        """The requantised result: the next layer's input."""
        return LinearCode(bits=self.code_bits)

    @property
    def w(self) -> LinearCode:
        return LinearCode(bits=self.weight_bits, signed=True)

    @property
    def bias(self) -> LinearCode:
        return LinearCode(bits=self.bias_bits, signed=True)

    @cached_property
    def y(self) -> LinearCode:
        """The narrowest signed code that holds every possible result."""
        products = [a * b for a in (self.x.minimum, self.x.maximum) for b in (self.w.minimum, self.w.maximum)]
        added = [self.bias, self.r] if self.residual_bits else [self.bias]
        if self.boundary == ELEMENT:
            added = []
        count = self.flush or self.inputs
        return LinearCode.covering(count * min(products) + sum(code.minimum for code in added),
                                   count * max(products) + sum(code.maximum for code in added))

    @property
    def r(self) -> LinearCode:
        """The residual sum that is added to the result."""
        return LinearCode(bits=self.residual_bits, signed=True)

    @property
    def inputs_of(self) -> dict[str, tuple[LinearCode, int]]:
        """Input ports in order: name -> (code of one element, number of elements)."""
        ports = {"x": (self.x, self.inputs), "w": (self.w, self.inputs)}
        if self.boundary == ELEMENT:
            return ports
        ports["bias"] = (self.bias, 1)
        ports |= {"r": (self.r, 1)} if self.residual_bits else {}
        return ports | ({"scale": (self.scale, 1)} if self.has_scale else {})

    @property
    def has_scale(self) -> bool:
        """Whether a multiplication by a port ``scale`` is part of the requantisation."""
        return self.result == "code" and self.requantize == "scale"

    @property
    def output(self) -> tuple[str, LinearCode]:
        return ("z", self.z) if self.result == "code" else ("y", self.y)

    def compute(self, *, x: ArrayLike, w: ArrayLike, bias: ArrayLike = 0, scale: ArrayLike = 1,
                r: ArrayLike = 0) -> Integers:
        """The output for x and w of shape (..., n); bias, scale and r of shape (...).

        Of boundary ``element`` the accumulator behind the last product and each flush: shape (..., flushes).
        """
        x, w = self.x.check("x", x), self.w.check("w", w)
        if self.boundary == ELEMENT:
            return np.add.reduceat(x * w, range(0, self.inputs, self.flush or self.inputs), axis=-1)
        y = (x * w).sum(axis=-1) + self.bias.check("bias", bias)
        if self.residual_bits:
            y = y + self.r.check("r", r)
        return y if self.result == "linear" else self.code_of(y, scale)

    def code_of(self, y: Integers, scale: ArrayLike = 1) -> Integers:
        """The code of sums: ReLU, scale, rounding and saturation."""
        scaled = np.maximum(y, 0) * (self.scale.check("scale", scale) if self.has_scale else 1)
        return np.minimum((scaled + (1 << self.requantize_shift >> 1)) >> self.requantize_shift, self.z.maximum)


@dataclass(frozen=True, kw_only=True)
class FittedMacFormat(MacFormat):
    """Multiply-accumulate neurons whose weights are known: numbers no wider than these weights can make them.

    ``sums``: lowest and highest y; ``accumulated``: of boundary ``element``, the same of its accumulator. What lies
    between is modulo their width, which doesn't change a sum.
    """

    sums: tuple[int, int]
    accumulated: tuple[int, int]

    @classmethod
    def of(cls, fmt: MacFormat, sums: tuple[int, int], accumulated: tuple[int, int]) -> "FittedMacFormat":
        """A layer's neurons with the linear result of another format."""
        fields = {field.name: getattr(fmt, field.name) for field in dataclasses.fields(MacFormat)}
        return cls(**fields | {"boundary": "layer", "result": "linear", "requantize_shift": 1},
                   sums=sums, accumulated=accumulated)

    @cached_property
    def y(self) -> LinearCode:
        """The narrowest signed code that holds what :attr:`sums` or, of an element, :attr:`accumulated` says."""
        low, high = self.accumulated if self.boundary == ELEMENT else self.sums
        return LinearCode.covering(min(low, -1), high)
