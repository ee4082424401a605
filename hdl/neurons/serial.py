# SPDX-License-Identifier: Apache-2.0
"""Neurons that take one input a cycle."""

import dataclasses

from amaranth.hdl import Module, Mux, Signal, Value
from amaranth.lib.wiring import In, Out

from bmhw.hdl.block import Block, connect, place
from bmhw.hdl.formats.bm import BmFormat
from bmhw.hdl.formats.mac import MacFormat

from . import bm_parts, mac_parts
from .design import Design
from .log_ends import LOG_ENDS

__all__ = ["SerialBmNeuron", "SerialMacNeuron", "SerialNeuron"]


class SerialNeuron(Block):
    """A neuron that takes one input a cycle: one multiplier and an accumulator, or running maxima.

    - Latency: :attr:`latency` cycles from the last accepted element to ``out_valid``.
    - Throughput: one result every n cycles, if the receiver keeps up.

    The n-th accepted element ends a neuron; of several groups, each n / G-th one ends a group, whose exponentials are
    added to a running sum in the next cycle. What comes once a neuron (bias, residual, scale) is sampled with the first
    element. ``out_valid`` stays until ``out_ready``; the next neuron's elements are accepted meanwhile, its last one
    only once there is room.

    ``rst`` must be 1 for one cycle before the first element: no register has a value at power-up. The accumulator and
    the maxima have none after it either; the first element of a neuron starts them, and no output shows them before.

    Members
    -------
    The format's ``inputs_of`` : In(element width), one element each, and what comes once a neuron
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
        position = Position(m, self.design.format)
        output = getattr(self, self.design.format.output[0])
        accept = position.accept
        finished = Signal()  # the accumulator holds a whole neuron
        leave = Signal()  # ... which goes into the output register
        m.d.comb += [
            leave.eq(finished & (~self.out_valid | self.out_ready)),
            self.in_ready.eq(~finished | leave),
            accept.eq(self.in_valid & self.in_ready),
        ]
        result = self.result(m, platform, position)
        register = self.output_register(m, platform, output)
        position.advance(m)
        with m.If(accept | leave):
            m.d.sync += finished.eq(accept & position.last)
        with m.If(leave):
            m.d.sync += [register.eq(result), self.out_valid.eq(1)]
        with m.Elif(self.out_ready):
            m.d.sync += self.out_valid.eq(0)
        return m

    def result(self, m: Module, platform, position: "Position") -> Value:
        """Place the arithmetic; returns what the output register takes, valid the cycle after the last element."""
        raise NotImplementedError

    def output_register(self, m: Module, platform, output: Signal) -> Signal:
        """The register that drives the output."""
        return output

    def sampled(self, m: Module, position: "Position", name: str) -> Value:
        """A port's value with a neuron's first element, held until its result has left."""
        held = Signal(len(getattr(self, name)), name=f"{name}_held", reset_less=True)
        with m.If(position.accept & position.first):
            m.d.sync += held.eq(getattr(self, name))
        return held


class Position:
    """Which element is accepted: counters of the elements of a group and of groups, in the module of a neuron.

    ``accept``: to be driven: an element is accepted. ``first``, ``last``: it is a neuron's; ``group_first``,
    ``group_last``: a group's. ``within``: its place in its group, from 0.
    """

    def __init__(self, m: Module, fmt: MacFormat | BmFormat):
        self.size, self.groups = (fmt.inputs, 1) if isinstance(fmt, MacFormat) else (fmt.group_inputs, fmt.groups)
        self.within = Signal(range(max(self.size, 2)), name="count")
        self.first, self.last, self.accept = Signal(name="first"), Signal(name="last"), Signal(name="accept")
        first, last = self.within == 0, self.within == self.size - 1
        self.group_first, self.group_last = self.first, self.last
        if self.groups > 1:
            self.group = Signal(range(self.groups), name="group")
            self.group_first, self.group_last = Signal(name="group_first"), Signal(name="group_last")
            m.d.comb += [self.group_first.eq(first), self.group_last.eq(last)]
            first = self.group_first & (self.group == 0)
            last = self.group_last & (self.group == self.groups - 1)
        m.d.comb += [self.first.eq(first), self.last.eq(last)]

    def advance(self, m: Module) -> None:
        """Place the counters' steps."""
        with m.If(self.accept):
            m.d.sync += self.within.eq(Mux(self.group_last, 0, self.within + 1))
            if self.groups > 1:
                with m.If(self.group_last):
                    m.d.sync += self.group.eq(Mux(self.last, 0, self.group + 1))


