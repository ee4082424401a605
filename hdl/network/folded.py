# SPDX-License-Identifier: Apache-2.0
"""A folded layer: its window, its weights, its elements, the end that they share, and the queue of its results."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.lib import stream
from amaranth.lib.wiring import In, Out, connect, flipped

from bmhw.hdl.arithmetic.reduction import any_of
from bmhw.hdl.block import Block, place
from bmhw.hdl.formats.bm import BmFormat
from bmhw.hdl.formats.codes import Integers
from bmhw.hdl.formats.mac import MacFormat
from bmhw.hdl.neurons.design import Design
from bmhw.hdl.neurons.element_ends import GroupEnd, element_format
from bmhw.hdl.neurons.elements import Element
from bmhw.hdl.technology import ANY, Memory, Technology

from .encoder import ChannelCode, Encoder
from .memories import Ram, Rom
from .pipeline import Pipeline
from .requantizer import Requantization, Requantizer
from .serializer import Serializer
from .shape import LayerShape
from .streams import Fifo, loops, stepped
from .window import Window

__all__ = ["Folded", "FoldedLayer", "Unloading", "Weights"]


@dataclass(frozen=True, kw_only=True)
class Folded:
    """What a folded layer is: its shape, the format of its neurons, their weights and what becomes of their sums.

    Parameters
    ----------
    format: of the neurons, boundary ``layer`` and result ``linear`` (a code is made by ``codes`` or ``requantized``).
        Of BM any layout but ``wired``, whose neurons, each with its own order of inputs, are ``signed`` ones here. Of
        MAC the groups of the shape are its flushes: with one, an accumulator holds a whole sum.
    weights: words of the weight memory in the order of :class:`LayerShape`: of each element, the first one in the
        lowest bits, what :meth:`packed` gives; (folds * fan-in).
    biases: of each output.
    codes, requantized: what becomes of each output's sum: log codes, or numbers of another scale; neither: it stays.
    border: the input code of each channel that lies outside the map; empty: 0.
    rows, results: of the window's ring and of the queue of results.
    technology: of its memories.
    """

    shape: LayerShape
    format: BmFormat | MacFormat
    weights: tuple[int, ...]
    biases: tuple[int, ...]
    codes: tuple[ChannelCode, ...] = ()
    requantized: Requantization | None = None
    border: tuple[int, ...] = ()
    rows: int
    results: int
    technology: Technology = ANY

    @staticmethod
    def weight_ports(format: BmFormat | MacFormat) -> dict[str, int]:
        """What an element takes with each input, and its bits."""
        return {name: code.bits for name, (code, _) in element_format(format).inputs_of.items()
                if name not in ("x", "c", "negative")}

    @classmethod
    def packed(cls, format: BmFormat | MacFormat, weights: Mapping[str, Integers]) -> tuple[Integers, int]:
        """Weights of all ports in one number each, the first port's in the lowest bits, and its width."""
        numbers, bits = np.int64(0), 0
        for name, width in cls.weight_ports(format).items():
            numbers, bits = numbers | (weights[name] & ((1 << width) - 1)) << bits, bits + width
        return numbers, bits

    def __post_init__(self):
        shown = 1 if isinstance(self.format, MacFormat) else len(self.format.branches)
        if self.shape.shown != shown:
            raise ValueError(f"Elements of this format show {shown} numbers behind a group, not {self.shape.shown}")

    @property
    def weight_bits(self) -> int:
        """Of an input's weight, with its sign."""
        return sum(self.weight_ports(self.format).values())

    @property
    def input_bits(self) -> int:
        """Of an input's code, with its sign."""
        if isinstance(self.format, MacFormat):
            return self.format.bits
        return self.format.log_bits + bool(self.format.signed_inputs)

    @property
    def output_bits(self) -> int:
        converter = self.converter()
        return self.format.y.bits if converter is None else len(converter.o.payload)

    def converter(self) -> Block | None:
        """What makes something else of the sums, if they don't stay as they are."""
        if self.codes:
            return Encoder(width=self.format.y.bits, channels=self.codes, relu=True)
        if self.requantized is not None:
            return Requantizer(width=self.format.y.bits, to=self.requantized)
        return None

    @property
    def flush(self) -> int | None:
        """After how many products a MAC's accumulator is added to the sum of its neuron; None: at its end alone."""
        return self.shape.group_inputs if isinstance(self.format, MacFormat) and self.shape.groups > 1 else None

    def serializer(self) -> Serializer:
        """Of what the elements show behind a group."""
        element, passes = element_format(self.format, self.flush), self.shape.passes
        shown = element.y.bits if isinstance(element, MacFormat) else self.shape.shown * self.format.maximum_bits
        return Serializer(width=shown // passes, words=self.shape.parallel * passes,
                          shifts=not self.technology.lone_registers)

    @property
    def unloading_latency(self) -> int:
        """Cycles from the elements' showing a group to the first sum with all of it."""
        return 1 + self.serializer().latency + 2 + (self.shape.passes - 1) * self.shape.places

    @property
    def latency(self) -> int:
        """Cycles from the last input of a fold to its first result, in what the layer gives."""
        converter = self.converter()
        return (Window.latency + ELEMENT_LATENCY + self.unloading_latency
                + (0 if converter is None else converter.latency) + Fifo.latency)

    @property
    def ample_results(self) -> int:
        """A queue of so many results never makes a fold wait for those before it: as many as there are from the begin
        of a fold's last group, when they must have room, until all of them have left."""
        shape = self.shape
        kept = shape.group_cycles + self.latency + shape.parallel + ROOM_LATENCY
        return max(shape.parallel * math.ceil(kept / (shape.groups * shape.group_cycles)), Fifo.LEAST)

    def window(self) -> Window:
        return Window(shape=self.shape, width=self.input_bits, rows=self.rows, technology=self.technology,
                      border=self.border)

    @property
    def memories(self) -> dict[str, Memory]:
        """Of the layer: ``window``, ``weights``, ``results`` and, where a neuron has several groups or maxima, the
        ``sums`` of a fold."""
        shape = self.shape
        found = {
            "window": Memory(self.window().words, self.input_bits),
            "weights": Memory(len(self.weights), shape.parallel * self.weight_bits, writable=False),
            "results": Memory(self.results, self.output_bits),
        }
        if self.waits:
            found["sums"] = Memory(max(shape.parallel, 2), self.format.y.bits)
        return found

    @property
    def waits(self) -> bool:
        """Whether a neuron's sum waits for its next group."""
        return isinstance(self.format, BmFormat) or self.flush is not None

    @property
    def element(self) -> Design:
        fmt = element_format(self.format, self.flush) if self.flush else element_format(self.format)
        if isinstance(fmt, MacFormat):
            # the best ones measured on FPGAs (docs/results/elements.md); of two bits a product is a table anyway
            multiplier = "booth" if min(fmt.bits, fmt.weight_bits) > 2 else "operator"
            return Design(format=fmt, form="serial", multiplier=multiplier, adder="operator", selection="behind",
                          registers=("products",))
        return Design(format=fmt, form="serial", adder="operator", selection="behind", registers=("sums",))


