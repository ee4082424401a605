# SPDX-License-Identifier: Apache-2.0
"""What a folded layer is, before it is built: its neurons, what becomes of their sums, its memories, its latencies."""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from bmhw.hdl.block import Block
from bmhw.hdl.formats.bm import BmFormat
from bmhw.hdl.formats.codes import Integers
from bmhw.hdl.formats.mac import MacFormat
from bmhw.hdl.neurons.design import Design
from bmhw.hdl.neurons.element_ends import element_format
from bmhw.hdl.neurons.elements import Element
from bmhw.hdl.technology import ANY, Memory, Technology

from .encoder import ChannelCode, Encoder
from .requantizer import Requantization, Requantizer
from .serializer import Gather, Serializer
from .shape import LayerShape
from .streams import Fifo
from .tables import Form, Numbers, Span
from .window import Window

__all__ = ["Folded"]


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
    form: of the tables of its constants where these and its weights can be written (:meth:`open_form`).
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
    form: Form | None = None

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
        form = {} if self.form is None else {"form": self.form, "technology": self.technology}
        if self.codes:
            return Encoder(width=self.format.y.bits, channels=self.codes, relu=True, **form)
        if self.requantized is not None:
            return Requantizer(width=self.format.y.bits, to=self.requantized, **form)
        return None

    def open_form(self) -> Form:
        """The form of a layer like this one whose weights and constants can be written: any biases of the format, where
        this one has some."""
        converter, bias = self.converter(), self.format.bias
        biases = Numbers(self.biases).span
        form = Form.of({"biases": biases if biases.constant else Span(bias.minimum, bias.maximum)})
        return form if converter is None else form | converter.open_form()

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

    def shares(self) -> tuple["Folded", ...]:
        """What each end unloads, as a layer of its own: the same elements of every fold."""
        shape = self.shape
        if shape.ends == 1:
            return (self,)
        elements = shape.parallel // shape.ends
        own = dataclasses.replace(shape, parallel=elements, outputs=shape.folds * elements)
        biases = np.reshape(self.biases, (shape.folds, shape.ends, elements))
        return tuple(dataclasses.replace(self, shape=own, biases=tuple(map(int, biases[:, end].ravel())))
                     for end in range(shape.ends))

    @property
    def unloading_latency(self) -> int:
        """Cycles from the elements' showing a group to the first sum with all of it."""
        return 1 + self.serializer().latency + 2 + (self.shape.passes - 1) * self.shape.places

    @property
    def latency(self) -> int:
        """Cycles from the number of the input that a row waits for to the first result of its first fold, in what the
        layer gives, on top of the fold's own ``groups * group_cycles``."""
        converter = self.converter()
        return (Window.latency + Element(design=self.element).latency + self.unloading_latency
                + (Gather.latency if self.shape.ends > 1 else 0)
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
        """Of the layer: ``window``, ``weights``, ``results``; of each end, where a neuron has several groups or maxima,
        the ``sums`` of a fold, and of several ends what they ``gathered``."""
        shape = self.shape
        found = {
            "window": Memory(self.window().words, self.input_bits),
            "weights": Memory(len(self.weights), shape.parallel * self.weight_bits, writable=self.form is not None),
            "results": Memory(self.results, self.output_bits),
        }
        if self.waits:
            for end, share in enumerate(self.shares()):
                found[f"sums_{end}" if end else "sums"] = Memory(max(share.shape.parallel, 2), self.format.y.bits)
        if shape.ends > 1:
            found["gathered"] = self.gather().memory
        return found

    def gather(self) -> Gather:
        """Of what several ends give at once."""
        return Gather(width=self.format.y.bits, rows=self.shape.ends, length=self.shape.parallel // self.shape.ends,
                      technology=self.technology)

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
