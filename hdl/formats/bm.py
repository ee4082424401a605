# SPDX-License-Identifier: Apache-2.0
"""What a bipolar morphological neuron computes, in integers.

The one definition that hardware, integer model and benches share. ``compute`` takes NumPy arrays whose last axis is the
neuron's inputs; leading axes broadcast.
"""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bmhw.hdl.checks import check_choice, check_range

from .choices import (
    BOUNDARIES,
    COMBINES,
    ELEMENT,
    LARGEST_BIAS_BITS,
    LAYOUTS,
    LOG_SUBTRACT_FRACTION,
    RESULTS,
    SUMS,
    TWO_MAXIMA,
    ZEROS,
    nearest_divisors,
    set_default,
)
from .codes import EXACT_EXP2_FRACTION, Integers, LinearCode, LogCode, default_fraction, default_method
from .conversions import Exp2, LinearEnd, Log2, LogSubtract

__all__ = ["BmFormat"]

Booleans = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class BmFormat:
    """Bipolar morphological neuron (arXiv 2009.07190, equation 3), in base 2 and integers.

    Layouts and their ports beside ``x`` (n * bits) and ``bias``:

    - ``relu``: unsigned inputs; ``k1``, ``k2`` (n * weight_bits): ``y = 2^m1 - 2^m2 + bias`` with
      ``m1 = max_i(log2 x_i + k1_i)``, ``m2 = max_i(log2 x_i + k2_i)``.
    - ``bipolar``: signed inputs; ``k1``, ``k2``: ``y = 2^m1 - 2^m2 - 2^m3 + 2^m4 + bias``, m3 and m4 being m1
      and m2 of the negative parts of the inputs.
    - ``signed``: one magnitude ``k`` (n * weight_bits) and one ``sign`` (n; 1 = negative) an input; the sign of
      ``x_i * w_i`` chooses the maximum that ``log2 |x_i| + k_i`` enters; into the other one it enters as 0.
    - ``wired``: unsigned inputs; one magnitude ``k`` (n * weight_bits) an input. The first half of the inputs
      (:attr:`positive_inputs`) has positive weights and enters the first maximum, the second half negative ones and the
      second maximum: a weight's sign is which input it is wired to, not a bit.

    ``sums``: ``full``: ``c + k``, one bit more than the codes, so that nothing is lost; ``clamped``: the product as a
    log code of the activations' own B bits, ``max(0, c + k - (2^B - 1))``: what is below the smallest code counts
    as 0, as in any log code, and a zero input gives 0 whatever its weight (needs weight_bits = log_bits).

    With ``combine="logarithmic"`` (all but ``bipolar``): ports ``bias1``, ``bias2`` (one more candidate of
    each maximum) for ``bias``, and the log code ``z`` for ``y``; see :class:`LogSubtract`.

    ``boundary="layer"``: from activation code to activation code. Port ``c`` (n * log_bits; and ``negative``, n, for
    signed inputs) for ``x``; with ``result="code"`` (the default there) a linear ``combine`` is followed by ReLU and
    log2: ``z = 0`` if y <= 0, else ``clamp(log2 y + offset, 0, 2^B - 1)``, where y saturates at 1 and its bits
    below the 12 highest are dropped.

    ``groups`` G: each of the maxima is G maxima of n / G inputs, whose exponentials are added as linear numbers:
    group g holds the inputs ``g * n / G`` to ``(g + 1) * n / G - 1``; of layout ``wired`` the first half of each group
    is positive. 1 is the paper's neuron, n the classical one in log codes. With more than one, y reaches G: log2 of a
    linear end sees as many octaves above 1 as a negative ``offset`` moves into the code, and the code is clamped once,
    behind the offset.

    ``zero``: what code 0 stands for. ``step``: its smallest step, as in any log code. ``exact``: 0: exp2 of a maximum
    0 is 0, and with full sums a candidate whose activation or weight has code 0 doesn't enter its maximum.
    The default is ``step`` for one group and ``exact`` for more, where the steps of empty groups would add up; clamped
    sums of more groups have no other.

    ``boundary="element"``: what takes one activation code and one weight a cycle and has no end: :meth:`compute` gives
    the maxima that it shows at the end of each group, as :attr:`shown` says.

    ``residual_bits``: width of a signed number ``r`` in the unit of y that is added to it (0: there is no such port).

    Parameters: ``inputs`` n >= 1; ``bits`` of each linear input (2..16); ``log_bits`` B of the activations'
    log code (default ``bits``, 2..16) and ``log_fraction`` F (default ``B - ceil(log2(bits))``, or the most that
    the weights' width, or 8 with a logarithmic end, allow);
    ``weight_bits`` of the weights' log code (default B); ``out_fraction`` of y (default ``2 * bits - 2``);
    ``log2`` and ``exp2`` method (default ``exact`` up to 12 bits, ``piecewise`` above); ``maximum_bits``: how
    many high bits of each sum the maximum sees (default all; the dropped ones read as 0 behind it);
    ``bias_bits`` (default ``out_fraction + 2``: -2 to 2).
    """

    inputs: int
    bits: int
    layout: str = "relu"
    signed_inputs: bool | None = None
    log_bits: int | None = None
    log_fraction: int | None = None
    weight_bits: int | None = None
    out_fraction: int | None = None
    log2: str | None = None
    exp2: str | None = None
    maximum_bits: int | None = None
    bias_bits: int | None = None
    combine: str = "linear"
    offset: int = 0
    boundary: str = "neuron"
    result: str | None = None
    sums: str = "full"
    groups: int = 1
    zero: str | None = None
    residual_bits: int = 0

    def __post_init__(self):
        check_range("Number of inputs", self.inputs, 1)
        check_range("Width in bits", self.bits, 2, 16)
        check_choice("Layout", self.layout, LAYOUTS)
        set_default(self, "signed_inputs", self.layout == "bipolar")
        if self.layout in ("relu", "wired") and self.signed_inputs:
            raise ValueError(f"Layout {self.layout} needs unsigned inputs; take bipolar or signed for signed ones")
        if self.layout == "wired":
            check_range("Number of inputs of layout wired", self.inputs, 2)
        self._check_groups()
        if self.layout == "bipolar" and not self.signed_inputs:
            raise ValueError("Layout bipolar needs signed inputs; take relu, signed or wired for unsigned ones")
        set_default(self, "log_bits", self.bits)
        check_range("Log code width in bits", self.log_bits, 2, 16)
        set_default(self, "weight_bits", self.log_bits)
        check_range("Weight width in bits", self.weight_bits, 2, 16)
        # a default fits the weights' codes and the end, which may not take as many
        most = LOG_SUBTRACT_FRACTION if self.combine == "logarithmic" else 16
        fraction = min(default_fraction(self.log_bits, self.bits), self.weight_bits - 1, most)
        set_default(self, "log_fraction", fraction)
        check_range("Log code fraction", self.log_fraction, 0, self.log_bits - 1)
        check_range("Log code fraction", self.log_fraction, 0, self.weight_bits - 1)
        check_choice("Sums", self.sums, SUMS)
        if self.sums == "clamped" and self.weight_bits != self.log_bits:
            raise ValueError(f"Clamped sums need weights as wide as the activations' log codes ({self.log_bits} bits), "
                             f"not {self.weight_bits}")
        set_default(self, "zero", "step" if self.groups == 1 else "exact")
        check_choice("Zero", self.zero, ZEROS)
        if self.zero == "step" and self.groups > 1 and self.sums == "clamped":
            raise ValueError("Clamped sums of more than one group need zero exact, not step: the steps would add up")
        set_default(self, "out_fraction", 2 * self.bits - 2)
        check_range("Fraction bits of the output", self.out_fraction, 0, 40)
        set_default(self, "log2", default_method(self.bits))
        # an exact exp2 is a table of 2^F entries: small fractions stay exact at any width
        set_default(self, "exp2", "exact" if self.log_fraction <= EXACT_EXP2_FRACTION else
                    default_method(max(self.bits, self.log_fraction)))
        set_default(self, "maximum_bits", self.sum_bits)
        check_range("Bits that the maximum sees", self.maximum_bits, 1, self.sum_bits)
        set_default(self, "bias_bits", self.out_fraction + 2)
        check_range("Bias width in bits", self.bias_bits, 1, LARGEST_BIAS_BITS)
        check_choice("Combine", self.combine, COMBINES)
        check_choice("Boundary", self.boundary, (*BOUNDARIES, ELEMENT))
        if self.boundary == ELEMENT:
            self._check_element()
        code = self.boundary == "layer" or self.combine == "logarithmic"
        set_default(self, "result", "code" if code else "linear")
        check_choice("Result", self.result, RESULTS)
        if self.combine == "logarithmic" and self.result == "linear":
            raise ValueError("A logarithmic end gives a code, not a linear result")
        if not code and self.result == "code":
            raise ValueError("A neuron with a linear end gives a linear result; a code needs boundary layer")
        if self.combine == "logarithmic" and self.layout not in TWO_MAXIMA:
            raise ValueError(f"A logarithmic end needs layout {', '.join(TWO_MAXIMA)}, not {self.layout}: it subtracts "
                             "two terms only")
        if self.combine == "logarithmic":
            # its table phi has about 2^F * (F + 2) entries
            check_range("Log code fraction of a logarithmic end", self.log_fraction, 0, LOG_SUBTRACT_FRACTION)
            for most, value in (("one group", self.groups - 1), ("no residual", self.residual_bits)):
                if value > 0:
                    raise ValueError(f"A logarithmic end subtracts two maxima and adds nothing: it has {most}, so that "
                                     f"{self.groups} groups and {self.residual_bits} residual bits need a linear end")
            if self.zero != "step":
                raise ValueError("A logarithmic end knows code 0 as its smallest step only: zero must be step, "
                                 f"not {self.zero}")
        _ = self.log2_unit, self.exp2_unit  # their own checks
        if self.result == "code" and self.combine == "linear":
            check_range("Fraction bits of a linear end whose log2 follows", self.out_fraction, 1, 40)
            if self.reaches_above_one:
                check_range("Offset", self.offset, -(1 << 17), 1 << self.log_bits)

    def _check_element(self):
        """An element has no end."""
        for name, value, usual in (("combine", self.combine, "linear"), ("result", self.result or "linear", "linear"),
                                   ("offset", self.offset, 0), ("residual_bits", self.residual_bits, 0)):
            if value != usual:
                raise ValueError(f"Boundary element stops at the maxima: {name} must be {usual}, not {value}")

    def _check_groups(self):
        """Groups divide the inputs, and each has what its maxima need; so many numbers add up to an int64."""
        most = self.inputs if self.layout != "wired" else self.inputs // 2
        check_range("Number of groups", self.groups, 1, most)
        if self.inputs % self.groups:
            near = [str(d) for d in nearest_divisors(self.inputs, self.groups) if d <= most]
            raise ValueError(f"Number of groups must divide the {self.inputs} inputs, not {self.groups}; nearest: "
                             f"{', '.join(near)}")
        if self.residual_bits:
            check_range("Residual width in bits", self.residual_bits, 1, LARGEST_BIAS_BITS)

    # -- formats

    @property
    def x(self) -> LinearCode:
        return LinearCode(bits=self.bits, signed=self.signed_inputs)

    @property
    def activation(self) -> LogCode:
        """The log code c of an input's magnitude."""
        return LogCode(bits=self.log_bits, fraction=self.log_fraction)

    @property
    def weight(self) -> LogCode:
        """The log code k of a weight's magnitude."""
        return LogCode(bits=self.weight_bits, fraction=self.log_fraction)

    @property
    def full_scale(self) -> int:
        """The largest sum; stands for 1."""
        return self.activation.maximum + self.weight.maximum - self.sum_origin

    @property
    def sum_origin(self) -> int:
        """What is subtracted from ``c + k``: 0, or for clamped sums the largest weight code."""
        return self.weight.maximum if self.sums == "clamped" else 0

    @property
    def sum_bits(self) -> int:
        return self.full_scale.bit_length()

    @property
    def masked(self) -> bool:
        """Whether not every candidate enters its maximum: those of the other sign, or that are too small."""
        return self.layout == "signed" or self.reached

    @property
    def reached(self) -> bool:
        """Whether candidates that are too small don't enter: clamped sums below the smallest code, or what is 0."""
        return self.sums == "clamped" or self.zero == "exact"

    @property
    def group_inputs(self) -> int:
        """How many inputs a group has."""
        return self.inputs // self.groups

    def one_group(self, **fields: Any) -> "BmFormat":
        """A group as a neuron of its own with a linear result, the sum of the groups before it its bias."""
        return replace(self, inputs=self.group_inputs, groups=1, residual_bits=0, result="linear",
                       **{"bias_bits": self.y.bits} | fields)

    @property
    def positive_inputs(self) -> int:
        """Of layout ``wired``: how many inputs of a group have positive weights, the first ones."""
        return (self.group_inputs + 1) // 2

    @property
    def candidates(self) -> tuple[int, ...]:
        """How many inputs each maximum of a group has."""
        if self.layout == "wired":
            return self.positive_inputs, self.group_inputs - self.positive_inputs
        return (self.group_inputs,) * len(self.branches)

    @property
    def shown(self) -> tuple[str, ...]:
        """Of boundary ``element``: its outputs, one maximum each. That of layout ``wired`` has one, which it shows
        behind the positive half of each group and once more behind the negative one."""
        return ("m",) if self.layout == "wired" else tuple(f"m{b}" for b in range(1, len(self.branches) + 1))

    @property
    def dropped_bits(self) -> int:
        """Low bits of the sums that the maxima don't see."""
        return self.sum_bits - self.maximum_bits

    @property
    def half_step(self) -> int:
        """What belongs in the codes of weights and of biases so that maxima that drop bits round the sums half up
        instead of down: half of the maxima's step, at no cost in hardware."""
        return 1 << self.dropped_bits >> 1

    @property
    def sum(self) -> LinearCode:
        return LinearCode(bits=self.sum_bits)

    @cached_property
    def log2_unit(self) -> Log2:
        return Log2(bits=self.x.magnitude_bits, log=self.activation, method=self.log2)

    @cached_property
    def exp2_unit(self) -> Exp2:
        return Exp2(full_scale=self.full_scale, fraction=self.log_fraction, out_fraction=self.out_fraction,
                    method=self.exp2, zero=self.zero)

    @cached_property
    def log_subtract(self) -> LogSubtract:
        return LogSubtract(full_scale=self.full_scale, log=self.activation,
                           origin=self.weight.maximum - self.sum_origin, offset=self.offset)

    @property
    def reaches_above_one(self) -> bool:
        """Whether y is more than a difference of two numbers up to 1 and a bias, for which a linear end saturates."""
        return self.groups > 1 or self.residual_bits > 0

    @cached_property
    def end(self) -> LinearEnd:
        """ReLU and log2 of the linear result."""
        reach = (self.y.maximum >> self.out_fraction).bit_length() if self.reaches_above_one else 0
        return LinearEnd(out_fraction=self.out_fraction, log=self.activation, offset=self.offset, reach=reach,
                         method=self.log2)

    @property
    def end_octaves(self) -> int:
        """Octaves above 1 that a linear end's log2 sees: those of y that a negative offset moves into the code."""
        return self.end.octaves

    @property
    def end_shift(self) -> int:
        """Low bits of y that a linear end's log2 doesn't see."""
        return self.end.shift

    @property
    def end_log2(self) -> Log2:
        """log2 of the (saturated, shifted) y of a linear end."""
        return self.end.log2

    @property
    def end_offset(self) -> int:
        """What is added to the code of a linear end's log2."""
        return self.end.code_offset

    @property
    def bias(self) -> LinearCode:
        return LinearCode(bits=self.bias_bits, signed=True)

    @property
    def r(self) -> LinearCode:
        """The residual sum that is added to the result."""
        return LinearCode(bits=self.residual_bits, signed=True)

    @property
    def branches(self) -> tuple[int, ...]:
        """The sign with which each maximum's exponential enters y."""
        return (1, -1, -1, 1) if self.layout == "bipolar" else (1, -1)

    @cached_property
    def y(self) -> LinearCode:
        """The narrowest signed code that holds every possible result."""
        # the zero code stands for 0 only where exp2 rounds it to 0: the extremes are still 0..2^out_fraction
        largest = self.groups * self.branches.count(1) << self.out_fraction
        added = [self.bias, self.r] if self.residual_bits else [self.bias]
        return LinearCode.covering(-largest + sum(code.minimum for code in added),
                                   largest + sum(code.maximum for code in added))

    @property
    def inputs_of(self) -> dict[str, tuple[LinearCode, int]]:
        """Input ports in order: name -> (code of one element, number of elements)."""
        weight = LinearCode(bits=self.weight_bits)
        if self.boundary == "neuron":
            ports = {"x": (self.x, self.inputs)}
        else:
            ports = {"c": (LinearCode(bits=self.log_bits), self.inputs)}
            if self.signed_inputs:
                ports["negative"] = (LinearCode(bits=1), self.inputs)
        if self.layout == "signed":
            ports |= {"k": (weight, self.inputs), "sign": (LinearCode(bits=1), self.inputs)}
        elif self.layout == "wired":
            ports |= {"k": (weight, self.inputs)}
        else:
            ports |= {"k1": (weight, self.inputs), "k2": (weight, self.inputs)}
        if self.boundary == ELEMENT:
            return ports
        if self.combine == "logarithmic":
            return ports | {"bias1": (self.sum, 1), "bias2": (self.sum, 1)}
        return ports | {"bias": (self.bias, 1)} | ({"r": (self.r, 1)} if self.residual_bits else {})

    @property
    def output(self) -> tuple[str, LinearCode]:
        if self.result == "code":
            return "z", LinearCode(bits=self.log_bits)
        return "y", self.y

    def value(self, code: LogCode, codes: ArrayLike) -> NDArray[np.float64]:
        """What codes of activations or weights stand for, at scale 1."""
        codes = np.asarray(codes)
        return np.where(codes > 0, code.value(codes), 0) if self.zero == "exact" else code.value(codes)

    # -- arithmetic, stage by stage

    def log_codes(self, x: ArrayLike) -> tuple[Integers, Booleans]:
        """The log codes of the inputs' magnitudes, and which inputs are negative."""
        x = self.x.check("x", x)
        return self.log2_unit.compute(np.abs(x)), x < 0

    def maxima(self, codes: Integers, negative: Booleans, *, k1=None, k2=None, k=None, sign=None,
               ) -> list[Integers]:
        """The maxima over the last axis, one a branch, low ``dropped_bits`` cleared; of shape (..., G) for more than
        one group."""
        def add(codes: Integers, weights: Integers) -> Integers:
            sums = np.maximum(codes + weights - self.sum_origin, 0)
            return np.where((codes > 0) & (weights > 0), sums, 0) if self.zero == "exact" else sums

        def grouped(sums: Integers) -> Integers:
            return sums.reshape(*sums.shape[:-1], self.groups, -1) if self.groups > 1 else sums

        def maximum(sums: Integers) -> Integers:
            return (grouped(sums) >> self.dropped_bits).max(axis=-1) << self.dropped_bits

        if self.layout == "wired":
            sums = grouped(add(codes, self.weight.check("k", k)))
            halves = sums[..., :self.positive_inputs], sums[..., self.positive_inputs:]
            return [(half >> self.dropped_bits).max(axis=-1) << self.dropped_bits for half in halves]
        if self.layout == "signed":
            sums = add(codes, self.weight.check("k", k))
            minus = negative ^ (LinearCode(bits=1).check("sign", sign) == 1)
            return [maximum(np.where(minus, 0, sums)), maximum(np.where(minus, sums, 0))]
        k1, k2 = self.weight.check("k1", k1), self.weight.check("k2", k2)
        positive = np.where(negative, 0, codes)
        result = [maximum(add(positive, k1)), maximum(add(positive, k2))]
        if self.layout == "bipolar":
            opposite = np.where(negative, codes, 0)
            result += [maximum(add(opposite, k1)), maximum(add(opposite, k2))]
        return result

    def combined(self, maxima: list[Integers], *, bias: ArrayLike = 0, bias1: ArrayLike = 0, bias2: ArrayLike = 0,
                 r: ArrayLike = 0) -> Integers:
        """The output of the maxima (as :meth:`maxima` gives them) and the bias: y, or z."""
        if self.combine == "logarithmic":
            biases = self.sum.check("bias1", bias1), self.sum.check("bias2", bias2)
            for name, value in zip(("bias1", "bias2"), biases, strict=True):
                if (value > self.full_scale).any():
                    raise ValueError(f"{name} must be from 0 to {self.full_scale}, not {value.max()}")
            a, b = (np.maximum(m, (v >> self.dropped_bits) << self.dropped_bits)
                    for m, v in zip(maxima, biases, strict=True))
            return self.log_subtract.compute(a, b)
        terms = [s * self.exp2_unit.compute(m) for s, m in zip(self.branches, maxima, strict=True)]
        if self.groups > 1:
            terms = [term.sum(axis=-1) for term in terms]
        y = sum(terms, start=self.bias.check("bias", bias))
        if self.residual_bits:
            y = y + self.r.check("r", r)
        return y if self.result == "linear" else self.code_of(y)

    def code_of(self, y: ArrayLike) -> Integers:
        """ReLU and log2 of a linear end: z of linear results, of any shape."""
        return self.end.compute(y)

    def compute(self, *, x: ArrayLike = 0, c: ArrayLike = 0, negative: ArrayLike = 0, bias: ArrayLike = 0,
                bias1: ArrayLike = 0, bias2: ArrayLike = 0, r: ArrayLike = 0, **weights: Any) -> Integers:
        """The output for ``x`` (or ``c`` and ``negative``) and weights of shape (..., n), ``r`` and biases of shape
        (...).

        Of boundary ``element`` the maxima behind each group, without their ``dropped_bits``: shape (..., G, branches).
        """
        if self.boundary == "neuron":
            codes, minus = self.log_codes(x)
        else:
            codes, minus = self.activation.check("c", c), LinearCode(bits=1).check("negative", negative) == 1
        maxima = self.maxima(codes, minus, **weights)
        if self.boundary == ELEMENT:
            stacked = np.stack(maxima, axis=-1) >> self.dropped_bits
            return stacked if self.groups > 1 else stacked[..., np.newaxis, :]
        return self.combined(maxima, bias=bias, bias1=bias1, bias2=bias2, r=r)
