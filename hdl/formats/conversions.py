# SPDX-License-Identifier: Apache-2.0
"""Conversions between linear and logarithmic codes: log2, exp2, and the two ends that give a layer's codes.

Each object states its integers exactly (``compute``); hardware, integer model and benches all call the same object.

Source: Mitchell 1962 (logarithm); Schraudolph 1999 (exponential); Das Sarma and Matula 1995 (bipartite tables).
"""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike

from bmhw.hdl.checks import check_choice, check_range

from .codes import EXACT_LIMIT, Integers, LogCode, log2_rounded

__all__ = ["EXP2_METHODS", "LOG2_METHODS", "Bipartite", "Exp2", "LinearEnd", "Log2", "LogSubtract"]

LOG2_METHODS = ("exact", "mitchell", "piecewise")
EXP2_METHODS = ("exact", "schraudolph", "piecewise")


@dataclass(frozen=True, kw_only=True)
class Log2:
    """log2 of an unsigned linear magnitude with full scale ``2^bits`` into a log code.

    ``exact``: ``c = max(0, (2^B - 1) + floor(2^F * (log2(x) - bits) + 1/2))`` for x > 0, else 0.
    ``mitchell``: the same with ``e + m`` for log2(x), where ``x = 2^e * (1 + m)``.
    ``piecewise``: the same with a bipartite table (two tables and one addition, no multiplier) for
    log2(1 + m); :attr:`largest_error` states its error in codes.

    Inputs are 0..2^bits, both included (2^bits is the magnitude of the most negative signed input).
    """

    bits: int
    log: LogCode
    method: str = "exact"

    def __post_init__(self):
        check_range("log2 input width", self.bits, 1, 16)
        check_choice("log2 method", self.method, LOG2_METHODS)
        if self.method == "exact":
            check_range("Width of an exact log2 (use piecewise above)", self.bits, 1, EXACT_LIMIT)

    @property
    def offset(self) -> int:
        """The code of x = 1 before the clamp: ``(2^B - 1) - bits * 2^F``."""
        return self.log.maximum - (self.bits << self.log.fraction)

    @property
    def mantissa_bits(self) -> int:
        """Bits of m in ``x = 2^e * (1 + m)``, left-aligned; one at least."""
        return max(1, self.bits - 1)

    @cached_property
    def fraction_table(self) -> Integers:
        """``round(2^F * log2(1 + m))`` for each mantissa m (0..2^mantissa_bits - 1); values 0..2^F."""
        one, mantissas = 1 << self.mantissa_bits, np.arange(1 << self.mantissa_bits)
        if self.method == "mitchell":
            shift = self.mantissa_bits - self.log.fraction
            return mantissas << -shift if shift <= 0 else (mantissas + (1 << shift >> 1)) >> shift
        if self.method == "piecewise":
            return self.bipartite.compute(mantissas)
        return log2_rounded(one + mantissas, self.log.fraction) - (self.mantissa_bits << self.log.fraction)

    @cached_property
    def bipartite(self) -> "Bipartite":
        """The two tables of ``piecewise``."""
        one = 1 << self.mantissa_bits
        return Bipartite.fit(lambda m: np.log2(1 + m / one) * (1 << self.log.fraction), self.mantissa_bits)

    @cached_property
    def largest_error(self) -> float:
        """The largest distance from the real logarithm, in code steps, over all inputs above the clamp."""
        one, mantissas = 1 << self.mantissa_bits, np.arange(1 << self.mantissa_bits)
        return float(np.abs(self.fraction_table - np.log2(1 + mantissas / one) * (1 << self.log.fraction)).max())

    def compute(self, magnitudes: ArrayLike) -> Integers:
        """Codes of magnitudes 0..2^bits, any shape."""
        x = np.asarray(magnitudes, dtype=np.int64)
        outside = (x < 0) | (x > 1 << self.bits)
        if outside.any():
            raise ValueError(f"log2 input must be from 0 to {1 << self.bits}, not {x[outside].flat[0]}")
        positive = np.maximum(x, 1)
        exponent = np.frexp(positive.astype(np.float64))[1].astype(np.int64) - 1
        # the most significant bits behind the leading one; full scale itself has exponent `bits`, mantissa 0
        aligned = positive << np.maximum(self.mantissa_bits - exponent, 0)
        mantissa = np.where(exponent <= self.mantissa_bits, aligned, 0) & ((1 << self.mantissa_bits) - 1)
        codes = self.offset + (exponent << self.log.fraction) + self.fraction_table[mantissa]
        return np.where(x > 0, np.clip(codes, 0, self.log.maximum), 0)


