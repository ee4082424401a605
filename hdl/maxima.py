# SPDX-License-Identifier: Apache-2.0
"""The maximum of many unsigned numbers: one interface, several architectures."""

import functools
import operator

from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.lib.wiring import In, Out

from .block import Block, place
from .checks import check_range
from .comparators import Comparator, CompareSelect

__all__ = ["MAXIMA", "EliminationMaximum", "Maximum", "OnlineMaximum", "Radix4Maximum", "TreeMaximum"]


class Maximum(Block):
    """The largest of ``count`` unsigned numbers of ``width`` bits.

    Latency: combinational, or a cycle for each of ``registers``. Subclasses choose the architecture; see
    :data:`MAXIMA`.

    Parameters
    ----------
    width: bits of each candidate, 1 or more.
    count: number of candidates, 1 or more.
    masked: whether there is an ``enable`` port: a candidate with a 0 there counts as 0.
    registers: levels of the tree with registers behind them, each a cycle of latency.

    Members
    -------
    a : In(width * count), candidate 0 in the lowest bits
    enable : In(count), if ``masked``
    m : Out(width)
    """

    radix: int | None = None
    """Candidates that a node of the tree takes; None: all of them, in one node."""

    def __init__(self, *, width: int, count: int, masked: bool = False, registers: tuple[int, ...] = ()):
        self.width = check_range("Maximum width", width, 1)
        self.count = check_range("Number of candidates", count, 1)
        self.masked = masked
        self.check_registers(registers)
        ports = {"a": In(width * count), "m": Out(width)}
        if masked:
            ports["enable"] = In(count)
        super().__init__(ports)

    @property
    def levels(self) -> int:
        """Levels of the tree, 1 at least."""
        left, levels = self.count, 0
        while left > 1:
            left, levels = -(-left // (self.radix or self.count)), levels + 1
        return max(levels, 1)

    def after_level(self, m: Module, level: int, values: list[Value]) -> list[Value]:
        """The results of a level, counted from 1: behind registers, where there are some."""
        if level not in self.registers:
            return values
        registers = [Signal(len(value), name=f"level_{level}_{i}", reset_less=True) for i, value in enumerate(values)]
        m.d.sync += [register.eq(value) for register, value in zip(registers, values, strict=True)]
        return list(registers)

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

    radix = 2
    select: type[Block] = CompareSelect
    """The larger of two: ports a, b, m."""

    def elaborate(self, platform):
        m = Module()
        level, depth = self.candidates(m), 0
        while len(level) > 1:
            following = []
            for i in range(0, len(level) - 1, 2):
                node = place(m, platform, f"node_{depth}_{i // 2}", self.select(width=self.width))
                m.d.comb += [node.a.eq(level[i]), node.b.eq(level[i + 1])]
                following.append(node.m)
            depth += 1
            level = self.after_level(m, depth, following + level[len(following) * 2:])
        m.d.comb += self.m.eq(level[0])
        return m


class OperatorSelect(Block):
    """The larger of two numbers, the comparison left to the synthesis tool: a carry chain on an FPGA.

    Members
    -------
    a, b : In(width)
    m : Out(width)
    """

    def __init__(self, *, width: int):
        self.width = width
        super().__init__({"a": In(width), "b": In(width), "m": Out(width)})

    def elaborate(self, platform):
        m = Module()
        m.d.comb += self.m.eq(Mux(self.a > self.b, self.a, self.b))
        return m


class OperatorMaximum(TreeMaximum):
    """A binary tree of :class:`OperatorSelect`."""

    select = OperatorSelect


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

    radix = 4

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
            depth += 1
            level = self.after_level(m, depth, following)
        m.d.comb += self.m.eq(level[0])
        return m


class EliminationNode(Block):
    """The largest of some numbers, most significant digit first.

    Every candidate still alive shows its digit; the largest digit shown is the result's; who shows a smaller one
    drops out. The high digits of the result come long before the low ones.

    Parameters
    ----------
    width, count, masked: as for :class:`Maximum`.
    digit_bits: size of the digits; the most significant one takes the rest.

    Members
    -------
    a : In(width * count)
    enable : In(count), if ``masked``
    m : Out(width)
    """

    def __init__(self, *, width: int, count: int, digit_bits: int = 1, masked: bool = False):
        self.width, self.count, self.digit_bits, self.masked = width, count, digit_bits, masked
        ports = {"a": In(width * count), "m": Out(width)}
        if masked:
            ports["enable"] = In(count)
        super().__init__(ports)

    def digits(self) -> list[int]:
        """Digit sizes from the most significant one down; they sum to ``width``."""
        first = self.width % self.digit_bits
        return ([first] if first else []) + [self.digit_bits] * (self.width // self.digit_bits)

    def elaborate(self, platform):
        m = Module()
        values = [self.a.word_select(i, self.width) for i in range(self.count)]
        alive: Value | None = self.enable if self.masked else None
        top = self.width
        for index, size in enumerate(self.digits()):
            top -= size
            # shown[k - 1][i]: candidate i is alive and its digit is at least k; some[k - 1]: one candidate's is
            reached, shown = [], []
            some = Signal((1 << size) - 1, name=f"digit_{index}_reached")
            for k in range(1, 1 << size):
                at_least = Cat(_at_least(v[top:top + size], k) for v in values)
                signal = Signal(self.count, name=f"digit_{index}_shows_{k}")
                m.d.comb += [
                    signal.eq(at_least if alive is None else at_least & alive),
                    some[k - 1].eq(signal.any()),
                ]
                reached.append(at_least)
                shown.append(signal)
            m.d.comb += self.m[top:top + size].eq(_thermometer_to_binary(some, size))
            if top:
                survivors = Signal(self.count, name=f"alive_after_digit_{index}")
                none = [(~some[k]).replicate(self.count) for k in range(len(shown))]
                if size == 1:
                    # the living that show a one, or all of the living if none shows one
                    m.d.comb += survivors.eq(shown[0] | (none[0] if alive is None else none[0] & alive))
                else:
                    stays = [r | n for r, n in zip(reached, none, strict=True)]
                    m.d.comb += survivors.eq(_and(stays if alive is None else [alive, *stays]))
                alive = survivors
        return m


class EliminationMaximum(Maximum):
    """Elimination over all candidates at once, or in a tree of groups of ``radix``.

    With one-bit digits and one group the fewest gates of all; larger digits and smaller groups trade gates for
    depth. In a tree the digits of a lower node's result arrive as the upper node needs them, so the depths of the
    levels overlap instead of adding up.
    """

    digit_bits = 1

    def elaborate(self, platform):
        m = Module()
        level: list[Value] = [self.a.word_select(i, self.width) for i in range(self.count)]
        enable: Value | None = self.enable if self.masked else None
        group, depth = self.radix or max(self.count, 2), 0
        while len(level) > 1 or enable is not None:
            following = []
            for i in range(0, len(level), group):
                members = level[i:i + group]
                if len(members) == 1 and enable is None:
                    following.append(members[0])
                    continue
                node = place(m, platform, f"node_{depth}_{i // group}", EliminationNode(
                    width=self.width, count=len(members), digit_bits=self.digit_bits, masked=enable is not None))
                m.d.comb += node.a.eq(Cat(members))
                if enable is not None:
                    m.d.comb += node.enable.eq(enable[i:i + group])
                following.append(node.m)
            depth += 1
            level, enable = self.after_level(m, depth, following), None
        m.d.comb += self.m.eq(level[0])
        return m


class DigitMaximum(EliminationMaximum):
    """Elimination in digits of two bits."""

    digit_bits = 2


class Elimination4Maximum(EliminationMaximum):
    """Elimination in a tree of groups of four."""

    radix = 4


class Elimination8Maximum(EliminationMaximum):
    """Elimination in a tree of groups of eight."""

    radix = 8


class Digit4Maximum(EliminationMaximum):
    """Elimination in digits of two bits, in a tree of groups of four."""

    digit_bits, radix = 2, 4


class OnlineSelect(Block):
    """The larger of two numbers, most significant bit first, two gate levels a bit.

    As an elimination of two, but who drops out is found from the bits alone and not from the result's bit: a drops
    out if b is alive, shows a one, and a shows a zero.

    Members
    -------
    a, b : In(width)
    m : Out(width)
    """

    def __init__(self, *, width: int):
        self.width = width
        super().__init__({"a": In(width), "b": In(width), "m": Out(width)})

    def elaborate(self, platform):
        m = Module()
        a, b = self.a, self.b
        only_a = Signal(self.width)
        only_b = Signal(self.width)
        alive_a = Signal(self.width)
        alive_b = Signal(self.width)
        m.d.comb += [
            only_a.eq(a & ~b),
            only_b.eq(b & ~a),
            alive_a.eq(Cat(alive_a[1:] & ~(alive_b[1:] & only_b[1:]), 1)),
            alive_b.eq(Cat(alive_b[1:] & ~(alive_a[1:] & only_a[1:]), 1)),
            self.m.eq((alive_a & a) | (alive_b & b)),
        ]
        return m


class OnlineMaximum(TreeMaximum):
    """A binary tree of :class:`OnlineSelect`: the levels overlap bit by bit. Fast for wide trees."""

    select = OnlineSelect


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
    return functools.reduce(operator.or_, values)


def _and(values: list[Value]) -> Value:
    return functools.reduce(operator.and_, values)


MAXIMA: dict[str, type[Maximum]] = {
    "tree": TreeMaximum,
    "radix4": Radix4Maximum,
    "elimination": EliminationMaximum,
    "digits": DigitMaximum,
    "elimination4": Elimination4Maximum,
    "elimination8": Elimination8Maximum,
    "digits4": Digit4Maximum,
    "online": OnlineMaximum,
    "operator": OperatorMaximum,
}
