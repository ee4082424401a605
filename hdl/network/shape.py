# SPDX-License-Identifier: Apache-2.0
"""The shape of a folded layer: what it reads, in which order, and how many cycles that takes."""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from bmhw.hdl.checks import check_range

__all__ = ["LayerShape"]

WORD_BITS = 62
"""That an integer of NumPy has for weights side by side."""


@dataclass(frozen=True, kw_only=True)
class LayerShape:
    """A convolution, or a dense layer (a kernel as large as the map), folded onto ``parallel`` elements.

    Each element takes one input a cycle and holds the maxima or the sum of one output; ``parallel`` P outputs are
    computed at a time, a *fold*, in the order output pixel, fold, group, kernel row, kernel column, channel of the
    group. So the weights lie in the order fold, group, kernel row, kernel column, channel, P a word.

    Parameters
    ----------
    height, width, channels: of the input.
    kernel: (height, width); ``stride``, ``padding`` (zeros): the same in both directions.
    outputs: channels of the output.
    groups: of input channels, which they divide.
    parallel: P, from 1 to ``outputs``.
    shown: how much an element has behind a group: an accumulator, or its maxima.
    """

    height: int
    width: int
    channels: int
    kernel: tuple[int, int] = (1, 1)
    stride: int = 1
    padding: int = 0
    outputs: int
    groups: int = 1
    parallel: int = 1
    shown: int = 1

    def __post_init__(self):
        check_range("Outputs at a time", self.parallel, 1, self.outputs)
        if self.channels % self.groups:
            raise ValueError(f"Number of groups must divide the {self.channels} channels, not {self.groups}")

    @property
    def out_height(self) -> int:
        return (self.height + 2 * self.padding - self.kernel[0]) // self.stride + 1

    @property
    def out_width(self) -> int:
        return (self.width + 2 * self.padding - self.kernel[1]) // self.stride + 1

    @property
    def out_pixels(self) -> int:
        return self.out_height * self.out_width

    @property
    def group_channels(self) -> int:
        return self.channels // self.groups

    @property
    def fan_in(self) -> int:
        """Inputs of a neuron."""
        return self.kernel[0] * self.kernel[1] * self.channels

    @property
    def folds(self) -> int:
        """Times that a pixel's inputs are read."""
        return math.ceil(self.outputs / self.parallel)

    @property
    def group_inputs(self) -> int:
        return self.fan_in // self.groups

    UNLOADING = 4
    """Cycles from what is added to a neuron's sum to what is added next, at least: the sum is back in its memory before
    it is read again."""

    @property
    def ends(self) -> int:
        """Among how many ends the elements are shared, which unload them side by side: as few as take no longer than a
        group's inputs. One where a fold has fewer outputs than elements, or fewer inputs than outputs: what several
        ends give at once leaves one by one before the next fold's comes."""
        if self.outputs % self.parallel or self.fan_in < self.parallel:
            return 1
        least = math.ceil(self.parallel / max(self.group_inputs, self.UNLOADING))
        return next(ends for ends in range(least, self.parallel + 1) if self.parallel % ends == 0)

    @property
    def places(self) -> int:
        """Cycles in which each element of an end gives something: as many as it has, or :attr:`UNLOADING`."""
        return max(self.parallel // self.ends, self.UNLOADING)

    @property
    def passes(self) -> int:
        """How often each element gives something behind a group: what it has, one after the other, or all at once where
        that would take longer than the group's inputs."""
        return self.shown if self.shown * self.places <= self.group_inputs else 1

    @property
    def group_cycles(self) -> int:
        """Cycles from a group to the next one: its inputs or, if that takes longer, its results, one by one."""
        return max(self.group_inputs, self.places)

    @property
    def cycles(self) -> int:
        """Cycles an image, if nothing else makes it wait."""
        return self.out_pixels * self.folds * self.groups * self.group_cycles

    @property
    def macs(self) -> int:
        """Multiply-accumulates an image, or what stands for them."""
        return self.out_pixels * self.outputs * self.fan_in

    def words(self, codes: NDArray[np.int64], bits: int) -> tuple[int, ...]:
        """Weights (outputs, fan-in), unsigned codes of so many bits, as words of the memory in the order above, the
        first element's in the lowest bits; elements without an output have weights of 0."""
        missing = self.folds * self.parallel - self.outputs
        codes = np.concatenate([codes.reshape(self.outputs, -1), np.zeros((missing, self.fan_in), dtype=np.int64)])
        grouped = codes.reshape(self.folds, self.parallel, self.groups, self.group_channels, *self.kernel)
        lanes = grouped.transpose(0, 2, 4, 5, 3, 1).reshape(-1, self.parallel)
        words, together = [0] * len(lanes), max(WORD_BITS // bits, 1)
        for first in range(0, self.parallel, together):
            part = lanes[:, first:first + together] << bits * np.arange(min(together, self.parallel - first))
            words = [word | of << first * bits for word, of in zip(words, part.sum(axis=1).tolist(), strict=True)]
        return tuple(words)

    # -- rows in the window's memory

    @cached_property
    def pointwise(self) -> bool:
        """Whether each output reads one pixel only, and each pixel is read. (Of a wider stride the pixels between are
        dropped first: :class:`~bmhw.hdl.network.pixels.Grid`.)"""
        return self.kernel == (1, 1) and self.padding == 0 and self.stride == 1

    @property
    def stored(self) -> tuple[int, int]:
        """(rows, pixels of a row) that the window stores: those of the map; of a pointwise layer its pixels one by one,
        each a row."""
        return (self.out_pixels, 1) if self.pointwise else (self.height, self.width)

    @property
    def output_rows(self) -> int:
        """Rows of outputs, as many as there are times at which rows of the memory become free."""
        return self.out_pixels if self.pointwise else self.out_height

    def oldest_row(self, row: int) -> int:
        """The first row that the outputs from this row on need."""
        if row >= self.output_rows:
            return self.stored[0]
        return row if self.pointwise else max(row * self.stride - self.padding, 0)

    def needed_rows(self, row: int) -> int:
        """How many rows, from the oldest one, must be stored before the outputs of a row begin: those that they read,
        and those that are dropped behind them."""
        if self.pointwise:
            return 1
        end = min(row * self.stride - self.padding + self.kernel[0], self.height)
        return max(end - self.oldest_row(row), self.freed_rows(row))

    def freed_rows(self, row: int) -> int:
        """How many rows nobody needs any more behind the outputs of a row."""
        return self.oldest_row(row + 1) - self.oldest_row(row)

    @cached_property
    def fewest_rows(self) -> int:
        """Rows of memory without which the layer can't work."""
        return max(self.needed_rows(row) for row in range(self.output_rows))

    @cached_property
    def overlapping_rows(self) -> int:
        """Rows of memory with which what comes in is stored while outputs are computed."""
        return max(self.needed_rows(row) + max(self.freed_rows(row), 1) for row in range(self.output_rows))

    # -- the order in which they are read

    @property
    def pitch(self) -> int:
        """Numbers of a row that the window stores."""
        return self.stored[1] * self.channels

    @cached_property
    def loops(self) -> dict[str, tuple[int, int]]:
        """The loops in which inputs are read, the innermost first: (count, how far a step of it moves the address)."""
        return {
            "channel": (self.group_channels, 1),
            "tap_column": (self.kernel[1], self.channels),
            "tap_row": (self.kernel[0], self.pitch),
            "group": (self.groups, self.group_channels),
            "fold": (self.folds, 0),
            "column": (1 if self.pointwise else self.out_width, self.stride * self.channels),
            "row": (self.output_rows, self.stride * self.pitch),
        }

    @property
    def first_address(self) -> int:
        """Of the first input of an image, from its first number on."""
        return -self.padding * (self.pitch + self.channels)

    def address_step(self, loop: str | None = None) -> int:
        """From the last input of all loops within this one to its next input; without a loop to the next image's first
        one."""
        step = 0
        for name, (count, stride) in self.loops.items():
            if name == loop:
                return step + stride
            step -= (count - 1) * stride
        return step + self.stored[0] * self.pitch