@dataclass(frozen=True, kw_only=True)
class Exp2:
    """2^ of a sum of log codes into an unsigned linear code.

    With ``full_scale`` (the sum that stands for 1) and F fraction bits:
    ``exact``: ``floor(2^out_fraction * 2^((m - full_scale) / 2^F) + 1/2)``.
    ``schraudolph``: the same with ``2^i * (1 + f)`` for ``2^(i + f)``.
    ``piecewise``: the same with a bipartite table for ``2^f``; :attr:`largest_error` states its error.
    ``zero="exact"``: a sum of 0 gives 0 in the place of its smallest step.
    """

    full_scale: int
    fraction: int
    out_fraction: int
    method: str = "exact"
    zero: str = "step"

    def __post_init__(self):
        check_range("exp2 full scale", self.full_scale, 1)
        check_range("exp2 fraction", self.fraction, 0, 16)
        check_range("exp2 out_fraction", self.out_fraction, 0, 40)
        check_choice("exp2 method", self.method, EXP2_METHODS)
        if self.method == "exact":
            check_range("Fraction bits of an exact exp2 (use piecewise above)", self.fraction, 0, EXACT_LIMIT)

    @property
    def in_bits(self) -> int:
        return self.full_scale.bit_length()

    @property
    def out_bits(self) -> int:
        """Width of the result: ``out_fraction + 1``, since full scale gives ``2^out_fraction``."""
        return self.out_fraction + 1

    @cached_property
    def mantissa_table(self) -> Integers:
        """``floor(2^(out_fraction + 1) * 2^(f / 2^F))`` for f = 0..2^F - 1: one bit more than the result.

        Rounding half up of ``2^-s`` times the real number needs only its expansion down to that bit:
        ``floor(A / 2^s + 1/2) = floor(A / 2^s) + bit(s - 1) of A``.
        """
        f = np.arange(1 << self.fraction)
        if self.method == "schraudolph":
            scaled = ((1 << self.fraction) + f) << (self.out_fraction + 1)
            return scaled >> self.fraction
        if self.method == "piecewise":
            return self.bipartite.compute(f) << self.mantissa_shift
        return np.array([_exp2_floor(int(v), self.fraction, self.out_fraction + 1) for v in f], dtype=np.int64)

    @property
    def mantissa_shift(self) -> int:
        """Low bits of the mantissa that ``piecewise`` leaves 0: more would be finer than its error."""
        return max(0, self.out_fraction + 1 - (self.fraction + 5))

    @cached_property
    def bipartite(self) -> "Bipartite":
        """The two tables of ``piecewise``."""
        bits = self.out_fraction + 1 - self.mantissa_shift
        return Bipartite.fit(lambda f: np.exp2(f / (1 << self.fraction)) * (1 << bits), max(1, self.fraction))

    @cached_property
    def largest_error(self) -> float:
        """The largest relative error of the mantissa against the real exponential."""
        real = np.exp2(np.arange(1 << self.fraction) / (1 << self.fraction)) * (2 << self.out_fraction)
        return float(np.abs(self.mantissa_table / real - 1).max())

    def compute(self, sums: ArrayLike) -> Integers:
        """Linear codes (0..2^out_fraction) of sums 0..full_scale, any shape."""
        m = np.asarray(sums, dtype=np.int64)
        outside = (m < 0) | (m > self.full_scale)
        if outside.any():
            raise ValueError(f"exp2 input must be from 0 to {self.full_scale}, not {m[outside].flat[0]}")
        distance = m - self.full_scale
        shift = np.minimum(-(distance >> self.fraction), 62)
        mantissa = self.mantissa_table[distance & ((1 << self.fraction) - 1)]
        # the table holds one bit below the result's lowest: round half up on the bit below
        e = ((mantissa >> shift) + 1) >> 1
        return np.where(m > 0, e, 0) if self.zero == "exact" else e


