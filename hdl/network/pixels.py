# SPDX-License-Identifier: Apache-2.0
"""What a network does with linear numbers between its layers: rectification, pooling, the largest of its results."""

from collections.abc import Iterable

from amaranth.hdl import Module, Mux, Signal, Value, signed
from amaranth.lib import stream
from amaranth.lib.wiring import In, Out, connect, flipped

from bmhw.hdl.arithmetic.reduction import any_of
from bmhw.hdl.block import Block, place
from bmhw.hdl.checks import check_range
from bmhw.hdl.technology import ANY, Memory, Technology

from .memories import Ram
from .pipeline import Pipeline, threshold_numbers, threshold_spans
from .streams import Fork, Skid, by_index, loops, stepped
from .tables import Form, Loaded, Numbers

__all__ = ["Grid", "LargestIndex", "Logits", "Pool", "Rectifier"]


class Rectifier(Loaded):
    """A normalisation with its ReLU: what a number is above its channel's threshold, or below it.

    - Latency: three cycles.
    - Throughput: one number a cycle.

    Parameters
    ----------
    width: of the numbers, signed.
    channels: (threshold, whether it is what lies below) of each.
    out_width: of the result, signed; wide enough.
    form: of its tables where these can be written (:meth:`open_form`); technology: of these.

    Members
    -------
    i : In(stream of width), o : Out(stream of out_width)
    load_write, load_address, load_data : In, where tables can be written (:class:`~bmhw.hdl.network.tables.Loaded`)
    """

    clocked = True

    def __init__(self, *, width: int, channels: tuple[tuple[int, bool], ...], out_width: int,
                 form: Form | None = None, technology: Technology = ANY):
        self.width, self.channels, self.out_width = width, channels, out_width
        super().__init__({"i": In(stream.Signature(width)), "o": Out(stream.Signature(out_width)),
                          **self.open(form, technology)})

    @property
    def numbers(self) -> dict[str, Numbers]:
        """The constants of each channel: those of :meth:`Pipeline.beyond`."""
        return threshold_numbers(self.channels)

    def open_form(self) -> Form:
        """The form of one like this whose tables can be written: any thresholds that take no more bits."""
        return Form.of(threshold_spans(self.numbers, self.channels))

    def elaborate(self, platform):
        m = Module()
        skid = place(m, platform, "skid", Skid(width=self.out_width))
        moves, pipe = skid.i.ready, Pipeline(m, platform, enable=skid.i.ready, owner=self)
        channel = loops(m, self.i.valid & moves, {"channel": len(self.channels)})[0]["channel"]
        m.d.comb += self.i.ready.eq(moves)
        difference = pipe.register("difference", pipe.beyond(self.i.payload.as_signed(), self.numbers, channel))
        m.d.comb += [skid.i.payload.eq(Mux(difference < 0, 0, difference)),
                     skid.i.valid.eq(pipe.flags("valid", self.i.valid, 2))]
        connect(m, skid.o, flipped(self.o))
        return m


class Grid(Block):
    """The pixels on the grid of a stride: what a layer of 1 x 1 kernels reads.

    - Latency: one cycle.
    - Throughput: one number a cycle.

    Parameters
    ----------
    height, width, channels: of the map. stride: in both directions. bits: of the payload.

    Members
    -------
    i : In(stream), o : Out(stream)
    """

    clocked = True

    def __init__(self, *, height: int, width: int, channels: int, stride: int, bits: int):
        self.height, self.width, self.channels, self.stride, self.bits = height, width, channels, stride, bits
        super().__init__({"i": In(stream.Signature(bits)), "o": Out(stream.Signature(bits))})

    def elaborate(self, platform):
        m = Module()
        skid = place(m, platform, "skid", Skid(width=self.bits))
        takes, kept = Signal(name="takes"), Signal(name="kept")
        m.d.comb += [takes.eq(self.i.valid & skid.i.ready), self.i.ready.eq(skid.i.ready),
                     skid.i.valid.eq(self.i.valid & kept), skid.i.payload.eq(self.i.payload)]
        at, _ = loops(m, takes, {"channel": self.channels, "column": self.width, "row": self.height})
        m.d.comb += kept.eq(_is_one_of(at["column"], range(0, self.width, self.stride))
                            & _is_one_of(at["row"], range(0, self.height, self.stride)))
        connect(m, skid.o, flipped(self.o))
        return m


