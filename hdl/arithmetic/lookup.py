# SPDX-License-Identifier: Apache-2.0
"""Constant tables as combinational blocks."""

from collections.abc import Sequence

from amaranth.hdl import Module
from amaranth.lib.wiring import In, Out

from bmhw.hdl.block import Block

__all__ = ["Lookup"]


class Lookup(Block):
    """A constant table: ``value = table[index]``; an index behind the table's end gives its last entry.

    Latency: combinational. Synthesis finds the gates; the table itself is the specification.

    Parameters
    ----------
    table: the entries, unsigned.
    width: bits of an entry; default the fewest that hold the largest.

    Members
    -------
    index : In(ceil(log2(len(table))))
    value : Out(width)
    """

    def __init__(self, *, table: Sequence[int], width: int | None = None):
        self.table = [int(entry) for entry in table]
        if not self.table:
            raise ValueError("A table needs one entry at least, not 0")
        needed = max(1, max(self.table).bit_length())
        self.width = needed if width is None else width
        if min(self.table) < 0 or self.width < needed:
            raise ValueError(f"Table entries must be from 0 to {(1 << self.width) - 1}, "
                             f"not {min(self.table)} to {max(self.table)}")
        super().__init__({"index": In(max(1, (len(self.table) - 1).bit_length())), "value": Out(self.width)})

    def elaborate(self, platform):
        m = Module()
        with m.Switch(self.index):
            for index, entry in enumerate(self.table[:-1]):
                with m.Case(index):
                    m.d.comb += self.value.eq(entry)
            with m.Default():
                m.d.comb += self.value.eq(self.table[-1])
        return m
