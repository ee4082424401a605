# SPDX-License-Identifier: Apache-2.0
"""A neuron behind a handful of pins, so that one wider than a chip has pins can be placed and timed."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib.wiring import In, Out

from bmhw.hdl.block import Block, place
from bmhw.hdl.neurons.design import Design
from bmhw.hdl.neurons.neuron import create_neuron

__all__ = ["ShiftWrapper"]


class ShiftWrapper(Block):
    """A neuron between shift registers: every input from one, every output into another, nothing optimised away.

    All paths of the neuron begin at registers of the wrapper or the neuron and end at such. The wrapper's own ones
    go from register to register with one multiplexer at most.

    - Latency: of the neuron and two cycles.

    Parameters
    ----------
    design: the neuron, in any form.

    Members
    -------
    shift_in : In(1): into the inputs' shift register, each cycle
    load : In(1): take the neuron's outputs into the outputs' shift register, which shifts otherwise
    shift_out : Out(1)
    clk, rst (Verilog)
    """

    clocked = True

    def __init__(self, *, design: Design):
        self.design = design
        super().__init__({"shift_in": In(1), "load": In(1), "shift_out": Out(1)})

    def elaborate(self, platform):
        m = Module()
        neuron = place(m, platform, "neuron", create_neuron(self.design))
        inputs = [signal for flow, signal in neuron.ports.values() if flow is In]
        outputs = Cat(signal for flow, signal in neuron.ports.values() if flow is Out)
        entered = Signal(sum(map(len, inputs)), reset_less=True)
        captured = Signal(len(outputs), reset_less=True)
        leaving = Signal(len(outputs), reset_less=True)
        m.d.comb += [Cat(inputs).eq(entered), self.shift_out.eq(leaving[0])]
        m.d.sync += [
            entered.eq(Cat(self.shift_in, entered[:-1])),
            captured.eq(outputs),
            leaving.eq(Mux(self.load, captured, leaving >> 1)),
        ]
        return m
