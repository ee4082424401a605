# SPDX-License-Identifier: Apache-2.0
"""The parts of an element, which takes one input a cycle and has no end: sums and running maxima, or a product and an
accumulator."""

from collections.abc import Callable

from amaranth.hdl import Module, Mux, Signal, Value
from amaranth.lib.wiring import In, Out

from bmhw.hdl.arithmetic.adders import ADDERS
from bmhw.hdl.arithmetic.comparators import Comparator, RippleComparator
from bmhw.hdl.arithmetic.multipliers import Multiplier, partial_products
from bmhw.hdl.block import Block, place
from bmhw.hdl.formats.bm import BmFormat
from bmhw.hdl.formats.choices import ONE_SUM
from bmhw.hdl.formats.mac import MacFormat

from . import mac_parts

__all__ = ["Accumulator", "CandidateSums", "MergedAccumulator", "Product", "RunningMaxima", "makers"]

_BIT_BY_BIT = ("ripple", "operator")
"""Adders beside which a comparison is bit by bit as well, for few gates or tables; not where two of them run beside
each other for a short path."""


def makers(format: MacFormat | BmFormat, multiplier: str, adder: str, selection: str,
           registered: bool) -> dict[str, Callable[[], Block]]:
    """Name of a part of an element -> what makes it, in the order of the data."""
    if isinstance(format, BmFormat):
        return {"sums": lambda: CandidateSums(format=format, adder=adder),
                "maxima": lambda: RunningMaxima(format=format, selection=selection,
                                                ripple=adder in _BIT_BY_BIT and selection != "behind")}
    if registered or selection == "behind" or multiplier == "operator":
        return {"products": lambda: Product(format=format, multiplier=multiplier, adder=adder),
                "accumulator": lambda: Accumulator(format=format, adder=adder, selection=selection)}
    return {"products": lambda: mac_parts.Products(format=_of_one_input(format), multiplier=multiplier),
            "accumulator": lambda: MergedAccumulator(format=format, multiplier=multiplier, adder=adder)}


def _of_one_input(fmt: MacFormat) -> MacFormat:
    return MacFormat(inputs=1, bits=fmt.bits, signed_inputs=fmt.signed_inputs, weight_bits=fmt.weight_bits)


def sides_are_apart(fmt: BmFormat) -> bool:
    """Whether a signed input enters the maxima of both its parts: of layout ``bipolar``, where code 0 with the largest
    weight is more than nothing."""
    return fmt.layout == "bipolar" and not fmt.reached


def candidates(fmt: BmFormat) -> dict[str, tuple[str, ...]]:
    """Name of a sum -> the maxima that it may enter: one, or two of which a sign names one."""
    if fmt.layout in ONE_SUM:
        return {"s": fmt.shown}
    if fmt.layout == "relu" or sides_are_apart(fmt):
        return {f"s{m[1:]}": (m,) for m in fmt.shown}
    return {"s1": ("m1", "m3"), "s2": ("m2", "m4")}