ROOM_LATENCY = 2
"""Cycles from a result that leaves to a fold that takes its place."""

ELEMENT_LATENCY = 2
"""Cycles from an input to the maxima or the accumulator that count it, with a register in front of these."""


class Weights(Block):
    """The weights of a layer, a word for all its elements: one after the other, and from the start again.

    Latency: three cycles from ``step`` to the word that it asks for.

    Members
    -------
    step : In(1)
    word : Out(width)
    """

    clocked = True

    def __init__(self, *, width: int, words: tuple[int, ...], technology: Technology = ANY):
        self.width, self.words, self.technology = width, words, technology
        super().__init__({"step": In(1), "word": Out(width)})

    def elaborate(self, platform):
        m = Module()
        memory = place(m, platform, "memory", Rom(width=self.width, words=self.words, technology=self.technology,
                                              registered=True))
        address = Signal(range(max(len(self.words), 2)), name="address")
        pipe = Pipeline(m, platform)
        with m.If(self.step):
            m.d.sync += address.eq(stepped(address, len(self.words)))
        m.d.comb += [memory.addr.eq(pipe.register("address", address)), memory.en.eq(1), self.word.eq(memory.data)]
        return m


class Unloading(Block):
    """Maxima or accumulators of a layer's elements as they become ready, added one by one to the sums of their neurons:
    in ``shape.passes`` the first maximum of all elements, then the second one of all; or in one all of an element.

    - Latency: ``Folded.unloading_latency`` cycles from ``load`` to the first sum.
    - Throughput: an element a cycle; a load may come ``shape.passes * shape.places`` cycles after another one.

    Members
    -------
    load : In(1): the elements show those of a group
    m1, m2, ... : In(parallel * maximum_bits), of BM; a : In(parallel * width of an accumulator), of MAC; the first
        element's in the lowest bits
    y : Out(width of y), signed; valid : Out(1): y is a neuron's whole sum, outputs in order
    """

    clocked = True

    def __init__(self, *, folded: Folded):
        self.folded = folded
        self.shown = self._end().shown_by_elements
        super().__init__({"load": In(1), **{name: In(folded.shape.parallel * bits)
                                            for name, bits in self.shown.items()},
                          "y": Out(folded.format.y.bits), "valid": Out(1)})

    def _end(self) -> GroupEnd:
        return GroupEnd(format=self.folded.format, flush=self.folded.flush, adder="operator",
                        serial=self.folded.shape.passes > 1)

    def elaborate(self, platform):
        m = Module()
        shape, fmt = self.folded.shape, self.folded.format
        pipe = Pipeline(m, platform)
        end = place(m, platform, "group_end", self._end())
        # whose and which number leaves; the fold counts only where the last one has fewer outputs
        missing = shape.folds * shape.parallel - shape.outputs
        busy = Signal(name="busy")
        counters, ends = loops(m, busy, {"element": shape.places, "maximum": shape.passes, "group": shape.groups,
                                         "fold": shape.folds if missing else 1})
        element, maximum, group = (counters[name] for name in ("element", "maximum", "group"))
        m.d.sync += busy.eq(self.load | (busy & ~ends["maximum"]))
        there = Signal(name="there")  # an element's; the others only take their time
        m.d.comb += there.eq(busy & (element < shape.parallel))

        values = place(m, platform, "values", self.folded.serializer())
        late = values.latency
        words = [Cat(getattr(self, name).word_select(n, width) for name, width in shown)
                 for shown in ([self.shown.items()] if shape.passes == 1 else [[item] for item in self.shown.items()])
                 for n in range(shape.parallel)]
        m.d.comb += [values.load.eq(self.load), values.i.eq(Cat(words)), values.step.eq(there)]
        low = 0
        for name, width in end.shown.items():
            value, low = values.o[low:low + width], low + width
            # maxima become numbers meanwhile, an accumulator is one
            m.d.comb += getattr(end, name).eq(pipe.register(name, value) if name == "a" else value)

        first = Signal(name="first")
        m.d.comb += first.eq((maximum == 0) & (group == 0))
        if "minus" in end.ports:
            minus = any_of(maximum == n for n, sign in enumerate(fmt.branches) if sign < 0)
            m.d.comb += end.minus.eq(pipe.delayed("minus", minus, late)[-1])
        if self.folded.waits:
            sums = place(m, platform, "sums", Ram(width=fmt.y.bits, depth=shape.parallel,
                                                  technology=self.folded.technology))
            elements = pipe.delayed("element", element, late + 2)
            m.d.comb += [
                sums.addr.eq(elements[late]), sums.en.eq(1), end.waiting.eq(sums.data),
                end.first.eq(pipe.delayed("first", first, late + 1)[-1]),
                sums.write_addr.eq(elements[-1]), sums.write_data.eq(end.y),
                sums.write_en.eq(pipe.flags("sum", there, late + 2)),
            ]
        output = Signal(range(max(shape.outputs, 2)), name="output")
        exists = there
        if missing:
            exists = there & ((counters["fold"] != shape.folds - 1) | (element < shape.parallel - missing))
        with m.If(exists & first):
            m.d.sync += output.eq(stepped(output, shape.outputs))
        bias = pipe.table("biases", self.folded.biases, output)
        m.d.comb += end.bias.eq(pipe.delayed("bias", bias, late)[-1])
        whole = exists & (maximum == shape.passes - 1) & (group == shape.groups - 1)
        m.d.comb += [self.y.eq(end.y), self.valid.eq(pipe.flags("whole", whole, late + 2))]
        return m


