# SPDX-License-Identifier: Apache-2.0
"""From a sum of log codes to a linear code."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib.wiring import In, Out

from bmhw.hdl.block import Block, place
from bmhw.hdl.formats.conversions import Exp2

from .logarithm import TABLE_LIMIT, BipartiteLookup
from .lookup import Lookup
from .reduction import any_of

__all__ = ["Exp2Block"]


class Exp2Block(Block):
    """2^ of a sum of log codes, as :class:`~bmhw.hdl.formats.codes.Exp2` states it.

    Latency: combinational. Few input bits (or ``architecture="table"``): one table. Otherwise the mantissa from
    the fraction bits (``schraudolph``: 1 + f itself), shifted right by the integer part, rounded half up by
    adding the first bit shifted out.

    ``select`` is for a maximum that arrives most significant bit first: a table of the bits above for each value of
    the last three, which then select, one level a bit. Its tables grow with 2^bits: made for few bits.

    Parameters
    ----------
    exp2: the format object.
    architecture: ``auto``, ``table``, ``shift``, ``select`` or ``unary``; the last one for a ``m`` that is given step
        by step, by a :attr:`~bmhw.hdl.arithmetic.maxima.Maximum.unary` maximum.
    zero_bits: how many of the lowest bits of ``m`` are always 0; used by ``select`` and ``unary``.

    Members
    -------
    m : In(exp2.in_bits), 0 to full_scale; for ``unary`` In(2^(in_bits - zero_bits) - 1), without the zero bits
    e : Out(exp2.out_bits)
    """

    block_name = "exp2_unit"

    LAST = 3  # bits of the maximum that `select` waits for

    def __init__(self, *, exp2: Exp2, architecture: str = "auto", zero_bits: int = 0):
        self.exp2, self.zero_bits = exp2, zero_bits
        if architecture == "auto":
            architecture = "table" if exp2.in_bits <= TABLE_LIMIT else "shift"
        self.architecture = architecture
        width = (1 << exp2.in_bits - zero_bits) - 1 if self.architecture == "unary" else exp2.in_bits
        super().__init__({"m": In(width), "e": Out(exp2.out_bits)})

    def elaborate(self, platform):
        m = Module()
        exp2 = self.exp2
        if self.architecture in ("table", "select", "unary"):
            entries = tuple(map(int, exp2.compute(list(range(exp2.full_scale + 1)))))
        if self.architecture == "table":
            table = place(m, platform, "lookup", Lookup(table=entries, width=exp2.out_bits))
            m.d.comb += [table.index.eq(self.m), self.e.eq(table.value)]
            return m
        if self.architecture == "select":
            m.d.comb += self.e.eq(self._select(m, platform, entries[::1 << self.zero_bits]))
            return m
        if self.architecture == "unary":
            m.d.comb += self.e.eq(self._unary(entries[::1 << self.zero_bits]))
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
        rounded = shifted[1:] + shifted[0]
        if exp2.zero == "exact":
            rounded &= self.m.any().replicate(exp2.out_bits)
        m.d.comb += [shifted.eq(mantissa >> shift), self.e.eq(rounded)]
        return m

    def _select(self, m: Module, platform, entries: tuple[int, ...]) -> Value:
        """The entry of ``m`` without its zero bits; the last bit selects last."""
        index = self.m[self.zero_bits:]
        last = min(self.LAST, len(index) - 1)
        width = self.exp2.out_bits
        values: list[Value] = []
        for low in range(1 << last):
            # an index behind the end doesn't occur: what fills the table decides nothing
            table = entries[low::1 << last] or entries[-1:]
            lookup = place(m, platform, f"last_bits_{low}", Lookup(table=table, width=width))
            m.d.comb += lookup.index.eq(index[last:])
            values.append(lookup.value)
        for bit in reversed(range(last)):
            half = len(values) // 2
            chosen = []
            for low in range(half):
                value = Signal(width, name=f"from_bit_{bit}_{low}")
                m.d.comb += value.eq(Mux(index[bit], values[half + low], values[low]))
                chosen.append(value)
            values = chosen
        return values[0]

    def _unary(self, entries: tuple[int, ...]) -> Value:
        """The entry of a ``m`` given step by step: a bit is 1 from the step where it becomes so up to the one where it
        ends."""
        reached = [Const(1, 1), *self.m]
        bits = []
        for bit in range(self.exp2.out_bits):
            ones = [entry >> bit & 1 for entry in entries]
            changes = [step for step, pair in enumerate(zip([0, *ones], [*ones, 0], strict=True)) if sum(pair) == 1]
            bits.append(any_of(reached[first] & ~reached[end] if end < len(reached) else reached[first]
                               for first, end in zip(changes[::2], changes[1::2], strict=True)))
        return Cat(bits)
