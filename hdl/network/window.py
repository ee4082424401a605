# SPDX-License-Identifier: Apache-2.0
"""The memory of a layer's inputs, and the order in which its elements take them."""

from amaranth.hdl import Module, Mux, Signal
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

__all__ = ["Window"]


class Window(Block):
    """Rows of a map in a ring, written as they come and read in the order of a folded layer (:class:`LayerShape`).

    - Latency: :attr:`latency` cycles from ``issued`` to the code that was asked for.
    - Throughput: one code a cycle, while a fold lasts.

    A row of outputs begins when the rows that it needs are there; a fold begins when ``room`` says so, and is never
    interrupted. Outside the map lies code 0, or a border's, from a register behind the memory.

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
    begins : Out(1), a fold begins
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
        """Of the memory."""
        return self.rows * self.shape.stored[1] * self.shape.channels

    def elaborate(self, platform):
        m = Module()
        memory = place(m, platform, "memory", Ram(width=self.width, depth=self.words, technology=self.technology))
        m.d.comb += memory.en.eq(1)
        used = Signal(range(self.rows + 1), name="rows_used")  # whole rows that are stored
        ready = Signal(name="row_free")
        row_written, row_freed = Signal(name="row_written"), Signal(range(self.rows + 1), name="rows_freed")
        after = Signal(range(self.rows + 1), name="rows_used_after")
        m.d.comb += after.eq(used + row_written - row_freed)
        m.d.sync += [used.eq(after), ready.eq(after < self.rows)]
        self._writer(m, memory, ready, row_written)
        self._reader(m, platform, memory, used, row_freed)
        return m

    def _writer(self, m: Module, memory: Block, ready: Signal, row_written: Signal) -> None:
        shape = self.shape
        address = Signal(range(max(self.words, 2)), name="write_address")
        takes = Signal(name="takes")
        _, ends = loops(m, takes, {"write_channel": shape.channels, "write_column": shape.stored[1]})
        m.d.comb += [
            self.i.ready.eq(ready), takes.eq(self.i.valid & ready),
            memory.write_addr.eq(address), memory.write_data.eq(self.i.payload), memory.write_en.eq(takes),
        ]
        with m.If(takes):
            m.d.sync += address.eq(stepped(address, self.words))
        m.d.comb += row_written.eq(ends["write_column"])

    def _reader(self, m: Module, platform, memory: Block, used: Signal, row_freed: Signal) -> None:
        shape = self.shape
        stored_rows, row_pixels = shape.stored
        pitch = row_pixels * shape.channels
        stride, padding = shape.stride, shape.padding
        out_columns = 1 if shape.pointwise else shape.out_width
        kernel_rows, kernel_columns = shape.kernel
        issued, open_row = Signal(name="issuing"), Signal(name="row_open")

        # the loops, the innermost first; each one's end is that of all before it
        counts = {"channel": shape.group_channels, "tap_column": kernel_columns, "tap_row": kernel_rows,
                  "group": shape.groups, "fold": shape.folds, "column": out_columns, "row": shape.output_rows}
        counters, ends = loops(m, issued, counts)

        # a row opens when what it needs is stored, and is closed by its last input
        row = counters["row"]
        needed, freed = Signal(range(self.rows + 1), name="rows_needed"), Signal(range(self.rows + 1), name="row_frees")
        m.d.comb += [needed.eq(_of_rows(row, [shape.needed_rows(r) for r in range(shape.output_rows)])),
                     freed.eq(_of_rows(row, [shape.freed_rows(r) for r in range(shape.output_rows)])),
                     row_freed.eq(Mux(ends["column"], freed, 0))]
        m.d.sync += open_row.eq(~ends["column"] & (open_row | (used >= needed)))
        # a fold waits for room for its results, a group for those of the one before it
        group_first = Signal(name="group_first")
        fold_first = Signal(name="fold_first")
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
            group_first.eq(~inside), fold_first.eq(group_first & (counters["group"] == 0)),
            issued.eq(inside | (open_row & ~paused & (self.room | ~fold_first))),
            self.begins.eq(issued & fold_first), self.issued.eq(issued),
        ]

        # addresses: of the row, of the column, of the channel; where they lie outside the map they don't matter
        bits = len(memory.addr)
        lane, lane_base = Signal(bits, name="lane"), Signal(bits, name="lane_base")
        with m.If(issued):
            m.d.sync += lane.eq(lane + 1)
        with m.If(ends["channel"]):
            m.d.sync += lane.eq(lane_base)
        with m.If(ends["tap_row"]):
            base = Mux(ends["group"], 0, lane_base + shape.group_channels)[:bits]
            m.d.sync += [lane.eq(base), lane_base.eq(base)]
        across, left_edge = (Signal(bits, name=name, init=-padding * shape.channels % (1 << bits))
                             for name in ("across", "left_edge"))
        x, x_left = (Signal(range(-padding - 1, row_pixels + padding + stride + kernel_columns), name=name,
                            init=-padding) for name in ("x", "x_left"))
        with m.If(ends["channel"]):
            m.d.sync += [across.eq(across + shape.channels), x.eq(x + 1)]
        with m.If(ends["tap_column"]):
            m.d.sync += [across.eq(left_edge), x.eq(x_left)]
        with m.If(ends["fold"]):
            for now, base, step, first in ((across, left_edge, stride * shape.channels, -padding * shape.channels),
                                           (x, x_left, stride, -padding)):
                following = Mux(ends["column"], first, base + step)
                m.d.sync += [now.eq(following), base.eq(following)]
        ring = self.rows * pitch
        top_start = -padding * pitch % ring
        down, top = (Signal(range(max(ring, 2)), name=name, init=top_start) for name in ("down", "top"))
        y, y_top = (Signal(range(-padding - 1, stored_rows + padding + stride + kernel_rows), name=name, init=-padding)
                    for name in ("y", "y_top"))
        with m.If(ends["tap_column"]):
            m.d.sync += [down.eq(_around(down, pitch, ring)), y.eq(y + 1)]
        with m.If(ends["tap_row"]):
            m.d.sync += [down.eq(top), y.eq(y_top)]
        with m.If(ends["column"]):
            last_top = (shape.output_rows - 1) * stride
            following = Mux(ends["row"], _around(top, (stored_rows - last_top) * pitch, ring),
                            _around(top, stride * pitch, ring))
            m.d.sync += [down.eq(following), top.eq(following)]
            following_y = Mux(ends["row"], -padding, y_top + stride)
            m.d.sync += [y.eq(following_y), y_top.eq(following_y)]

        pipe = Pipeline(m, platform)
        address = pipe.register("address", (down + across + lane)[:bits])
        m.d.comb += memory.addr.eq(address)
        outside = (x < 0) | (x >= row_pixels) | (y < 0) | (y >= stored_rows) if padding else Signal(name="outside")
        outside = pipe.delayed("outside", outside, 2)[2]
        border = pipe.register("border", pipe.table("borders", self.border, lane)) if self.border else 0
        m.d.comb += [
            self.code.eq(pipe.register("code", Mux(outside, border, memory.data))),
            self.valid.eq(pipe.flags("valid", issued, self.latency)),
            self.first.eq(pipe.delayed("first", group_first, self.latency)[-1]),
            self.last.eq(pipe.flags("last", ends["tap_row"], self.latency)),
        ]


def _of_rows(row: Signal, values: list[int]):
    """``values[row]``."""
    result = values[0]
    for value in sorted(set(values) - {values[0]}):
        result = Mux(any_of(row == r for r, at in enumerate(values) if at == value), value, result)
    return result


def _around(address, step: int, count: int):
    """``(address + step) % count`` of an address in 0..count - 1."""
    step %= count
    return Mux(address >= count - step, address - (count - step), address + step) if step else address
