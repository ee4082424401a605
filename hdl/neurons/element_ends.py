# SPDX-License-Identifier: Apache-2.0
"""The ends that elements share: what comes once a group or flush, and what comes once a result."""

import dataclasses

from amaranth.hdl import Module, Mux, Signal, Value
from amaranth.lib.wiring import In, Out

from bmhw.hdl.arithmetic.adders import ADDERS
from bmhw.hdl.block import Block, connect, place
from bmhw.hdl.formats.bm import BmFormat
from bmhw.hdl.formats.choices import ELEMENT
from bmhw.hdl.formats.mac import MacFormat

from . import bm_parts, mac_parts
from .log_ends import LOG_ENDS

__all__ = ["GroupEnd", "ResultEnd", "element_format"]


def element_format(fmt: MacFormat | BmFormat, flush: int | None = None) -> MacFormat | BmFormat:
    """The format of the elements of a neuron of boundary ``layer``; those of a logarithmic end take the two biases as
    one more input."""
    common = {"boundary": ELEMENT, "result": "linear", "residual_bits": 0}
    if isinstance(fmt, MacFormat):
        return dataclasses.replace(fmt, **common, flush=flush)
    return dataclasses.replace(fmt, **common, combine="linear", offset=0)


class GroupEnd(Block):
    """What an element shows behind a group or a flush, added to its neuron's sum so far, which waits in a memory.

    - Latency: two cycles for maxima, of which the second one takes the sum; one for an accumulator.
    - Throughput: one element's maxima or accumulator a cycle.

    Parameters
    ----------
    format: of the neuron, boundary ``layer``.
    flush: of MAC elements, None for those that hold a whole sum, to which the bias alone is added.
    adder: architecture of the additions.
    serial: of BM, whether an element's maxima come one after the other, as those of layout ``wired`` always do.

    Members
    -------
    m1, m2, ... or, one after the other, m : In(maximum_bits), of BM; a : In(width of the accumulator), of MAC
    minus : In(1), with m: what the maximum stands for is subtracted
    bias : In(bias_bits), signed; first : In(1): the sum begins with it
    waiting : In(width of y), signed: else the sum so far; neither is there where an accumulator holds all
    y : Out(width of y), signed, a register
    """

    clocked = True

    def __init__(self, *, format: MacFormat | BmFormat, adder: str, flush: int | None = None, serial: bool = False):
        self.format, self.adder, self.flush = format, adder, flush
        element = element_format(format, flush)
        bm = isinstance(format, BmFormat)
        self.shown_by_elements = dict.fromkeys(element.shown, format.maximum_bits) if bm else {"a": element.y.bits}
        """What an element shows -> its bits."""
        self.serial = bm and (serial or format.layout == "wired")
        self.shown = {"m": format.maximum_bits} if self.serial else self.shown_by_elements
        """What it takes of that at a time."""
        waits = bm or flush is not None
        super().__init__({
            **{name: In(bits) for name, bits in self.shown.items()},
            **({"minus": In(1)} if self.serial else {}),
            "bias": In(format.bias_bits), **({"first": In(1), "waiting": In(format.y.bits)} if waits else {}),
            "y": Out(format.y.bits)})

    def elaborate(self, platform):
        m = Module()
        fmt = self.format
        width = fmt.y.bits
        so_far = Signal(width)
        m.d.comb += so_far.eq(Mux(self.first, self.bias.as_signed(), self.waiting) if "first" in self.ports
                              else self.bias.as_signed())
        if isinstance(fmt, MacFormat):
            addend = Signal(width)
            m.d.comb += addend.eq(self.a.as_signed())
            total = self._added(m, platform, so_far, addend)
        elif self.serial:
            one = fmt.one_group(layout="relu", signed_inputs=False)
            values = self._exponentials(m, platform, one, {"m1": self.m, "m2": 0})
            minus = Signal(name="minus_held", reset_less=True)
            m.d.sync += minus.eq(self.minus)
            addend = Signal(width)
            m.d.comb += addend.eq(values["e1"] ^ minus.replicate(width))
            total = self._added(m, platform, so_far, addend, carry_in=minus)
        else:
            one = fmt.one_group()
            values = self._exponentials(m, platform, one, {name: getattr(self, name) for name in self.ports
                                                           if name.startswith("m")})
            values["bias"] = so_far
            connect(m, platform, "combine", bm_parts.Combine(format=one, adder=self.adder), values)
            total = values["y"]
        register = Signal(width, name="sum", reset_less=True)
        m.d.sync += register.eq(total)
        m.d.comb += self.y.eq(register)
        return m

    def _exponentials(self, m: Module, platform, one: BmFormat, values: dict[str, Value]) -> dict[str, Value]:
        """The exponentials of maxima, in registers."""
        connect(m, platform, "exp2", bm_parts.ExponentialPart(format=one, end="subtract"), values)
        held = {}
        for name in [name for name in values if name.startswith("e")]:
            held[name] = Signal(len(values[name]), name=f"{name}_held", reset_less=True)
            m.d.sync += held[name].eq(values[name])
        return held

    def _added(self, m: Module, platform, a: Value, b: Value, carry_in: Value | None = None) -> Value:
        width = self.format.y.bits
        adder = place(m, platform, "adder", ADDERS[self.adder](width=width, carry_in=carry_in is not None))
        m.d.comb += [adder.a.eq(a), adder.b.eq(b)]
        if carry_in is not None:
            m.d.comb += adder.carry_in.eq(carry_in)
        return adder.sum[:width]


class ResultEnd(Block):
    """A neuron's sum as the next layer's activation code: ReLU and log2, or ReLU and requantisation; or its two maxima,
    for a logarithmic end, which has no sum and no :class:`GroupEnd`.

    - Latency: a cycle.
    - Throughput: one result a cycle.

    Parameters
    ----------
    format: of the neuron, boundary ``layer``, result ``code``.
    adder, multiplier: architectures; the multiplier is that of a scale.

    Members
    -------
    y : In(width of y), signed
    scale : In(scale_bits), for ``requantize="scale"``
    m1, m2 : In(maximum_bits), in the place of y, for ``combine="logarithmic"``
    z : Out, a register
    """

    clocked = True

    def __init__(self, *, format: MacFormat | BmFormat, adder: str, multiplier: str):
        self.format, self.adder, self.multiplier = format, adder, multiplier
        scale = {"scale": In(format.scale_bits)} if getattr(format, "has_scale", False) else {}
        shown = dict.fromkeys(("m1", "m2"), format.maximum_bits) if _logarithmic(format) else {"y": format.y.bits}
        super().__init__({**{name: In(bits) for name, bits in shown.items()}, **scale,
                          "z": Out(format.output[1].bits)})

    def elaborate(self, platform):
        m = Module()
        values: dict[str, Value] = {name: signal for name, (flow, signal) in self.ports.items() if flow is In}
        if _logarithmic(self.format):
            connect(m, platform, "log_subtract", LOG_ENDS["subtract"](format=self.format, adder=self.adder), values)
        elif isinstance(self.format, BmFormat):
            connect(m, platform, "relu_log2", bm_parts.ReluLog2(format=self.format), values)
        else:
            connect(m, platform, "requantize", mac_parts.Requantize(
                format=self.format, multiplier=self.multiplier, adder=self.adder), values)
        register = Signal(len(self.z), name="code", reset_less=True)
        m.d.sync += register.eq(values["z"])
        m.d.comb += self.z.eq(register)
        return m


def _logarithmic(fmt: MacFormat | BmFormat) -> bool:
    return isinstance(fmt, BmFormat) and fmt.combine == "logarithmic"
