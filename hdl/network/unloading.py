# SPDX-License-Identifier: Apache-2.0
"""What elements have behind a group, added to the sums of their neurons."""

from amaranth.hdl import Cat, Module, Signal
from amaranth.lib.wiring import In, Out

from bmhw.hdl.arithmetic.reduction import any_of
from bmhw.hdl.block import place
from bmhw.hdl.neurons.element_ends import GroupEnd

from .layer import Folded
from .memories import Ram
from .pipeline import Pipeline
from .streams import loops, stepped
from .tables import Loaded, Numbers

__all__ = ["Unloading"]


class Unloading(Loaded):
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
    load_write, load_address, load_data : In, where biases can be written (:class:`~bmhw.hdl.network.tables.Loaded`)
    """

    clocked = True

    def __init__(self, *, folded: Folded):
        self.folded = folded
        self.shown = self._end().shown_by_elements
        super().__init__({"load": In(1), **{name: In(folded.shape.parallel * bits)
                                            for name, bits in self.shown.items()},
                          "y": Out(folded.format.y.bits), "valid": Out(1),
                          **self.open(folded.form, folded.technology)})

    @property
    def numbers(self) -> dict[str, Numbers]:
        """The ``biases``."""
        return {"biases": Numbers(self.folded.biases)}

    def _end(self) -> GroupEnd:
        return GroupEnd(format=self.folded.format, flush=self.folded.flush, adder="operator",
                        serial=self.folded.shape.passes > 1)

    def elaborate(self, platform):
        m = Module()
        shape, fmt = self.folded.shape, self.folded.format
        pipe = Pipeline(m, platform, owner=self)
        end = place(m, platform, "group_end", self._end())
        # whose and which number leaves; the fold counts only where the last one has fewer outputs
        missing = shape.folds * shape.parallel - shape.outputs
        busy = Signal(name="busy")
        counters, ends = loops(m, busy, {"element": shape.places, "maximum": shape.passes, "group": shape.groups,
                                         "fold": shape.folds if missing else 1})
        element, maximum, group = (counters[name] for name in ("element", "maximum", "group"))
        m.d.sync += busy.eq(self.load | (busy & ~ends["maximum"]))
        there = Signal(name="there")  # an element's; the others only take their time
        m.d.comb += there.eq(busy if shape.places == shape.parallel else busy & (element < shape.parallel))

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
        bias = pipe.table("biases", self.numbers["biases"], output)
        m.d.comb += end.bias.eq(pipe.delayed("bias", bias, late)[-1])
        whole = exists & (maximum == shape.passes - 1) & (group == shape.groups - 1)
        m.d.comb += [self.y.eq(end.y), self.valid.eq(pipe.flags("whole", whole, late + 2))]
        return m
