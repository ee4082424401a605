# SPDX-License-Identifier: Apache-2.0
"""What vectors of a bipolar morphological neuron exercise and show at its output, item by item."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from .bm_candidates import Candidates, candidates_of, codes_of, maxima_of
from .bm_outcome import Outcome
from .table_entries import exp2_entries, log2_entries, roundings_of

if TYPE_CHECKING:
    from bmhw.hdl.formats.bm import BmFormat

__all__ = ["Coverage", "Uncovered"]

Integers = NDArray[np.int64]
Booleans = NDArray[np.bool_]

# Low bits of the larger maximum with which every distance is met, up to so wide maxima: a logarithmic end that waits
# for the last two bits has a table for each of their values.
_LAST, _LAST_UP_TO = 2, 9
# With so few distances each is met with each bit of the larger maximum 0 and 1.
_FEW = 100
# Up to so many bits of two maxima, all pairs of them are looked through; up to so many they are all met.
_PAIRED_BITS, _ALL_PAIRS_BITS = 7, 5
# Where a logarithmic end's result lies before it is clamped: below 0, next to it, inside, next to the largest code,
# above.
_PLACES = 7
# More vectors than this only for more inputs: the largest exact tables have so many entries.
_MOST = 4096


@dataclass(frozen=True)
class Uncovered:
    """What no vector has met yet, as values to aim at; ``roundings``: all of a linear end's.

    ``sums``: of each group. ``pairs``: (any, 2) of a logarithmic end's two maxima, where they are few enough to try
    all.
    """

    sums: tuple[Integers, ...]
    magnitudes: Integers
    distances: Integers
    pairs: Integers
    results: Integers
    roundings: Integers


class Coverage:
    """Items, and which of them the vectors chosen so far have met.

    An item counts where the output shows it: the integer model's output changes when the maximum is a step larger
    (or smaller, an item of its own). Items are, for each maximum, the input that wins it alone with each bit of its
    activation and of its weight 0 and 1, each sign, and the digit by which it wins; each entry that log2, exp2 and the
    end read; each distance of two maxima, with the larger one's last bits, and with a result that is clamped, just not
    clamped or in between (logarithmic end); both sides of each rounding, saturation by each bit, negative results
    (linear end); a bias that wins, bit by bit; each bit of a residual. For the trees in which candidates meet: each
    node that two candidates reach with a bit of 1 in common that nobody else has. Where 0 is exact: each candidate that
    only its activation's or its weight's 0 keeps from winning. All of that in each group, which has units of its own.
    """

    def __init__(self, fmt: "BmFormat"):
        self.fmt = fmt
        self.weights = [port for port in fmt.inputs_of if port in ("k", "k1", "k2")]
        self.activation = "x" if fmt.boundary == "neuron" else "c"
        self.activation_bits = fmt.inputs_of[self.activation][0].bits
        self._starts: dict[tuple, int] = {}
        self._sizes: dict[tuple, int] = {}
        self._count = 1  # item 0 stands for none
        self._covered = np.ones(1, dtype=bool)
        self._sums = np.arange(fmt.full_scale + 1)
        self._zeros = fmt.zero == "exact" and fmt.sums == "full"
        if self._zeros:
            self._sums = self._sums[self._sums != 1]  # of two codes one would be 0
        self._magnitudes = np.arange(fmt.x.maximum + 1 if fmt.boundary == "neuron" else 0)
        # every entry is an item from the start, so that it can be aimed at
        if fmt.combine == "linear":
            for table, entries in enumerate(exp2_entries(fmt.exp2_unit, self._sums)):
                self._family(("exp2", table), fmt.groups * 3 * (int(entries.max()) + 1))
        if len(self._magnitudes):
            for table, entries in enumerate(log2_entries(fmt.log2_unit, self._magnitudes)):
                self._family(("log2", table), 2 * (int(entries.max()) + 2))
        self.roundings = np.array([1])
        if fmt.combine == "logarithmic":
            phi = fmt.log_subtract.phi
            # from the last distance that takes something off on they are all alike
            # (in a table of a power of two entries)
            last = int(np.flatnonzero(phi)[-1]) if phi.any() else 1
            self.far = min(1 << (last + 1).bit_length(), fmt.full_scale)
            self.last = _LAST if fmt.maximum_bits <= _LAST_UP_TO else 0
            self._distances = np.arange(0, self.far + 1, 1 << fmt.dropped_bits)
            self._family(("distance",), (self.far + 1) << self.last)
            equal = self._starts["distance",]  # gives 0, whatever the maxima
            self._covered[equal : equal + (1 << self.last)] = True
            self._family(("place",), ((self.far + 1) << self.last) * _PLACES)
            seen = np.arange(0, fmt.full_scale + 1, 1 << fmt.dropped_bits)
            few = len(seen) <= 1 << _PAIRED_BITS
            seen_if_few = seen[: len(seen) * few]
            pairs = np.stack(np.meshgrid(seen_if_few, seen_if_few), axis=-1).reshape(-1, 2)
            self._pairs = pairs[pairs[:, 0] > pairs[:, 1]]
            self._all_pairs = len(seen) <= 1 << _ALL_PAIRS_BITS
            if self._all_pairs:
                self._family(("pair",), len(seen) ** 2)
            if self.far < _FEW:
                for bit in range(fmt.sum_bits - fmt.dropped_bits - self.last):
                    self._family(("bit", bit), ((self.far + 1) << self.last) * 2)
        elif fmt.result == "code":
            self.roundings = roundings_of(fmt)
            self._results = np.arange((1 << fmt.end_log2.bits) + 1)
            for table, entries in enumerate(log2_entries(fmt.end_log2, self._results)):
                self._family(("end", table), int(entries.max()) + 1)
            self._family(("rounding",), 2 * len(self.roundings))

    def _family(self, key: tuple, size: int) -> int:
        """The first item of a family, which is made when it is first asked for."""
        if key not in self._starts:
            self._starts[key], self._sizes[key] = self._count, size
            self._count += size
            self._covered = np.concatenate([self._covered, np.zeros(size, dtype=bool)])
        return self._starts[key]

    def _missing(self, key: tuple, size: int) -> Booleans:
        start = self._starts[key]
        return ~self._covered[start : start + size]

    @property
    def needed(self) -> int:
        """How many vectors meet nearly every item: each input wins each maximum some times, each entry is read."""
        fmt = self.fmt
        maxima = len(fmt.branches)
        most = max(fmt.candidates)
        each = [min(10 * most, max(640, 3 * most))]
        entries = dict.fromkeys(("exp2", "log2", "end"), 0)
        for (family, *_), size in self._sizes.items():
            if family in entries:
                entries[family] += size
        if fmt.combine == "linear":
            each.append(entries["exp2"] // fmt.groups // 3 * (2 if fmt.result == "code" else 1) // maxima)
        else:
            # (few distances: several times, since the last bits select among planes that are joined by OR)
            entries_met = ((self.far + 1) >> fmt.dropped_bits) << self.last
            each.append(entries_met * 3 if self.far < _FEW else entries_met)
            each.append(len(self._pairs) * self._all_pairs)
        each.append(entries["log2"] // maxima)
        each.append(entries["end"] + 2 * len(self.roundings))
        # a draft does not always reach what it aims at, and some serve something else
        return max(each[0], min(_MOST, max(each) * 5 // 4))

    def uncovered(self) -> Uncovered:
        fmt = self.fmt

        def of(family: str, values: Integers, entries: tuple[Integers, ...], each: int, groups: int = 1,
               ) -> tuple[Integers, ...]:
            """The values that read an entry which is still missing, of each of so many groups."""
            if not len(values):
                return (values,) * groups
            new = np.zeros((groups, len(values)), dtype=bool)
            for table, entry in enumerate(entries):
                missing = self._missing((family, table), self._sizes[family, table]).reshape(groups, -1, each)
                new |= missing.any(axis=2)[:, entry]
            return tuple(values[row] for row in new)

        sums = (self._sums[:0],) * fmt.groups
        if fmt.combine == "linear":
            sums = of("exp2", self._sums, exp2_entries(fmt.exp2_unit, self._sums), 3, fmt.groups)
        (magnitudes,) = of("log2", self._magnitudes, log2_entries(fmt.log2_unit, self._magnitudes), 2)
        distances = results = np.array([], dtype=np.int64)
        pairs = np.zeros((0, 2), dtype=np.int64)
        if fmt.combine == "logarithmic":
            missing = self._missing(("distance",), (self.far + 1) << self.last).reshape(-1, 1 << self.last)
            missing = missing[self._distances]
            # half of the choice is left to those that were not met at all
            distances = self._distances[missing.any(axis=1)]
            never = self._distances[missing.all(axis=1)]
            new = np.zeros(len(self._pairs), dtype=bool)
            for key, index in self._distance_items(*self._pairs.T)[2].items():
                new |= self._missing(key, self._sizes[key])[index]
            pairs = self._pairs[new]
            distances = np.concatenate([distances, np.resize(never, len(distances) * (len(never) > 0))])
        elif fmt.result == "code":
            (entries,) = of("end", self._results, log2_entries(fmt.end_log2, self._results), 1)
            entries = entries << fmt.end_shift
            missing = self._missing(("rounding",), 2 * len(self.roundings)).reshape(-1, 2)
            results = np.concatenate([entries[entries > 0], self.roundings[missing[:, 0]] - 1,
                                      self.roundings[missing[:, 1]]])
        return Uncovered(sums, magnitudes, distances, pairs, results, self.roundings)

    def choose(self, inputs: dict[str, Integers], drafts: int) -> Integers:
        """Of each ``drafts`` rows the one that covers most that is new; these are covered from now on."""
        rows = len(next(iter(inputs.values())))
        items = np.concatenate([column.reshape(rows, -1) for column in self._items(inputs)], axis=1)
        chosen = []
        for start in range(0, len(items), drafts):
            new = (~self._covered[items[start : start + drafts]]).sum(axis=1)
            chosen.append(start + int(new.argmax()))
            self._covered[items[chosen[-1]]] = True
        return np.array(chosen)

    def _items(self, inputs: dict[str, Integers]) -> Iterator[Integers]:
        """Items, or 0 for none: arrays of shape (vectors,) or (vectors, groups)."""
        fmt = self.fmt
        codes, negative = codes_of(fmt, inputs)
        maxima = maxima_of(fmt, inputs)
        outcome = Outcome(fmt, inputs, maxima)
        # the first input of each group
        first = np.arange(0, fmt.inputs, fmt.group_inputs)

        def item(key: tuple, size: int, index: Integers, valid: Booleans) -> Integers:
            start = self._family(key, size)
            return np.where(valid, start + index, 0)

        for branch, candidates in enumerate(candidates_of(fmt, inputs)):
            down, up = outcome.shown[branch]
            w = branch % len(self.weights)
            entered = np.where(candidates.enter, candidates.sums, -1)
            winner, best = _take_largest(entered)
            follower, second = _take_largest(entered)
            second = np.maximum(second, 0)
            third = np.maximum(entered.max(axis=2), 0) >> fmt.dropped_bits
            if fmt.combine == "logarithmic":
                second = np.maximum(second, inputs[f"bias{branch + 1}"][:, np.newaxis])
            best_seen, second_seen = best >> fmt.dropped_bits, second >> fmt.dropped_bits
            alone = best_seen > second_seen
            place = first + winner

            # by which digit: 0 for a tie
            digit = _bit_length(np.maximum(best_seen, 0) ^ second_seen)
            digits = fmt.maximum_bits + 1
            adverse = (second_seen >> np.maximum(digit - 2, 0) & 1) == 1
            index = (place * digits + digit) * 2 + adverse
            valid = down & (best_seen >= second_seen) & (best >= 0)
            yield item(("digit", branch), fmt.inputs * digits * 2, index, valid)

            # where the two meet in a tree, with bits that they have in common and the third has not
            level = np.maximum(_bit_length(winner ^ follower), 1)
            nodes = 1 << max(fmt.group_inputs - 1, 1).bit_length()
            node = np.arange(fmt.groups) * nodes + (nodes >> level) + (winner >> level)
            met = down & (second_seen > third)
            for bit in range(fmt.maximum_bits):
                common = (best_seen ^ second_seen) >> bit == 0
                valid = met & common & (best_seen >> bit & 1 == 1) & ((best_seen ^ third) >> bit > 0)
                index = node * fmt.maximum_bits + bit
                yield item(("node", branch), fmt.groups * nodes * fmt.maximum_bits, index, valid)

            code = np.take_along_axis(codes, place, axis=1)
            weight = np.take_along_axis(inputs[self.weights[w]], place, axis=1)
            raw = code + weight - fmt.sum_origin
            for bit in range(fmt.weight_bits):
                value = weight >> bit & 1
                seen = raw + np.where(value == 1, -1, 1) * (1 << bit) >> fmt.dropped_bits
                valid = alone & np.where(value == 1, down & (seen < best_seen), up & (seen > best_seen))
                index = (place * fmt.weight_bits + bit) * 2 + value
                yield item(("weight", branch), fmt.inputs * fmt.weight_bits * 2, index, valid)
            activation = np.take_along_axis(inputs[self.activation], place, axis=1)
            for bit in range(self.activation_bits):
                value = activation >> bit & 1
                if self.activation == "c":
                    other = code ^ (1 << bit)
                else:
                    flipped = activation ^ (1 << bit)
                    if fmt.signed_inputs and bit == self.activation_bits - 1:
                        flipped = activation
                    other = fmt.log2_unit.compute(np.abs(flipped))
                seen = other + weight - fmt.sum_origin >> fmt.dropped_bits
                valid = alone & np.where(seen < best_seen, down, up) & (seen != best_seen)
                index = (place * self.activation_bits + bit) * 2 + value
                yield item(("activation", branch), fmt.inputs * self.activation_bits * 2, index, valid)
            if fmt.layout == "signed" or fmt.signed_inputs:
                sign = np.take_along_axis(inputs["sign"], place, axis=1) if "sign" in inputs else 0
                index = place * 4 + sign * 2 + np.take_along_axis(negative, place, axis=1)
                yield item(("sign", branch), fmt.inputs * 4, index, alone & down)
            if self._zeros:
                yield item(("zero", branch), fmt.inputs * 2, *self._left_out(branch, candidates, codes, best, outcome))
            if self.activation == "x":
                magnitude = np.abs(activation)
                for table, entry in enumerate(log2_entries(fmt.log2_unit, magnitude)):
                    size = self._sizes["log2", table]
                    yield item(("log2", table), size, entry * 2, alone & down)
                    yield item(("log2", table), size, entry * 2 + 1, alone & up)
            if fmt.combine == "linear":
                for table, entry in enumerate(exp2_entries(fmt.exp2_unit, maxima[branch])):
                    size = self._sizes["exp2", table]
                    index = np.arange(fmt.groups) * (size // fmt.groups) + entry * 3
                    yield item(("exp2", table), size, index, entry >= 0)
                    for unit, visible in enumerate(outcome.units, 1):
                        yield item(("exp2", table), size, index + unit, visible[:, np.newaxis])
            else:
                bias = inputs[f"bias{branch + 1}"][:, np.newaxis]
                wins = bias >> fmt.dropped_bits > np.maximum(maxima[branch] >> fmt.dropped_bits, 0)
                for bit in range(fmt.dropped_bits, fmt.sum_bits):
                    value = bias >> bit & 1
                    valid = wins & np.where(value == 1, down, up)
                    yield item(("bias", branch), fmt.sum_bits * 2, bit * 2 + value, valid)
        yield from self._end_items(item, inputs, outcome)

    def _left_out(self, branch: int, candidates: Candidates, codes: Integers, best: Integers,
                  outcome: Outcome) -> tuple[Integers, Booleans]:
        """Which candidate would win if 0 weren't exact, and by whose 0; whether that would show."""
        place, largest = _take_largest(np.where(candidates.left_out, candidates.sums, -1))
        place = place + np.arange(0, self.fmt.inputs, self.fmt.group_inputs)
        seen = np.maximum(np.maximum(largest, best), 0) & -(1 << self.fmt.dropped_bits)
        valid = outcome.would_show(branch, seen) & (largest > best)
        return place * 2 + (np.take_along_axis(codes, place, axis=1) == 0), valid

    def _end_items(self, item, inputs: dict[str, Integers], outcome: Outcome) -> Iterator[Integers]:
        fmt, output = self.fmt, outcome.output
        _, code = fmt.output
        for bit in range(code.bits):
            yield item(("output",), code.bits * 2, bit * 2 + (output >> bit & 1), np.ones(len(output), dtype=bool))
        for bit in range(fmt.residual_bits):
            value = inputs["r"] >> bit & 1
            change = (1 - 2 * value) * (-1 if bit == fmt.residual_bits - 1 else 1) << bit
            yield item(("residual",), fmt.residual_bits * 2, bit * 2 + value,
                       outcome.of_linear(outcome.y + change) != output)
        if fmt.combine == "logarithmic":
            first, second = (maximum[:, 0] for maximum in outcome.maxima)
            distance, last, rest = self._distance_items(first, second)
            down, up = (shown[:, 0] for shown in outcome.shown[0])
            yield item(("distance",), (self.far + 1) << self.last, (distance << self.last) + last, down & up)
            for key, index in rest.items():
                yield item(key, self._sizes[key], index, first > second)
            end = fmt.log_subtract
            # the other way round nothing is left, though there would be without the comparison
            reverse = np.minimum(second - first, self.far)
            yield item(("reverse",), self.far + 1, reverse, (reverse >= 0) & (first - end.origin + end.offset > 0))
        elif fmt.result == "code":
            y = outcome.y
            everywhere = np.ones(len(y), dtype=bool)
            over = y >> fmt.out_fraction
            yield item(("over",), 1 << fmt.y.bits - fmt.out_fraction, np.maximum(over, 0), everywhere & (over > 0))
            yield item(("under",), fmt.y.bits + 1, _bit_length(np.maximum(-y, 0)), y < 0)
            seen = np.clip(y, 0, fmt.end.full_scale) >> fmt.end_shift
            for table, entry in enumerate(log2_entries(fmt.end_log2, seen)):
                yield item(("end", table), self._sizes["end", table], entry, y > 0)
            behind = np.searchsorted(self.roundings, y, side="right")
            place = np.clip(behind - 1, 0, len(self.roundings) - 1)
            size = 2 * len(self.roundings)
            yield item(("rounding",), size, place * 2 + 1, y == self.roundings[place])
            place = np.clip(behind, 0, len(self.roundings) - 1)
            yield item(("rounding",), size, place * 2, y == self.roundings[place] - 1)

    def _distance_items(self, first: Integers, second: Integers) -> tuple[Integers, Integers, dict[tuple, Integers]]:
        """The distance, the larger maximum's last bits, and places in the families that tell more of both."""
        fmt, end = self.fmt, self.fmt.log_subtract
        distance = np.clip(first - second, 0, self.far)
        last = first >> fmt.dropped_bits & ((1 << self.last) - 1)
        z = first - end.phi[distance] - end.origin + end.offset
        largest = end.log.maximum
        place = np.searchsorted([-1, 0, 1, largest, largest + 1, largest + 2], z, side="right")
        met = (distance << self.last) + last
        items: dict[tuple, Integers] = {("place",): met * _PLACES + place}
        if self._all_pairs:
            items["pair",] = (first >> fmt.dropped_bits) * ((fmt.full_scale >> fmt.dropped_bits) + 1) + (
                second >> fmt.dropped_bits)
        if self.far < _FEW:
            above = fmt.sum_bits - fmt.dropped_bits - self.last
            for bit in range(above):
                value = first >> (fmt.dropped_bits + self.last + bit) & 1
                items["bit", bit] = met * 2 + value
        return distance, last, items


def _take_largest(sums: Integers) -> tuple[Integers, Integers]:
    """Where the largest of the last axis is, and what it is; -1 is left in its place."""
    place = sums.argmax(axis=-1)[..., np.newaxis]
    largest = np.take_along_axis(sums, place, axis=-1)
    np.put_along_axis(sums, place, -1, axis=-1)
    return place[..., 0], largest[..., 0]


def _bit_length(values: Integers) -> Integers:
    return np.frexp(values.astype(np.float64))[1].astype(np.int64)
