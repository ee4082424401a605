# SPDX-License-Identifier: Apache-2.0
"""Scales between integers: a multiplier and a shift a channel. The only multiplications of an integer network beside
those of its multiply-accumulate layers. Needs no PyTorch."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bmhw.hdl.formats.codes import LinearCode
from bmhw.hdl.formats.mac import MacFormat

__all__ = ["MULTIPLIER", "FixedPoint", "Integers", "per_channel", "round_shift"]

Integers = NDArray[np.int64]

MULTIPLIER = LinearCode(bits=MacFormat.scale_bits)
"""A multiplier has the bits that ``MacFormat`` has by default, 8, which is what the hardware is counted with. With its
highest bit set, and a shift of its own in each channel, a scale is off by at most 1 part in 256: half a step of an
8-bit code at full scale, and less of what is smaller; a wider one would be gates for what no 8-bit code can show."""


def round_shift(values: Integers, shift: Integers) -> Integers:
    """``values / 2^shift`` to the nearest integer, halves up; a shift below 0 goes left."""
    right, left = np.maximum(shift, 0), np.maximum(-shift, 0)
    return ((values << left) + ((1 << right) >> 1)) >> right


def per_channel(values: NDArray) -> NDArray:
    """Channel constants in a shape that broadcasts with (batch, channels, height, width)."""
    return values.reshape(1, -1, 1, 1)


@dataclass(frozen=True, eq=False)
class FixedPoint:
    """``values * multiplier / 2^shift``, rounded, halves up. Both are (channels,); see :data:`MULTIPLIER`. A multiplier
    of 1 everywhere is a shift alone, as a network without multiply-accumulate layers has it."""

    multiplier: Integers
    shift: Integers

    @classmethod
    def of_shift(cls, shift: Integers) -> "FixedPoint":
        """A shift alone, to the right; below 0 to the left."""
        return cls(np.ones_like(shift), shift)

    @classmethod
    def identity(cls, channels: int) -> "FixedPoint":
        return cls.of_shift(np.zeros(channels, dtype=np.int64))

    @property
    def is_shift(self) -> bool:
        return bool((self.multiplier == 1).all())

    @property
    def ratio(self) -> NDArray[np.float64]:
        """What is approximated, (channels,)."""
        return self.multiplier * 2.0**-self.shift

    def compute(self, values: Integers) -> Integers:
        """Of integers (batch, channels, height, width)."""
        return round_shift(values * per_channel(self.multiplier), per_channel(self.shift))

    def of_coarser(self, dropped: Integers) -> "FixedPoint":
        """The same scale for integers that count ``dropped`` octaves more."""
        return FixedPoint(self.multiplier, self.shift - dropped)