def _exp2_floor(f: int, fraction: int, out_fraction: int) -> int:
    """``floor(2^out_fraction * 2^(f / 2^fraction))``, by an exact integer root."""
    if f == 0:
        return 1 << out_fraction
    guess = math.floor(2.0 ** (out_fraction + f / (1 << fraction)))
    # float64 is off by less than 2^-10 at 2^41: the floor is the guess unless it lies next to an integer
    value = 2.0 ** (out_fraction + f / (1 << fraction))
    if abs(value - round(value)) > 2.0**-8:
        return guess
    power, nearest = (out_fraction << fraction) + f, round(value)
    return nearest if 2**power >= nearest ** (1 << fraction) else nearest - 1


@dataclass(frozen=True, kw_only=True, eq=False)
class Bipartite:
    """A function table as the sum of two smaller ones: ``(T0[high, middle] + T1[high, low] + half) >> guard``.

    The index is cut into three fields; inside each (high) segment the function is taken as piecewise
    linear with one slope, so T1 needs no middle bits (Das Sarma and Matula 1995). No multiplier.
    """

    high_bits: int
    middle_bits: int
    low_bits: int
    guard: int
    base: Integers
    """T0, shape (2^(high_bits + middle_bits),), with ``guard`` extra bits."""
    slope: Integers
    """T1, shape (2^(high_bits + low_bits),), unsigned, with ``guard`` extra bits."""

    @classmethod
    def fit(cls, function, index_bits: int, guard: int = 2) -> "Bipartite":
        """Tables for an increasing ``function`` of the integers 0..2^index_bits - 1."""
        low = index_bits // 3
        middle = (index_bits - low) // 2
        high = index_bits - low - middle
        h = np.arange(1 << high)[:, None]
        segment, step = 1 << (middle + low), 1 << low
        mid, lo = np.arange(1 << middle)[None, :], np.arange(step)[None, :]
        # T1: the rise over the low field in the middle of the segment; T0: chosen so that the error is even
        centre = h * segment + segment / 2 - step / 2
        rise = function(centre + lo) - function(centre)
        start = h * segment + mid * step
        last = rise[:, -1:]
        base = function(start) + (function(start + step - 1) - function(start) - last) / 2
        scale = 1 << guard
        slope = np.floor(rise * scale + 0.5).astype(np.int64)
        rounded = np.maximum(np.floor(base * scale + 0.5).astype(np.int64), 0)
        # index 0 exactly: log2(1) = 0 and 2^0 = 1 stay what they are, so that full scale stays full scale
        rounded[0, 0] = round(float(function(0)) * scale)
        return cls(high_bits=high, middle_bits=middle, low_bits=low, guard=guard,
                   base=rounded.ravel(), slope=slope.ravel())

    def compute(self, index: ArrayLike) -> Integers:
        index = np.asarray(index, dtype=np.int64)
        low = index & ((1 << self.low_bits) - 1)
        high = index >> (self.low_bits + self.middle_bits)
        total = self.base[index >> self.low_bits] + self.slope[(high << self.low_bits) | low]
        return (total + (1 << self.guard >> 1)) >> self.guard


