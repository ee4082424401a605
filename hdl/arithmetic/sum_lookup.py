# SPDX-License-Identifier: Apache-2.0
"""A table of a sum that doesn't wait for the sum."""

from collections.abc import Sequence

from amaranth.hdl import Cat, Module, Signal, Value
from amaranth.lib.wiring import In, Out

from bmhw.hdl.block import Block, place
from bmhw.hdl.checks import check_range

from .adders import ADDERS
from .comparators import Comparator
from .lookup import Lookup
from .reduction import any_of

__all__ = ["SumLookup"]


class SumLookup(Block):
    """A table of a sum of two rows: ``table[a + b]``, 0 for a negative sum, the last entry behind the table's end.

    Latency: combinational. An addition makes the low bits only, a table of them follows for each value that the bits
    above may have, and which of these it is, is found meanwhile without a carry: whether two numbers add up to a given
    one is a comparison of neighbouring bits (Cortadella and Llaberia 1992), and a carry from the low bits moves the
    answer by one. A sum that has none of these values is negative or behind the end; its sign tells which.

    Parameters
    ----------
    width: of the rows, two's complement; their sum counts modulo ``2^width``.
    table: the entries, unsigned, at most ``2^(width - 1)``.

    Members
    -------
    a, b : In(width)
    value : Out(bits of the largest entry)
    """

    ABOVE = 2
    """Bits of the index that are found without a carry."""

    def __init__(self, *, width: int, table: Sequence[int]):
        self.width, self.table = check_range("Width of a sum", width, 2), [int(entry) for entry in table]
        if not 0 < len(self.table) <= 1 << width - 1:
            raise ValueError(f"The table of a sum of {width} bits must have 1 to {1 << width - 1} entries, "
                             f"not {len(self.table)}")
        self.value_bits = max(1, max(self.table).bit_length())
        super().__init__({"a": In(width), "b": In(width), "value": Out(self.value_bits)})

    def elaborate(self, platform):
        m = Module()
        last = self.table[-1]
        index_bits = max((i for i, entry in enumerate(self.table) if entry != last), default=0).bit_length()
        low = min(max(index_bits - self.ABOVE, 1), self.width - 1)
        adder = place(m, platform, "low_sum", ADDERS["sklansky"](width=low))
        carry = place(m, platform, "carry", Comparator(width=self.width - 1))
        negative = Signal()
        m.d.comb += [
            adder.a.eq(self.a[:low]),
            adder.b.eq(self.b[:low]),
            # a + b reaches 2^n where a > 2^n - 1 - b
            carry.a.eq(self.a[:-1]),
            carry.b.eq(~self.b[:-1]),
            negative.eq(self.a[-1] ^ self.b[-1] ^ carry.greater),
        ]
        values = range(1 << max(index_bits - low, 0))
        above = self._one_hot(m, self.a[low:], self.b[low:], range(-1, len(values)))
        chosen = []
        for value in values:
            # bits in which the last entry has a one are inverted, so that no table chosen means the last entry
            entries = [self.table[min((value << low) + rest, len(self.table) - 1)] ^ last for rest in range(1 << low)]
            table = place(m, platform, f"above_{value}", Lookup(table=tuple(entries), width=self.value_bits))
            here = Signal(name=f"above_is_{value}")
            m.d.comb += [
                here.eq((above[value] & ~adder.sum[-1]) | (above[value - 1] & adder.sum[-1])),
                table.index.eq(adder.sum[:low]),
            ]
            chosen.append(table.value & here.replicate(self.value_bits))
        found = any_of(chosen)
        m.d.comb += self.value.eq(Cat(~(bit | negative) if last >> i & 1 else bit for i, bit in enumerate(found)))
        return m

    def _one_hot(self, m: Module, a: Value, b: Value, values: range) -> dict[int, Value]:
        """Whether ``a + b`` is each of the values, modulo 2^width."""
        width = len(a)
        differs, both, some = (Signal(width, name=name) for name in ("differs", "both", "some"))
        # Where the sum's bit below is as it should be, it tells the carry out of it: both if it is 1, some if it is 0.
        one = {0: Signal(width, name="one_above_0"), 1: Signal(width, name="one_above_1")}
        m.d.comb += [
            differs.eq(a ^ b), both.eq(a & b), some.eq(a | b),
            one[0].eq(differs ^ Cat(0, some[:-1])), one[1].eq(differs ^ Cat(0, both[:-1])),
        ]
        known: dict[tuple[int, int, int, int], Value] = {}

        def matches(value: int, first: int, end: int) -> Value:
            """Whether bits first to end - 1 are those of value, if the bit below is."""
            below = value >> (first - 1) & 1 if first else 0
            key = first, end, below, value >> first & ((1 << end - first) - 1)
            if key not in known:
                if end - first == 1:
                    bit = one[below][first]
                    known[key] = bit if value >> first & 1 else ~bit
                else:
                    middle = first + (1 << (end - first - 1).bit_length() - 1)
                    known[key] = Signal(name=f"matches_{len(known)}")
                    m.d.comb += known[key].eq(matches(value, first, middle) & matches(value, middle, end))
            return known[key]

        return {value: matches(value & ((1 << width) - 1), 0, width) for value in values}
