# SPDX-License-Identifier: Apache-2.0
"""Streams, and what joins, splits and stores them.

A stream carries one number a transfer: the channels of a pixel one after the other, pixels in raster order, images
without a gap. Its rules are those of ``amaranth.lib.stream``: ``valid`` never waits for ``ready``, and both stay with
their payload until the transfer.

Of every block here but :class:`Fork` and :class:`Add`, ``valid`` of the output and ``ready`` of the input come from
registers, so that no path leads through a block in either direction.
"""

from collections.abc import Mapping, Sequence

from amaranth.hdl import Const, Module, Mux, Signal, Value, signed
from amaranth.lib import stream
from amaranth.lib.wiring import In, Out, connect, flipped

from bmhw.hdl.block import Block, place
from bmhw.hdl.checks import check_range
from bmhw.hdl.technology import ANY, Memory, Technology

from .memories import Ram

__all__ = ["Add", "Fifo", "Fork", "Skid", "by_index", "loops", "stepped"]


def stepped(counter: Signal, count: int) -> Value:
    """What follows a counter of 0..count - 1."""
    return Mux(counter == count - 1, 0, counter + 1)


def loops(m: Module, step: Value, counts: Mapping[str, int]) -> tuple[dict[str, Value], dict[str, Value]]:
    """Nested counters that ``step`` moves on, the innermost first: each one, 0 to its count - 1, and the step that ends
    it and all those within it. Both by name."""
    counters, ends = {}, {}
    for name, count in counts.items():
        if count == 1:  # no register that never moves
            counters[name], ends[name] = Const(0), step
            continue
        counters[name], ends[name] = Signal(range(count), name=name), Signal(name=f"{name}_ends")
        m.d.comb += ends[name].eq(step & (counters[name] == count - 1))
        with m.If(step):
            m.d.sync += counters[name].eq(stepped(counters[name], count))
        step = ends[name]
    return counters, ends


class Skid(Block):
    """Two registers between an output and an input, so that ``ready`` is one.

    - Latency: one cycle.
    - Throughput: one transfer a cycle.

    Parameters
    ----------
    width: of the payload.

    Members
    -------
    i : In(stream), o : Out(stream)
    """

    clocked = True
    HELD = 2
    """Transfers that it holds at most."""

    def __init__(self, *, width: int):
        self.width = check_range("Width of a stream", width, 1)
        super().__init__({"i": In(stream.Signature(width)), "o": Out(stream.Signature(width))})

    def elaborate(self, platform):
        m = Module()
        shown, spare = (Signal(self.width, name=name, reset_less=True) for name in ("shown", "spare"))
        valid, full = Signal(name="valid"), Signal(name="full")  # what is in shown; and in spare, behind it
        m.d.comb += [self.i.ready.eq(~full), self.o.valid.eq(valid), self.o.payload.eq(shown)]
        moves = Signal(name="moves")  # what is shown may change
        m.d.comb += moves.eq(self.o.ready | ~valid)
        with m.If(moves):
            with m.If(full):
                m.d.sync += shown.eq(spare)
            with m.Else():
                m.d.sync += shown.eq(self.i.payload)
            m.d.sync += [valid.eq(full | self.i.valid), full.eq(0)]
        with m.Elif(~full):
            m.d.sync += full.eq(self.i.valid)
        with m.If(~full):
            m.d.sync += spare.eq(self.i.payload)
        return m


