# SPDX-License-Identifier: Apache-2.0
"""The edge of a chip: AXI4-Stream outside, a network's stream of numbers inside.

Outside are images as their sender makes them, too short or too long where it errs; behind :class:`ImageInput` there are
whole images only. Every output of the edge is a register and every input goes into one, so that no path leads through
it in either direction.
"""

from functools import reduce
from operator import and_

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import stream
from amaranth.lib.wiring import In, Out, connect, flipped

from bmhw.hdl.block import Block, place
from bmhw.hdl.checks import check_range
from bmhw.hdl.technology import LOGIC

from .loading import WORD, Admission, LoadLayout
from .network import Network, Part
from .streams import Fifo, Skid, stepped

__all__ = ["Chip", "Downsizer", "ImageInput", "ResultOutput"]

PIXEL_BITS = 8
COUNTER_BITS = 32


class Downsizer(Block):
    """Words of several numbers as one number after the other, the lowest first.

    - Latency: one cycle.
    - Throughput: one number a cycle.

    Parameters
    ----------
    width: of a number. count: numbers in a word.

    Members
    -------
    i : In(stream of count * width), o : Out(stream of width)
    """

    clocked = True

    def __init__(self, *, width: int, count: int):
        self.width, self.count = check_range("Width of a stream", width, 1), check_range("Numbers in a word", count, 1)
        super().__init__({"i": In(stream.Signature(count * width)), "o": Out(stream.Signature(width))})

    def elaborate(self, platform):
        m = Module()
        shown, spare = (Signal(self.count * self.width, name=name, reset_less=True) for name in ("shown", "spare"))
        valid, full = Signal(name="valid"), Signal(name="full")  # what is in shown; and in spare, behind it
        at, moves, leaves = Signal(range(max(self.count, 2)), name="at"), Signal(name="moves"), Signal(name="leaves")
        m.d.comb += [
            self.i.ready.eq(~full), self.o.valid.eq(valid), self.o.payload.eq(shown[:self.width]),
            leaves.eq(valid & self.o.ready), moves.eq(~valid | (leaves & (at == self.count - 1))),
        ]
        with m.If(leaves):
            m.d.sync += at.eq(stepped(at, self.count))
        with m.If(moves):
            m.d.sync += [shown.eq(Mux(full, spare, self.i.payload)), valid.eq(full | self.i.valid), full.eq(0)]
        with m.Else():
            with m.If(leaves):
                m.d.sync += shown.eq(shown >> self.width)
            with m.If(~full):
                m.d.sync += full.eq(self.i.valid)
        with m.If(~full):
            m.d.sync += spare.eq(self.i.payload)
        return m


class ImageInput(Block):
    """Pixels as they come, with the end of each image, as the numbers of whole images.

    An image that ends early is filled with pixels of 0; what follows its last pixel is dropped, up to the end.

    - Latency: three cycles.
    - Throughput: one number a cycle; a pixel that is dropped takes one cycle.

    Parameters
    ----------
    pixels: of an image. channels: of a pixel.

    Members
    -------
    i : In(stream of channels * 8 + 1): a pixel, its first channel lowest, and above it the end of an image
    o : Out(stream of 8): numbers of whole images
    malformed : Out(stream of 1): of each image, whether it was too short or too long; with its last pixel
    """

    clocked = True

    def __init__(self, *, pixels: int, channels: int):
        self.pixels, self.channels = check_range("Pixels of an image", pixels, 1), channels
        super().__init__({"i": In(stream.Signature(channels * PIXEL_BITS + 1)), "o": Out(stream.Signature(PIXEL_BITS)),
                          "malformed": Out(stream.Signature(1))})

    def elaborate(self, platform):
        m = Module()
        # what is placed beside the pins may be far from everything else: nothing but registers is between the two
        pins = place(m, platform, "pins", Skid(width=len(self.i.payload)))
        skid = place(m, platform, "skid", Skid(width=len(self.i.payload)))
        numbers = place(m, platform, "numbers", Downsizer(width=PIXEL_BITS, count=self.channels))
        connect(m, flipped(self.i), pins.i)
        connect(m, pins.o, skid.i)
        connect(m, numbers.o, flipped(self.o))
        pixel, ends = skid.o.payload[:-1], skid.o.payload[-1]
        at, filling, dropping = (Signal(range(max(self.pixels, 2)), name="pixel"), Signal(name="filling"),
                                 Signal(name="dropping"))
        last_pixel, passes = Signal(name="last_pixel"), Signal(name="passes")
        # the last pixel goes when its image's flag does
        room, have = Signal(name="room"), Signal(name="have")
        m.d.comb += [
            last_pixel.eq(at == self.pixels - 1), have.eq(filling | (skid.o.valid & ~dropping)),
            room.eq(~last_pixel | self.malformed.ready), passes.eq(have & room & numbers.i.ready),
            numbers.i.valid.eq(have & room), numbers.i.payload.eq(Mux(filling, 0, pixel)),
            skid.o.ready.eq(dropping | (~filling & room & numbers.i.ready)),
            self.malformed.valid.eq(have & last_pixel & numbers.i.ready), self.malformed.payload.eq(filling | ~ends),
        ]
        with m.If(passes):
            m.d.sync += [at.eq(stepped(at, self.pixels)), filling.eq(~last_pixel & (filling | ends)),
                         dropping.eq(last_pixel & ~filling & ~ends)]
        with m.Elif(skid.o.valid & ends):
            m.d.sync += dropping.eq(0)
        return m


