# SPDX-License-Identifier: Apache-2.0
"""What the memories of a device are made of: how a table of words is cut into its block RAMs and look-up tables."""

import dataclasses
import math
from collections import Counter
from dataclasses import dataclass
from functools import cache

__all__ = ["ANY", "LOGIC", "Column", "Memory", "Row", "Technology"]

TABLE = 16
"""Words of one bit that a look-up table of four inputs holds."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """``words`` words from ``first`` on of a column, side by side in banks of ``widths`` bits, low bits first.

    ``first`` is a multiple of the power of two that ``words`` needs. ``style``: what a bank is made of: ``auto``: what
    a tool thinks best; ``block``: one block RAM; ``distributed``: look-up tables that can be written; ``logic``:
    look-up tables and flip-flops.
    """

    first: int
    words: int
    widths: tuple[int, ...]
    style: str

    @property
    def address_bits(self) -> int:
        return max((self.words - 1).bit_length(), 1)


@dataclass(frozen=True, kw_only=True)
class Column:
    """The ``bits`` bits from ``low`` on of all words of a memory, in rows one below the other."""

    low: int
    bits: int
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Memory:
    """``words`` words of ``bits`` bits; ``writable``: it is no table of constants."""

    words: int
    bits: int
    writable: bool = True

    @property
    def size(self) -> int:
        """In bits."""
        return self.words * self.bits


@dataclass(frozen=True, kw_only=True)
class Technology:
    """The memories of a device, and how dear a block RAM is.

    Parameters
    ----------
    name: of the device.
    shapes: (words, bits) that a block RAM can have, deepest first; depths are powers of two. None: a memory is one
        bank. style: of such a bank (:class:`Row`).
    distributed: look-up tables of a memory of 16 words of 4 bits that can be written; 0: there are none, and such a
        memory is flip-flops.
    price: look-up tables that a block RAM is worth: what would take fewer is made of them. A higher one leaves more
        block RAMs free. prices: of some memories, whatever ``price`` says.
    """

    name: str = ""
    shapes: tuple[tuple[int, int], ...] = ()
    style: str = "auto"
    distributed: int = 0
    price: int = 64
    prices: tuple[tuple[Memory, int], ...] = ()
    lone_registers: bool = True
    multiplexers: bool = True

    def columns(self, memory: Memory) -> tuple[Column, ...]:
        """The cheapest cut of a memory, by columns first, each of them by depth."""
        if not self.shapes:
            row = Row(first=0, words=memory.words, widths=(memory.bits,), style=self.style)
            return (Column(low=0, bits=memory.bits, rows=(row,)),)
        price = dict(self.prices).get(memory, self.price)
        return _cheapest(dataclasses.replace(self, price=price, prices=()), memory)

    @property
    def block_bits(self) -> int:
        """Of a block RAM in its largest shape; 0: there are none."""
        return max((words * bits for words, bits in self.shapes), default=0)

    def blocks(self, memory: Memory) -> int:
        """Block RAMs of a memory."""
        return sum(len(row.widths) for column in self.columns(memory) for row in column.rows if row.style == "block")

    def luts(self, memory: Memory) -> int:
        """Look-up tables of what is no block RAM of a memory, and of what chooses among rows, in round numbers."""
        return sum(column.bits * (len(column.rows) - 1)
                   + sum(self._logic(row.words, column.bits, memory.writable) for row in column.rows
                         if row.style != "block")
                   for column in self.columns(memory))

    def _logic(self, words: int, bits: int, writable: bool) -> int:
        if not writable:
            tables = math.ceil(words / TABLE)
            return bits * (tables if self.multiplexers else 2 * tables - 1)
        if self.distributed:
            return math.ceil(bits / 4) * math.ceil(words / TABLE) * self.distributed
        # flip-flops, each with what keeps it, and what reads them
        return bits * (words + math.ceil(words * 2 / 3))

    def ring(self, words: int, bits: int) -> int:
        """Words of a memory whose addresses go round: so many, or a power of two where that takes no more of the
        device than what would bring an address back to 0. The same at each price."""
        power = max(1 << (words - 1).bit_length(), 2)
        if not self.shapes:
            return power
        usual = dataclasses.replace(self, price=Technology.price, prices=())
        fewer, more = (Memory(count, bits) for count in (words, power))
        saved = 2 * (words - 1).bit_length()
        dearer = usual.blocks(more) > usual.blocks(fewer) or usual.luts(more) > usual.luts(fewer) + saved
        return max(words, 2) if dearer else power

    def logic_style(self, writable: bool) -> str:
        return "distributed" if writable and self.distributed else "logic"


ANY = Technology()
"""No device: tools choose."""

LOGIC = Technology(style="logic")
"""Look-up tables and flip-flops of any device."""


@cache
def _cheapest(technology: Technology, memory: Memory) -> tuple[Column, ...]:
    """A column takes one of the cuts by depth, as many bits as cost least; what is left takes another one."""
    words, bits, writable = memory.words, memory.bits, memory.writable
    cuts = _cuts(technology.shapes, words)
    costs = [_cost(technology, cut, bits, writable) for cut in cuts]  # of each number of bits, from 0 on

    def cheapest(part: int, able: list[int]) -> tuple[int, int, int, int]:
        """(cost, pieces, -bits, number) of the best of some cuts, of so many bits."""
        return min((costs[n][part], len(cuts[n]), -part, n) for n in able)

    # as wide as one of a cut's blocks, or all
    every = list(range(len(cuts)))
    parts = [cheapest(part, [n for n in every if any(shape == part for _, shape in cuts[n])])
             for part in {shape for cut in cuts for _, shape in cut if shape is not None and shape <= bits}]
    best: list[tuple[int, int, Cut]] = [(0, 0, ())]  # of so many bits: the cost, and the first column's bits and cut
    for width in range(1, bits + 1):
        cost, _, part, n = min((best[width + part][0] + cost, pieces, part, n)
                               for cost, pieces, part, n in (*parts, cheapest(width, every)) if -part <= width)
        best.append((cost, -part, cuts[n]))
    columns, low = [], 0
    while low < bits:
        _, part, cut = best[bits - low]
        rows, first = [], 0
        for depth, shape_bits in cut:
            widths = [part] if shape_bits is None else [shape_bits] * (part // shape_bits)
            widths += [part - sum(widths)] if sum(widths) < part else []
            rows.append(Row(first=first, words=min(depth, words - first), widths=tuple(widths),
                            style=technology.logic_style(writable) if shape_bits is None else "block"))
            first += depth
        columns.append(Column(low=low, bits=part, rows=tuple(rows)))
        low += part
    return tuple(columns)


Cut = tuple[tuple[int, int | None], ...]
"""(words, bits of a block or None for look-up tables) of each piece, falling powers of two but for the last one."""


def _cuts(shapes: tuple[tuple[int, int], ...], words: int) -> list[Cut]:
    """Ways to cut a memory by depth."""
    result: list[Cut] = [((words, None),)]
    for number, (depth, bits) in enumerate(shapes):
        whole, rest = divmod(words, depth)
        pieces = ((depth, bits),) * whole
        if not rest:
            result.append(pieces)
            continue
        result.append((*pieces, (rest, bits)))
        if whole:
            result += [(*pieces, *cut) for cut in _cuts(shapes[number + 1:], rest)]
    return sorted(set(result), key=lambda cut: (len(cut), [(d, b or 0) for d, b in cut]))


def _cost(technology: Technology, cut: Cut, bits: int, writable: bool) -> list[int]:
    """Of a column of 0, 1, ... bits, up to so many."""
    pieces = Counter(cut).items()
    return [part * (len(cut) - 1) + sum(
        times * (technology._logic(words, part, writable) if shape_bits is None
                 else technology.price * -(-part // shape_bits)) for (words, shape_bits), times in pieces)
        for part in range(bits + 1)]
