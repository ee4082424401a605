# SPDX-License-Identifier: Apache-2.0
"""Memories, cut into the banks that a device has block RAMs for, each bank a module of its own."""

from collections.abc import Callable, Sequence

from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.lib import memory
from amaranth.lib.wiring import In, Out

from bmhw.hdl.arithmetic.reduction import any_of
from bmhw.hdl.block import Block, place
from bmhw.hdl.checks import check_choice, check_range
from bmhw.hdl.technology import ANY, Column, Memory, Row, Technology

__all__ = ["STYLES", "Ram", "RamBank", "Rom", "RomBank"]

STYLES = ("auto", "block", "distributed", "logic")
"""What a bank is made of, in the words of the attributes that tools know (:class:`~bmhw.hdl.technology.Row`)."""


class RomBank(Block):
    """A table of constants in one piece.

    Latency: one cycle from ``addr`` to ``data``, where ``en`` is 1; else ``data`` stays.

    Parameters
    ----------
    width: of a word. words: unsigned. style: one of :data:`STYLES`.

    Members
    -------
    addr : In, en : In(1)
    data : Out(width), the output register of the memory
    """

    clocked = True

    def __init__(self, *, width: int, words: tuple[int, ...], style: str = "auto"):
        self.width, self.words = check_range("Width of a memory", width, 1), words
        self.memory_style = check_choice("Style of a memory", style, STYLES)
        super().__init__({"addr": In(range(max(len(words), 2))), "en": In(1), "data": Out(width)})

    def elaborate(self, platform):
        m = Module()
        depth = max(len(self.words), 2)
        m.submodules.words = words = memory.Memory(shape=self.width, depth=depth, init=self.words)
        port = words.read_port()
        m.d.comb += [port.addr.eq(self.addr), port.en.eq(self.en), self.data.eq(port.data)]
        return m