@dataclass(frozen=True, kw_only=True)
class LogSubtract:
    """The logarithmic end: ``log2(relu(2^a - 2^b))`` of two sums into an activation's log code.

    ``z = 0`` if a <= b, else ``clamp(a - phi(a - b) - origin + offset, 0, 2^B - 1)`` with
    ``phi(d) = floor(1/2 - 2^F * log2(1 - 2^(-d / 2^F)))``.
    ``full_scale`` is the largest sum, ``log`` the code of z, ``origin`` the sum that becomes code 0 (``2^B - 1``;
    0 for clamped sums), ``offset`` a constant of the layer.
    """

    full_scale: int
    log: LogCode
    origin: int
    offset: int = 0

    @cached_property
    def phi(self) -> Integers:
        """phi(d) for d = 0..full_scale; entry 0 is not used (a <= b gives 0)."""
        # -log2(1 - 2^(-d / 2^F)) is irrational for d > 0 except d = 2^F (1/2), where float64 is exact; the
        # argument is at most 2^16 * 16, so that float64 is off by less than 2^-30.
        d = np.arange(1, self.full_scale + 1) / (1 << self.log.fraction)
        phi = np.floor(0.5 - (1 << self.log.fraction) * np.log2(-np.expm1(-d * np.log(2.0))))
        return np.concatenate([[0], phi.astype(np.int64)])

    def compute(self, a: ArrayLike, b: ArrayLike) -> Integers:
        """Codes z of sums a, b from 0 to full_scale, any shapes that broadcast."""
        a, b = np.broadcast_arrays(np.asarray(a, dtype=np.int64), np.asarray(b, dtype=np.int64))
        z = a - self.phi[np.maximum(a - b, 0)] - self.origin + self.offset
        return np.where(a > b, np.clip(z, 0, self.log.maximum), 0)


@dataclass(frozen=True, kw_only=True)
class LinearEnd:
    """The linear end: ReLU and log2 of a linear number y into an activation's log code.

    ``z = 0`` if y <= 0, else ``clamp(log2 y + offset, 0, 2^B - 1)``. y has ``out_fraction`` fraction bits; ``log`` is
    the code of z, ``offset`` a constant of the layer in its steps, ``method`` that of log2. ``reach``: octaves above 1
    that y may have. With 0, y saturates at 1. With more, log2 sees as many of them as a negative ``offset`` moves into
    the code, and the code is clamped once, behind the offset. Of y's bits an exact log2 sees the 12 highest.
    """

    out_fraction: int
    log: LogCode
    offset: int = 0
    reach: int = 0
    method: str = "exact"

    def __post_init__(self):
        check_range("Fraction bits of a linear end", self.out_fraction, 1, 40)
        check_range("Octaves above 1 of a linear end", self.reach, 0, 64 - self.out_fraction)
        check_range("Offset", self.offset, -(1 << 17), 1 << 17)
        check_choice("log2 method", self.method, LOG2_METHODS)

    @cached_property
    def octaves(self) -> int:
        """Octaves above 1 that log2 sees."""
        return min(-(self.offset >> self.log.fraction), self.reach) if self.offset < 0 else 0

    @property
    def full_scale(self) -> int:
        """Where y saturates."""
        return 1 << (self.out_fraction + self.octaves)

    @property
    def shift(self) -> int:
        """Low bits of y that log2 doesn't see: an exact one is a table of its high bits."""
        return max(0, self.out_fraction + self.octaves - EXACT_LIMIT)

    @cached_property
    def log2(self) -> Log2:
        """log2 of the (saturated, shifted) y; with ``reach``, in a code of one bit more, which ends where that of z
        does or below."""
        log = LogCode(bits=self.log.bits + (self.reach > 0), fraction=self.log.fraction)
        return Log2(bits=self.out_fraction + self.octaves - self.shift, log=log, method=self.method)

    @property
    def code_offset(self) -> int:
        """What is added to the code of log2."""
        if not self.reach:
            return self.offset
        return self.offset + (self.octaves << self.log.fraction) - (1 << self.log.bits)

    def compute(self, y: ArrayLike) -> Integers:
        """Codes z of linear results, of any shape."""
        y = np.asarray(y, dtype=np.int64)
        codes = self.log2.compute(np.clip(y, 0, self.full_scale) >> self.shift)
        return np.where(y > 0, np.clip(codes + self.code_offset, 0, self.log.maximum), 0)
