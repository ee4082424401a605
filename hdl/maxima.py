# SPDX-License-Identifier: Apache-2.0
"""The maximum of many unsigned numbers: one interface, several architectures."""

from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.lib.wiring import In, Out

from .block import Block, place
from .checks import check_range
from .comparators import Comparator, CompareSelect

__all__ = ["MAXIMA", "DigitMaximum", "EliminationMaximum", "Maximum", "Radix4Maximum", "TreeMaximum"]


class Maximum(Block):
    """The largest of ``count`` unsigned numbers of ``width`` bits.

    Latency: combinational. Subclasses choose the architecture; see :data:`MAXIMA`.

    Parameters
    ----------
    width: bits of each candidate, 1 or more.
    count: number of candidates, 1 or more.
    masked: whether there is an ``enable`` port: a candidate with a 0 there counts as 0.

    Members
    -------
    a : In(width * count), candidate 0 in the lowest bits
    enable : In(count), if ``masked``
    m : Out(width)
    """

    def __init__(self, *, width: int, count: int, masked: bool = False):
        self.width = check_range("Maximum width", width, 1)
        self.count = check_range("Number of candidates", count, 1)
        self.masked = masked
        ports = {"a": In(width * count), "m": Out(width)}
        if masked:
            ports["enable"] = In(count)
        super().__init__(ports)

    def candidates(self, m: Module) -> list[Value]:
        """The candidates, masked ones cleared."""
        values = []
        for i in range(self.count):
            value = self.a.word_select(i, self.width)
            if self.masked:
                masked = Signal(self.width, name=f"candidate_{i}")
                m.d.comb += masked.eq(value & self.enable[i].replicate(self.width))
                value = masked
            values.append(value)
        return values


class TreeMaximum(Maximum):
    """A balanced binary tree of compare-selects: the textbook design."""

    def elaborate(self, platform):
        m = Module()
        level, depth = self.candidates(m), 0
        while len(level) > 1:
            following = []
            for i in range(0, len(level) - 1, 2):
                node = place(m, platform, f"node_{depth}_{i // 2}", CompareSelect(width=self.width))
                m.d.comb += [node.a.eq(level[i]), node.b.eq(level[i + 1])]
                following.append(node.m)
            level, depth = following + level[len(following) * 2:], depth + 1
        m.d.comb += self.m.eq(level[0])
        return m


class Radix4Select(Block):
    """The largest of up to four numbers: all pairs compared at once, the winner selected by AND-OR.

    Members
    -------
    a : In(width * count), count 2 to 4
    m : Out(width)
    """

    def __init__(self, *, width: int, count: int):
        self.width, self.count = width, check_range("Candidates of a radix-4 node", count, 2, 4)
        super().__init__({"a": In(width * count), "m": Out(width)})

    def elaborate(self, platform):
        m = Module()
        values = [self.a.word_select(i, self.width) for i in range(self.count)]
        # greater[i][j]: a_i > a_j. A tie goes to the lower index: i < j wins unless a_j > a_i.
        wins: list[list[Value]] = [[] for _ in values]
        for i in range(self.count):
            for j in range(i + 1, self.count):
                comparator = place(m, platform, f"compare_{j}_{i}", Comparator(width=self.width))
                m.d.comb += [comparator.a.eq(values[j]), comparator.b.eq(values[i])]
                wins[i].append(~comparator.greater)
                wins[j].append(comparator.greater)
        winner = Signal(self.count)
        m.d.comb += winner.eq(Cat(Cat(w).all() for w in wins))
        selected = [value & bit.replicate(self.width) for value, bit in zip(values, winner, strict=True)]
        m.d.comb += self.m.eq(_or(selected))
        return m


class Radix4Maximum(Maximum):
    """A tree of radix-4 nodes: half the levels of the binary tree, six comparators a node."""

    def elaborate(self, platform):
        m = Module()
        level, depth = self.candidates(m), 0
        while len(level) > 1:
            following = []
            for i in range(0, len(level), 4):
                group = level[i:i + 4]
                if len(group) == 1:
                    following.append(group[0])
                    continue
                node = place(m, platform, f"node_{depth}_{i // 4}", Radix4Select(width=self.width, count=len(group)))
                m.d.comb += node.a.eq(Cat(group))
                following.append(node.m)
            level, depth = following, depth + 1
        m.d.comb += self.m.eq(level[0])
        return m


class EliminationMaximum(Maximum):
    """Most-significant-digit-first elimination over all candidates at once.

    Every candidate still alive shows its digit; the largest digit shown is the result's; who shows a smaller one
    drops out. With one-bit digits the fewest gates of all; larger digits trade gates for depth.
    """

    digit_bits = 1

    def digits(self) -> list[int]:
        """Digit sizes from the most significant one down; they sum to ``width``."""
        first = self.width % self.digit_bits
        return ([first] if first else []) + [self.digit_bits] * (self.width // self.digit_bits)

    def elaborate(self, platform):
        m = Module()
        values = [self.a.word_select(i, self.width) for i in range(self.count)]
        alive: Value = self.enable if self.masked else Cat(1 for _ in values)
        top, result = self.width, []
        for index, size in enumerate(self.digits()):
            # reach[k - 1][i]: digit of candidate i is at least k
            reach = []
            for k in range(1, 1 << size):
                reached = Signal(self.count, name=f"digit_{index}_at_least_{k}")
                m.d.comb += reached.eq(Cat(_at_least(v[top - size:top], k) for v in values))
                reach.append(reached)
            # some[k - 1]: a living candidate's digit is at least k
            some = Signal((1 << size) - 1, name=f"digit_{index}_reached")
            m.d.comb += some.eq(Cat((reached & alive).any() for reached in reach))
            result.insert(0, _thermometer_to_binary(some, size))
            top -= size
            if top:
                survivors = Signal(self.count, name=f"alive_after_digit_{index}")
                stays: Value = alive
                for k, reached in enumerate(reach):
                    stays = stays & (reached | (~some[k]).replicate(self.count))
                m.d.comb += survivors.eq(stays)
                alive = survivors
        m.d.comb += self.m.eq(Cat(result))
        return m


class DigitMaximum(EliminationMaximum):
    """Elimination in digits of two bits."""

    digit_bits = 2


def _at_least(digit: Value, k: int) -> Value:
    """digit >= k, as the few gates that it is for one and two bits."""
    if len(digit) == 1:
        return digit[0]
    if len(digit) == 2:
        return (digit[0] | digit[1], digit[1], digit[0] & digit[1])[k - 1]
    return digit >= k


def _thermometer_to_binary(thermometer: Value, bits: int) -> Value:
    """The number of leading ones of a thermometer code (bit k - 1: value >= k) of 2^bits - 1 bits."""
    if bits == 1:
        return thermometer[0]
    half = 1 << (bits - 1)
    low = Mux(thermometer[half - 1], thermometer[half:], thermometer[:half - 1])
    return Cat(_thermometer_to_binary(low, bits - 1), thermometer[half - 1])


def _or(values: list[Value]) -> Value:
    while len(values) > 1:
        values = [a | b for a, b in zip(values[0::2], values[1::2], strict=False)] + values[len(values) // 2 * 2:]
    return values[0]


MAXIMA: dict[str, type[Maximum]] = {
    "tree": TreeMaximum,
    "radix4": Radix4Maximum,
    "elimination": EliminationMaximum,
    "digits": DigitMaximum,
}
