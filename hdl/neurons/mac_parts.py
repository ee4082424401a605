# SPDX-License-Identifier: Apache-2.0
"""The parts of a multiply-accumulate neuron: products, compression, final adder."""

from functools import cached_property

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib.wiring import In, Out

from bmhw.hdl.arithmetic.adders import ADDERS
from bmhw.hdl.arithmetic.compressors import Columns, Compressor
from bmhw.hdl.arithmetic.multipliers import MULTIPLIERS, Multiplier, partial_products
from bmhw.hdl.block import Block, place
from bmhw.hdl.formats.mac import MacFormat

__all__ = ["Compression", "CompressionGroup", "FinalAdder", "Products", "Requantize"]

GROUP = 64
"""Inputs beyond which the products are compressed in groups of so many first: equal groups are one module, which
synthesis maps once."""


def _unit_parameters(fmt: MacFormat) -> dict[str, int]:
    """Of one input's partial products: the weight is the recoded operand of Booth."""
    return {"a_bits": fmt.bits, "b_bits": fmt.weight_bits, "a_signed": fmt.signed_inputs, "b_signed": True}


def _unit(fmt: MacFormat, multiplier: str) -> Block:
    """One input's partial products."""
    return partial_products(multiplier, **_unit_parameters(fmt))


class CompressionGroup(Block):
    """The partial products of some inputs, reduced to two rows of their sum.

    Latency: combinational. Bits of negative weight enter inverted, and the constant that belongs to them is left to
    whoever adds the rows (:attr:`constant`): so the sum is never negative, the rows need no sign, and the group is
    the same in a neuron of any fan-in.

    Parameters
    ----------
    unit: parameters of one input's partial products, as (name, value) pairs; see ``multipliers.partial_products``.
    multiplier: its architecture.
    inputs: how many products.

    Members
    -------
    products : In(inputs * bits of one input's partial products)
    row0, row1 : Out(width); ``row0 + row1 + constant`` is the sum
    """

    def __init__(self, *, unit: tuple[tuple[str, int], ...], multiplier: str, inputs: int):
        self.multiplier, self.inputs = multiplier, inputs
        self.weights = partial_products(multiplier, **dict(unit)).weights
        # wide enough for every bit set: no carry leaves the top column
        self.width = (inputs * sum(1 << column for column, _ in self.weights)).bit_length()
        self.constant = -inputs * sum(1 << column for column, negative in self.weights if negative)
        super().__init__({"products": In(inputs * len(self.weights)), "row0": Out(self.width),
                          "row1": Out(self.width)})

    def elaborate(self, platform):
        m = Module()
        columns = Columns(width=self.width)
        for i in range(self.inputs):
            for bit, (column, negative) in enumerate(self.weights):
                columns.add_bit(column, self.products[i * len(self.weights) + bit], negative=negative)
        compressor = place(m, platform, "compressor", Compressor(
            heights=columns.heights, compression=MULTIPLIERS[self.multiplier][1]))
        m.d.comb += [
            compressor.bits.eq(columns.packed()),
            self.row0.eq(compressor.row0),
            self.row1.eq(compressor.row1),
        ]
        return m


def _groups(fmt: MacFormat, multiplier: str, inputs: int, group: int) -> list[CompressionGroup]:
    """The groups that the products of more than ``group`` inputs are compressed in; none for fewer."""
    unit = tuple(_unit_parameters(fmt).items())
    starts = range(0, inputs, group) if inputs > group else ()
    return [CompressionGroup(unit=unit, multiplier=multiplier, inputs=min(group, inputs - start)) for start in starts]


def _product_bits(fmt: MacFormat, multiplier: str, inputs: int, group: int) -> int:
    """Width of the port between products and compression: partial products, or the rows of their groups."""
    groups = _groups(fmt, multiplier, inputs, group)
    return sum(2 * g.width for g in groups) if groups else inputs * len(_unit(fmt, multiplier).bits)


class Products(Block):
    """The partial products of all inputs; of more than ``group`` inputs the two rows of each group's sum.

    Latency: combinational.

    Members
    -------
    x : In(n * bits)
    w : In(n * weight_bits)
    products : Out(n * bits of one input's partial products, or row0 and row1 of each group)
    """

    def __init__(self, *, format: MacFormat, multiplier: str, group: int = GROUP):
        self.format, self.multiplier, self.group = format, multiplier, group
        super().__init__({"x": In(format.inputs * format.bits), "w": In(format.inputs * format.weight_bits),
                          "products": Out(_product_bits(format, multiplier, format.inputs, group))})

    def elaborate(self, platform):
        m = Module()
        units = []
        for i in range(self.format.inputs):
            unit = place(m, platform, f"input_{i}", _unit(self.format, self.multiplier))
            m.d.comb += [
                unit.a.eq(self.x.word_select(i, self.format.bits)),
                unit.b.eq(self.w.word_select(i, self.format.weight_bits)),
            ]
            units.append(unit.bits)
        rows = []
        for number, group in enumerate(_groups(self.format, self.multiplier, self.format.inputs, self.group)):
            place(m, platform, f"group_{number}", group)
            start = number * self.group
            m.d.comb += group.products.eq(Cat(units[start:start + group.inputs]))
            rows += [group.row0, group.row1]
        m.d.comb += self.products.eq(Cat(rows or units))
        return m


