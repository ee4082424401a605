# SPDX-License-Identifier: Apache-2.0
"""Neurons that take one input a cycle."""

from amaranth.hdl import Module, Mux, Signal, Value
from amaranth.lib.wiring import In, Out

from bmhw.hdl.block import Block, connect, place
from bmhw.hdl.formats.mac import MacFormat

from . import bm_parts, mac_parts
from .design import Design
from .log_ends import LOG_ENDS

__all__ = ["SerialBmNeuron", "SerialMacNeuron", "SerialNeuron"]


class SerialNeuron(Block):
    """A neuron that takes one input a cycle: one multiplier and an accumulator, or running maxima.

    - Latency: :attr:`latency` cycles from the last accepted element to ``out_valid``.
    - Throughput: one result every n cycles, if the receiver keeps up.

    The n-th accepted element ends a neuron. The bias is sampled with the first element. ``out_valid`` stays until
    ``out_ready``; the next neuron's elements are accepted meanwhile, its last one only once there is room.

    ``rst`` must be 1 for one cycle before the first element: no register has a value at power-up. The accumulator and
    the maxima have none after it either; the first element of a neuron starts them, and no output shows them before.

    Members
    -------
    The format's ``inputs_of`` : In(element width), one element each, and the bias
    in_valid : In(1), in_ready : Out(1)
    y or z : Out(width), out_valid : Out(1), out_ready : In(1)
    clk, rst (Verilog) : synchronous, active high
    """

    clocked = True
    latency = 2

    def __init__(self, *, design: Design):
        self.design = design
        output, code = design.format.output
        ports = {name: In(element.bits) for name, (element, _) in design.format.inputs_of.items()}
        super().__init__({**ports, "in_valid": In(1), "in_ready": Out(1),
                          output: Out(code.bits), "out_valid": Out(1), "out_ready": In(1)})

    def elaborate(self, platform):
        m = Module()
        n = self.design.format.inputs
        output = getattr(self, self.design.format.output[0])
        count = Signal(range(max(n, 2)))
        first = Signal()
        last = Signal()
        accept = Signal()
        finished = Signal()  # the accumulator holds a whole neuron
        leave = Signal()  # ... which goes into the output register
        m.d.comb += [
            first.eq(count == 0),
            last.eq(count == n - 1),
            leave.eq(finished & (~self.out_valid | self.out_ready)),
            self.in_ready.eq(~finished | leave),
            accept.eq(self.in_valid & self.in_ready),
        ]
        result = self.result(m, platform, first, accept)
        with m.If(accept):
            m.d.sync += count.eq(Mux(last, 0, count + 1))
        with m.If(accept | leave):
            m.d.sync += finished.eq(accept & last)
        with m.If(leave):
            m.d.sync += [output.eq(result), self.out_valid.eq(1)]
        with m.Elif(self.out_ready):
            m.d.sync += self.out_valid.eq(0)
        return m

    def result(self, m: Module, platform, first: Value, accept: Value) -> Value:
        """Place the arithmetic; returns the neuron's output, valid the cycle after its last element."""
        raise NotImplementedError


class SerialMacNeuron(SerialNeuron):
    def result(self, m, platform, first, accept):
        fmt, design = self.design.format, self.design
        accumulator = Signal(fmt.y.bits, reset_less=True)
        one = MacFormat(inputs=1, bits=fmt.bits, signed_inputs=fmt.signed_inputs, weight_bits=fmt.weight_bits,
                        bias_bits=fmt.bias_bits)
        products = place(m, platform, "products", mac_parts.Products(format=one, multiplier=design.multiplier))
        compression = place(m, platform, "compression", mac_parts.Compression(
            format=fmt, multiplier=design.multiplier, inputs=1, addends=(("running", fmt.y.bits),)))
        adder = place(m, platform, "final_adder", mac_parts.FinalAdder(width=fmt.y.bits, adder=design.adder))
        m.d.comb += [
            products.x.eq(self.x),
            products.w.eq(self.w),
            compression.products.eq(products.products),
            compression.running.eq(Mux(first, self.bias.as_signed(), accumulator.as_signed())),
            adder.row0.eq(compression.row0),
            adder.row1.eq(compression.row1),
        ]
        with m.If(accept):
            m.d.sync += accumulator.eq(adder.y)
        return accumulator


class SerialBmNeuron(SerialNeuron):
    def result(self, m, platform, first, accept):
        fmt, design = self.design.format, self.design
        parts = {
            "log2": bm_parts.LogarithmPart(format=fmt, inputs=1),
            "sums": bm_parts.SumsPart(format=fmt, inputs=1, adder=design.adder),
            "maxima": bm_parts.RunningMaximaPart(format=fmt),
        }
        values: dict[str, Value] = {name: getattr(self, name) for name in fmt.inputs_of}
        maxima = {f"m{b}": Signal(fmt.maximum_bits, name=f"maximum_{b}", reset_less=True)
                  for b in range(1, len(fmt.branches) + 1)}
        for b, maximum in enumerate(maxima.values(), start=1):
            start = getattr(self, f"bias{b}")[fmt.dropped_bits:] if fmt.combine == "logarithmic" else 0
            values[f"running{b}"] = Mux(first, start, maximum)
        for name, part in parts.items():
            connect(m, platform, name, part, values)
        with m.If(accept):
            m.d.sync += [register.eq(values[name]) for name, register in maxima.items()]
        values |= maxima
        if fmt.combine == "logarithmic":
            ends = {"log_subtract": LOG_ENDS[design.end](format=fmt, adder=design.adder)}
        else:
            bias = Signal(fmt.bias_bits, name="bias_held", reset_less=True)
            with m.If(accept & first):
                m.d.sync += bias.eq(self.bias)
            values["bias"] = bias
            ends = {"exp2": bm_parts.ExponentialPart(format=fmt, end=design.end),
                    "combine": bm_parts.Combine(format=fmt, adder=design.adder)}
        for name, part in ends.items():
            connect(m, platform, name, part, values)
        return values[fmt.output[0]]