class ResultOutput(Block):
    """What a network gives for an image as a frame, its last beat marked, and with the image's flag.

    - Latency: two cycles.
    - Throughput: one beat a cycle.

    Parameters
    ----------
    width: of a beat. beats: of an image.

    Members
    -------
    i : In(stream of width), malformed : In(stream of 1, one for each image)
    o : Out(stream of width + 2): a beat, above it the flag (0 but for the last one), and the end of the frame
    """

    clocked = True

    def __init__(self, *, width: int, beats: int):
        self.width, self.beats = width, check_range("Beats of a frame", beats, 1)
        super().__init__({"i": In(stream.Signature(width)), "malformed": In(stream.Signature(1)),
                          "o": Out(stream.Signature(width + 2))})

    def elaborate(self, platform):
        m = Module()
        # the second one is beside the pins (see ImageInput)
        skid, pins = (place(m, platform, name, Skid(width=self.width + 2)) for name in ("skid", "pins"))
        beat, last = Signal(range(max(self.beats, 2)), name="beat"), Signal(name="last")
        known = Signal(name="known")
        # the flag comes with the last pixel, which may need room that the beats in front of the last one take
        m.d.comb += [
            last.eq(beat == self.beats - 1), known.eq(self.malformed.valid | ~last),
            skid.i.valid.eq(self.i.valid & known), self.i.ready.eq(skid.i.ready & known),
            skid.i.payload.eq(Cat(self.i.payload, last & self.malformed.payload, last)),
            self.malformed.ready.eq(skid.i.ready & self.i.valid & last),
        ]
        with m.If(skid.i.valid & skid.i.ready):
            m.d.sync += beat.eq(stepped(beat, self.beats))
        connect(m, skid.o, pins.i)
        connect(m, pins.o, flipped(self.o))
        return m


