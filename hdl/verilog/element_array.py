# SPDX-License-Identifier: Apache-2.0
"""Elements side by side as in a folded network, behind a handful of pins, so that they can be placed and timed."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib.wiring import In, Out

from bmhw.hdl.block import Block, place
from bmhw.hdl.neurons.design import Design
from bmhw.hdl.neurons.neuron import create_neuron

__all__ = ["ELEMENTS", "SHARED", "ElementArray", "ElementCell"]

ELEMENTS = 32
SHARED = ("first", "c", "negative", "x", "load")
"""Ports that all cells of an array read together; the others are of each element's weight."""


class ElementCell(Block):
    """An element and the registers into which its results are copied, to be shifted from cell to cell.

    - Latency: of the element, and a cycle.

    Members
    -------
    The element's inputs
    load : In(1): copy the results; take those of the cell before otherwise
    previous : In(width of all results)
    copy : Out(width of all results), registers
    """

    clocked = True

    def __init__(self, *, design: Design):
        self.design = design
        ports = create_neuron(design).ports
        width = sum(len(signal) for flow, signal in ports.values() if flow is Out)
        super().__init__({**{name: In(len(signal)) for name, (flow, signal) in ports.items() if flow is In},
                          "load": In(1), "previous": In(width), "copy": Out(width)})

    def elaborate(self, platform):
        m = Module()
        element = place(m, platform, "element", create_neuron(self.design))
        m.d.comb += [signal.eq(getattr(self, name)) for name, (flow, signal) in element.ports.items() if flow is In]
        copy = Signal(len(self.copy), name="copied", reset_less=True)
        results = Cat(signal for flow, signal in element.ports.values() if flow is Out)
        m.d.sync += copy.eq(Mux(self.load, results, self.previous))
        m.d.comb += self.copy.eq(copy)
        return m


class ElementArray(Block):
    """Elements that read one activation together, each with a weight of its own.

    Weights are shifted from element to element, in the place of the outputs of their memories. Results are copied into
    registers of their own, where they wait while the next group runs, and are shifted out of there from element to
    element. All paths of the elements begin and end at registers.

    - Latency: of an element and two cycles.

    Parameters
    ----------
    design: form ``serial``, boundary ``element``.
    elements: how many (default: :data:`ELEMENTS`).

    Members
    -------
    first, c, x, negative : In, as an element has them
    k, k1, k2, sign, w : In, as an element has them: the weight of the first element, and of the next one a cycle later
    load : In(1): copy the results; they shift by one element otherwise
    shift_out : Out(1): the parity of the last element's copy
    clk, rst (Verilog)
    """

    clocked = True

    def __init__(self, *, design: Design, elements: int = ELEMENTS):
        self.design, self.elements = design, elements
        ports = create_neuron(design).ports
        super().__init__({**{name: In(len(signal)) for name, (flow, signal) in ports.items() if flow is In},
                          "load": In(1), "shift_out": Out(1)})

    def elaborate(self, platform):
        m = Module()

        def register(name: str, value) -> Signal:
            held = Signal(len(value), name=name, reset_less=True)
            m.d.sync += held.eq(value)
            return held

        inputs = {name: signal for name, (flow, signal) in self.ports.items() if flow is In}
        shared = {name: register(f"{name}_0", signal) for name, signal in inputs.items() if name in SHARED}
        weights = {name: signal for name, signal in inputs.items() if name not in SHARED}
        copy: Value = Const(0)
        for number in range(self.elements):
            cell = place(m, platform, f"cell_{number}", ElementCell(design=self.design))
            weights = {name: register(f"{name}_{number}", value) for name, value in weights.items()}
            m.d.comb += [getattr(cell, name).eq(value) for name, value in {**shared, **weights}.items()]
            m.d.comb += cell.previous.eq(copy)
            copy = cell.copy
        m.d.comb += self.shift_out.eq(register("parity", copy.xor()))
        return m
