# SPDX-License-Identifier: Apache-2.0
"""From a linear magnitude to a log code."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib.wiring import In, Out

from bmhw.hdl.block import Block, place
from bmhw.hdl.checks import check_range
from bmhw.hdl.formats.conversions import Bipartite, Log2

from .lookup import Lookup

__all__ = [
    "TABLE_LIMIT", "BipartiteLookup", "LeadingOne", "Log2Block", "Normalizer", "NormalizingShift", "log2_fraction",
]

# Up to this many index bits one flat table is smaller and faster than its decomposition.
TABLE_LIMIT = 9


class LeadingOne(Block):
    """Position of the leading one of ``x``, as a number and one-hot.

    Latency: combinational; depth logarithmic in the width (a parallel prefix OR from the top).

    Members
    -------
    x : In(width)
    position : Out(ceil(log2(width))), 0 if there is none
    one_hot : Out(width)
    found : Out(1)
    """

    def __init__(self, *, width: int):
        self.width = check_range("Leading-one width", width, 1)
        super().__init__({"x": In(width), "position": Out(max(1, (width - 1).bit_length())),
                          "one_hot": Out(width), "found": Out(1)})

    def elaborate(self, platform):
        m = Module()
        # above[i]: some bit at or above i is set
        above: Value = self.x
        distance, level = 1, 0
        while distance < self.width:
            level += 1
            spread = Signal(self.width, name=f"at_or_above_{level}")
            m.d.comb += spread.eq(above | (above >> distance))
            above, distance = spread, distance * 2
        m.d.comb += [
            self.found.eq(above[0]),
            self.one_hot.eq(above & ~Cat(above[1:], 0)),
            self.position.eq(Cat(
                Cat(self.one_hot[i] for i in range(self.width) if i >> bit & 1).any()
                for bit in range(len(self.position)))),
        ]
        return m


class Normalizer(Block):
    """Split ``x = 2^exponent * (1 + mantissa)``: leading one, and the bits behind it moved to the top.

    Latency: combinational.

    Members
    -------
    x : In(width)
    exponent : Out(ceil(log2(width)))
    mantissa : Out(max(1, width - 1)): the bits behind the leading one, left-aligned
    found : Out(1): x is not 0
    """

    def __init__(self, *, width: int):
        self.width = check_range("Normalizer width", width, 1)
        super().__init__({"x": In(width), "exponent": Out(max(1, (width - 1).bit_length())),
                          "mantissa": Out(max(1, width - 1)), "found": Out(1)})

    def elaborate(self, platform):
        m = Module()
        leading_one = place(m, platform, "leading_one", LeadingOne(width=self.width))
        m.d.comb += [
            leading_one.x.eq(self.x),
            self.exponent.eq(leading_one.position),
            self.found.eq(leading_one.found),
        ]
        if self.width > 1:
            shifted = [
                (self.x[:position] if position else Const(0, 1)) << (self.width - 1 - position)
                for position in range(self.width)
            ]
            terms = [s[:self.width - 1] & leading_one.one_hot[i].replicate(self.width - 1)
                     if len(s) >= self.width - 1 else Const(0, self.width - 1)
                     for i, s in enumerate(shifted)]
            selected = terms[0]
            for term in terms[1:]:
                selected = selected | term
            m.d.comb += self.mantissa.eq(selected)
        return m


class NormalizingShift(Block):
    """Move a number up over the zeros in front of it, by distances that are tried one after the other.

    Latency: combinational; depth linear in the distances. It takes half the tables of a :class:`Normalizer`, which is
    faster, and can be cut anywhere: one of (8, 4) and one of (2, 1) behind it are one of (8, 4, 2, 1).

    Parameters
    ----------
    width: of the number. distances: each half of the one before. kept: highest bits that are wanted of the result.

    Members
    -------
    x : In(width)
    y : Out(kept): its highest bit is 1 where there was one in reach
    zeros : Out(number of distances): how far it was moved, in units of the last distance
    """

    def __init__(self, *, width: int, distances: tuple[int, ...], kept: int):
        self.width, self.distances = check_range("Normalizer width", width, 1), distances
        self.kept = check_range("Bits kept of a normalized number", kept, 1, width)
        super().__init__({"x": In(width), "y": Out(kept), "zeros": Out(len(distances))})

    def elaborate(self, platform):
        m = Module()
        number: Value = self.x
        for distance, moved in zip(self.distances, reversed(self.zeros), strict=True):
            after = Signal(self.width, name=f"moved_{distance}")
            m.d.comb += [moved.eq(~number[max(self.width - distance, 0):].any()),
                         after.eq(Mux(moved, number << distance, number))]
            number = after
        m.d.comb += self.y.eq(number[self.width - self.kept:])
        return m


class BipartiteLookup(Block):
    """The sum of two small tables (:class:`~bmhw.hdl.formats.codes.Bipartite`): no multiplier.

    Latency: combinational.

    Members
    -------
    index : In(index bits)
    value : Out(width)
    """

    def __init__(self, *, table: Bipartite, width: int):
        self.table, self.width = table, width
        bits = table.high_bits + table.middle_bits + table.low_bits
        super().__init__({"index": In(bits), "value": Out(width)})

    @property
    def key(self):
        return type(self), (self.table.base.tobytes(), self.table.slope.tobytes(), self.width)

    def elaborate(self, platform):
        m = Module()
        table = self.table
        base = place(m, platform, "base", Lookup(table=tuple(map(int, table.base))))
        slope = place(m, platform, "slope", Lookup(table=tuple(map(int, table.slope))))
        total = Signal(self.width + table.guard + 1)
        m.d.comb += [
            base.index.eq(self.index[table.low_bits:]),
            slope.index.eq(Cat(self.index[:table.low_bits], self.index[table.low_bits + table.middle_bits:])),
            total.eq(base.value + slope.value + (1 << table.guard >> 1)),
            self.value.eq(total >> table.guard),
        ]
        return m


def log2_fraction(m: Module, platform, log2: Log2, mantissa: Value) -> Value:
    """``fraction_table[mantissa]`` of a log2, 0 to 2^F: rounding can carry into the exponent."""
    if log2.method == "mitchell":
        shift = log2.mantissa_bits - log2.log.fraction
        return mantissa << -shift if shift <= 0 else (mantissa + (1 << shift >> 1)) >> shift
    width = log2.log.fraction + 1
    if log2.method == "piecewise":
        table = place(m, platform, "fraction_table", BipartiteLookup(table=log2.bipartite, width=width))
    else:
        table = place(m, platform, "fraction_table", Lookup(table=tuple(map(int, log2.fraction_table)), width=width))
    m.d.comb += table.index.eq(mantissa)
    return table.value


class Log2Block(Block):
    """log2 of an unsigned magnitude into a log code, as :class:`~bmhw.hdl.formats.codes.Log2` states it.

    Latency: combinational. Small inputs (or ``architecture="table"``): one table. Otherwise a normalizer, a
    table of the mantissa and the addition of the exponent; ``mitchell`` needs no table at all.

    Parameters
    ----------
    log2: the format object.
    full_scale_input: whether the input reaches 2^bits (magnitudes of signed numbers do): one bit more.
    architecture: ``auto``, ``table`` or ``normalize``.

    Members
    -------
    x : In(log2.bits, or one more)
    c : Out(log2.log.bits)
    """

    block_name = "log2_unit"

    def __init__(self, *, log2: Log2, full_scale_input: bool = False, architecture: str = "auto"):
        self.log2 = log2
        self.width = log2.bits + full_scale_input
        if architecture == "auto":
            architecture = "table" if self.width <= TABLE_LIMIT else "normalize"
        self.architecture = architecture
        super().__init__({"x": In(self.width), "c": Out(log2.log.bits)})

    def elaborate(self, platform):
        m = Module()
        log2 = self.log2
        if self.architecture == "table":
            inputs = range(min(1 << self.width, (1 << log2.bits) + 1))
            table = place(m, platform, "lookup", Lookup(table=tuple(map(int, log2.compute(list(inputs)))),
                                                       width=log2.log.bits))
            m.d.comb += [table.index.eq(self.x), self.c.eq(table.value)]
            return m
        normalizer = place(m, platform, "normalizer", Normalizer(width=self.width))
        fraction = Signal(log2.log.fraction + 1)
        code = Signal(range(log2.offset, log2.log.maximum + (1 << log2.log.fraction) + 2))
        m.d.comb += normalizer.x.eq(self.x)
        # Normalized from one bit higher than the table's mantissa if the input reaches full scale; the lowest
        # bit is then always 0 (full scale itself has mantissa 0).
        mantissa = normalizer.mantissa[len(normalizer.mantissa) - log2.mantissa_bits:]
        m.d.comb += fraction.eq(log2_fraction(m, platform, log2, mantissa))
        m.d.comb += code.eq(Cat(Const(0, log2.log.fraction), normalizer.exponent) + fraction + log2.offset)
        clamped = Mux(code > log2.log.maximum, log2.log.maximum, code)
        if code.shape().signed:
            clamped = Mux(code < 0, 0, clamped)
        m.d.comb += self.c.eq(Mux(normalizer.found, clamped, 0))
        return m
