# SPDX-License-Identifier: Apache-2.0
"""Inputs of one group of a bipolar morphological neuron: who wins its maxima, and by which digit."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from .bm_coverage import Uncovered

if TYPE_CHECKING:
    from bmhw.hdl.formats.bm import BmFormat

__all__ = ["ANYWHERE", "GroupDrafting"]

Integers = NDArray[np.int64]
Inputs = dict[str, Integers]

ANYWHERE = 2
"""The level of a group whose result may be any."""


class GroupDrafting:
    """Random inputs of one group of a neuron, with given winners.

    Parameters: ``fmt``: the format of a neuron that has these inputs alone, in one group; ``generator``.
    """

    def __init__(self, fmt: "BmFormat", generator: np.random.Generator):
        self.fmt, self.random = fmt, generator
        self.weights = [port for port in fmt.inputs_of if port in ("k", "k1", "k2")]
        self.sides = len(fmt.branches) // len(self.weights)
        # what a side of the neuron accepts: magnitudes of linear inputs, in the order of their codes
        magnitudes = fmt.x.maximum + 1 if fmt.boundary == "neuron" else fmt.activation.maximum + 1
        self.codes = np.arange(magnitudes)
        if fmt.boundary == "neuron":
            self.codes = fmt.log2_unit.compute(self.codes)

    def draft(self, winners: Integers, uncovered: Uncovered, levels: Integers) -> Inputs:
        """A vector a row of ``winners`` (rows, maxima), and the biases of a logarithmic end.

        ``uncovered``: what this group is to meet. ``levels`` (rows,): 1 where the result is to be large, -1 where far
        below 0, 0 where small, :data:`ANYWHERE` elsewhere.
        """
        fmt, rows, n = self.fmt, len(winners), self.fmt.inputs
        row = np.arange(rows)
        side = self._sides(winners).copy()
        sums = self._at_levels(self._sums(rows, uncovered), levels)
        zeroed = self._zeroed(winners)
        sums = np.where(zeroed.any(axis=1, keepdims=True), sums >> 1, sums)
        biases, sums = self._biases(sums)
        kind = self.random.random(rows)
        crowded = kind < 0.35
        partners = self._partners(winners, side, kind > 0.6)
        magnitude = np.zeros((rows, n), dtype=np.int64)
        weights = np.zeros((len(self.weights), rows, n), dtype=np.int64)
        # the others: below the winner of each maximum of their side
        limits = np.stack([self._below(sums[row[:, np.newaxis], side * len(self.weights) + w], crowded)
                           for w in range(len(self.weights))])
        for branch, partner in enumerate(partners.T):
            wanted = sums[:, branch]
            close = np.where(self.random.random(rows) < 0.6, wanted, self._below(wanted, np.ones(rows, dtype=bool)))
            place = limits[branch % len(self.weights)]
            place[row, partner] = np.where(partner != winners[:, branch], close, place[row, partner])
        least, most = limits.min(axis=0), limits.max(axis=0)
        magnitude = self._magnitudes(most + fmt.sum_origin - fmt.weight.maximum, least + fmt.sum_origin)
        for w, limit in enumerate(limits):
            weights[w] = limit + fmt.sum_origin - self.codes[magnitude]
        # then the winners; one of both maxima of a side has one magnitude, and the weights follow
        for branch in range(winners.shape[1]):
            w, winner, wanted = branch % len(self.weights), winners[:, branch], sums[:, branch]
            own = side[row, winner] == branch // len(self.weights)
            low, high = wanted + fmt.sum_origin - fmt.weight.maximum, wanted + fmt.sum_origin
            if fmt.zero == "exact":  # codes of 0 don't win
                chosen = self._magnitudes(np.maximum(low, 1), high - 1, uncovered.magnitudes)
            else:
                chosen = self._magnitudes(low, high, uncovered.magnitudes)
            chosen = np.where(own, chosen, magnitude[row, winner])
            change = self.codes[chosen] - self.codes[magnitude[row, winner]]
            magnitude[row, winner] = chosen
            for other in range(len(self.weights)):
                weights[other, row, winner] -= change
            weights[w, row, winner] = np.where(own, high - self.codes[chosen], weights[w, row, winner])
        weights = np.clip(weights, 0, fmt.weight.maximum)
        self._set_zeros(zeroed, magnitude, weights)
        return self._ports(magnitude, side, weights) | biases

    def _zeroed(self, winners: Integers) -> NDArray[np.bool_]:
        """Which inputs get a code of 0 beside a large one, which a mask keeps from winning: shape (rows, n)."""
        rows, n = len(winners), self.fmt.inputs
        if self.fmt.zero != "exact" or self.fmt.sums != "full":
            return np.zeros((rows, n), dtype=bool)
        zeroed = self.random.random((rows, n)) < np.where(self.random.random((rows, 1)) < 0.4, 3 / n, 0)
        spared = self.random.random(rows) < 0.75
        wins = (winners[:, np.newaxis] == np.arange(n)[:, np.newaxis]).any(axis=2)
        return zeroed & ~(wins & spared[:, np.newaxis])

    def _set_zeros(self, zeroed: NDArray[np.bool_], magnitude: Integers, weights: Integers) -> None:
        """Set the codes of these inputs: of the activation 0 and of the weights large, or the other way round."""
        place = np.nonzero(zeroed)
        count, most = len(place[0]), self.fmt.weight.maximum
        if not count:
            return
        of_activation = self.random.integers(0, 2, count) == 1
        large = len(self.codes) - 1 - (self.random.random(count) * (len(self.codes) >> 2)).astype(np.int64)
        magnitude[place] = np.where(of_activation, 0, large)
        for weight in weights:
            large = most - (self.random.random(count) * (most >> 2)).astype(np.int64)
            weight[place] = np.where(of_activation, large, 0)

    def _at_levels(self, sums: Integers, levels: Integers) -> Integers:
        """The sums, those of the rows that have a level changed to it."""
        fmt = self.fmt
        if (levels == ANYWHERE).all():
            return sums
        loud = fmt.full_scale - self.random.integers(0, min(2 << fmt.log_fraction, fmt.full_scale) + 1, sums.shape)
        quiet = (sums * self.random.random(sums.shape)).astype(np.int64)
        signs, level = np.array(fmt.branches), levels[:, np.newaxis]
        sums = np.where(level == ANYWHERE, sums, np.where(level == signs, loud, quiet))
        if len(self.weights) == 2:  # of a side: they differ by a weight at most
            first = sums[:, ::2]
            sums[:, 1::2] = np.clip(sums[:, 1::2], first - fmt.weight.maximum, first + fmt.weight.maximum)
        return sums

    def _sides(self, winners: Integers) -> Integers:
        """The side of each input, shape (rows, n): which maxima it may win."""
        rows, n = len(winners), self.fmt.inputs
        if self.sides == 1:
            return np.zeros((rows, n), dtype=np.int64)
        if self.fmt.layout == "wired":
            return np.broadcast_to((np.arange(n) >= self.fmt.positive_inputs).astype(np.int64), (rows, n))
        # mostly of both sides; at times all but the winner on one
        side = self.random.integers(0, 2, (rows, n))
        side = np.where(self.random.random((rows, 1)) < 0.1, self.random.integers(0, 2, (rows, 1)), side)
        order = self.random.permutation(winners.shape[1])
        for branch in order:
            side[np.arange(rows), winners[:, branch]] = branch // len(self.weights)
        return side

    def _partners(self, winners: Integers, side: Integers, paired: NDArray[np.bool_]) -> Integers:
        """In ``paired`` rows another input close to each winner, its place different in one bit (for a tree's nodes).

        Shape (rows, maxima); the winner itself where there is none. Moves the partner to the winner's ``side``.
        """
        rows, n = np.arange(len(winners)), self.fmt.inputs
        partners = winners ^ (1 << self.random.integers(0, max(n - 1, 1).bit_length(), winners.shape))
        partners = np.where(paired[:, np.newaxis] & (partners < n), partners, winners)
        for branch in range(winners.shape[1]):
            partner, own = partners[:, branch], branch // len(self.weights)
            taken = (winners == partner[:, np.newaxis]).any(axis=1)
            if self.fmt.layout == "wired":
                taken |= side[rows, partner] != own
            partners[:, branch] = partner = np.where(taken, winners[:, branch], partner)
            if self.fmt.layout != "wired" and self.sides == 2:
                side[rows, partner] = np.where(taken, side[rows, partner], own)
        return partners

    def _sums(self, rows: int, uncovered: Uncovered) -> Integers:
        """The wanted sum of each maximum, shape (rows, maxima)."""
        fmt = self.fmt
        branches = len(fmt.branches)
        sums = self.random.integers(0, fmt.full_scale + 1, (rows, branches))
        if len(self.weights) == 2:
            # the maxima of a side share their inputs' codes: they differ by a weight at most
            low = np.maximum(sums[:, ::2] - fmt.weight.maximum, 0)
            high = np.minimum(sums[:, ::2] + fmt.weight.maximum, fmt.full_scale)
            sums[:, 1::2] = low + (self.random.random(low.shape) * (high - low + 1)).astype(np.int64)
        if len(uncovered.sums[0]):
            new = self.random.random((rows, branches)) < 0.7
            wanted = uncovered.sums[0][self.random.integers(0, len(uncovered.sums[0]), (rows, branches))]
            first = np.where(new, wanted, sums)
            if len(self.weights) == 2:
                low = np.maximum(first[:, ::2] - fmt.weight.maximum, 0)
                high = np.minimum(first[:, ::2] + fmt.weight.maximum, fmt.full_scale)
                begin = np.searchsorted(uncovered.sums[0], low)
                end = np.searchsorted(uncovered.sums[0], high, side="right")
                index = begin + (self.random.random(low.shape) * (end - begin)).astype(np.int64)
                near = uncovered.sums[0][np.minimum(index, len(uncovered.sums[0]) - 1)]
                anywhere = low + (self.random.random(low.shape) * (high - low + 1)).astype(np.int64)
                first[:, 1::2] = np.where(new[:, 1::2] & (end > begin), near, anywhere)
            sums = first
        if fmt.combine == "linear":
            return sums
        end, step = fmt.log_subtract, 1 << fmt.dropped_bits
        distance = self.random.integers(1, len(end.phi), rows) >> self.random.integers(0, fmt.sum_bits, rows)
        often = min(2 * int((end.phi > 0).sum()) + 2, len(end.phi) - 1)
        distance = np.where(self.random.random(rows) < 0.5, distance, self.random.integers(1, often + 1, rows))
        if len(uncovered.distances):
            wanted = uncovered.distances[self.random.integers(0, len(uncovered.distances), rows)]
            distance = np.where(self.random.random(rows) < 0.8, wanted, distance)
        distance = np.clip(distance // step * step, 0, fmt.full_scale)
        # where z neither is 0 nor saturates, mostly
        low = np.maximum(end.phi[distance] + end.origin - end.offset, distance)
        high = np.minimum(low + end.log.maximum, fmt.full_scale)
        low = np.minimum(low, high)
        first = low + (self.random.random(rows) * (high - low + 1)).astype(np.int64)
        # otherwise where it just is or is not, or anywhere
        edge = np.where(self.random.random(rows) < 0.7, low, high) + self.random.integers(-2, 3, rows)
        kind = self.random.random(rows)
        first = np.select([kind < 0.55, kind < 0.92], [first, edge], sums[:, 0])
        sums[:, 0] = np.clip(np.maximum(first, distance), 0, fmt.full_scale)
        shift = self.random.integers(3, fmt.sum_bits + 4, rows)
        other = sums[:, 0] + (self.random.integers(0, 8 << fmt.sum_bits, rows) >> shift) * step
        reverse = self.random.random(rows) < 0.12
        sums[:, 1] = np.clip(np.where(reverse, other, sums[:, 0] - distance), 0, fmt.full_scale)
        if len(uncovered.pairs):
            pairs = uncovered.pairs[self.random.integers(0, len(uncovered.pairs), rows)]
            sums = np.where(self.random.random((rows, 1)) < 0.5, pairs, sums)
        return sums

    def _below(self, sums: Integers, crowded: NDArray[np.bool_]) -> Integers:
        """Sums up to ``sums``, most of them lower; close ones in ``crowded`` rows. May be negative (masked)."""
        fmt, shape = self.fmt, sums.shape
        dropped = fmt.dropped_bits
        seen = sums >> dropped
        bit = self.random.integers(0, fmt.maximum_bits, shape)
        lost = (seen >> bit & 1) == 1
        rest = np.where(self.random.random(shape) < 0.5, (1 << bit) - 1,
                        self.random.integers(0, 1 << fmt.maximum_bits, shape) & ((1 << bit) - 1))
        digit = np.where(lost, (seen >> bit >> 1 << 1 << bit) + rest, seen - 1)
        anywhere = (self.random.random(shape) * np.maximum(seen, 1)).astype(np.int64)
        masked = -1 - (self.random.random(shape) * (fmt.sum_origin + 1)).astype(np.int64) >> dropped
        kind = self.random.random(shape)
        close = np.select([kind < 0.08, kind < 0.25, kind < 0.6, kind < 0.9], [seen, seen - 1, digit, anywhere], masked)
        far = np.where(kind < 0.85, anywhere, masked)
        value = np.where(crowded.reshape(-1, *(1,) * (len(shape) - 1)), close, far)
        return (value << dropped) + self.random.integers(0, 1 << dropped, shape)

    def _magnitudes(self, low: Integers, high: Integers, wanted: Integers | None = None) -> Integers:
        """Magnitudes with codes from ``low`` to ``high`` where there are such; of ``wanted`` ones if any are."""
        first = np.searchsorted(self.codes, low, side="left")
        last = np.searchsorted(self.codes, high, side="right") - 1
        first = np.clip(first, 0, len(self.codes) - 1)
        last = np.maximum(last, 0)
        # where no code lies between, the one right below, so that the sum stays low
        first = np.minimum(first, last)
        value = first + (self.random.random(low.shape) * (last - first + 1)).astype(np.int64)
        if wanted is not None and len(wanted):
            begin, end = np.searchsorted(wanted, first), np.searchsorted(wanted, last, side="right")
            index = begin + (self.random.random(low.shape) * (end - begin)).astype(np.int64)
            some = (end > begin) & (self.random.random(low.shape) < 0.7)
            value = np.where(some, wanted[np.minimum(index, len(wanted) - 1)], value)
        return value

    def _ports(self, magnitude: Integers, side: Integers, weights: Integers) -> Inputs:
        fmt = self.fmt
        negative = np.zeros_like(side)
        if fmt.layout == "bipolar":
            negative = side
        elif fmt.layout == "signed" and fmt.signed_inputs:
            negative = self.random.integers(0, 2, side.shape)
        result = dict(zip(self.weights, weights, strict=True))
        if fmt.boundary == "neuron":
            # the most negative input is one more than the largest
            full = negative * (magnitude == fmt.x.maximum) * self.random.integers(0, 2, side.shape)
            result["x"] = np.where(negative == 1, -(magnitude + full), magnitude)
            if fmt.signed_inputs:
                negative = (result["x"] < 0).astype(np.int64)
        else:
            result["c"] = magnitude
            if fmt.signed_inputs:
                result["negative"] = negative
        if fmt.layout == "signed":
            result["sign"] = side ^ negative
        return result

    def _biases(self, sums: Integers) -> tuple[Inputs, Integers]:
        """Of a logarithmic end: the biases, and what the inputs are to reach. A bias wins a quarter of the time."""
        if self.fmt.combine == "linear":
            return {}, sums
        wins = self.random.random(sums.shape) < 0.25
        lower = np.clip(self._below(sums, self.random.random(len(sums)) < 0.5), 0, self.fmt.full_scale)
        lower = np.where(self.random.random(sums.shape) < 0.4, 0, lower)
        biases, reached = np.where(wins, sums, lower), np.where(wins, lower, sums)
        return {"bias1": biases[:, 0], "bias2": biases[:, 1]}, reached
