# SPDX-License-Identifier: Apache-2.0
"""Two-operand adders: one prefix formulation, several networks."""

from collections.abc import Iterator

from amaranth.hdl import Cat, Module, Signal
from amaranth.lib.wiring import In, Out

from bmhw.hdl.block import Block
from bmhw.hdl.checks import check_range

__all__ = [
    "ADDERS", "Adder", "BrentKungAdder", "CarrySkipAdder", "KoggeStoneAdder", "LookaheadAdder", "LookaheadTopAdder",
    "OperatorAdder", "RippleAdder", "SklanskyAdder", "SklanskyLateCarryAdder",
]


class Adder(Block):
    """``sum = a + b (+ carry_in)``, carry included.

    Latency: combinational. Subclasses choose how carries are found; see :data:`ADDERS`.

    Parameters
    ----------
    width: bits of each operand, 1 or more.
    carry_in: whether there is a ``carry_in`` port.

    Members
    -------
    a, b : In(width)
    carry_in : In(1), if asked for
    sum : Out(width + 1)
    """

    def __init__(self, *, width: int, carry_in: bool = False):
        self.width = check_range("Adder width", width, 1)
        ports = {"a": In(width), "b": In(width), "sum": Out(width + 1)}
        if carry_in:
            ports["carry_in"] = In(1)
        self.has_carry_in = carry_in
        super().__init__(ports)

    def prefix_network(self) -> Iterator[list[tuple[int, int]]]:
        """Levels of pairs (i, j): the group of bits that ends in bit i absorbs the one below it, ending in bit j.

        After the last level every group must reach down to bit 0.
        """
        raise NotImplementedError

    def elaborate(self, platform):
        m = Module()
        carry_generate = Signal(self.width)
        carry_propagate = Signal(self.width)
        m.d.comb += [carry_generate.eq(self.a & self.b), carry_propagate.eq(self.a ^ self.b)]
        # Of the group that ends in each bit: it makes a carry; it passes one on.
        makes, passes = list(carry_generate), list(carry_propagate)
        if self.has_carry_in:
            makes[0] = carry_generate[0] | (carry_propagate[0] & self.carry_in)
        for number, pairs in enumerate(self.prefix_network(), start=1):
            level_makes = Signal(self.width, name=f"generate_{number}")
            level_passes = Signal(self.width, name=f"propagate_{number}")
            below = dict(pairs)
            m.d.comb += [
                level_makes.eq(Cat(g | (p & makes[below[i]]) if i in below else g
                                   for i, (g, p) in enumerate(zip(makes, passes, strict=True)))),
                level_passes.eq(Cat(p & passes[below[i]] if i in below else p for i, p in enumerate(passes))),
            ]
            makes, passes = list(level_makes), list(level_passes)
        carry_in = self.carry_in if self.has_carry_in else 0
        m.d.comb += self.sum.eq(Cat(carry_propagate, 0) ^ Cat(carry_in, makes))
        return m


class RippleAdder(Adder):
    """A ripple adder: carry from bit to bit, the fewest gates (5 a bit), depth linear in the width."""

    def elaborate(self, platform):
        m = Module()
        carry = Signal(self.width + 1)
        m.d.comb += carry[0].eq(self.carry_in if self.has_carry_in else 0)
        for i in range(self.width):
            half = Signal(name=f"half_{i}")
            m.d.comb += [
                half.eq(self.a[i] ^ self.b[i]),
                self.sum[i].eq(half ^ carry[i]),
                carry[i + 1].eq((self.a[i] & self.b[i]) | (half & carry[i])),
            ]
        m.d.comb += self.sum[self.width].eq(carry[self.width])
        return m


class CarrySkipAdder(Adder):
    """A ripple adder whose carry out skips the upper half: the top bit first, for a few gates.

    Made for a consumer that needs the most significant bit first, such as an elimination: the carry out comes
    after half of the chain, the other bits as a ripple adder's.
    """

    def elaborate(self, platform):
        m = Module()
        carry_generate = Signal(self.width)
        carry_propagate = Signal(self.width)
        carry = Signal(self.width)
        middle = self.width // 2
        group_generate, group_propagate = carry_generate[middle], carry_propagate[middle]
        for i in range(middle + 1, self.width):
            group_generate = carry_generate[i] | (carry_propagate[i] & group_generate)
            group_propagate = group_propagate & carry_propagate[i]
        m.d.comb += [
            carry_generate.eq(self.a & self.b),
            carry_propagate.eq(self.a ^ self.b),
            carry.eq(Cat(self.carry_in if self.has_carry_in else 0,
                         carry_generate[:-1] | (carry_propagate[:-1] & carry[:-1]))),
            self.sum.eq(Cat(carry_propagate ^ carry, group_generate | (group_propagate & carry[middle]))),
        ]
        return m


