# SPDX-License-Identifier: Apache-2.0
"""What streams through small blocks, for all inputs, pauses and resets: every number once, in its order, and in time.

For all times, by abc, which finds the invariants; a window in so many cycles that it fills, stops and begins anew. One
beat is followed, any one of an image, in each image, with any payload: what the block gives in its place must be it.
"""

import numpy as np
import pytest
from amaranth.hdl import Array, Const, Module, Mux, ResetSignal, Signal, signed
from amaranth.lib.wiring import In, Out, connect, flipped
from support.proof import always_low

from bmhw.hdl.arithmetic.reduction import any_of
from bmhw.hdl.block import Block, place
from bmhw.hdl.network.pixels import Grid
from bmhw.hdl.network.shape import LayerShape
from bmhw.hdl.network.streams import Fifo, Fork, Skid
from bmhw.hdl.network.window import Window

WIDTH = 2
WINDOW_CYCLES = 36
IMAGES_INSIDE = 3
"""At most, in part: no block here holds more."""


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
        # numbers that came of the image that leaves now and those behind it; below 0: what is dropped of the one before
        most = IMAGES_INSIDE * self.inputs
        came = Signal(signed(most.bit_length() + 1))
        followed = any_of(came == chosen + image * self.inputs for image in range(-1, IMAGES_INSIDE))
        m.d.comb += [block.i.valid.eq(waits | self.offer),
                     block.i.payload.eq(Mux(followed, what, Mux(waits, held, self.number)))]
        enters = block.i.valid & block.i.ready
        m.d.sync += [waits.eq(block.i.valid & ~block.i.ready), held.eq(block.i.payload)]
        # what leaves
        left = Signal(range(len(self.sources)))
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
        leaves = valid & ready
        image_ends = leaves & (left == len(self.sources) - 1)
        m.d.sync += [left.eq(Mux(image_ends, 0, left + leaves)),
                     came.eq(came + enters - Mux(image_ends, self.inputs, 0))]
        source = Array([Const(0 if s is None else s, signed(8)) for s in self.sources])[left]
        needed = Array([Const(n, signed(8)) for n in self.needed])[left]
        zero = Array([Const(s is None) for s in self.sources])[left]
        # nothing before its number came, through a fork before all have it; the followed one as it was; zeros
        there = came + (block.i.valid if isinstance(block, Fork) else 0)
        rules += [valid & ~zero & (there <= source), valid & ~zero & (source == chosen) & (payload != what),
                  valid & zero & (payload != 0), enters & (came == most)]
        # in time
        for name, late, limit in (("idle", can & ~valid & (there >= needed), self.patience),
                                  ("refused", can & block.i.valid & ~block.i.ready, self.refusal)):
            count = Signal(range(limit + 2), name=name)
            m.d.sync += count.eq(Mux(late, count + 1, 0))
            rules.append(late & (count == limit))
        was_reset = Signal(reset_less=True)
        m.d.sync += was_reset.eq(reset)
        if self.shut:
            rules.append(was_reset & reset & block.i.ready)
        started = Signal(reset_less=True)  # nothing is known before the first reset
        m.d.sync += started.eq(started | reset)
        broken = Mux(reset, rules[-1] if self.shut else 0, sum(rules[1:], rules[0]) != 0)
        m.d.comb += self.bad.eq(started & broken)
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
                patience=Window.latency + 1, refusal=2 * 12 + 4)  # a ring is full as long as its rows are read


def identity(block, patience, refusal, **options):
    return dict(block=block, inputs=5, sources=list(range(5)), patience=patience, refusal=refusal, **options)


BLOCKS = {
    "skid": lambda: identity(Skid(width=WIDTH), 0, 1),
    "fifo": lambda: identity(Fifo(width=WIDTH, depth=3), 1, 1, shut=True),
    "fork": lambda: identity(Fork(width=WIDTH, readers=2), 0, 0, output="o1"),
    "grid": grid,
}


@pytest.mark.parametrize("name", BLOCKS)
def test_every_number_leaves_once_in_its_order_and_in_time(name):
    assert always_low(Followed(**BLOCKS[name]()))


@pytest.mark.parametrize("cycles", [24, pytest.param(WINDOW_CYCLES, marks=pytest.mark.long)])
def test_every_code_of_a_window_is_the_one_asked_for(cycles):
    assert always_low(Followed(**window()), cycles)


@pytest.mark.long
def test_a_window_that_refuses_for_longer_is_found():
    assert not always_low(Followed(**{**window(), "refusal": 2 * 12}), WINDOW_CYCLES)


class Broken(Skid):
    """Takes a number and forgets it when its registers are full."""

    def elaborate(self, platform):
        m = Module()
        skid = place(m, platform, "inner", Skid(width=self.width))
        connect(m, skid.o, flipped(self.o))
        m.d.comb += [skid.i.valid.eq(self.i.valid), skid.i.payload.eq(self.i.payload), self.i.ready.eq(1)]
        return m


def test_a_lost_number_is_found():
    assert not always_low(Followed(**identity(Broken(width=WIDTH), 0, 1)))


@pytest.mark.parametrize(("patience", "refusal"), [(0, 1), (1, 0)])
def test_a_late_one_is_found(patience, refusal):
    assert not always_low(Followed(**identity(Fifo(width=WIDTH, depth=3), patience, refusal)))


def test_a_late_code_of_a_window_is_found():
    assert not always_low(Followed(**{**window(), "patience": Window.latency}), 24)
