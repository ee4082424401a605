# SPDX-License-Identifier: Apache-2.0
"""Which entries of their tables the conversions of a number read, and where a linear end's rounding changes."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bmhw.hdl.formats.conversions import Exp2, Log2

if TYPE_CHECKING:
    from bmhw.hdl.formats.bm import BmFormat
    from bmhw.hdl.formats.conversions import Bipartite

__all__ = ["exp2_entries", "log2_entries", "roundings_of"]

Integers = NDArray[np.int64]

# Up to this many index bits a table has an entry for each of its inputs, whatever the architecture.
_FLAT_BITS = 9


def log2_entries(log2: Log2, magnitudes: Integers) -> tuple[Integers, ...]:
    """Which entries of its tables a log2 reads, numbered from 0 in each table; magnitudes 0 to 2^bits."""
    if log2.bits <= _FLAT_BITS:
        return (magnitudes,)
    exponent = np.frexp(np.maximum(magnitudes, 1).astype(np.float64))[1].astype(np.int64) - 1
    mantissa = magnitudes << np.maximum(log2.mantissa_bits - exponent, 0) & ((1 << log2.mantissa_bits) - 1)
    if log2.method == "exact":
        return exponent, mantissa
    if log2.method == "mitchell":
        return (exponent,)
    return exponent, *_bipartite_entries(log2.bipartite, mantissa)


def exp2_entries(exp2: Exp2, sums: Integers) -> tuple[Integers, ...]:
    """Which entries of its tables an exp2 reads, numbered from 0 in each table; sums 0 to full scale."""
    if exp2.in_bits <= _FLAT_BITS:
        return (sums,)
    distance = sums - exp2.full_scale
    shift, fraction = -(distance >> exp2.fraction), distance & ((1 << exp2.fraction) - 1)
    if exp2.method == "exact":
        return shift, fraction
    if exp2.method == "schraudolph":
        return (shift,)
    return shift, *_bipartite_entries(exp2.bipartite, fraction)


def _bipartite_entries(table: "Bipartite", index: Integers) -> tuple[Integers, Integers]:
    low = index & ((1 << table.low_bits) - 1)
    return index >> table.low_bits, (index >> (table.low_bits + table.middle_bits) << table.low_bits) | low


def roundings_of(fmt: "BmFormat") -> Integers:
    """Of a linear end that gives a code: the smallest result of each code that occurs, but for code 0."""
    codes = fmt.code_of(np.arange((1 << fmt.end_log2.bits) + 1) << fmt.end_shift)
    changes = np.flatnonzero(np.diff(codes)) + 1
    return (changes if len(changes) else np.array([1])) << fmt.end_shift