class SerialMacNeuron(SerialNeuron):
    def result(self, m, platform, position):
        fmt, design = self.design.format, self.design
        accumulator = Signal(fmt.y.bits, reset_less=True)
        one = MacFormat(inputs=1, bits=fmt.bits, signed_inputs=fmt.signed_inputs, weight_bits=fmt.weight_bits,
                        bias_bits=fmt.bias_bits)
        products = place(m, platform, "products", mac_parts.Products(format=one, multiplier=design.multiplier))
        compression = place(m, platform, "compression", mac_parts.Compression(
            format=fmt, multiplier=design.multiplier, inputs=1, addends=(("running", fmt.y.bits),)))
        adder = place(m, platform, "final_adder", mac_parts.FinalAdder(width=fmt.y.bits, adder=design.adder))
        start = self.bias.as_signed()
        if fmt.residual_bits:
            start = start + self.r.as_signed()
        m.d.comb += [
            products.x.eq(self.x),
            products.w.eq(self.w),
            compression.products.eq(products.products),
            compression.running.eq(Mux(position.first, start, accumulator.as_signed())),
            adder.row0.eq(compression.row0),
            adder.row1.eq(compression.row1),
        ]
        with m.If(position.accept):
            m.d.sync += accumulator.eq(adder.y)
        if fmt.result == "linear":
            return accumulator
        values: dict[str, Value] = {"y": accumulator}
        if fmt.has_scale:
            values["scale"] = self.sampled(m, position, "scale")
        connect(m, platform, "requantize", mac_parts.Requantize(
            format=fmt, multiplier=design.multiplier, adder=design.adder), values)
        return values["z"]


class SerialBmNeuron(SerialNeuron):
    def result(self, m, platform, position):
        fmt, design = self.design.format, self.design
        values: dict[str, Value] = {name: getattr(self, name) for name in fmt.inputs_of}
        # what is wired elsewhere is counted here: the place in a group gives the weight's sign
        one = dataclasses.replace(fmt, layout="signed") if fmt.layout == "wired" else fmt
        if fmt.layout == "wired":
            values["sign"] = position.within >= fmt.positive_inputs
        parts = {"log2": bm_parts.LogarithmPart(format=fmt, inputs=1)} if fmt.boundary == "neuron" else {}
        parts |= {
            "sums": bm_parts.SumsPart(format=one, inputs=1, adder=design.adder),
            "maxima": bm_parts.RunningMaximaPart(format=one),
        }
        maxima = {f"m{b}": Signal(fmt.maximum_bits, name=f"maximum_{b}", reset_less=True)
                  for b in range(1, len(fmt.branches) + 1)}
        for b, maximum in enumerate(maxima.values(), start=1):
            start = getattr(self, f"bias{b}")[fmt.dropped_bits:] if fmt.combine == "logarithmic" else 0
            values[f"running{b}"] = Mux(position.group_first, start, maximum)
        for name, part in parts.items():
            connect(m, platform, name, part, values)
        with m.If(position.accept):
            m.d.sync += [register.eq(values[name]) for name, register in maxima.items()]
        values |= maxima
        if fmt.combine == "logarithmic":
            connect(m, platform, "log_subtract", LOG_ENDS[design.end](format=fmt, adder=design.adder), values)
            return values["z"]
        return self._sum(m, platform, position, values)

    def _sum(self, m: Module, platform, position: Position, values: dict[str, Value]) -> Value:
        """The exponentials of a group's maxima, added to the bias or to the sum so far."""
        fmt = self.design.format
        if fmt.groups == 1 and not fmt.residual_bits:
            values["bias"] = self.sampled(m, position, "bias")
            self._exponentials(m, platform, dataclasses.replace(fmt, result="linear"), values)
            return values["y"]
        # every sum on the way is a possible result: all fit y
        running = Signal(fmt.y.bits, name="running_sum", reset_less=True)
        values["bias"] = running
        self._exponentials(m, platform, fmt.one_group(), values)
        y = values["y"][:fmt.y.bits]
        with m.If(position.accept & position.first):
            m.d.sync += running.eq(self.bias.as_signed() + (self.r.as_signed() if fmt.residual_bits else 0))
        if fmt.groups > 1:
            ended = Signal(name="group_ended")  # the maxima hold a group that isn't the neuron's last one
            m.d.sync += ended.eq(position.accept & position.group_last & ~position.last)
            with m.If(ended):
                m.d.sync += running.eq(y)
        return y

    def _exponentials(self, m: Module, platform, group: BmFormat, values: dict[str, Value]) -> None:
        """Place the end of one group's maxima."""
        connect(m, platform, "exp2", bm_parts.ExponentialPart(format=group, end=self.design.end), values)
        connect(m, platform, "combine", bm_parts.Combine(format=group, adder=self.design.adder), values)

    def output_register(self, m, platform, output):
        fmt = self.design.format
        if fmt.result == "linear" or fmt.combine == "logarithmic":
            return output
        # exponentials and sum in one cycle, the code behind them in the next one
        held = Signal(fmt.y.bits, name="sum_held")  # shown, so it is defined by a reset
        values: dict[str, Value] = {"y": held}
        connect(m, platform, "relu_log2", bm_parts.ReluLog2(format=fmt), values)
        m.d.comb += output.eq(values["z"])
        return held
