# SPDX-License-Identifier: Apache-2.0
"""What vectors of a bipolar morphological neuron exercise and show at its output, item by item."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from .table_entries import exp2_entries, log2_entries, roundings_of

if TYPE_CHECKING:
    from ..hdl.neuron_formats import BmFormat

__all__ = ["Coverage", "Uncovered", "maxima_of"]

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


def maxima_of(fmt: "BmFormat", inputs: dict[str, Integers]) -> list[Integers]:
    """The maxima, before any bias."""
    codes, negative = _codes(fmt, inputs)
    return fmt.maxima(codes, negative, **{port: inputs[port] for port in inputs if port in ("k", "k1", "k2", "sign")})


def _codes(fmt: "BmFormat", inputs: dict[str, Integers]) -> tuple[Integers, Booleans]:
    if fmt.boundary == "neuron":
        return fmt.log_codes(inputs["x"])
    return inputs["c"], np.broadcast_to(np.equal(inputs.get("negative", 0), 1), inputs["c"].shape)


@dataclass(frozen=True)
class Uncovered:
    """What no vector has met yet, as values to aim at; ``roundings``: all of a linear end's.

    ``pairs``: (any, 2) of a logarithmic end's two maxima, where they are few enough to try all.
    """

    sums: Integers
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
    (linear end); a bias that wins, bit by bit. For the trees in which candidates meet: each node that two candidates
    reach with a bit of 1 in common that nobody else has.
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
        self._magnitudes = np.arange(fmt.x.maximum + 1 if fmt.boundary == "neuron" else 0)
        # every entry is an item from the start, so that it can be aimed at
        if fmt.combine == "linear":
            for table, entries in enumerate(exp2_entries(fmt.exp2_unit, self._sums)):
                self._family(("exp2", table), 3 * (int(entries.max()) + 1))
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
            each.append(entries["exp2"] // 3 * (2 if fmt.result == "code" else 1) // maxima)
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

        def of(family: str, values: Integers, entries: tuple[Integers, ...], each: int) -> Integers:
            if not len(values):
                return values
            new = np.zeros(len(values), dtype=bool)
            for table, entry in enumerate(entries):
                missing = self._missing((family, table), self._sizes[family, table]).reshape(-1, each).any(axis=1)
                new |= missing[entry]
            return values[new]

        sums = self._sums[:0]
        if fmt.combine == "linear":
            sums = of("exp2", self._sums, exp2_entries(fmt.exp2_unit, self._sums), 3)
        magnitudes = of("log2", self._magnitudes, log2_entries(fmt.log2_unit, self._magnitudes), 2)
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
            entries = of("end", self._results, log2_entries(fmt.end_log2, self._results), 1) << fmt.end_shift
            missing = self._missing(("rounding",), 2 * len(self.roundings)).reshape(-1, 2)
            results = np.concatenate([entries[entries > 0], self.roundings[missing[:, 0]] - 1,
                                      self.roundings[missing[:, 1]]])
        return Uncovered(sums, magnitudes, distances, pairs, results, self.roundings)

    def choose(self, inputs: dict[str, Integers], drafts: int) -> Integers:
        """Of each ``drafts`` rows the one that covers most that is new; these are covered from now on."""
        items = np.stack(list(self._items(inputs)), axis=1)
        chosen = []
        for start in range(0, len(items), drafts):
            new = (~self._covered[items[start : start + drafts]]).sum(axis=1)
            chosen.append(start + int(new.argmax()))
            self._covered[items[chosen[-1]]] = True
        return np.array(chosen)

    def _items(self, inputs: dict[str, Integers]) -> Iterator[Integers]:
        """Columns of items, one item or 0 for each vector."""
        fmt, rows = self.fmt, len(next(iter(inputs.values())))
        row, step = np.arange(rows), 1 << fmt.dropped_bits
        codes, negative = _codes(fmt, inputs)
        maxima = maxima_of(fmt, inputs)
        biases = {port: inputs[port] for port in ("bias", "bias1", "bias2") if port in inputs}
        output = fmt.combined(maxima, **biases)

        def item(key: tuple, size: int, index: Integers, valid: Booleans) -> Integers:
            start = self._family(key, size)
            return np.where(valid, start + index, 0)

        final = list(maxima)
        if fmt.combine == "logarithmic":
            cleared = [inputs[port] & -step for port in ("bias1", "bias2")]
            final = [np.maximum(m, bias) for m, bias in zip(maxima, cleared, strict=True)]
        shown = []
        for branch, maximum in enumerate(final):
            both = []
            for change in (-step, step):
                changed = list(final)
                changed[branch] = np.clip(maximum + change, 0, fmt.full_scale)
                if fmt.combine == "logarithmic":
                    other = fmt.log_subtract.compute(*changed)
                else:
                    other = fmt.combined(changed, **biases)
                both.append(other != output)
            shown.append(both)

        units = []  # whether one unit less, or one more, of an exponential shows
        if fmt.combine == "linear":
            for change in (-1, 1):
                bias = np.clip(inputs["bias"] + change, fmt.bias.minimum, fmt.bias.maximum)
                units.append(fmt.combined(final, bias=bias) != output)

        sums, enters = self._candidates(inputs, codes, negative)
        for branch, (candidates, enter) in enumerate(zip(sums, enters, strict=True)):
            down, up = shown[branch]
            w = branch % len(self.weights)
            entered = np.where(enter, candidates, -1)
            winner = entered.argmax(axis=1)
            best = entered[row, winner]
            entered[row, winner] = -1
            follower = entered.argmax(axis=1)
            second = np.maximum(entered[row, follower], 0)
            entered[row, follower] = -1
            third = np.maximum(entered.max(axis=1), 0) >> fmt.dropped_bits
            if fmt.combine == "logarithmic":
                second = np.maximum(second, inputs[f"bias{branch + 1}"])
            best_seen, second_seen = best >> fmt.dropped_bits, second >> fmt.dropped_bits
            alone = best_seen > second_seen

            # by which digit: 0 for a tie
            digit = _bit_length(np.maximum(best_seen, 0) ^ second_seen)
            digits = fmt.maximum_bits + 1
            adverse = (second_seen >> np.maximum(digit - 2, 0) & 1) == 1
            index = (winner * digits + digit) * 2 + adverse
            valid = down & (best_seen >= second_seen) & (best >= 0)
            yield item(("digit", branch), fmt.inputs * digits * 2, index, valid)

            # where the two meet in a tree, with bits that they have in common and the third has not
            level = np.maximum(_bit_length(winner ^ follower), 1)
            node = (1 << max(fmt.inputs - 1, 1).bit_length() - level) + (winner >> level)
            met = down & (second_seen > third)
            for bit in range(fmt.maximum_bits):
                common = (best_seen ^ second_seen) >> bit == 0
                valid = met & common & (best_seen >> bit & 1 == 1) & ((best_seen ^ third) >> bit > 0)
                index = node * fmt.maximum_bits + bit
                yield item(("node", branch), fmt.maximum_bits << max(fmt.inputs - 1, 1).bit_length(), index, valid)

            code = codes[row, winner]
            weight = inputs[self.weights[w]][row, winner]
            raw = code + weight - fmt.sum_origin
            for bit in range(fmt.weight_bits):
                value = weight >> bit & 1
                seen = raw + np.where(value == 1, -1, 1) * (1 << bit) >> fmt.dropped_bits
                valid = alone & np.where(value == 1, down & (seen < best_seen), up & (seen > best_seen))
                index = (winner * fmt.weight_bits + bit) * 2 + value
                yield item(("weight", branch), fmt.inputs * fmt.weight_bits * 2, index, valid)
            activation = inputs[self.activation][row, winner]
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
                index = (winner * self.activation_bits + bit) * 2 + value
                yield item(("activation", branch), fmt.inputs * self.activation_bits * 2, index, valid)
            if fmt.layout == "signed" or fmt.signed_inputs:
                sign = inputs["sign"][row, winner] if "sign" in inputs else 0
                index = winner * 4 + sign * 2 + negative[row, winner]
                yield item(("sign", branch), fmt.inputs * 4, index, alone & down)
            if self.activation == "x":
                magnitude = np.abs(activation)
                for table, entry in enumerate(log2_entries(fmt.log2_unit, magnitude)):
                    size = self._sizes["log2", table]
                    yield item(("log2", table), size, entry * 2, alone & down)
                    yield item(("log2", table), size, entry * 2 + 1, alone & up)
            if fmt.combine == "linear":
                for table, entry in enumerate(exp2_entries(fmt.exp2_unit, final[branch])):
                    size = self._sizes["exp2", table]
                    yield item(("exp2", table), size, entry * 3, entry >= 0)
                    for unit, visible in enumerate(units, 1):
                        yield item(("exp2", table), size, entry * 3 + unit, visible)
            else:
                bias = inputs[f"bias{branch + 1}"]
                wins = bias >> fmt.dropped_bits > np.maximum(maxima[branch] >> fmt.dropped_bits, 0)
                for bit in range(fmt.dropped_bits, fmt.sum_bits):
                    value = bias >> bit & 1
                    valid = wins & np.where(value == 1, down, up)
                    yield item(("bias", branch), fmt.sum_bits * 2, bit * 2 + value, valid)
        yield from self._end_items(item, final, output, inputs, shown)

    def _end_items(self, item, final: list[Integers], output: Integers, inputs, shown) -> Iterator[Integers]:
        fmt = self.fmt
        _, code = fmt.output
        for bit in range(code.bits):
            yield item(("output",), code.bits * 2, bit * 2 + (output >> bit & 1), np.ones(len(output), dtype=bool))
        if fmt.combine == "logarithmic":
            distance, last, rest = self._distance_items(final[0], final[1])
            yield item(("distance",), (self.far + 1) << self.last, (distance << self.last) + last,
                       shown[0][0] & shown[0][1])
            for key, index in rest.items():
                yield item(key, self._sizes[key], index, final[0] > final[1])
            end = fmt.log_subtract
            # the other way round nothing is left, though there would be without the comparison
            reverse = np.minimum(final[1] - final[0], self.far)
            yield item(("reverse",), self.far + 1, reverse, (reverse >= 0) & (final[0] - end.origin + end.offset > 0))
        elif fmt.result == "code":
            terms = (s * fmt.exp2_unit.compute(m) for s, m in zip(fmt.branches, final, strict=True))
            y = sum(terms, start=inputs["bias"])
            everywhere = np.ones(len(y), dtype=bool)
            over = y >> fmt.out_fraction
            yield item(("over",), 1 << fmt.y.bits - fmt.out_fraction, np.maximum(over, 0), everywhere & (over > 0))
            yield item(("under",), fmt.y.bits + 1, _bit_length(np.maximum(-y, 0)), y < 0)
            seen = np.clip(y, 0, 1 << fmt.out_fraction) >> fmt.end_shift
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

    def _candidates(self, inputs, codes: Integers, negative: Booleans) -> tuple[list[Integers], list[Booleans]]:
        """Of each maximum the candidates' sums, and which of them enter it."""
        fmt, n = self.fmt, self.fmt.inputs

        def add(code, port):
            return np.maximum(code + inputs[port] - fmt.sum_origin, 0)

        everyone = np.ones(codes.shape, dtype=bool)
        if fmt.layout == "wired":
            first = np.broadcast_to(np.arange(n) < fmt.positive_inputs, codes.shape)
            return [add(codes, "k")] * 2, [first, ~first]
        if fmt.layout == "signed":
            minus = negative ^ (inputs["sign"] == 1)
            return [add(codes, "k")] * 2, [~minus, minus]
        positive = np.where(negative, 0, codes)
        result = [add(positive, "k1"), add(positive, "k2")]
        if fmt.layout == "bipolar":
            opposite = np.where(negative, codes, 0)
            result += [add(opposite, "k1"), add(opposite, "k2")]
        return result, [everyone] * len(result)


def _bit_length(values: Integers) -> Integers:
    return np.frexp(values.astype(np.float64))[1].astype(np.int64)