class CandidateSums(Block):
    """The sums of one input's code and weights, 0 where they don't enter a maximum: an element's candidates.

    Latency: combinational.

    Members
    -------
    c : In(log_bits)
    negative : In(1), of layout ``bipolar`` where an input enters the maxima of both its parts
    k, or k1 and k2 : In(weight_bits)
    s, or s1, s2, ... : Out(maximum_bits)
    """

    block_name = "sums"

    def __init__(self, *, format: BmFormat, adder: str):
        self.format, self.adder = format, adder
        weights = ("k",) if format.layout in ONE_SUM else ("k1", "k2")
        super().__init__({
            "c": In(format.log_bits), **({"negative": In(1)} if sides_are_apart(format) else {}),
            **{name: In(format.weight_bits) for name in weights},
            **{name: Out(format.maximum_bits) for name in candidates(format)}})

    def elaborate(self, platform):
        m = Module()
        fmt = self.format
        width, clamped = max(fmt.log_bits, fmt.weight_bits), fmt.sums == "clamped"
        for number, name in enumerate(candidates(fmt)):
            code: Value = self.c
            if sides_are_apart(fmt):
                code = Mux(self.negative if number < 2 else ~self.negative, 0, self.c)
            weight = self.k if fmt.layout in ONE_SUM else (self.k1, self.k2)[number % 2]
            unit = place(m, platform, f"add_{name}", ADDERS[self.adder](width=width, carry_in=clamped))
            m.d.comb += [unit.a.eq(code), unit.b.eq(weight)]
            # not a CodeSum: its highest bit, which is 0 without a carry at no gate more, is a table more
            candidate = unit.sum[fmt.dropped_bits:fmt.sum_bits]
            if clamped:
                # c + k - (2^B - 1) = c + k + 1 - 2^B: not negative if there is a carry
                m.d.comb += unit.carry_in.eq(1)
                candidate = Mux(unit.sum[width], candidate, 0)
            elif fmt.reached:
                candidate = Mux(code.any() & weight.any(), candidate, 0)
            m.d.comb += getattr(self, name).eq(candidate)
        return m


class RunningMaxima(Block):
    """An element's maxima: each candidate against the one that it may enter, or of two the one that a sign names.

    Latency: a cycle. The candidate that comes with ``first`` starts the maxima anew; the other one of two becomes 0.

    Parameters
    ----------
    selection: ``before``: of two maxima the named one is chosen, then compared; ``behind``: both are compared;
        ``enable``: as behind, and registers are loaded by enables.
    ripple: whether comparisons go bit by bit.

    Members
    -------
    s, or s1, s2, ... : In(maximum_bits)
    minus : In(1), if candidates may enter two maxima: the second one
    first : In(1)
    m, or m1, m2, ... : Out(maximum_bits), registers
    """

    block_name = "maxima"
    clocked = True

    def __init__(self, *, format: BmFormat, selection: str, ripple: bool):
        self.format, self.selection, self.ripple = format, selection, ripple
        of = candidates(format)
        signed = any(len(maxima) > 1 for maxima in of.values())
        super().__init__({**{name: In(format.maximum_bits) for name in of}, **({"minus": In(1)} if signed else {}),
                          "first": In(1), **{name: Out(format.maximum_bits) for name in format.shown}})

    def elaborate(self, platform):
        m = Module()
        for name, maxima in candidates(self.format).items():
            candidate = getattr(self, name)
            registers = [Signal(self.format.maximum_bits, name=f"maximum_{n[1:] or 1}", reset_less=True)
                         for n in maxima]
            m.d.comb += [getattr(self, n).eq(register) for n, register in zip(maxima, registers, strict=True)]
            named = [Value.cast(1)] if len(maxima) == 1 else [~self.minus, self.minus]
            if self.selection == "before" and len(maxima) > 1:
                chosen = Signal(self.format.maximum_bits, name=f"chosen_{name}")
                m.d.comb += chosen.eq(_either(self.minus, registers[1], registers[0]))
                against = [self._enters(m, platform, name, candidate, chosen)] * 2
            else:
                against = [self._enters(m, platform, n, candidate, register)
                           for n, register in zip(maxima, registers, strict=True)]
            for register, enters, here in zip(registers, against, named, strict=True):
                taken = enters & here
                # a four-input table before the register has room for this choice; an enable leaves it empty
                kept = (Mux if self.selection == "enable" else _either)(taken, candidate, register)
                if len(maxima) > 1:
                    kept = Mux(self.first & ~here, 0, kept)
                m.d.sync += register.eq(kept)
        return m

    def _enters(self, m: Module, platform, name: str, candidate: Value, maximum: Value) -> Value:
        kind = RippleComparator if self.ripple else Comparator
        comparator = place(m, platform, f"comparator_{name}", kind(width=self.format.maximum_bits))
        m.d.comb += [comparator.a.eq(candidate), comparator.b.eq(maximum)]
        return comparator.greater | self.first


