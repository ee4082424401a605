# SPDX-License-Identifier: Apache-2.0
"""Elements: what takes one input and one weight a cycle and leaves its end to others."""

from amaranth.hdl import Module, Signal, Value
from amaranth.lib.wiring import In, Out

from bmhw.hdl.block import Block, connect

from .design import Design

__all__ = ["Element"]


class Element(Block):
    """One input and one weight a cycle, for the running maxima or the accumulator that the outputs show.

    - Latency: :attr:`latency` cycles from an input to the outputs that count it: one, or two with a register between
      sum or product and maximum or accumulator.
    - Throughput: one input a cycle, each cycle: there is no handshake, and no cycle between two groups.

    What steers the maxima comes with what it steers: with that register ``first`` and ``sign`` belong to the input of
    the cycle before. One register delays ``first`` for all elements then, and a memory that holds a weight's sign one
    word later needs none; ``negative`` is of the input and comes with it.

    Layout ``wired`` has one maximum for both halves of a group: ``first`` is 1 with the first input of each half, and
    whoever takes the maxima knows which one is positive.

    Parameters
    ----------
    design: form ``serial``, boundary ``element``.

    Members
    -------
    first : In(1), this input is the first one of a group, or of the products of an accumulator, which start anew
    The format's ``inputs_of`` : In(element width), one input's
    m1, m2, ... or m : Out(maximum_bits) each, of BM; y : Out(width), of MAC
    clk, rst (Verilog) : no register needs a reset; ``first`` is one
    """

    clocked = True

    def __init__(self, *, design: Design):
        self.design = design
        fmt = design.format
        outputs = {"y": fmt.y.bits} if design.neuron == "mac" else dict.fromkeys(fmt.shown, fmt.maximum_bits)
        super().__init__({"first": In(1), **{name: In(code.bits) for name, (code, _) in fmt.inputs_of.items()},
                          **{name: Out(bits) for name, bits in outputs.items()}})

    @property
    def latency(self) -> int:
        return 1 + len(self.design.registers or ())

    def elaborate(self, platform):
        m = Module()
        values: dict[str, Value] = {name: signal for name, (flow, signal) in self.ports.items() if flow is In}
        (first_name, first_part), (last_name, last_part) = self.design.create_parts().items()
        connect(m, platform, first_name, first_part, values)
        made = [name for name, (flow, _) in first_part.ports.items() if flow is Out]
        if self.design.registers:
            for name in (*made, *(["negative"] if "negative" in values else [])):
                register = Signal(len(values[name]), name=f"{name}_held", reset_less=True)
                m.d.sync += register.eq(values[name])
                values[name] = register
        if "minus" in last_part.ports:
            signs = [values[name] for name in ("sign", "negative") if name in values]
            values["minus"] = signs[0] ^ signs[1] if len(signs) > 1 else signs[0]
        connect(m, platform, last_name, last_part, values)
        m.d.comb += [signal.eq(values[name]) for name, (flow, signal) in self.ports.items() if flow is Out]
        return m
