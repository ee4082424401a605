# SPDX-License-Identifier: Apache-2.0
"""Memories cut into a device's block RAMs: every bit in one bank, as few as can be, and no other content."""

import dataclasses
import json

import numpy as np
import pytest
from amaranth.sim import Simulator

from bmhw.flow.engine import Engine
from bmhw.flow.fpga import DEVICES, chip_script, count_cells
from bmhw.hdl.network.memories import Ram, Rom
from bmhw.hdl.technology import ANY, LOGIC, Memory, Technology
from bmhw.hdl.verilog.convert import block_to_verilog

ECP5, ICE40 = (DEVICES[name].technology for name in ("ecp5-85k", "ice40-hx8k"))
SHAPES = [Memory(9216, 80, False), Memory(2304, 80, False), Memory(576, 20, False), Memory(50, 56, False),
          Memory(6528, 19), Memory(704, 10), Memory(12, 11), Memory(2, 3), Memory(2049, 9)]


def priced(technology, price):
    return dataclasses.replace(technology, price=price)


@pytest.mark.parametrize("price", [1, 64, 300, 800, 1 << 20])
@pytest.mark.parametrize("technology", [ANY, LOGIC, ECP5, ICE40], ids=["any", "logic", "ecp5", "ice40"])
@pytest.mark.parametrize("memory", SHAPES, ids=str)
def test_every_bit_is_in_one_bank_that_the_device_has(technology, memory, price):
    technology = priced(technology, price)
    found = np.zeros((memory.words, memory.bits), dtype=int)
    widest = dict(technology.shapes)
    for column in technology.columns(memory):
        for row in column.rows:
            assert sum(row.widths) == column.bits
            assert row.first % (1 << row.address_bits) == 0 or row.first == 0
            found[row.first:row.first + row.words, column.low:column.low + column.bits] += 1
            if row.style == "block":
                depth = min(depth for depth in widest if depth >= row.words)
                assert max(row.widths) <= widest[depth]
    assert (found == 1).all()


def test_shapes_are_mixed_to_waste_least():
    """By hand: 4 times 2,048 words in nines and 1,024 in eighteens, against the 80 blocks of 16,384 words each."""
    assert ECP5.blocks(Memory(9216, 80, False)) == 41
    assert ECP5.blocks(Memory(8192, 20, False)) == 9  # 18 bits in 8 blocks of 2,048 x 9, 2 in one of 8,192 x 2
    assert ICE40.blocks(Memory(512, 8)) == 1
    assert ICE40.blocks(Memory(768, 4)) == 1


def test_a_ring_is_a_power_of_two_where_that_costs_nothing():
    assert ANY.ring(168, 6) == 256 and ANY.ring(1, 4) == 2
    assert ECP5.ring(2240, 4) == 4096 and ECP5.ring(512, 4) == 512
    assert ECP5.ring(4608, 8) == 4608  # three blocks of 2,048 nines and two for the rest, against four
    assert ICE40.ring(768, 4) == 1024 and ICE40.ring(1280, 8) == 1280
    for technology in (ANY, ECP5, ICE40):
        for words in range(1, 300):
            assert technology.ring(words, 5) in (max(words, 2), max(1 << (words - 1).bit_length(), 2))
            assert technology.ring(words, 5) == priced(technology, 700).ring(words, 5)


def test_a_dearer_block_ram_is_taken_less_often():
    for memory in SHAPES:
        blocks = [priced(ECP5, price).blocks(memory) for price in (1, 64, 300, 800, 1 << 20)]
        assert blocks == sorted(blocks, reverse=True) and blocks[-1] == 0
    own = dataclasses.replace(ECP5, prices=((SHAPES[0], 1 << 20),))
    assert own.blocks(SHAPES[0]) == 0 and own.blocks(SHAPES[1]) == ECP5.blocks(SHAPES[1])


SMALL = Technology(name="small", shapes=((32, 1), (16, 2), (8, 5)), distributed=4, price=1)
"""So small that every kind of row and column is in a memory of some words."""


@pytest.mark.parametrize("technology", [ANY, SMALL, priced(SMALL, 12)], ids=["any", "small", "dear"])
@pytest.mark.parametrize("registered", [False, True])
def test_words_are_those_of_one_memory(technology, registered):
    rng = np.random.default_rng(5)
    words = tuple(map(int, rng.integers(0, 1 << 11, 53)))
    rom = Rom(width=11, words=words, technology=technology, registered=registered)
    ram = Ram(width=11, depth=53, technology=technology, registered=registered)

    async def constants(ctx):
        ctx.set(rom.en, 1)
        for address in (*range(53), *rng.integers(0, 53, 100)):
            ctx.set(rom.addr, int(address))
            await ctx.tick()
            if registered:
                ctx.set(rom.addr, 0)
                await ctx.tick()
            assert ctx.get(rom.data) == words[address]
        ctx.set(rom.en, 0)
        ctx.set(rom.addr, 0)
        kept = ctx.get(rom.data)
        await ctx.tick()
        assert ctx.get(rom.data) == kept

    async def numbers(ctx):
        held, read_before, shown = {}, None, None
        for _ in range(600):
            write, read, enabled = int(rng.integers(53)), int(rng.integers(53)), bool(rng.integers(2))
            value, writes = int(rng.integers(1 << 11)), bool(rng.integers(2))
            for signal, number in ((ram.addr, read), (ram.en, enabled), (ram.write_addr, write),
                                   (ram.write_data, value), (ram.write_en, writes)):
                ctx.set(signal, number)
            # what is written in this cycle may be seen or not
            if enabled:
                word = None if writes and write == read else held.get(read)
                shown, read_before = (read_before, word) if registered else (word, None)
            if writes:
                held[write] = value
            await ctx.tick()
            assert shown is None or ctx.get(ram.data) == shown
        assert len(held) == 53

    for block, bench in ((rom, constants), (ram, numbers)):
        simulator = Simulator(block)
        simulator.add_clock(1e-6)
        simulator.add_testbench(bench)
        simulator.run()


@pytest.mark.parametrize(("device", "memory"), [
    ("ecp5-25k", Memory(576, 20, False)), ("ecp5-25k", Memory(600, 40)), ("ecp5-25k", Memory(300, 36)),
    ("ecp5-25k", Memory(40, 8)), ("ice40-hx8k", Memory(576, 20, False)), ("ice40-hx8k", Memory(704, 10)),
    ("ice40-hx8k", Memory(12, 11)),
], ids=str)
def test_yosys_takes_as_many_block_rams(device, memory):
    device = DEVICES[device]
    rng = np.random.default_rng(7)
    words = tuple(int.from_bytes(rng.bytes(16), "little") >> (128 - memory.bits) for _ in range(memory.words))
    block = (Ram(width=memory.bits, depth=memory.words, technology=device.technology) if memory.writable
             else Rom(width=memory.bits, words=words, technology=device.technology))
    engine = Engine("auto", 300)
    with engine.stopping():
        files = engine.run(chip_script(device, "top", dsp=False, block_ram=True),
                           {"design.v": block_to_verilog(block, "top")}, ("cells.json", "netlist.json"))


    counts = count_cells(device, json.loads(files["cells.json"]), "top")
    assert counts["block_rams"] == device.technology.blocks(memory)