def _either(choice: Value, yes: Value, no: Value) -> Value:
    """``Mux(choice, yes, no)`` in gates, which a tool doesn't turn into a register's enable."""
    mask = choice.replicate(len(yes))
    return (mask & yes) | (~mask & no)


class Product(Block):
    """One input times its weight, as a number.

    Latency: combinational.

    Members
    -------
    x : In(bits)
    w : In(weight_bits)
    p : Out(bits + weight_bits), signed
    """

    def __init__(self, *, format: MacFormat, multiplier: str, adder: str):
        self.format, self.multiplier, self.adder = format, multiplier, adder
        super().__init__({"x": In(format.bits), "w": In(format.weight_bits),
                          "p": Out(format.bits + format.weight_bits)})

    def elaborate(self, platform):
        m = Module()
        parameters = {"a_bits": self.format.bits, "b_bits": self.format.weight_bits,
                      "a_signed": self.format.signed_inputs, "b_signed": True}
        if self.multiplier == "operator":
            unit = place(m, platform, "product", partial_products(self.multiplier, **parameters))
            product = unit.bits
        else:
            unit = place(m, platform, "product", Multiplier(**parameters, architecture=self.multiplier,
                                                            adder=self.adder))
            product = unit.p
        m.d.comb += [unit.a.eq(self.x), unit.b.eq(self.w), self.p.eq(product)]
        return m


class Accumulator(Block):
    """The sum of products so far; the product that comes with ``first`` starts it anew.

    Latency: a cycle.

    Parameters
    ----------
    selection: ``before``: ``first`` masks the accumulator before the addition; ``behind``: it takes the product.

    Members
    -------
    p : In(bits + weight_bits), signed
    first : In(1)
    y : Out(width of y), signed, a register
    """

    clocked = True

    def __init__(self, *, format: MacFormat, adder: str, selection: str):
        self.format, self.adder, self.selection = format, adder, selection
        super().__init__({"p": In(format.bits + format.weight_bits), "first": In(1), "y": Out(format.y.bits)})

    def elaborate(self, platform):
        m = Module()
        width = self.format.y.bits
        accumulator = Signal(width, name="accumulator", reset_less=True)
        product = Signal(width)
        adder = place(m, platform, "adder", ADDERS[self.adder](width=width))
        masked = self.selection == "before"
        m.d.comb += [product.eq(self.p.as_signed()), adder.a.eq(product), self.y.eq(accumulator),
                     adder.b.eq(accumulator & ~self.first.replicate(width) if masked else accumulator)]
        m.d.sync += accumulator.eq(adder.sum[:width] if masked else Mux(self.first, product, adder.sum[:width]))
        return m


class MergedAccumulator(Block):
    """The sum of products so far, each product's partial products and the sum in one compressor.

    Latency: a cycle.

    Members
    -------
    products : In, as :class:`~bmhw.hdl.neurons.mac_parts.Products` gives them of one input
    first : In(1)
    y : Out(width of y), signed, a register
    """

    block_name = "accumulator"
    clocked = True

    def __init__(self, *, format: MacFormat, multiplier: str, adder: str):
        self.format, self.multiplier, self.adder = format, multiplier, adder
        unit = mac_parts.Products(format=_of_one_input(format), multiplier=multiplier)
        super().__init__({"products": In(len(unit.products)), "first": In(1), "y": Out(format.y.bits)})

    def elaborate(self, platform):
        m = Module()
        width = self.format.y.bits
        accumulator = Signal(width, name="accumulator", reset_less=True)
        compression = place(m, platform, "compression", mac_parts.Compression(
            format=self.format, multiplier=self.multiplier, inputs=1, addends=(("running", width),)))
        adder = place(m, platform, "adder", mac_parts.FinalAdder(width=width, adder=self.adder))
        m.d.comb += [
            compression.products.eq(self.products),
            compression.running.eq(accumulator & ~self.first.replicate(width)),
            adder.row0.eq(compression.row0),
            adder.row1.eq(compression.row1),
            self.y.eq(accumulator),
        ]
        m.d.sync += accumulator.eq(adder.y)
        return m