class Pool(Block):
    """Sums over windows that don't overlap; pixels behind the last whole window are dropped.

    The division by the window is part of the next layer's codes.

    - Latency: four cycles from a window's last pixel, of two channels three.
    - Throughput: one number a cycle.

    Parameters
    ----------
    height, width, channels: of the map; two channels or more.
    kernel: (height, width) of a window.
    bits, out_bits: of the numbers, signed; wide enough. technology: of its memory.

    Members
    -------
    i : In(stream of bits), o : Out(stream of out_bits)
    """

    clocked = True

    def __init__(self, *, height: int, width: int, channels: int, kernel: tuple[int, int], bits: int, out_bits: int,
                 technology: Technology = ANY):
        self.height, self.width, self.kernel, self.bits, self.out_bits = height, width, kernel, bits, out_bits
        self.technology = technology
        # a sum is back in its memory two cycles after it was read, or three with a register behind the memory
        self.channels = check_range("Channels of a pool", channels, 2)
        self.registered = channels > 2
        super().__init__({"i": In(stream.Signature(bits)), "o": Out(stream.Signature(out_bits))})

    @property
    def memories(self) -> dict[str, Memory]:
        return {"sums": Memory(self.width // self.kernel[1] * self.channels, self.out_bits)}

    def elaborate(self, platform):
        m = Module()
        skid = place(m, platform, "skid", Skid(width=self.out_bits))
        moves, pipe = skid.i.ready, Pipeline(m, platform, enable=skid.i.ready)
        takes = Signal(name="takes")
        m.d.comb += [self.i.ready.eq(moves), takes.eq(self.i.valid & moves)]
        windows = self.height // self.kernel[0], self.width // self.kernel[1]
        counters, _ = loops(m, takes, {"channel": self.channels, "column": self.width, "row": self.height})
        inside, ends, begins = [], [], []
        for name, size, count in (("row", self.kernel[0], windows[0]), ("column", self.kernel[1], windows[1])):
            place_in = counters[name]
            inside.append(place_in < size * count)
            ends.append(_is_one_of(place_in, range(size - 1, size * count, size)))
            begins.append(_is_one_of(place_in, range(0, size * count, size)))
        window = Signal(range(max(windows[1], 2)), name="window")
        for n in range(1, windows[1]):
            with m.If(counters["column"] >= n * self.kernel[1]):
                m.d.comb += window.eq(n)
        cells = self.memories["sums"].words
        sums = place(m, platform, "sums", Ram(width=self.out_bits, depth=cells, technology=self.technology,
                                              registered=self.registered))
        address = Signal(range(max(cells, 2)), name="address")
        m.d.comb += [address.eq(window * self.channels + counters["channel"]), sums.addr.eq(address),
                     sums.en.eq(moves)]
        steps = 1 + self.registered
        number = pipe.delayed("number", self.i.payload.as_signed(), steps)[steps]
        first = pipe.delayed("first", begins[0] & begins[1], steps)[steps]
        total = Signal(self.out_bits, name="total")
        m.d.comb += [
            total.eq(number + Mux(first, 0, sums.data.as_signed())),
            sums.write_addr.eq(pipe.delayed("address", address, steps)[steps]), sums.write_data.eq(total),
            sums.write_en.eq(pipe.flags("kept", takes & inside[0] & inside[1], steps) & moves),
            skid.i.payload.eq(pipe.register("total", total)),
            skid.i.valid.eq(pipe.flags("whole", takes & ends[0] & ends[1], 1 + steps)),
        ]
        connect(m, skid.o, flipped(self.o))
        return m


class LargestIndex(Block):
    """The index of the largest of a row of numbers, the first one of equals: the class of an image.

    - Latency: three cycles from the last number.
    - Throughput: one number a cycle; none in the one in which an index is found.

    Parameters
    ----------
    width: of the numbers, signed.
    shifts: to the left, of each number of a row.

    Members
    -------
    i : In(stream of width), o : Out(stream of index)
    """

    clocked = True

    def __init__(self, *, width: int, shifts: tuple[int, ...]):
        self.width, self.shifts = width, shifts
        self.bits = max(1, (len(shifts) - 1).bit_length())
        super().__init__({"i": In(stream.Signature(width)), "o": Out(stream.Signature(self.bits))})

    def elaborate(self, platform):
        m = Module()
        skid = place(m, platform, "skid", Skid(width=self.bits))
        index, found = Signal(self.bits, name="index"), Signal(name="found")
        # the index waits in its register until it is taken; meanwhile nothing moves that could overwrite it
        move = Pipeline(m, platform, enable=~found)
        shifted = move.register("number", by_index(index, self.i.payload.as_signed(), self.shifts))
        at, last = move.register("index", index), move.register("last", index == len(self.shifts) - 1)
        present = move.register("present", self.i.valid, reset=True)
        best = Signal.like(shifted, name="best", reset_less=True)
        best_index = Signal(self.bits, name="best_index", reset_less=True)
        m.d.comb += [
            self.i.ready.eq(~found), skid.i.valid.eq(found), skid.i.payload.eq(best_index),
        ]
        with m.If(self.i.valid & ~found):
            m.d.sync += index.eq(stepped(index, len(self.shifts)))
        # a number that moves on was compared, in the cycle in which it does
        with m.If(present & ~found & ((at == 0) | (shifted > best))):
            m.d.sync += [best.eq(shifted), best_index.eq(at)]
        m.d.sync += found.eq((present & last & ~found) | (found & ~skid.i.ready))
        connect(m, skid.o, flipped(self.o))
        return m


class Logits(Block):
    """A row of numbers in a common scale, and behind them the index of the largest.

    - Latency: two cycles; the index comes four behind the last number.
    - Throughput: one number a cycle.

    Parameters
    ----------
    width, shifts: as :class:`LargestIndex` has them.
    bits: of what leaves: numbers are signed, the index is not.

    Members
    -------
    i : In(stream of width), o : Out(stream of bits), len(shifts) numbers and the index
    """

    clocked = True

    def __init__(self, *, width: int, shifts: tuple[int, ...], bits: int):
        self.width, self.shifts = width, shifts
        self.bits = check_range("Bits of a logit", bits, max(width + max(shifts), (len(shifts) - 1).bit_length(), 1))
        super().__init__({"i": In(stream.Signature(width)), "o": Out(stream.Signature(bits))})

    def elaborate(self, platform):
        m = Module()
        fork = place(m, platform, "fork", Fork(width=self.width, readers=2))
        largest = place(m, platform, "largest", LargestIndex(width=self.width, shifts=self.shifts))
        skid = place(m, platform, "skid", Skid(width=self.bits))
        connect(m, flipped(self.i), fork.i)
        connect(m, fork.o1, largest.i)
        at = Signal(range(len(self.shifts) + 1), name="beat")
        behind = Signal(name="behind")  # the numbers, where the index comes
        number = Signal(signed(self.bits), name="number")
        m.d.comb += [
            behind.eq(at == len(self.shifts)),
            number.eq(by_index(at, fork.o0.payload.as_signed(), (*self.shifts, 0))),
            skid.i.payload.eq(Mux(behind, largest.o.payload, number)),
            skid.i.valid.eq(Mux(behind, largest.o.valid, fork.o0.valid)),
            fork.o0.ready.eq(skid.i.ready & ~behind), largest.o.ready.eq(skid.i.ready & behind),
        ]
        with m.If(skid.i.valid & skid.i.ready):
            m.d.sync += at.eq(stepped(at, len(self.shifts) + 1))
        connect(m, skid.o, flipped(self.o))
        return m


def _is_one_of(number: Value, values: Iterable[int]) -> Value:
    return any_of(number == value for value in values)
