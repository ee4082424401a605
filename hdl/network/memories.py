# SPDX-License-Identifier: Apache-2.0
"""Memories, each a module of its own, with a word that says what of a device they are to be made of."""

from amaranth.hdl import Module
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from bmhw.hdl.block import Block
from bmhw.hdl.checks import check_choice, check_range

__all__ = ["STYLES", "Ram", "Rom"]

STYLES = ("auto", "block", "logic")
"""What a memory is made of: ``auto``: what a tool thinks best; ``block``: block RAM; ``logic``: look-up tables and
flip-flops."""


class Rom(Block):
    """A table of constants.

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
        m.submodules.words = memory = Memory(shape=self.width, depth=depth, init=self.words)
        port = memory.read_port()
        m.d.comb += [port.addr.eq(self.addr), port.en.eq(self.en), self.data.eq(port.data)]
        return m


class Ram(Block):
    """A memory with a port for writing and one for reading.

    Latency: one cycle from ``addr`` to ``data``, where ``en`` is 1; else ``data`` stays. What is written in a cycle can
    be asked for in the next one.

    Parameters
    ----------
    width: of a word. depth: words. style: one of :data:`STYLES`.

    Members
    -------
    addr : In, en : In(1), data : Out(width)
    write_addr : In, write_data : In(width), write_en : In(1)
    """

    clocked = True

    def __init__(self, *, width: int, depth: int, style: str = "auto"):
        self.width, self.depth = check_range("Width of a memory", width, 1), max(check_range("Words", depth, 1), 2)
        self.memory_style = check_choice("Style of a memory", style, STYLES)
        address = In(range(self.depth))
        super().__init__({"addr": address, "en": In(1), "data": Out(width),
                          "write_addr": address, "write_data": In(width), "write_en": In(1)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.words = memory = Memory(shape=self.width, depth=self.depth, init=[])
        write, read = memory.write_port(), memory.read_port()
        m.d.comb += [read.addr.eq(self.addr), read.en.eq(self.en), self.data.eq(read.data),
                     write.addr.eq(self.write_addr), write.data.eq(self.write_data), write.en.eq(self.write_en)]
        return m