class Compression(Block):
    """All partial products and one addend (bias or running sum), reduced to two rows.

    With a residual sum, that is one more addend.

    Latency: combinational, or a cycle for each of ``registers``. Of more than ``group`` inputs the rows of the groups.

    Parameters
    ----------
    format, multiplier: of the neuron.
    inputs: how many products.
    addends: (name, width) of each signed addend.
    group: inputs of a group.
    registers: stages of the compressor with registers behind them.

    Members
    -------
    products : In, as :class:`Products` gives it
    each addend : In(its width)
    row0, row1 : Out(width of y)
    """

    def __init__(self, *, format: MacFormat, multiplier: str, inputs: int, addends: tuple[tuple[str, int], ...],
                 group: int = GROUP, registers: tuple[int, ...] = ()):
        self.format, self.multiplier, self.inputs, self.addends = format, multiplier, inputs, addends
        self.group = group
        super().__init__({"products": In(_product_bits(format, multiplier, inputs, group)),
                          **{name: In(bits) for name, bits in addends},
                          "row0": Out(format.y.bits), "row1": Out(format.y.bits)})
        self.check_registers(registers)

    @cached_property
    def levels(self) -> int:
        return self._compressor(self._columns()).levels

    def elaborate(self, platform):
        m = Module()
        columns = self._columns()
        compressor = place(m, platform, "compressor", self._compressor(columns, self.registers))
        m.d.comb += [
            compressor.bits.eq(columns.packed()),
            self.row0.eq(compressor.row0),
            self.row1.eq(compressor.row1),
        ]
        return m

    def _compressor(self, columns: Columns, registers: tuple[int, ...] = ()) -> Compressor:
        return Compressor(heights=columns.heights, constant=columns.constant, registers=registers,
                          compression=MULTIPLIERS[self.multiplier][1])

    def _columns(self) -> Columns:
        """What is added, bits by weight."""
        columns = Columns(width=self.format.y.bits)
        weights, position = _unit(self.format, self.multiplier).weights, 0
        groups = _groups(self.format, self.multiplier, self.inputs, self.group)
        for group in groups:
            for _ in range(2):
                columns.add(self.products[position:position + group.width], signed=False)
                position += group.width
            columns.constant += group.constant
        for i in range(0 if groups else self.inputs):
            for bit, (column, negative) in enumerate(weights):
                columns.add_bit(column, self.products[i * len(weights) + bit], negative=negative)
        for name, _ in self.addends:
            columns.add(getattr(self, name), signed=True)
        return columns


class FinalAdder(Block):
    """The carry-propagate addition of the two rows.

    Latency: combinational.

    Members
    -------
    row0, row1 : In(width)
    y : Out(width)
    """

    def __init__(self, *, width: int, adder: str):
        self.width, self.adder = width, adder
        super().__init__({"row0": In(width), "row1": In(width), "y": Out(width)})

    def elaborate(self, platform):
        m = Module()
        adder = place(m, platform, "adder", ADDERS[self.adder](width=self.width))
        m.d.comb += [adder.a.eq(self.row0), adder.b.eq(self.row1), self.y.eq(adder.sum)]
        return m


class Requantize(Block):
    """ReLU, scale, rounding, saturation: the sum as the next layer's activation code (see :class:`MacFormat`).

    Latency: combinational.

    Members
    -------
    y : In(width of y), signed
    scale : In(scale_bits), for ``requantize="scale"``
    z : Out(code_bits)
    """

    def __init__(self, *, format: MacFormat, multiplier: str, adder: str):
        self.format, self.multiplier, self.adder = format, multiplier, adder
        ports = {"y": In(format.y.bits), "z": Out(format.code_bits)}
        if format.has_scale:
            ports["scale"] = In(format.scale_bits)
        super().__init__(ports)

    def elaborate(self, platform):
        m = Module()
        fmt = self.format
        # the sign bit is not needed: a negative sum gives 0, whatever its other bits
        magnitude = self.y[:-1]
        half = 1 << fmt.requantize_shift >> 1
        if fmt.has_scale:
            product = place(m, platform, "product", Multiplier(
                a_bits=len(magnitude), b_bits=fmt.scale_bits, architecture=self.multiplier, adder=self.adder,
                addend=half))
            m.d.comb += [product.a.eq(magnitude), product.b.eq(self.scale)]
            rounded = product.p
        else:
            rounded = Signal(len(magnitude) + 1)
            m.d.comb += rounded.eq(magnitude + half)
        shifted = rounded[fmt.requantize_shift:]
        overflow = shifted[fmt.code_bits:].any() if len(shifted) > fmt.code_bits else 0
        m.d.comb += self.z.eq(Mux(self.y[-1], 0, shifted[:fmt.code_bits] | Mux(overflow, fmt.z.maximum, 0)))
        return m
