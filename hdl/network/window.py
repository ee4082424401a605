# SPDX-License-Identifier: Apache-2.0
"""The memory of a layer's inputs, and the order in which its elements take them."""

from collections.abc import Callable

from amaranth.hdl import Const, Module, Mux, Signal, Value, ValueLike
from amaranth.lib import stream
from amaranth.lib.wiring import In, Out

from bmhw.hdl.arithmetic.reduction import any_of
from bmhw.hdl.block import Block, place
from bmhw.hdl.checks import check_range
from bmhw.hdl.technology import ANY, Technology

from .memories import Ram
from .pipeline import Pipeline
from .shape import LayerShape
from .streams import loops, stepped
from .tables import Numbers

__all__ = ["Window"]


class Window(Block):
    """Rows of a map in a ring, written as they come and read in the order of a folded layer (:class:`LayerShape`).

    - Latency: :attr:`latency` cycles from ``issued`` to the code that was asked for.
    - Throughput: one code a cycle, while a fold lasts.

    A row of outputs begins when the rows that it needs are there, the last group of a fold when ``room`` says so; a
    group is never interrupted. Outside the map lies code 0, or a border's, from a register behind the memory.

    Parameters
    ----------
    shape: of the layer.
    width: of a code, with its sign.
    rows: of the ring, ``shape.fewest_rows`` or more; with ``shape.overlapping_rows`` storing and reading overlap.
    technology: of its memory.
    border: the code of each channel that lies outside the map; empty: 0.

    Members
    -------
    i : In(stream of width)
    room : In(1), a register: there is room for a fold's results
    begins : Out(1), the last group of a fold begins
    issued : Out(1), a code is asked for
    code : Out(width), valid : Out(1), and with it first : Out(1), last : Out(1): of a group
    """

    clocked = True
    latency = 3

    def __init__(self, *, shape: LayerShape, width: int, rows: int, technology: Technology = ANY,
                 border: tuple[int, ...] = ()):
        self.shape, self.width, self.technology, self.border = shape, width, technology, border
        self.rows = check_range("Rows of a window", rows, shape.fewest_rows)
        super().__init__({"i": In(stream.Signature(width)), "room": In(1), "begins": Out(1), "issued": Out(1),
                          "code": Out(width), "valid": Out(1), "first": Out(1), "last": Out(1)})

    @property
    def words(self) -> int:
        """Of the memory: those of the rows, or a power of two where that costs nothing, since addresses go round
        then by themselves. Of rows of one number one more: its place is free while it is being read."""
        pitch = self.shape.pitch
        return self.technology.ring(self.rows * pitch + (pitch == 1), self.width)

    def elaborate(self, platform):
        m = Module()
        memory = place(m, platform, "memory", Ram(width=self.width, depth=self.words, technology=self.technology))
        m.d.comb += memory.en.eq(1)
        used = Signal(range(self.rows + 1), name="rows_used")  # whole rows that are stored
        ready = Signal(name="row_free")
        row_written, row_freed = Signal(name="row_written"), Signal(range(self.rows + 1), name="rows_freed")
        after = Signal(range(self.rows + 1), name="rows_used_after")
        m.d.comb += after.eq(used + row_written - row_freed)
        m.d.sync += [used.eq(after), ready.eq(after != self.rows)]
        self._writer(m, memory, ready, row_written)
        self._reader(m, platform, memory, used, row_freed)
        return m

    def _writer(self, m: Module, memory: Block, ready: Signal, row_written: Signal) -> None:
        address = Signal(range(self.words), name="write_address")
        takes = Signal(name="takes")
        _, ends = loops(m, takes, {"written_of_row": self.shape.pitch})
        m.d.comb += [
            self.i.ready.eq(ready), takes.eq(self.i.valid & ready),
            memory.write_addr.eq(address), memory.write_data.eq(self.i.payload), memory.write_en.eq(takes),
            row_written.eq(ends["written_of_row"]),
        ]
        with m.If(takes):
            m.d.sync += address.eq(stepped(address, self.words))

    def _reader(self, m: Module, platform, memory: Block, used: Signal, row_freed: Signal) -> None:
        shape, pipe = self.shape, Pipeline(m, platform)
        issued, open_row = Signal(name="issuing"), Signal(name="row_open")
        counters, ends = loops(m, issued, {name: count for name, (count, _) in shape.loops.items()})

        # a row opens when what it needs is stored, and is closed by its last input
        row, last_of_row = counters["row"], ends["column"]
        rows = range(shape.output_rows)
        enough, freed = Signal(name="rows_enough"), Signal(range(self.rows + 1), name="row_frees")
        m.d.comb += [enough.eq(_of_rows(row, {r: shape.needed_rows(r) for r in rows}, lambda needed: used >= needed)),
                     freed.eq(_of_rows(row, {r: shape.freed_rows(r) for r in rows}, lambda freed: freed)),
                     row_freed.eq(Mux(last_of_row, freed, 0))]
        m.d.sync += open_row.eq(~last_of_row & (open_row | enough))
        # a fold's last group waits for room for the results, each one for those of the group before it
        group_first = Signal(name="group_first")
        last_first = Signal(name="last_group_first")
        inside = Signal(name="inside")  # of a group
        pause = shape.group_cycles - shape.group_inputs
        paused = Signal(name="paused")
        if pause:
            left = Signal(range(pause + 1), name="pause_left")
            m.d.comb += paused.eq(left != 0)
            with m.If(ends["tap_row"]):
                m.d.sync += left.eq(pause)
            with m.Elif(paused):
                m.d.sync += left.eq(left - 1)
        m.d.sync += inside.eq((inside | issued) & ~ends["tap_row"])
        m.d.comb += [
            group_first.eq(~inside), last_first.eq(group_first & (counters["group"] == shape.groups - 1)),
            issued.eq(inside | (open_row & ~paused & (self.room | ~last_first))),
            self.begins.eq(issued & last_first), self.issued.eq(issued),
        ]

        # the address is that of the input before, moved by what the outermost loop that it began takes; where it lies
        # outside the map it doesn't matter
        address = Signal(range(self.words), init=shape.first_address % self.words, name="read_address")
        moving = [name for name, (count, _) in shape.loops.items() if count > 1]
        kinds = Signal(range(max(len(moving) + 1, 2)), name="loops_ended")
        for number, name in enumerate(moving, start=1):
            with m.If(ends[name]):
                m.d.comb += kinds.eq(number)
        steps = [step % self.words for step in (*(shape.address_step(name) for name in moving), shape.address_step())]
        step = pipe.table("steps", Numbers.of(steps), kinds)
        moves = pipe.flags("moves", issued, 1)
        with m.If(moves):
            m.d.sync += address.eq(_around(address, step, self.words))
        m.d.comb += memory.addr.eq(address)

        outside = pipe.delayed("outside", self._outside(counters), 2)[2]
        border = 0
        if self.border:
            lane = Signal(range(shape.channels), name="lane")
            m.d.comb += lane.eq(counters["group"] * shape.group_channels + counters["channel"])
            border = pipe.register("border", pipe.table("borders", Numbers.of(self.border), lane))
        m.d.comb += [
            self.code.eq(pipe.register("code", Mux(outside, border, memory.data))),
            self.valid.eq(pipe.flags("valid", issued, self.latency)),
            self.first.eq(pipe.delayed("first", group_first, self.latency)[-1]),
            self.last.eq(pipe.flags("last", ends["tap_row"], self.latency)),
        ]

    def _outside(self, counters: dict[str, Value]) -> Value:
        """Whether the input of the counters lies outside the map: of each row and column of the kernel, at which rows
        and columns of outputs."""
        shape = self.shape
        if not shape.padding:
            return Const(0)
        outside = []
        for tap, at, size, taps, outputs in (
                ("tap_row", "row", shape.height, shape.kernel[0], shape.out_height),
                ("tap_column", "column", shape.width, shape.kernel[1], shape.out_width)):
            for k in range(taps):
                there = [o for o in range(outputs) if not 0 <= o * shape.stride + k - shape.padding < size]
                if there:
                    outside.append((counters[tap] == k) & any_of(counters[at] == o for o in there))
        return any_of(outside)


def _of_rows(row: Value, values: dict[int, int], made: Callable[[int], ValueLike]) -> ValueLike:
    """What is made of a row's value."""
    usual, *others = sorted(set(values.values()), key=lambda value: (-list(values.values()).count(value), value))
    result = made(usual)
    for value in others:
        result = Mux(any_of(row == r for r, at in values.items() if at == value), made(value), result)
    return result


def _around(address: Signal, step: Value, words: int) -> Value:
    """``(address + step) % words``, both in 0..words - 1."""
    moved = address + step
    if words == 1 << len(address):
        return moved[:len(address)]
    beyond = moved - words
    return Mux(beyond < 0, moved, beyond)[:len(address)]
