# SPDX-License-Identifier: Apache-2.0
"""A folded layer: its window, its weights, its elements, the end that they share, and the queue of its results."""

import math
from dataclasses import dataclass

from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.lib import stream
from amaranth.lib.wiring import In, Out, connect, flipped

from bmhw.hdl.block import Block, place
from bmhw.hdl.formats.bm import BmFormat
from bmhw.hdl.neurons.design import Design
from bmhw.hdl.neurons.element_ends import GroupEnd, element_format
from bmhw.hdl.neurons.elements import Element

from .encoder import ChannelCode, Encoder
from .memories import Ram, Rom
from .pipeline import Pipeline
from .shape import LayerShape
from .streams import Fifo, stepped
from .window import Window

__all__ = ["Folded", "FoldedLayer", "Unloading", "Weights"]


@dataclass(frozen=True, kw_only=True)
class Folded:
    """What a folded layer is: its shape, the format of its neurons, their weights and what becomes of their sums.

    Parameters
    ----------
    format: of the neurons, result ``linear`` (a code is made by ``codes``), layout ``signed``.
    weights: words of the weight memory in the order of :class:`LayerShape`: of each element, the first one in the
        lowest bits, code and above it the sign; (folds * fan-in).
    biases: of each output.
    codes: what becomes of each output's sum; none: it stays the linear number.
    rows, results: of the window's ring and of the queue of results.
    styles: of the memories: of the window, the weights, the sums of a fold and the results.
    """

    shape: LayerShape
    format: BmFormat
    weights: tuple[int, ...]
    biases: tuple[int, ...]
    codes: tuple[ChannelCode, ...] = ()
    rows: int
    results: int
    styles: tuple[str, str, str, str] = ("auto",) * 4

    @property
    def weight_bits(self) -> int:
        """Of an input's weight, with its sign."""
        return self.format.weight_bits + 1

    @property
    def input_bits(self) -> int:
        """Of an input's code, with its sign."""
        return self.format.log_bits + bool(self.format.signed_inputs)

    @property
    def output_bits(self) -> int:
        return self.format.log_bits if self.codes else self.format.y.bits

    @staticmethod
    def ample_results(shape: LayerShape, codes: bool) -> int:
        """A queue of so many results never makes a fold wait for those before it: as many as are under way when a fold
        begins, and its own."""
        fold = shape.groups * shape.group_cycles
        under_way = fold + Window.latency + ELEMENT_LATENCY + Unloading.latency + shape.parallel + Fifo.latency
        return shape.parallel * (1 + math.ceil((under_way + Encoder.latency * codes) / fold))

    @property
    def element(self) -> Design:
        fmt = element_format(self.format)
        return Design(format=fmt, form="serial", adder="ripple", registers=("sums",))


ELEMENT_LATENCY = 2
"""Cycles from an input to the maxima that count it, with a register between sums and maxima."""


class Weights(Block):
    """The weights of a layer, a word for all its elements: one after the other, and from the start again.

    Latency: three cycles from ``step`` to the word that it asks for.

    Members
    -------
    step : In(1)
    word : Out(width)
    """

    clocked = True

    def __init__(self, *, width: int, words: tuple[int, ...], style: str = "auto"):
        self.width, self.words, self.style = width, words, style
        super().__init__({"step": In(1), "word": Out(width)})

    def elaborate(self, platform):
        m = Module()
        memory = place(m, platform, "memory", Rom(width=self.width, words=self.words, style=self.style))
        address = Signal(range(max(len(self.words), 2)), name="address")
        pipe = Pipeline(m, platform)
        with m.If(self.step):
            m.d.sync += address.eq(stepped(address, len(self.words)))
        m.d.comb += [memory.addr.eq(pipe.register("address", address)), memory.en.eq(1),
                     self.word.eq(pipe.register("word", memory.data))]
        return m