class Chip(Block):
    """A trained network with its weights and AXI4-Stream at its edge: an image's pixels in, its class out.

    A beat at the input is a pixel, pixels in raster order, the last one of an image with ``s_axis_tlast``. An image
    that ends early is filled with pixels of 0; beats behind its last pixel are dropped, up to ``s_axis_tlast``. The
    last beat of what the network gives for such an image has ``m_axis_tuser``.

    ``rst`` is synchronous and active high; a cycle of it is enough, at any time. Behind it an image begins. Outputs are
    undefined before the first one.

    Parameters
    ----------
    parts: of the network (:class:`~bmhw.hdl.network.network.Network`).
    pixels, channels: of an image.
    beats: that the network gives for an image: 1, or one for each class and then the class.
    images: under way at a time before the input waits, two or more.
    counters: whether there are outputs that count.
    layout: of images of weights (:class:`~bmhw.hdl.network.loading.LoadLayout`), where these can be written.

    Members
    -------
    s_axis_tdata : In(channels * 8), the first channel lowest; s_axis_tvalid, s_axis_tlast : In(1)
    s_axis_tready : Out(1)
    m_axis_tdata : Out(whole bytes); m_axis_tvalid, m_axis_tlast, m_axis_tuser : Out(1); m_axis_tready : In(1)
    frames : Out(32), frames that have left; input_stalls, output_stalls : Out(32), cycles in which a beat waited at
        ``s_axis`` and at ``m_axis``. All since the reset, and from 0 again behind the largest.
    s_load_tdata : In(32), s_load_tvalid, s_load_tlast : In(1), s_load_tready : Out(1): an image of weights, taken when
        no image is in the chip; no pixel is, while it is (:class:`~bmhw.hdl.network.loading.Admission`)
    load_done, load_error : Out(1) (:class:`~bmhw.hdl.network.loading.Loader`)
    """

    clocked = True
    block_name = "chip"

    def __init__(self, *, parts: tuple[Part, ...], pixels: int, channels: int, beats: int = 1, images: int = 2,
                 counters: bool = False, layout: LoadLayout | None = None):
        self.parts, self.layout = parts, layout
        self.pixels, self.channels, self.beats, self.counters = pixels, channels, beats, counters
        self.images = check_range("Images under way", images, 2)
        result = len(parts[-1].create().o.payload)
        super().__init__({
            "s_axis_tdata": In(channels * PIXEL_BITS), "s_axis_tvalid": In(1), "s_axis_tready": Out(1),
            "s_axis_tlast": In(1),
            "m_axis_tdata": Out(-(-result // 8) * 8), "m_axis_tvalid": Out(1), "m_axis_tready": In(1),
            "m_axis_tlast": Out(1), "m_axis_tuser": Out(1),
            **({name: Out(COUNTER_BITS) for name in ("frames", "input_stalls", "output_stalls")} if counters else {}),
            **({"s_load_tdata": In(WORD), "s_load_tvalid": In(1), "s_load_tready": Out(1), "s_load_tlast": In(1),
                "load_done": Out(1), "load_error": Out(1)} if layout is not None else {}),
        })

    def elaborate(self, platform):
        m = Module()
        written = {} if self.layout is None else {"layout": self.layout}
        network = place(m, platform, "network", Network(parts=self.parts, **written))
        images = place(m, platform, "images", ImageInput(pixels=self.pixels, channels=self.channels))
        flags = place(m, platform, "flags", Fifo(width=1, depth=self.images, technology=LOGIC))
        results = place(m, platform, "results", ResultOutput(width=len(network.out_data), beats=self.beats))
        connect(m, images.malformed, flags.i)
        connect(m, flags.o, results.malformed)
        admitted = () if self.layout is None else (self._admission(m, platform, network).pixels,)
        m.d.comb += [
            images.i.payload.eq(Cat(self.s_axis_tdata, self.s_axis_tlast)),
            images.i.valid.eq(reduce(and_, admitted, self.s_axis_tvalid)),
            self.s_axis_tready.eq(reduce(and_, admitted, images.i.ready)),
            network.in_data.eq(images.o.payload), network.in_valid.eq(images.o.valid),
            images.o.ready.eq(network.in_ready),
            results.i.payload.eq(network.out_data), results.i.valid.eq(network.out_valid),
            network.out_ready.eq(results.i.ready),
            self.m_axis_tdata.eq(results.o.payload[:-2]), self.m_axis_tuser.eq(results.o.payload[-2]),
            self.m_axis_tlast.eq(results.o.payload[-1]), self.m_axis_tvalid.eq(results.o.valid),
            results.o.ready.eq(self.m_axis_tready),
        ]
        if self.counters:
            counts = {"frames": self.m_axis_tvalid & self.m_axis_tready & self.m_axis_tlast,
                      "input_stalls": self.s_axis_tvalid & ~self.s_axis_tready,
                      "output_stalls": self.m_axis_tvalid & ~self.m_axis_tready}
            for name, counted in counts.items():
                count = Signal(COUNTER_BITS, name=f"{name}_count")
                m.d.sync += count.eq(count + counted)
                m.d.comb += getattr(self, name).eq(count)
        return m

    def _admission(self, m: Module, platform, network: Network) -> Admission:
        """Place what lets pixels in, or words of weights, and connect these."""
        # beside those whose flags wait: one that is being taken, and each beat in the edge's four Skids may be an image
        admission = place(m, platform, "admission", Admission(images=self.images + 1 + 4 * Skid.HELD))
        m.d.comb += [
            admission.offered.eq(self.s_load_tvalid), admission.busy.eq(network.load_busy),
            admission.pixel.eq(self.s_axis_tvalid & self.s_axis_tready), admission.last.eq(self.s_axis_tlast),
            admission.leaves.eq(self.m_axis_tvalid & self.m_axis_tready & self.m_axis_tlast),
            network.load_data.eq(self.s_load_tdata), network.load_last.eq(self.s_load_tlast),
            network.load_valid.eq(self.s_load_tvalid & admission.words),
            self.s_load_tready.eq(network.load_ready & admission.words),
            self.load_done.eq(network.load_done), self.load_error.eq(network.load_error),
        ]
        return admission
