# SPDX-License-Identifier: Apache-2.0
"""From a sum of log codes to a linear code."""

from amaranth.hdl import Cat, Const, Module, Signal
from amaranth.lib.wiring import In, Out

from .block import Block, place
from .formats import Exp2
from .logarithm import TABLE_LIMIT, BipartiteLookup
from .lookup import Lookup

__all__ = ["Exp2Block"]


class Exp2Block(Block):
    """2^ of a sum of log codes, as :class:`~bmhw.hdl.formats.Exp2` states it.

    Latency: combinational. Few input bits (or ``architecture="table"``): one table. Otherwise the mantissa from
    the fraction bits (``schraudolph``: 1 + f itself), shifted right by the integer part, rounded half up by
    adding the first bit shifted out.

    Parameters
    ----------
    exp2: the format object.
    architecture: ``auto``, ``table`` or ``shift``.

    Members
    -------
    m : In(exp2.in_bits), 0 to full_scale
    e : Out(exp2.out_bits)
    """

    block_name = "exp2_unit"

    def __init__(self, *, exp2: Exp2, architecture: str = "auto"):
        self.exp2 = exp2
        if architecture == "auto":
            architecture = "table" if exp2.in_bits <= TABLE_LIMIT else "shift"
        self.architecture = architecture
        super().__init__({"m": In(exp2.in_bits), "e": Out(exp2.out_bits)})

    def elaborate(self, platform):
        m = Module()
        exp2 = self.exp2
        if self.architecture == "table":
            entries = exp2.compute(list(range(exp2.full_scale + 1)))
            table = place(m, platform, "lookup", Lookup(table=tuple(map(int, entries)), width=exp2.out_bits))
            m.d.comb += [table.index.eq(self.m), self.e.eq(table.value)]
            return m
        # full_scale - m = shift * 2^F - f, with 0 <= f < 2^F: fraction bits and integer part of the exponent
        # both come from m + (2^k - full_scale), k large enough.
        aligned = Signal(exp2.in_bits + 1)
        m.d.comb += aligned.eq(self.m + ((1 << exp2.in_bits) - exp2.full_scale))
        # the result's bits and one below, for rounding; a piecewise mantissa just below 2 can round up to 2
        width = max(exp2.out_bits + 1, int(exp2.mantissa_table.max()).bit_length())
        mantissa = Signal(width)
        fraction = aligned[:exp2.fraction]
        if exp2.fraction == 0:
            m.d.comb += mantissa.eq(int(exp2.mantissa_table[0]))
        elif exp2.method == "piecewise":
            low = exp2.mantissa_shift
            lookup = place(m, platform, "mantissa_table", BipartiteLookup(table=exp2.bipartite, width=width - low))
            m.d.comb += [lookup.index.eq(fraction), mantissa.eq(Cat(Const(0, low), lookup.value))]
        else:
            table = place(m, platform, "mantissa_table",
                          Lookup(table=tuple(map(int, exp2.mantissa_table)), width=width))
            m.d.comb += [table.index.eq(fraction), mantissa.eq(table.value)]
        # aligned >> F counts up to 2^(in_bits - F) at full scale, where the shift is 0
        exponent = aligned[exp2.fraction:]
        shift = Signal(range((1 << len(exponent) >> 1) + 1))
        m.d.comb += shift.eq((1 << len(exponent) >> 1) - exponent)
        shifted = Signal(width)
        m.d.comb += [shifted.eq(mantissa >> shift), self.e.eq(shifted[1:] + shifted[0])]
        return m
