# SPDX-License-Identifier: Apache-2.0
"""What streams through small blocks, for all inputs and pauses: every number once, in its order, and in time.

By Yosys's SAT solver, over so many cycles that each block fills, stops and begins anew. One beat is followed, any one
of an image, with any payload: what the block gives in its place must be it.
"""

import numpy as np
import pytest
from amaranth.hdl import Array, Const, Module, Mux, ResetSignal, Signal
from amaranth.lib.wiring import In, Out, connect, flipped
from support.proof import always_low

from bmhw.hdl.block import Block, place
from bmhw.hdl.network.pixels import Grid
from bmhw.hdl.network.shape import LayerShape
from bmhw.hdl.network.streams import Fifo, Fork, Skid
from bmhw.hdl.network.window import Window

WIDTH = 2
WINDOW_CYCLES = 24


class Followed(Block):
    """A block between a source and a sink that pause as they like; ``bad`` where it breaks a rule.

    ``sources``: of each number that it gives of an image, the position of the one that came in, None: it is 0.
    ``needed``: of each, how many must have come in before it may be waited for.
    ``patience``: cycles that it may take for that, and ``refusal``: for taking a number, with a sink that takes.
    ``shut``: whether it takes nothing in a reset, as what writes into a memory must not.
    """

    clocked = True

    def __init__(self, *, block, inputs, sources, needed=None, patience, refusal, shut=False, output="o"):
        self.block, self.inputs, self.sources, self.patience = block, inputs, sources, patience
        self.needed = needed or [source + 1 for source in sources]
        self.refusal, self.shut, self.output = refusal, shut, output
        super().__init__({"offer": In(1), "number": In(WIDTH), "take": In(1), "other_take": In(1),
                          "which": In(range(inputs)), "what": In(WIDTH), "bad": Out(1)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.block = block = self.block
        reset = ResetSignal("sync")
        # the beat that is followed is chosen in the reset
        which, what = Signal(range(self.inputs)), Signal(WIDTH, reset_less=True)
        chosen = Signal.like(which, reset_less=True)
        with m.If(reset):
            m.d.sync += [chosen.eq(self.which), what.eq(self.what)]
        # a source that keeps what it offers
        waits, held = Signal(), Signal(WIDTH, reset_less=True)
        came = Signal(range(2 * self.inputs + 1))  # numbers of this image and the next one
        followed = came == chosen
        m.d.comb += [block.i.valid.eq(waits | self.offer),
                     block.i.payload.eq(Mux(followed, what, Mux(waits, held, self.number)))]
        enters = block.i.valid & block.i.ready
        m.d.sync += [waits.eq(block.i.valid & ~block.i.ready), held.eq(block.i.payload)]
        with m.If(enters):
            m.d.sync += came.eq(Mux(came == 2 * self.inputs, came, came + 1))
        # what leaves
        left = Signal(range(len(self.sources) + 1))
        rules = []
        if isinstance(block, Window):
            valid, payload, ready = block.valid, block.code, Const(1)
            m.d.comb += block.room.eq(self.take)
            can = self.take
        else:
            out = getattr(block, self.output)
            valid, payload, ready, can = out.valid, out.payload, self.take, self.take
            m.d.comb += out.ready.eq(self.take)
            if isinstance(block, Fork):
                for n in range(block.readers):
                    if f"o{n}" != self.output:
                        m.d.comb += getattr(block, f"o{n}").ready.eq(self.other_take)
                can = self.take & self.other_take
            before, payload_before = Signal(), Signal(WIDTH, reset_less=True)
            m.d.sync += [before.eq(valid & ~ready), payload_before.eq(payload)]
            rules.append(before & ~(valid & (payload == payload_before)))  # it stays until it is taken
        with m.If(valid & ready & (left < len(self.sources))):
            m.d.sync += left.eq(left + 1)
        first = left < len(self.sources)
        source = Array([Const(-1 if s is None else s, 8) for s in [*self.sources, None]])[left]
        needed = Array([Const(n, 8) for n in [*self.needed, 255]])[left]
        zero = Array([Const(s is None) for s in [*self.sources, None]])[left]
        # nothing before its number came, through a fork before all have it; the followed one as it was; zeros
        there = came + (block.i.valid if isinstance(block, Fork) else 0)
        rules += [valid & first & ~zero & (there <= source),
                  valid & first & ~zero & (source == chosen) & (payload != what), valid & first & zero & (payload != 0)]
        # in time
        for name, late, limit in (("idle", can & ~valid & first & (there >= needed), self.patience),
                                  ("refused", can & block.i.valid & ~block.i.ready, self.refusal)):
            count = Signal(range(limit + 2), name=name)
            m.d.sync += count.eq(Mux(late, count + 1, 0))
            rules.append(late & (count == limit))
        was_reset = Signal(reset_less=True)
        m.d.sync += was_reset.eq(reset)
        if self.shut:
            rules.append(was_reset & reset & block.i.ready)
        m.d.comb += self.bad.eq(Mux(reset, rules[-1] if self.shut else 0, sum(rules[1:], rules[0]) != 0))
        return m


def grid():
    kept = np.arange(12).reshape(2, 3, 2)[::2, ::2].ravel()
    return dict(block=Grid(height=2, width=3, channels=2, stride=2, bits=WIDTH), inputs=12,
                sources=list(map(int, kept)), patience=0, refusal=1)


def window():
    """A kernel of 2 x 2 on 2 x 2 pixels with padding."""
    shape = LayerShape(height=2, width=2, channels=1, kernel=(2, 2), padding=1, outputs=1)
    positions = np.pad(np.arange(4).reshape(2, 2), 1, constant_values=-1)
    sources = [int(position) for row in range(3) for column in range(3)
               for position in positions[row:row + 2, column:column + 2].flat]
    rows = [(shape.oldest_row(row) + shape.needed_rows(row)) * 2 for row in range(3)]
    return dict(block=Window(shape=shape, width=WIDTH, rows=shape.overlapping_rows), inputs=4, shut=True,
                sources=[None if p < 0 else p for p in sources], needed=[rows[n // 12] for n in range(len(sources))],
                patience=Window.latency + 1, refusal=WINDOW_CYCLES)  # a ring is full as long as its rows are read


def identity(block, patience, refusal, **options):
    return dict(block=block, inputs=5, sources=list(range(5)), patience=patience, refusal=refusal, **options)


BLOCKS = {
    "skid": lambda: (identity(Skid(width=WIDTH), 0, 1), 14),
    "fifo": lambda: (identity(Fifo(width=WIDTH, depth=3), 1, 1, shut=True), 16),
    "fork": lambda: (identity(Fork(width=WIDTH, readers=2), 0, 0, output="o1"), 14),
    "grid": lambda: (grid(), 18),
    "window": lambda: (window(), WINDOW_CYCLES),
}


@pytest.mark.parametrize("name", BLOCKS)
def test_every_number_leaves_once_in_its_order_and_in_time(name):
    parameters, cycles = BLOCKS[name]()
    assert always_low(Followed(**parameters), cycles)


class Broken(Skid):
    """Takes a number and forgets it when its registers are full."""

    def elaborate(self, platform):
        m = Module()
        skid = place(m, platform, "inner", Skid(width=self.width))
        connect(m, skid.o, flipped(self.o))
        m.d.comb += [skid.i.valid.eq(self.i.valid), skid.i.payload.eq(self.i.payload), self.i.ready.eq(1)]
        return m


def test_a_lost_number_is_found():
    assert not always_low(Followed(**identity(Broken(width=WIDTH), 0, 1)), 14)


@pytest.mark.parametrize(("patience", "refusal"), [(0, 1), (1, 0)])
def test_a_late_one_is_found(patience, refusal):
    assert not always_low(Followed(**identity(Fifo(width=WIDTH, depth=3), patience, refusal)), 16)


def test_a_late_code_of_a_window_is_found():
    assert not always_low(Followed(**{**window(), "patience": Window.latency}), WINDOW_CYCLES)
