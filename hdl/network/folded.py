# SPDX-License-Identifier: Apache-2.0
"""A folded layer: its window, its weights, its elements, the end that they share, and the queue of its results."""

from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.lib import stream
from amaranth.lib.wiring import In, Out, connect, flipped

from bmhw.hdl.block import Block, place
from bmhw.hdl.formats.mac import MacFormat
from bmhw.hdl.neurons.elements import Element
from bmhw.hdl.technology import ANY, Memory, Technology

from .layer import Folded
from .memories import Ram, Rom
from .pipeline import Pipeline
from .streams import Fifo, stepped
from .tables import Loaded, Table, connect_loads, load_members
from .unloading import Unloading
from .window import Window

__all__ = ["FoldedLayer", "Weights"]


class Weights(Loaded):
    """The weights of a layer, a word for all its elements: one after the other, and from the start again.

    Latency: three cycles from ``step`` to the word that it asks for.

    Members
    -------
    step : In(1)
    word : Out(width)
    load_write, load_address, load_data : In, where they can be written (:class:`~bmhw.hdl.network.tables.Loaded`)
    """

    clocked = True

    def __init__(self, *, width: int, words: tuple[int, ...], technology: Technology = ANY, writable: bool = False):
        self.width, self.words, self.technology = width, words, technology
        self.loads = {"weights": Table(width, words)} if writable else {}
        super().__init__({"step": In(1), "word": Out(width), **load_members(self.loads)})

    def elaborate(self, platform):
        m = Module()
        kind, depth = (Ram, {"depth": len(self.words)}) if self.loads else (Rom, {})
        memory = place(m, platform, "memory", kind(width=self.width, words=self.words, technology=self.technology,
                                               registered=True, **depth))
        if self.loads:
            m.d.comb += [memory.write_addr.eq(self.load_address), memory.write_data.eq(self.load_data),
                         memory.write_en.eq(self.load_write)]
        address = Signal(range(max(len(self.words), 2)), name="address")
        pipe = Pipeline(m, platform)
        with m.If(self.step):
            m.d.sync += address.eq(stepped(address, len(self.words)))
        m.d.comb += [memory.addr.eq(pipe.register("address", address)), memory.en.eq(1), self.word.eq(memory.data)]
        return m


class FoldedLayer(Block):
    """A layer that is folded onto a few elements: a stream of input codes becomes one of sums or of what becomes of
    these.

    Nothing in it waits: a fold's last group begins when there is room for the results, and runs to its end.

    Throughput: an image in ``shape.cycles``, and two more for each row of outputs, if both ends keep up.

    Members
    -------
    i : In(stream of codes), o : Out(stream of sums, signed, or of what they become)
    load_write, load_address, load_data : In, where weights and constants can be written
        (:class:`~bmhw.hdl.network.tables.Loaded`)
    """

    clocked = True

    def __init__(self, *, folded: Folded):
        self.folded, self.loads = folded, self._loads(folded)
        super().__init__({"i": In(stream.Signature(folded.input_bits)), "o": Out(stream.Signature(folded.output_bits)),
                          **load_members(self.loads)})

    @staticmethod
    def _loads(folded: Folded) -> dict[str, Table]:
        """What can be written: the weights, the biases, and what makes something else of sums."""
        if folded.form is None:
            return {}
        converter = folded.converter()
        biases = {f"{name}_{end}" if end else name: table for end, share in enumerate(folded.shares())
                  for name, table in Unloading(folded=share).loads.items()}
        return {"weights": Table(folded.shape.parallel * folded.weight_bits, folded.weights), **biases,
                **({} if converter is None else converter.loads)}

    @property
    def memories(self) -> dict[str, Memory]:
        return self.folded.memories | {name: table.memory for name, table in self.loads.items()}

    def elaborate(self, platform):
        m = Module()
        folded = self.folded
        shape = folded.shape
        window = place(m, platform, "window", folded.window())
        unloadings = [place(m, platform, f"unloading_{end}" if end else "unloading", Unloading(folded=share))
                      for end, share in enumerate(folded.shares())]
        connect(m, flipped(self.i), window.i)
        weights = self._elements(m, platform, window, unloadings)
        # what a fold gives has its place before its last group begins, so that nothing behind it ever waits
        queue = place(m, platform, "results", Fifo(width=folded.output_bits, depth=folded.results,
                                                     technology=folded.technology))
        sums, converter = queue.i, folded.converter()
        loaded = [weights, *unloadings]
        if converter is not None:
            loaded.append(converter)
            place(m, platform, "encoder" if folded.codes else "requantizer", converter)
            connect(m, converter.o, queue.i)
            sums = converter.i
        connect_loads(m, self, loaded)
        first = unloadings[0]
        if len(unloadings) == 1:
            m.d.comb += [sums.payload.eq(first.y), sums.valid.eq(first.valid)]
        else:  # all of them give theirs in the same cycles
            gather = place(m, platform, "gather", folded.gather())
            m.d.comb += [gather.i.eq(Cat(unloading.y for unloading in unloadings)), gather.valid.eq(first.valid),
                         sums.payload.eq(gather.o), sums.valid.eq(gather.o_valid)]
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

    def _elements(self, m: Module, platform, window: Window, unloadings: list[Unloading]) -> Weights:
        """Place the weights and the elements, which take ``first`` and signs with the register between sums and maxima.
        """
        folded = self.folded
        parallel, fmt, bits = folded.shape.parallel, folded.format, folded.weight_bits
        weights = place(m, platform, "weights", Weights(width=parallel * bits, words=folded.weights,
                                                        technology=folded.technology,
                                                        **({"writable": True} if self.loads else {})))
        m.d.comb += weights.step.eq(window.issued)
        pipe = Pipeline(m, platform)
        first = pipe.register("first", window.first)
        shown: dict[str, list[Value]] = {name: [] for name in unloadings[0].shown}
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
        load = pipe.flags("loads", window.valid & window.last, element.latency)
        each = parallel // len(unloadings)
        for end, unloading in enumerate(unloadings):
            its = slice(end * each, (end + 1) * each)
            m.d.comb += [unloading.load.eq(load),
                         *(getattr(unloading, name).eq(Cat(values[its])) for name, values in shown.items())]
        return weights
