# SPDX-License-Identifier: Apache-2.0
"""The maximum of many unsigned numbers: one interface, several architectures."""

from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.lib.wiring import In, Out

from bmhw.hdl.block import Block, place
from bmhw.hdl.checks import check_range

from .comparators import Comparator, CompareSelect, Select
from .elimination import EliminationNode
from .reduction import any_of

__all__ = ["BINARY_MAXIMA", "MAXIMA", "EliminationMaximum", "Maximum", "OnlineMaximum", "Radix4Maximum", "TreeMaximum",
           "UnaryMaximum"]


class Maximum(Block):
    """The largest of ``count`` unsigned numbers of ``width`` bits.

    Latency: combinational, or a cycle for each of ``registers``. Subclasses choose the architecture; see
    :data:`MAXIMA`.

    Parameters
    ----------
    width: bits of each candidate, 1 or more.
    count: number of candidates, 1 or more.
    masked: whether there is an ``enable`` port: a candidate with a 0 there counts as 0.
    clear: whether the highest bit of such a candidate is 0 already.
    registers: levels of the tree with registers behind them, each a cycle of latency.

    Members
    -------
    a : In(width * count), candidate 0 in the lowest bits
    enable : In(count), if ``masked``
    m : Out(width), or of a :attr:`unary` one Out(2^width - 1)
    """

    radix: int | None = None
    """Candidates that a node of the tree takes; None: all of them, in one node."""

    unary = False
    """Whether the result is given step by step: bit j - 1 of ``m`` tells whether it is j or more."""

    most_bits = 17
    """The widest candidates that it is made for."""

    @classmethod
    def result_bits(cls, width: int) -> int:
        """Bits of the result of candidates of a width: as many, or one a step above 0."""
        return (1 << width) - 1 if cls.unary else width

    def __init__(self, *, width: int, count: int, masked: bool = False, clear: bool = False,
                 registers: tuple[int, ...] = ()):
        self.width = check_range("Maximum width", width, 1)
        self.count = check_range("Number of candidates", count, 1)
        self.masked, self.clear = masked, clear
        self.check_registers(registers)
        ports = {"a": In(width * count), "m": Out(self.result_bits(width))}
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
    select: type[Select] = CompareSelect
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


class OperatorSelect(Select):
    """The comparison left to the synthesis tool: a carry chain on an FPGA."""

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
        m.d.comb += self.m.eq(any_of(value & bit.replicate(self.width)
                                     for value, bit in zip(values, winner, strict=True)))
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


class EliminationMaximum(Maximum):
    """Elimination over all candidates at once, or in a tree of groups of ``radix``.

    With one-bit digits and one group the fewest gates of all; larger digits and smaller groups trade gates for
    depth. In a tree the digits of a lower node's result arrive as the upper node needs them, so the depths of the
    levels overlap instead of adding up.
    """

    digit_bits = 1
    last_bits = 2
    """Bits of the last digit: two cost no more gates than one by one."""

    @property
    def digits(self) -> tuple[int, ...]:
        """Bits of each digit, the most significant one first, which takes the rest."""
        last = min(self.last_bits, self.width)
        rest, first = divmod(self.width - last, self.digit_bits)
        return (*([first] if first else []), *[self.digit_bits] * rest, last)

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
                    width=self.width, count=len(members), digits=self.digits, masked=enable is not None,
                    clear=self.clear))
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


class Digit3Maximum(EliminationMaximum):
    """Elimination in digits of three bits."""

    digit_bits = last_bits = 3


class Elimination4Maximum(EliminationMaximum):
    """Elimination in a tree of groups of four."""

    last_bits, radix = 1, 4


class Elimination8Maximum(EliminationMaximum):
    """Elimination in a tree of groups of eight."""

    last_bits, radix = 1, 8


class Digit4Maximum(EliminationMaximum):
    """Elimination in digits of two bits, in a tree of groups of four."""

    digit_bits, radix = 2, 4


class OnlineSelect(Select):
    """The larger of two numbers, most significant bit first, two gate levels a bit.

    As an elimination of two, but who drops out is found from the bits alone and not from the result's bit: a drops
    out if b is alive, shows a one, and a shows a zero.
    """

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


class UnaryMaximum(Maximum):
    """The maximum step by step, for few bits: no answer waits for another one.

    For each number v above 0: does any candidate show all the ones of v? That is an AND and an OR a candidate. Who does
    is v or more. With 2^j the lowest one of v, every number from v to v + 2^j - 1 shows them; so the maximum is v or
    more if a candidate does, or if it is v + 2^j or more.
    """

    unary = True
    most_bits = 4

    def elaborate(self, platform):
        m = Module()
        steps = range(1, 1 << self.width)
        shown = {v: Signal(self.count, name=f"show_{v}") for v in steps}
        for v in steps:
            lowest = v & -v
            ones = Cat(self.a[i * self.width + lowest.bit_length() - 1] for i in range(self.count))
            if v != lowest:
                ones = ones & shown[v - lowest]
            elif self.masked and not (self.clear and v << 1 > steps[-1]):
                ones = ones & self.enable
            m.d.comb += shown[v].eq(ones)
        reached: dict[int, Value] = {}
        for v in sorted(steps, key=lambda v: -(v & -v)):
            following = v + (v & -v)
            some = any_of(shown[v])
            reached[v] = some | reached[following] if following in reached else some
        m.d.comb += self.m.eq(Cat(reached[v] for v in steps))
        return m


MAXIMA: dict[str, type[Maximum]] = {
    "tree": TreeMaximum,
    "radix4": Radix4Maximum,
    "elimination": EliminationMaximum,
    "digits": DigitMaximum,
    "digits3": Digit3Maximum,
    "elimination4": Elimination4Maximum,
    "elimination8": Elimination8Maximum,
    "digits4": Digit4Maximum,
    "online": OnlineMaximum,
    "operator": OperatorMaximum,
    "unary": UnaryMaximum,
}

BINARY_MAXIMA = tuple(name for name, maximum in MAXIMA.items() if not maximum.unary)
"""Those of any width that give the maximum as a number."""
