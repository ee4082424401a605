# SPDX-License-Identifier: Apache-2.0
"""Ranges of an integer network's constants: what folding makes, what a weights file may hold, what is read.

Folding chooses its scales so that no network that can be computed in floating point comes near them; what lies beyond
nevertheless (training can move it there) becomes the nearest one within. Needs no PyTorch.
"""

from typing import NamedTuple

from bmhw.hdl.formats.choices import LARGEST_BIAS_BITS
from bmhw.hdl.formats.codes import LinearCode

__all__ = ["BIAS", "EXPONENT", "FINE", "SHIFT", "SMALLEST_RANGE", "THRESHOLD", "Limit"]


class Limit(NamedTuple):
    """Both ends are valid."""

    minimum: int
    maximum: int


SHIFT = Limit(-40, 40)
"""Of what comes into a layer, to the right."""
FINE = Limit(-(1 << 16), 1 << 16)
"""Of a channel, in steps of its code."""
EXPONENT = Limit(-96, 96)
"""The power of two that an output integer counts: with 2^30 such units it is still a float32."""
THRESHOLD = Limit(-(1 << 62), 1 << 62)
"""Behind a layer, in its output integers: a difference from one is still an int64."""
BIAS = Limit(*(getattr(LinearCode(bits=LARGEST_BIAS_BITS, signed=True), end) for end in ("minimum", "maximum")))
"""Of a linear result, in its integers: the widest port of a format."""

SMALLEST_RANGE = 2.0**-16
"""No scale is finer than this share of what it stands beside (other channels, what it is added to, its bias, the
threshold behind it, the constant of a normalisation): codes have at most 16 bits, so that nobody sees what is below."""
