# SPDX-License-Identifier: Apache-2.0
"""Linear and logarithmic number codes.

Each object owns one format and states its integers exactly (``compute``); hardware, integer model and
benches all call the same object. Everything here is NumPy on ``int64``; no Amaranth.

Source: bipolar morphological neurons, arXiv 1911.01971 and 2009.07190.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bmhw.hdl.checks import check_range

__all__ = [
    "EXACT_EXP2_FRACTION", "EXACT_LIMIT", "Integers", "LinearCode", "LogCode", "default_fraction", "default_method",
    "exp2_rounded", "log2_rounded",
]

Integers = NDArray[np.int64]

# An exact table doubles with each bit; above this width `piecewise` takes over: the table explodes.
EXACT_LIMIT = 12
EXACT_EXP2_FRACTION = 8


def default_fraction(log_bits: int, bits: int) -> int:
    """Fraction bits F of a log code so that its range covers a linear code: ``B - ceil(log2(bits))``."""
    return max(0, log_bits - math.ceil(math.log2(bits)))


def default_method(bits: int) -> str:
    """``exact`` up to 12 bits, ``piecewise`` above."""
    return "exact" if bits <= EXACT_LIMIT else "piecewise"


# The distance from a tie below which float64 isn't trusted and integers decide: log2 of values below 2^17, times
# 2^16, is below 2^21, where float64 is off by less than 2^-30.
_LOG2_DOUBT = 1e-9


def log2_rounded(values: ArrayLike, fraction: int) -> Integers:
    """``floor(2^fraction * log2(v) + 1/2)`` for integers v > 0, exact (no float64 error can change it)."""
    values = np.asarray(values, dtype=np.int64)
    flat = values.ravel()
    scaled = np.log2(flat.astype(np.float64)) * (1 << fraction) + 0.5
    result = np.floor(scaled).astype(np.int64)
    for index in np.nonzero(np.abs(scaled - np.round(scaled)) < _LOG2_DOUBT)[0]:
        v, tie = int(flat[index]), round(float(scaled[index]))
        # v >= 2^((tie - 1/2) / 2^F), in integers
        above = v ** (2 << fraction) >= 2 ** (2 * tie - 1) if tie > 0 else True
        result[index] = tie if above else tie - 1
    return result.reshape(values.shape)


def exp2_rounded(exponents: ArrayLike, fraction: int, out_fraction: int) -> Integers:
    """``floor(2^out_fraction * 2^(e / 2^fraction) + 1/2)`` for integers e, exact."""
    exponents = np.asarray(exponents, dtype=np.int64)
    flat = exponents.ravel()
    scaled = np.exp2(flat / (1 << fraction) + out_fraction) + 0.5
    result = np.floor(scaled).astype(np.int64)
    # relative error of exp2 in float64, with room: 2^-50; a power of two is exact there and is no doubt
    doubtful = (np.abs(scaled - np.round(scaled)) < scaled * 2.0**-50) & ((flat & ((1 << fraction) - 1)) != 0)
    for index in np.nonzero(doubtful)[0]:
        e, tie = int(flat[index]), round(float(scaled[index]))
        # 2^(out_fraction + e / 2^F) >= tie - 1/2, that is 2^(2^F * (out_fraction + 1) + e) >= (2 tie - 1)^(2^F)
        power = ((out_fraction + 1) << fraction) + e
        above = power >= 0 and 2**power >= (2 * tie - 1) ** (1 << fraction)
        result[index] = tie if above else tie - 1
    return result.reshape(exponents.shape)


@dataclass(frozen=True, kw_only=True)
class LinearCode:
    """An integer of ``bits`` bits; value = integer * scale."""

    bits: int
    signed: bool = False

    def __post_init__(self):
        check_range("Linear code width", self.bits, 1, 64)

    @property
    def minimum(self) -> int:
        return -(1 << (self.bits - 1)) if self.signed else 0

    @property
    def maximum(self) -> int:
        return (1 << (self.bits - 1)) - 1 if self.signed else (1 << self.bits) - 1

    @property
    def magnitude_bits(self) -> int:
        """b such that 2^b is the full scale of the magnitude: ``bits``, or ``bits - 1`` if signed."""
        return self.bits - 1 if self.signed else self.bits

    def check(self, name: str, values: ArrayLike) -> Integers:
        """The values as ``int64``; ``ValueError`` naming the first one outside the range."""
        array = np.asarray(values)
        if array.dtype.kind not in "iu":
            raise ValueError(f"{name} must be integers, not {array.dtype}")
        array = array.astype(np.int64)
        outside = (array < self.minimum) | (array > self.maximum)
        if outside.any():
            raise ValueError(f"{name} must be from {self.minimum} to {self.maximum}, not {array[outside].flat[0]}")
        return array

    @classmethod
    def covering(cls, minimum: int, maximum: int) -> "LinearCode":
        """The narrowest code that holds every integer from ``minimum`` to ``maximum``."""
        if minimum >= 0:
            return cls(bits=max(1, maximum.bit_length()), signed=False)
        return cls(bits=max((-minimum - 1).bit_length(), max(maximum, 0).bit_length()) + 1, signed=True)


@dataclass(frozen=True, kw_only=True)
class LogCode:
    """Unsigned logarithmic code of ``bits`` bits, ``fraction`` of them behind the point.

    Value of code c: ``2^((c - (2^bits - 1)) / 2^fraction) * scale``. Code 0 also stands for everything
    below it, zero included (the paper's clamp ``max(x, eps)``).
    """

    bits: int
    fraction: int

    def __post_init__(self):
        check_range("Log code width", self.bits, 2, 17)  # of an activation 16; of log2 before an offset one more
        check_range("Log code fraction", self.fraction, 0, self.bits - 1)

    @property
    def maximum(self) -> int:
        """The largest code; stands for full scale."""
        return (1 << self.bits) - 1

    def value(self, codes: ArrayLike) -> NDArray[np.float64]:
        """The real values of codes, at scale 1."""
        return np.exp2((np.asarray(codes, dtype=np.float64) - self.maximum) / (1 << self.fraction))

    def encode(self, values: ArrayLike) -> Integers:
        """The nearest code (in the logarithm) of real magnitudes at scale 1; saturates at both ends."""
        values = np.asarray(values, dtype=np.float64)
        with np.errstate(divide="ignore"):
            codes = np.floor(np.log2(values) * (1 << self.fraction) + 0.5) + self.maximum
        return np.clip(codes, 0, self.maximum).astype(np.int64)

    def check(self, name: str, codes: ArrayLike) -> Integers:
        return LinearCode(bits=self.bits).check(name, codes)