class Unloading(Block):
    """Maxima of a layer's elements as they become ready, added one by one to the sums of their neurons.

    - Latency: :attr:`latency` cycles from ``load`` to the first sum.
    - Throughput: an element a cycle; a load may come as many cycles after another one as there are elements, and
      :attr:`LayerShape.UNLOADING` at least.

    Members
    -------
    load : In(1): the maxima are those of a group
    m1, m2 : In(parallel * maximum_bits), the first element's in the lowest bits
    y : Out(width of y), signed; valid : Out(1): y is a neuron's whole sum, outputs in order
    """

    clocked = True
    latency = 5

    def __init__(self, *, folded: Folded):
        self.folded = folded
        bits = folded.shape.parallel * folded.format.maximum_bits
        super().__init__({"load": In(1), "m1": In(bits), "m2": In(bits), "y": Out(folded.format.y.bits),
                          "valid": Out(1)})

    def elaborate(self, platform):
        m = Module()
        shape, fmt = self.folded.shape, self.folded.format
        parallel, width = shape.parallel, fmt.maximum_bits
        queues = []
        for name, maxima in (("m1", self.m1), ("m2", self.m2)):
            queue = Signal(parallel * width, name=f"{name}_waiting", reset_less=True)
            m.d.sync += queue.eq(Mux(self.load, maxima, queue >> width))
            queues.append(queue[:width])
        # which element, group and output leaves its queue
        element, group = Signal(range(max(parallel, 2)), name="element"), Signal(range(max(shape.groups, 2)),
                                                                                name="group")
        base, output = (Signal(range(max(shape.folds * parallel, 2)), name=name) for name in ("fold_base", "result"))
        busy = Signal(name="busy")
        last = element == parallel - 1
        m.d.comb += output.eq(base + element)
        with m.If(busy):
            m.d.sync += element.eq(stepped(element, parallel))
            with m.If(last):
                m.d.sync += group.eq(stepped(group, shape.groups))
                with m.If(group == shape.groups - 1):
                    m.d.sync += base.eq(Mux(base == (shape.folds - 1) * parallel, 0, base + parallel))
        m.d.sync += busy.eq(self.load | (busy & ~last))

        pipe = Pipeline(m, platform)
        end = place(m, platform, "group_end", GroupEnd(format=fmt, adder="ripple"))
        sums = place(m, platform, "sums", Ram(width=fmt.y.bits, depth=parallel, style=self.folded.styles[2]))
        elements = pipe.delayed("element", element, 2)
        m.d.comb += [
            end.m1.eq(queues[0]), end.m2.eq(queues[1]), sums.addr.eq(element), sums.en.eq(1), end.waiting.eq(sums.data),
            end.first.eq(pipe.register("first", group == 0)),
            end.bias.eq(pipe.table("biases", self.folded.biases, output)),
            sums.write_addr.eq(elements[2]), sums.write_data.eq(end.y), sums.write_en.eq(pipe.flags("sum", busy, 2)),
            self.y.eq(end.y),
            self.valid.eq(pipe.flags("whole", busy & (group == shape.groups - 1) & (output < shape.outputs), 2)),
        ]
        return m


class FoldedLayer(Block):
    """A layer that is folded onto a few elements: a stream of input codes becomes one of sums or of output codes.

    Nothing in it waits: a fold begins when there is room for its results, and runs to its end.

    Throughput: an image in ``shape.cycles``, and two more for each row of outputs, if both ends keep up.

    Members
    -------
    i : In(stream of codes), o : Out(stream of sums, signed, or codes)
    """

    clocked = True

    def __init__(self, *, folded: Folded):
        self.folded = folded
        super().__init__({"i": In(stream.Signature(folded.input_bits)), "o": Out(stream.Signature(folded.output_bits))})

    def elaborate(self, platform):
        m = Module()
        folded = self.folded
        shape, fmt, width = folded.shape, folded.format, folded.weight_bits
        window = place(m, platform, "window", Window(shape=shape, width=folded.input_bits, rows=folded.rows,
                                                     style=folded.styles[0]))
        weights = place(m, platform, "weights", Weights(width=shape.parallel * width, words=folded.weights,
                                                        style=folded.styles[1]))
        unloading = place(m, platform, "unloading", Unloading(folded=folded))
        connect(m, flipped(self.i), window.i)
        m.d.comb += weights.step.eq(window.issued)
        # elements, which take `first` and signs with the register between sums and maxima
        pipe = Pipeline(m, platform)
        first = pipe.register("first", window.first)
        maxima: dict[str, list[Value]] = {"m1": [], "m2": []}
        for n in range(shape.parallel):
            element = place(m, platform, f"element_{n}", Element(design=folded.element))
            word = weights.word[n * width:(n + 1) * width]
            m.d.comb += [element.first.eq(first), element.c.eq(window.code[:fmt.log_bits]), element.k.eq(word[:-1]),
                         element.sign.eq(pipe.register(f"sign_{n}", word[-1]))]
            if fmt.signed_inputs:
                m.d.comb += element.negative.eq(window.code[-1])
            for name, values in maxima.items():
                values.append(getattr(element, name))
        m.d.comb += [unloading.load.eq(pipe.flags("loads", window.valid & window.last, element.latency)),
                     *(getattr(unloading, name).eq(Cat(values)) for name, values in maxima.items())]
        # what a fold gives has its place before the fold begins, so that nothing behind it ever waits
        queue = place(m, platform, "results", Fifo(width=folded.output_bits, depth=folded.results,
                                                     style=folded.styles[3]))
        if folded.codes:
            encoder = place(m, platform, "encoder", Encoder(width=fmt.y.bits, channels=folded.codes, relu=True))
            m.d.comb += [encoder.i.payload.eq(unloading.y), encoder.i.valid.eq(unloading.valid)]
            connect(m, encoder.o, queue.i)
        else:
            m.d.comb += [queue.i.payload.eq(unloading.y), queue.i.valid.eq(unloading.valid)]
        connect(m, queue.o, flipped(self.o))
        places = Signal(range(folded.results + 1), init=folded.results, name="places")
        after, fold = Signal(range(folded.results + 1), name="places_after"), Signal(range(max(shape.folds, 2)),
                                                                                    name="fold")
        rest = shape.outputs - (shape.folds - 1) * shape.parallel
        taken = Mux(fold == shape.folds - 1, rest, shape.parallel)
        room = Signal(name="room")
        m.d.comb += [after.eq(places + (self.o.valid & self.o.ready) - Mux(window.begins, taken, 0)),
                     window.room.eq(room)]
        m.d.sync += [places.eq(after), room.eq(after >= shape.parallel)]
        with m.If(window.begins):
            m.d.sync += fold.eq(stepped(fold, shape.folds))
        return m