class LookaheadAdder(Adder):
    """A ripple adder that takes two bits at a time: the carry passes a pair of bits in two levels instead of four.

    Pairs are counted from the top, whose bits arrive first in relation to their place. Three gates a pair more than
    a ripple adder, half of its depth.
    """

    def passes_pair(self, bit: int) -> bool:
        """Whether the carry passes ``bit`` and the one below it at once."""
        return (self.width - bit) % 2 == 1 and bit > 1

    def elaborate(self, platform):
        m = Module()
        carry_generate = Signal(self.width)
        carry_propagate = Signal(self.width)
        carry = Signal(self.width + 1)
        m.d.comb += [
            carry_generate.eq(self.a & self.b),
            carry_propagate.eq(self.a ^ self.b),
            carry[0].eq(self.carry_in if self.has_carry_in else 0),
            self.sum.eq(Cat(carry_propagate ^ carry[:-1], carry[-1])),
        ]
        for i in range(self.width):
            passed = carry_generate[i] | (carry_propagate[i] & carry[i])
            if self.passes_pair(i):
                both = carry_generate[i] | (carry_propagate[i] & carry_generate[i - 1])
                passed = both | (carry_propagate[i] & carry_propagate[i - 1] & carry[i - 1])
            m.d.comb += carry[i + 1].eq(passed)
        return m


class LookaheadTopAdder(LookaheadAdder):
    """A ripple adder whose carry passes the two highest bits at once: two levels off the carry out for three gates."""

    def passes_pair(self, bit):
        return bit == self.width - 1 and bit > 1


class SklanskyAdder(Adder):
    """A parallel-prefix adder (Sklansky 1960): depth log2(width), width/2 * log2(width)
    nodes, fan-out up to width/2.
    """

    def prefix_network(self):
        distance = 1
        while distance < self.width:
            yield [(i, (i & -distance) - 1) for i in range(self.width) if i & distance]
            distance *= 2


class SklanskyLateCarryAdder(SklanskyAdder):
    """A Sklansky adder of all bits but the highest one; the carry out follows from the last carry, two levels later.

    Made for a consumer of clamped sums, which needs the highest bits at once and the carry out only behind its first
    digit: at 8 bits six gates less than a Sklansky adder.
    """

    def prefix_network(self):
        last = self.width - 1
        for pairs in super().prefix_network():
            if lower := [pair for pair in pairs if pair[0] != last]:
                yield lower
        if last:
            yield [(last, last - 1)]


class KoggeStoneAdder(Adder):
    """A parallel-prefix adder (Kogge and Stone 1973): depth log2(width), fan-out 2, width * log2(width) nodes."""

    def prefix_network(self):
        distance = 1
        while distance < self.width:
            yield [(i, i - distance) for i in range(distance, self.width)]
            distance *= 2


class BrentKungAdder(Adder):
    """A parallel-prefix adder (Brent and Kung 1982): depth 2 log2(width) - 1, the fewest nodes of a logarithmic one."""

    def prefix_network(self):
        distance = 1
        while distance < self.width:
            yield [(i, i - distance) for i in range(2 * distance - 1, self.width, 2 * distance)]
            distance *= 2
        while distance > 1:
            distance //= 2
            yield [(i, i - distance) for i in range(3 * distance - 1, self.width, 2 * distance)]


class OperatorAdder(Adder):
    """An adder left to the synthesis tool: ``a + b``."""

    def elaborate(self, platform):
        m = Module()
        m.d.comb += self.sum.eq(self.a + self.b + (self.carry_in if self.has_carry_in else 0))
        return m


ADDERS: dict[str, type[Adder]] = {
    "ripple": RippleAdder,
    "carry_skip": CarrySkipAdder,
    "lookahead": LookaheadAdder,
    "lookahead_top": LookaheadTopAdder,
    "sklansky": SklanskyAdder,
    "sklansky_late": SklanskyLateCarryAdder,
    "kogge_stone": KoggeStoneAdder,
    "brent_kung": BrentKungAdder,
    "operator": OperatorAdder,
}
