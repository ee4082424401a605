# SPDX-License-Identifier: Apache-2.0
"""Magnitude comparison of unsigned numbers."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib.wiring import In, Out

from bmhw.hdl.block import Block, place
from bmhw.hdl.checks import check_range

__all__ = ["Comparator", "CompareSelect", "RippleComparator", "Select"]


class Comparator(Block):
    """``greater = a > b`` of unsigned numbers, by a prefix tree of depth log2(width).

    Latency: combinational.

    Members
    -------
    a, b : In(width)
    greater : Out(1)
    """

    def __init__(self, *, width: int):
        self.width = check_range("Comparator width", width, 1)
        super().__init__({"a": In(width), "b": In(width), "greater": Out(1)})

    def elaborate(self, platform):
        m = Module()
        # Of each bit, then of groups of neighbouring bits, the higher one deciding: a is greater; a is not less.
        bit_greater = Signal(self.width)
        bit_not_less = Signal(self.width)
        m.d.comb += [bit_greater.eq(self.a & ~self.b), bit_not_less.eq(self.a | ~self.b)]
        groups, level = list(zip(bit_greater, bit_not_less, strict=True)), 0
        while len(groups) > 1:
            pairs, level = len(groups) // 2, level + 1
            merged_greater = Signal(pairs, name=f"greater_{level}")
            merged_not_less = Signal(pairs, name=f"not_less_{level}")
            for i, (low, high) in enumerate(zip(groups[0::2], groups[1::2], strict=False)):
                m.d.comb += [
                    merged_greater[i].eq(high[0] | (high[1] & low[0])),
                    merged_not_less[i].eq(high[1] & low[1]),
                ]
            groups = list(zip(merged_greater, merged_not_less, strict=True)) + groups[2 * pairs:]
        m.d.comb += self.greater.eq(groups[0][0])
        return m


class RippleComparator(Comparator):
    """``greater = a > b`` of unsigned numbers, bit by bit from the lowest one: the fewest gates.

    Of four-input tables it takes one for each bit but the first two.
    """

    def elaborate(self, platform):
        m = Module()
        above = Signal(self.width)  # of the bits up to each one: a is greater
        below = Cat(0, above)[:self.width]
        m.d.comb += [above.eq((self.a & ~self.b) | ((self.a | ~self.b) & below)), self.greater.eq(above[-1])]
        return m


class Select(Block):
    """The larger of two unsigned numbers. Latency: combinational. Subclasses choose the architecture.

    Members
    -------
    a, b : In(width)
    m : Out(width)
    """

    def __init__(self, *, width: int):
        self.width = width
        super().__init__({"a": In(width), "b": In(width), "m": Out(width)})


class CompareSelect(Select):
    """A comparator and a multiplexer."""

    def elaborate(self, platform):
        m = Module()
        comparator = place(m, platform, "comparator", Comparator(width=self.width))
        greater = Signal()
        m.d.comb += [
            comparator.a.eq(self.a),
            comparator.b.eq(self.b),
            greater.eq(comparator.greater),
            self.m.eq(Mux(greater, self.a, self.b)),
        ]
        return m
