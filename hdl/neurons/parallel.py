# SPDX-License-Identifier: Apache-2.0
"""Neurons with all inputs at once: parts in the order of the data, combinational or pipelined."""

from amaranth.hdl import Module, Signal, Value
from amaranth.lib.wiring import In, Out

from bmhw.hdl.block import Block, connect

from .design import Design

__all__ = ["BmNeuron", "MacNeuron", "Neuron"]


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

    def elaborate(self, platform):
        m = Module()
        values: dict[str, Value] = {name: getattr(self, name) for name in self.design.format.inputs_of}
        parts = self.design.create_parts()
        remaining = list(parts.values())
        output = self.design.format.output[0]
        for name, part in parts.items():
            connect(m, platform, name, part, values)
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


class BmNeuron(Neuron):
    """Bipolar morphological neuron (arXiv 2009.07190): log2, sums, maxima, exp2, signed sum with the bias."""