class RamBank(Block):
    """A memory in one piece with a port for writing and one for reading.

    Latency: one cycle from ``addr`` to ``data``, where ``en`` is 1; else ``data`` stays. What is written in a cycle can
    be asked for in the next one; asked for in the same one it is undefined.

    Parameters
    ----------
    width: of a word. depth: words. style: one of :data:`STYLES`.
    words: that it begins with; empty: whatever they are, nothing is read that wasn't written.

    Members
    -------
    addr : In, en : In(1), data : Out(width)
    write_addr : In, write_data : In(width), write_en : In(1)
    """

    clocked = True
    memory_collides = False

    def __init__(self, *, width: int, depth: int, style: str = "auto", words: tuple[int, ...] = ()):
        self.width, self.depth = check_range("Width of a memory", width, 1), max(check_range("Words", depth, 1), 2)
        self.words, self.memory_begins = words, bool(words)
        self.memory_style = check_choice("Style of a memory", style, STYLES)
        address = In(range(self.depth))
        super().__init__({"addr": address, "en": In(1), "data": Out(width),
                          "write_addr": address, "write_data": In(width), "write_en": In(1)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.words = words = memory.Memory(shape=self.width, depth=self.depth, init=self.words)
        write, read = words.write_port(), words.read_port()
        m.d.comb += [read.addr.eq(self.addr), read.en.eq(self.en), self.data.eq(read.data),
                     write.addr.eq(self.write_addr), write.data.eq(self.write_data), write.en.eq(self.write_en)]
        return m


class Rom(Block):
    """A table of constants in the banks of a device; ports of :class:`RomBank`, and its latency or a cycle more.

    Parameters
    ----------
    width: of a word. words: unsigned. technology: of the device.
    registered: whether a register stands behind each bank, in front of what chooses among them: a block RAM is slow to
        show what is read.
    """

    clocked = True

    def __init__(self, *, width: int, words: tuple[int, ...], technology: Technology = ANY, registered: bool = False):
        self.width, self.words, self.technology = check_range("Width of a memory", width, 1), words, technology
        self.registered = registered
        super().__init__({"addr": In(range(max(len(words), 2))), "en": In(1), "data": Out(width)})

    def elaborate(self, platform):
        m = Module()

        def bank(name: str, row: Row, low: int, width: int) -> Block:
            words = _cut(self.words, row, low, width)
            return place(m, platform, name, RomBank(width=width, words=words, style=row.style))

        memory = Memory(len(self.words), self.width, writable=False)
        m.d.comb += self.data.eq(_banked(m, self.technology.columns(memory), bank, self.addr, self.en,
                                         self.registered))
        return m


class Ram(Block):
    """A memory with a port for writing and one for reading in the banks of a device; ports of :class:`RamBank`, and
    its latency or a cycle more.

    Parameters
    ----------
    width: of a word. depth: words. technology: of the device. registered: as of :class:`Rom`.
    words: that it begins with (:class:`RamBank`).
    """

    clocked = True

    def __init__(self, *, width: int, depth: int, technology: Technology = ANY, registered: bool = False,
                 words: tuple[int, ...] = ()):
        self.registered, self.words = registered, words
        self.width, self.depth = check_range("Width of a memory", width, 1), max(check_range("Words", depth, 1), 2)
        self.technology = technology
        address = In(range(self.depth))
        super().__init__({"addr": address, "en": In(1), "data": Out(width),
                          "write_addr": address, "write_data": In(width), "write_en": In(1)})

    def elaborate(self, platform):
        m = Module()

        def bank(name: str, row: Row, low: int, width: int) -> Block:
            words = _cut(self.words, row, low, width)
            made = place(m, platform, name, RamBank(width=width, depth=row.words, style=row.style, words=words))
            m.d.comb += [
                made.write_addr.eq(self.write_addr[:len(made.addr)]),
                made.write_data.eq(self.write_data[low:low + width]),
                made.write_en.eq(self.write_en & _lies_in(row, self.write_addr)),
            ]
            return made

        columns = self.technology.columns(Memory(self.depth, self.width))
        m.d.comb += self.data.eq(_banked(m, columns, bank, self.addr, self.en, self.registered))
        return m


def _banked(m: Module, columns: Sequence[Column], bank: Callable[[str, Row, int, int], Block], address: Value,
            enable: Value, registered: bool) -> Value:
    """What a memory shows that is cut into columns; ``bank`` places the bank of a name, in a row, of the bits from one
    on, so many. ``registered``: with a register behind each bank."""
    shown = []
    for c, column in enumerate(columns):
        rows = []
        for r, row in enumerate(column.rows):
            parts, low = [], column.low
            for n, width in enumerate(row.widths):
                made = bank(f"bank_{c}_{r}_{n}", row, low, width)
                m.d.comb += [made.addr.eq(address[:len(made.addr)]), made.en.eq(enable)]
                parts.append(made.data)
                low += width
            rows.append(_held(m, f"row_{c}_{r}", Cat(parts), enable, int(registered)))
        shown.append(_read(m, column, rows, address, enable, 1 + registered))
    return Cat(shown)


def _cut(words: tuple[int, ...], row: Row, low: int, width: int) -> tuple[int, ...]:
    """Of words what a bank has: those of a row, so many bits from one on."""
    return tuple(word >> low & ((1 << width) - 1) for word in words[row.first:row.first + row.words])


def _held(m: Module, name: str, value: Value, enable: Value, steps: int) -> Value:
    """A value so many steps later."""
    for step in range(1, steps + 1):
        register = Signal(len(value), name=f"{name}_{step}", reset_less=True)
        with m.If(enable):
            m.d.sync += register.eq(value)
        value = register
    return value


def _lies_in(row: Row, address: Value) -> Value:
    """Whether an address lies in a row; no address is behind the last row."""
    return address[row.address_bits:] == row.first >> row.address_bits


def _read(m: Module, column: Column, rows: list[Value], address: Value, enable: Value, steps: int) -> Value:
    """The row of a column that was asked for so many steps ago; of many rows by a sum, which is no chain of them."""
    if len(rows) == 1:
        return rows[0]
    asked = [_held(m, f"asked_{column.low}_{n}", _lies_in(row, address), enable, steps)
             for n, row in enumerate(column.rows if len(rows) > 2 else column.rows[:1])]
    if len(rows) == 2:
        return Mux(asked[0], *rows)
    return any_of(row & flag.replicate(column.bits) for row, flag in zip(rows, asked, strict=True))
