# SPDX-License-Identifier: Apache-2.0
"""Memories in Verilog: their words, what they are to be made of, and what stands around them."""

import pytest
from amaranth.hdl import Module, Signal
from amaranth.lib.wiring import In, Out

from bmhw.hdl.block import Block, place
from bmhw.hdl.network.memories import STYLES, RamBank, Rom, RomBank
from bmhw.hdl.verilog.convert import block_to_verilog


class Counted(Block):
    """A memory under a name, beside a register that needs an always block of several lines."""

    clocked = True

    def __init__(self, *, name: str):
        self.name = name
        super().__init__({"step": In(1), "data": Out(4)})

    def elaborate(self, platform):
        m = Module()
        memory = place(m, platform, self.name, Rom(width=4, words=(3, 1, 4, 1)))
        address = Signal(2)
        with m.If(self.step):
            m.d.sync += address.eq(address + 1)
        m.d.comb += [memory.addr.eq(address), memory.en.eq(1), self.data.eq(memory.data)]
        return m


def test_a_name_that_is_a_keyword_takes_nothing_away():
    text = block_to_verilog(Counted(name="end"), "top")
    assert text.replace("\\end ", "other").replace("end_", "other_") == block_to_verilog(Counted(name="other"), "top")


@pytest.mark.parametrize("style", STYLES)
def test_words_and_style_are_in_the_module(style):
    rom = block_to_verilog(RomBank(width=6, words=(0, 33, 5), style=style), "rom")
    ram = block_to_verilog(RamBank(width=6, depth=5, style=style), "ram")
    assert "reg [5:0] words [2:0];" in rom and "words[1] = 6'h21;" in rom
    assert "reg [5:0] words [4:0];" in ram and "initial" not in ram  # nothing is read that wasn't written
    named = [] if style == "auto" else [f'ram_style = "{style}"', f'rom_style = "{style}"']
    for text, attributes in ((rom, named), (ram, [*named, "no_rw_check"])):
        assert [line.strip() for line in text.splitlines() if "(*" in line] == (
            [f"(* {', '.join(attributes)} *)"] if attributes else [])


def test_words_that_a_memory_begins_with_are_in_the_module():
    """Zeros, too: they are read before anything is written."""
    for words in ((0, 33, 5), (0, 0, 0)):
        text = block_to_verilog(RamBank(width=6, depth=3, words=words), "ram")
        assert [f"words[{n}] = 6'h{word:02x};" in text for n, word in enumerate(words)] == [True] * 3
