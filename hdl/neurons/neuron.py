# SPDX-License-Identifier: Apache-2.0
"""Whole neurons: parts in the order of the data, combinational, pipelined or serial."""

from amaranth.hdl import Module, Mux, Signal, Value
from amaranth.lib.wiring import In, Out

from bmhw.hdl.block import Block, place
from bmhw.hdl.formats.neurons import BmFormat, MacFormat

from . import bm_parts, mac_parts
from .design import Design
from .log_ends import LOG_ENDS

__all__ = ["BmNeuron", "MacNeuron", "Neuron", "SerialNeuron", "create_neuron"]


class Neuron(Block):
    """A neuron with all inputs at once, as :class:`~bmhw.hdl.neurons.design.Design` describes it.

    - Latency: :attr:`latency` cycles; 0 for form ``parallel``, one for each place with registers for ``pipelined``.
    - Throughput: one result a cycle.

    Parameters
    ----------
    design: form ``parallel`` or ``pipelined``.

    Members
    -------
    The format's ``inputs_of`` : In(element width * number of elements), element 0 in the lowest bits
    y or z : Out(width)
    clk, rst (Verilog) : pipelined only; the data registers need no reset
    """

    def __init__(self, *, design: Design):
        self.design = design
        self.clocked = design.form != "parallel"
        output, code = design.format.output
        ports = {name: In(code.bits * count) for name, (code, count) in design.format.inputs_of.items()}
        super().__init__({**ports, output: Out(code.bits)})

    @property
    def registers(self) -> tuple[str, ...]:
        """Parts, and levels inside parts, with registers behind them."""
        if self.design.form == "parallel":
            return ()
        return self.design.parts if self.design.registers is None else self.design.registers

    @property
    def latency(self) -> int:
        return len(self.registers)

    def inside(self, part: str) -> dict[str, tuple[int, ...]]:
        """The parameter of a part's constructor for registers inside it, if there are some."""
        levels = self.design.levels_with_registers(part)
        return {"registers": levels} if levels else {}

    def create_parts(self) -> dict[str, Block]:
        """The parts, in the order of the data. Ports of the same name are connected."""
        raise NotImplementedError

    def elaborate(self, platform):
        m = Module()
        values: dict[str, Value] = {name: getattr(self, name) for name in self.design.format.inputs_of}
        parts = self.create_parts()
        remaining = list(parts.values())
        output = self.design.format.output[0]
        for name, part in parts.items():
            _connect(m, platform, name, part, values)
            remaining.pop(0)
            needed = {port for later in remaining for port, (flow, _) in later.ports.items() if flow is In} | {output}
            # what passes a part by takes as many registers as what goes through it
            made = [port for port, (flow, _) in part.ports.items() if flow is Out]
            places = [(f"{name}.{level}", [port for port in values if port in needed and port not in made])
                      for level in part.registers]
            if name in self.registers:
                places.append((name, [port for port in values if port in needed]))
            for place_name, ports in places:
                for port in ports:
                    register = Signal(len(values[port]), name=f"{port}_after_{place_name.replace('.', '_')}",
                                      reset_less=True)
                    m.d.sync += register.eq(values[port])
                    values[port] = register
        m.d.comb += getattr(self, output).eq(values[output])
        return m


class MacNeuron(Neuron):
    """Multiply-accumulate neuron: the products of all inputs and the bias in one compressor and one addition."""

    def create_parts(self):
        fmt, design = self.design.format, self.design
        assert isinstance(fmt, MacFormat)
        parts = {
            "products": mac_parts.Products(format=fmt, multiplier=design.multiplier),
            "compression": mac_parts.Compression(format=fmt, multiplier=design.multiplier, inputs=fmt.inputs,
                                                 addend="bias", addend_bits=fmt.bias_bits,
                                                 **self.inside("compression")),
            "final_adder": mac_parts.FinalAdder(width=fmt.y.bits, adder=design.adder),
        }
        if fmt.result == "code":
            parts["requantize"] = mac_parts.Requantize(format=fmt, multiplier=design.multiplier, adder=design.adder)
        return parts


class BmNeuron(Neuron):
    """Bipolar morphological neuron (arXiv 2009.07190): log2, sums, maxima, exp2, signed sum with the bias."""

    def create_parts(self):
        fmt, design = self.design.format, self.design
        assert isinstance(fmt, BmFormat)
        parts = {} if fmt.boundary == "layer" else {"log2": bm_parts.LogarithmPart(format=fmt, inputs=fmt.inputs)}
        parts |= {
            "sums": bm_parts.SumsPart(format=fmt, inputs=fmt.inputs, adder=design.adder),
            "maxima": bm_parts.MaximaPart(format=fmt, maximum=design.maximum, **self.inside("maxima")),
        }
        if fmt.combine == "logarithmic":
            return {**parts, "log_subtract": LOG_ENDS[design.end](format=fmt, adder=design.adder)}
        parts |= {"exp2": bm_parts.ExponentialPart(format=fmt, end=design.end),
                  "combine": bm_parts.Combine(format=fmt, adder=design.adder)}
        return {**parts, "relu_log2": bm_parts.ReluLog2(format=fmt)} if fmt.result == "code" else parts


class SerialNeuron(Block):
    """A neuron that takes one input a cycle: one multiplier and an accumulator, or running maxima.

    - Latency: :attr:`latency` cycles from the last accepted element to ``out_valid``.
    - Throughput: one result every n cycles, if the receiver keeps up.

    The n-th accepted element ends a neuron. The bias is sampled with the first element. ``out_valid`` stays until
    ``out_ready``; the next neuron's elements are accepted meanwhile, its last one only once there is room.

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
            format=fmt, multiplier=design.multiplier, inputs=1, addend="running", addend_bits=fmt.y.bits))
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
            _connect(m, platform, name, part, values)
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
            _connect(m, platform, name, part, values)
        return values[fmt.output[0]]


def _connect(m: Module, platform, name: str, part: Block, values: dict[str, Value]) -> None:
    """Place a part, feed its inputs from ``values`` by name and put its outputs there."""
    place(m, platform, name, part)
    m.d.comb += [signal.eq(values[port]) for port, (flow, signal) in part.ports.items() if flow is In]
    values |= {port: signal for port, (flow, signal) in part.ports.items() if flow is Out}


def create_neuron(design: Design) -> Neuron | SerialNeuron:
    """The neuron that a design describes."""
    kinds = {("mac", False): MacNeuron, ("bm", False): BmNeuron,
             ("mac", True): SerialMacNeuron, ("bm", True): SerialBmNeuron}
    return kinds[design.neuron, design.form == "serial"](design=design)