class FoldedLayer(Block):
    """A layer that is folded onto a few elements: a stream of input codes becomes one of sums or of what becomes of
    these.

    Nothing in it waits: a fold's last group begins when there is room for the results, and runs to its end.

    Throughput: an image in ``shape.cycles``, and two more for each row of outputs, if both ends keep up.

    Members
    -------
    i : In(stream of codes), o : Out(stream of sums, signed, or of what they become)
    """

    clocked = True

    def __init__(self, *, folded: Folded):
        self.folded = folded
        super().__init__({"i": In(stream.Signature(folded.input_bits)), "o": Out(stream.Signature(folded.output_bits))})

    @property
    def memories(self) -> dict[str, Memory]:
        return self.folded.memories

    def elaborate(self, platform):
        m = Module()
        folded = self.folded
        shape = folded.shape
        window = place(m, platform, "window", folded.window())
        unloading = place(m, platform, "unloading", Unloading(folded=folded))
        connect(m, flipped(self.i), window.i)
        self._elements(m, platform, window, unloading)
        # what a fold gives has its place before its last group begins, so that nothing behind it ever waits
        queue = place(m, platform, "results", Fifo(width=folded.output_bits, depth=folded.results,
                                                     technology=folded.technology))
        sums, converter = queue.i, folded.converter()
        if converter is not None:
            place(m, platform, "encoder" if folded.codes else "requantizer", converter)
            connect(m, converter.o, queue.i)
            sums = converter.i
        m.d.comb += [sums.payload.eq(unloading.y), sums.valid.eq(unloading.valid)]
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

    def _elements(self, m: Module, platform, window: Window, unloading: Unloading) -> None:
        """Place the weights and the elements, which take ``first`` and signs with the register between sums and maxima.
        """
        folded = self.folded
        parallel, fmt, bits = folded.shape.parallel, folded.format, folded.weight_bits
        weights = place(m, platform, "weights", Weights(width=parallel * bits, words=folded.weights,
                                                        technology=folded.technology))
        m.d.comb += weights.step.eq(window.issued)
        pipe = Pipeline(m, platform)
        first = pipe.register("first", window.first)
        shown: dict[str, list[Value]] = {name: [] for name in unloading.shown}
        for n in range(parallel):
            element = place(m, platform, f"element_{n}", Element(design=folded.element))
            at = n * bits
            for name, width in folded.weight_ports(fmt).items():
                weight = weights.word[at:at + width]
                at += width
                m.d.comb += getattr(element, name).eq(pipe.register(f"sign_{n}", weight) if name == "sign" else weight)
            m.d.comb += element.first.eq(first)
            if isinstance(fmt, MacFormat):
                m.d.comb += element.x.eq(window.code)
            else:
                m.d.comb += element.c.eq(window.code[:fmt.log_bits])
                if fmt.signed_inputs:
                    m.d.comb += element.negative.eq(window.code[-1])
            for name, values in shown.items():
                values.append(element.y if name == "a" else getattr(element, name))
        m.d.comb += [unloading.load.eq(pipe.flags("loads", window.valid & window.last, element.latency)),
                     *(getattr(unloading, name).eq(Cat(values)) for name, values in shown.items())]