class Fifo(Block):
    """A queue in a memory with one port for writing and one for reading.

    - Latency: :attr:`latency` cycles from an input to the output that shows it and to the place that is free again;
      if ``registered`` one more to the output.
    - Throughput: one transfer a cycle.

    Parameters
    ----------
    width: of the payload.
    depth: numbers that it holds, :attr:`LEAST` or more. technology: of its memory.
    registered: whether the output comes from registers behind the memory, a block RAM being slow, for readers that do
        something with it at once.
    limited: whether it has a port for a smaller depth, to find the least one in simulations.

    Members
    -------
    i : In(stream), o : Out(stream)
    level : Out, how many numbers are in it
    limit : In, where it is limited: how many it holds, from 1 to ``depth``; constant
    """

    clocked = True
    latency = 3
    LEAST = 2
    """Numbers that one must hold."""

    def __init__(self, *, width: int, depth: int, technology: Technology = ANY, registered: bool = False,
                 limited: bool = False):
        self.width, self.technology = check_range("Width of a stream", width, 1), technology
        self.registered, self.limited = registered, limited
        self.depth = check_range("Depth of a FIFO", depth, self.LEAST)
        super().__init__({"i": In(stream.Signature(width)), "o": Out(stream.Signature(width)),
                          "level": Out(range(depth + 1)), **({"limit": In(range(depth + 1))} if limited else {})})

    @property
    def memories(self) -> dict[str, Memory]:
        return {"numbers": Memory(self.depth, self.width)}

    def elaborate(self, platform):
        m = Module()
        memory = place(m, platform, "memory", Ram(width=self.width, depth=self.depth, technology=self.technology))
        level, ready = Signal(range(self.depth + 1), name="count"), Signal(init=0, name="room")
        stored = Signal(range(self.depth + 1), name="stored")  # numbers that no read has begun for
        written, taken = (Signal(range(self.depth), name=name) for name in ("written", "taken"))
        read = Signal(name="read")  # the memory shows a number
        enters, leaves, fetch, goes = (Signal(name=name) for name in ("enters", "leaves", "fetch", "goes"))
        m.d.comb += [
            self.i.ready.eq(ready), self.level.eq(level), enters.eq(self.i.valid & ready),
            leaves.eq(self.o.valid & self.o.ready), fetch.eq((stored != 0) & (goes | ~read)),
            memory.write_addr.eq(written), memory.write_data.eq(self.i.payload), memory.write_en.eq(enters),
            memory.addr.eq(taken), memory.en.eq(fetch),
        ]
        after = Signal(range(self.depth + 1), name="after")
        m.d.comb += after.eq(level + enters - leaves)
        depth = self.limit if self.limited else self.depth
        m.d.sync += [level.eq(after), ready.eq(after < depth), stored.eq(stored + enters - fetch)]
        with m.If(enters):
            m.d.sync += written.eq(stepped(written, self.depth))
        with m.If(fetch):
            m.d.sync += [taken.eq(stepped(taken, self.depth)), read.eq(1)]
        with m.Elif(goes):
            m.d.sync += read.eq(0)
        if not self.registered:
            m.d.comb += [self.o.valid.eq(read), self.o.payload.eq(memory.data), goes.eq(leaves)]
            return m
        shown, valid = Signal(self.width, name="shown", reset_less=True), Signal(name="valid")
        m.d.comb += [self.o.valid.eq(valid), self.o.payload.eq(shown), goes.eq(read & (leaves | ~valid))]
        with m.If(goes):
            m.d.sync += [shown.eq(memory.data), valid.eq(1)]
        with m.Elif(leaves):
            m.d.sync += valid.eq(0)
        return m


class Fork(Block):
    """One stream for several readers; each takes a number when it can, and the last one lets the next number come.

    Latency: combinational.

    Members
    -------
    i : In(stream), o0, o1, ... : Out(stream)
    """

    clocked = True

    def __init__(self, *, width: int, readers: int):
        self.width, self.readers = width, check_range("Readers of a stream", readers, 2)
        super().__init__({"i": In(stream.Signature(width)),
                          **{f"o{n}": Out(stream.Signature(width)) for n in range(readers)}})

    def elaborate(self, platform):
        m = Module()
        done = Signal(self.readers, name="done")  # readers that have this number already
        outputs = [getattr(self, f"o{n}") for n in range(self.readers)]
        have = Signal(self.readers, name="have")
        m.d.comb += self.i.ready.eq(have.all())
        for n, output in enumerate(outputs):
            m.d.comb += [output.valid.eq(self.i.valid & ~done[n]), output.payload.eq(self.i.payload),
                         have[n].eq(done[n] | output.ready)]
        with m.If(self.i.valid):
            m.d.sync += done.eq(Mux(have.all(), 0, have))
        return m


class Add(Block):
    """A residual sum: the numbers of two streams in pairs, each shifted left by what its channel has, and added.

    Latency: one cycle, with a pair of registers behind the sum (:class:`Skid`).

    Parameters
    ----------
    widths: of the two payloads, signed.
    shifts: of each channel, for the first and the second stream.
    width: of the sum, signed; wide enough.

    Members
    -------
    i0, i1 : In(stream), o : Out(stream)
    """

    clocked = True

    def __init__(self, *, widths: tuple[int, int], shifts: tuple[tuple[int, int], ...], width: int):
        self.widths, self.shifts, self.width = widths, shifts, width
        super().__init__({**{f"i{n}": In(stream.Signature(bits)) for n, bits in enumerate(widths)},
                          "o": Out(stream.Signature(width))})

    def elaborate(self, platform):
        m = Module()
        skid = place(m, platform, "skid", Skid(width=self.width))
        both = Signal(name="both")
        channel = loops(m, both & skid.i.ready, {"channel": len(self.shifts)})[0]["channel"]
        m.d.comb += [both.eq(self.i0.valid & self.i1.valid), skid.i.valid.eq(both),
                     self.i0.ready.eq(skid.i.ready & self.i1.valid), self.i1.ready.eq(skid.i.ready & self.i0.valid)]
        parts = []
        for n, stream_in in enumerate((self.i0, self.i1)):
            of = [shifts[n] for shifts in self.shifts]
            part = Signal(signed(self.width), name=f"part{n}")
            m.d.comb += part.eq(by_index(channel, stream_in.payload.as_signed(), of))
            parts.append(part)
        m.d.comb += skid.i.payload.eq(parts[0] + parts[1])
        connect(m, skid.o, flipped(self.o))
        return m


def by_index(index: Value, number: Value, shifts: Sequence[int]) -> Value:
    """A number shifted left by what an index has in a table."""
    result = number << min(shifts)
    for shift in sorted(set(shifts) - {min(shifts)}):
        chosen = Const(sum((at == shift) << i for i, at in enumerate(shifts)), max(len(shifts), 2)).bit_select(index, 1)
        result = Mux(chosen, number << shift, result)
    return result
