# SPDX-License-Identifier: Apache-2.0
"""Multipliers: partial products of one product, and the complete multiplier."""

import functools
import operator

from amaranth.hdl import Cat, Const, Module, Signal, Value
from amaranth.lib.wiring import In, Out

from bmhw.hdl.block import Block, place
from bmhw.hdl.checks import check_choice, check_range

from .adders import ADDERS
from .compressors import Columns, Compressor

__all__ = [
    "MULTIPLIERS", "Booth8Products", "BoothProducts", "Multiplier", "OperatorProduct", "PartialProducts",
    "added_products", "partial_products",
]


class PartialProducts(Block):
    """The AND array of ``a * b``: one bit for each pair of bits.

    Latency: combinational. Bit ``i * b_bits + j`` is ``a[i] & b[j]``, of weight ``2^(i + j)``, negative if exactly
    one of the two is a sign bit.

    Members
    -------
    a : In(a_bits)
    b : In(b_bits)
    bits : Out(a_bits * b_bits)
    """

    def __init__(self, *, a_bits: int, b_bits: int, a_signed: bool, b_signed: bool):
        self.a_bits = check_range("Multiplicand width", a_bits, 1, 64)
        self.b_bits = check_range("Multiplier width", b_bits, 1, 64)
        self.a_signed, self.b_signed = a_signed, b_signed
        super().__init__({"a": In(a_bits), "b": In(b_bits), "bits": Out(a_bits * b_bits)})

    def elaborate(self, platform):
        m = Module()
        m.d.comb += self.bits.eq(Cat(self.a[i].replicate(self.b_bits) & self.b for i in range(self.a_bits)))
        return m

    @property
    def weights(self) -> list[tuple[int, bool]]:
        """For each bit: its column, and whether its weight is negative."""
        return [(i + j, (self.a_signed and i == self.a_bits - 1) != (self.b_signed and j == self.b_bits - 1))
                for i in range(self.a_bits) for j in range(self.b_bits)]


class BoothProducts(Block):
    """Booth's partial products of ``a * b`` in radix 4 or 8: fewer rows, b recoded to digits -r/2 to r/2.

    Latency: combinational. Digit j of b selects a multiple of a from 0 to r/2, inverted for a negative digit, whose
    ``+ 1`` is one more bit (MacSorley 1961). Radix 4 needs a and 2a; radix 8 needs 3a too, which one carry-propagate
    addition makes for all rows. Row j: ``row_bits`` bits from column ``j * log2(r)``, two's complement, then that bit.

    Members
    -------
    a : In(a_bits)
    b : In(b_bits)
    bits : Out(rows * (row_bits + 1))
    """

    digit_bits = 2
    """log2 of the radix."""

    def __init__(self, *, a_bits: int, b_bits: int, a_signed: bool, b_signed: bool):
        self.a_bits = check_range("Multiplicand width", a_bits, 1, 64)
        self.b_bits = check_range("Multiplier width", b_bits, 1, 64)
        self.a_signed, self.b_signed = a_signed, b_signed
        # an unsigned b needs a zero above it for its last digit
        self.rows = -(-(b_bits + (not b_signed)) // self.digit_bits)
        # the largest multiple takes digit_bits - 1 bits more, the sign of an unsigned a's negative one more
        self.row_bits = a_bits + self.digit_bits - 1 + (not a_signed)
        super().__init__({"a": In(a_bits), "b": In(b_bits), "bits": Out(self.rows * (self.row_bits + 1))})

    def elaborate(self, platform):
        m = Module()
        sign = self.b[-1] if self.b_signed else Const(0, 1)
        extended = Cat(0, self.b, sign.replicate(self.digit_bits))  # extended[i + 1] is bit i of b
        multiples = self._multiples(m, platform)
        rows = []
        for row in range(self.rows):
            digit = extended[row * self.digit_bits:][:self.digit_bits + 1]
            negative = Signal(name=f"negative_{row}")
            selected = Signal(self.row_bits, name=f"row_{row}")
            takes = [Signal(name=f"takes_{multiple}_{row}") for multiple in multiples]
            m.d.comb += [take.eq(one) for take, one in zip(takes, self._one_hot(digit), strict=True)]
            masked = [value & take.replicate(self.row_bits)
                      for take, value in zip(takes, multiples.values(), strict=True)]
            m.d.comb += [
                negative.eq(digit[-1]),
                selected.eq(functools.reduce(operator.or_, masked) ^ negative.replicate(self.row_bits)),
            ]
            rows += [selected, negative]
        m.d.comb += self.bits.eq(Cat(rows))
        return m

    def _multiples(self, m: Module, platform) -> dict[int, Value]:
        """Multiple -> its ``row_bits`` bits."""
        sign = self.a[-1] if self.a_signed else Const(0, 1)
        extended = Cat(self.a, sign.replicate(self.row_bits - self.a_bits))
        return {1: extended, 2: Cat(0, extended)[:self.row_bits]}

    def _one_hot(self, digit: Value) -> tuple[Value, ...]:
        """For each multiple, whether the digit selects it."""
        low, middle, high = digit
        return low ^ middle, (high ^ middle) & ~(low ^ middle)

    @property
    def weights(self) -> list[tuple[int, bool]]:
        """For each bit: its column, and whether its weight is negative."""
        weights = []
        for row in range(self.rows):
            column = row * self.digit_bits
            weights += [(column + i, i == self.row_bits - 1) for i in range(self.row_bits)] + [(column, False)]
        return weights


class Booth8Products(BoothProducts):
    """Booth's partial products in radix 8: digits -4 to 4, a third of the rows."""

    digit_bits = 3

    def _multiples(self, m: Module, platform) -> dict[int, Value]:
        multiples = super()._multiples(m, platform)
        adder = place(m, platform, "triple", ADDERS["sklansky"](width=self.row_bits))
        m.d.comb += [adder.a.eq(multiples[1]), adder.b.eq(multiples[2])]
        return {**multiples, 3: adder.sum[:self.row_bits], 4: Cat(0, multiples[2])[:self.row_bits]}

    def _one_hot(self, digit: Value) -> tuple[Value, ...]:
        # the digit's magnitude, from its lower bits inverted where it is negative: (low + middle + 2 * high)
        flipped = digit[:-1] ^ digit[-1].replicate(len(digit) - 1)
        low, middle, high = flipped
        odd = low ^ middle
        return odd & ~high, low & middle & ~high | ~low & ~middle & high, odd & high, low & middle & high


class OperatorProduct(Block):
    """A product left to the synthesis tool, ``a * b``: the DSP blocks or carry chains of an FPGA.

    Latency: combinational. Bit i has weight ``2^i``; the highest one is negative if ``a`` or ``b`` is signed.

    Members
    -------
    a : In(a_bits)
    b : In(b_bits)
    bits : Out(a_bits + b_bits)
    """

    def __init__(self, *, a_bits: int, b_bits: int, a_signed: bool, b_signed: bool):
        self.a_bits = check_range("Multiplicand width", a_bits, 1, 64)
        self.b_bits = check_range("Multiplier width", b_bits, 1, 64)
        self.a_signed, self.b_signed = a_signed, b_signed
        super().__init__({"a": In(a_bits), "b": In(b_bits), "bits": Out(a_bits + b_bits)})

    def elaborate(self, platform):
        m = Module()
        a = self.a.as_signed() if self.a_signed else self.a
        b = self.b.as_signed() if self.b_signed else self.b
        m.d.comb += self.bits.eq(a * b)
        return m

    @property
    def weights(self) -> list[tuple[int, bool]]:
        """For each bit: its column, and whether its weight is negative."""
        width = self.a_bits + self.b_bits
        return [(i, i == width - 1 and (self.a_signed or self.b_signed)) for i in range(width)]


MULTIPLIERS: dict[str, tuple[type[Block], str]] = {
    "array": (PartialProducts, "linear"),
    "dadda": (PartialProducts, "dadda"),
    "wallace": (PartialProducts, "wallace"),
    "booth": (BoothProducts, "dadda"),
    "booth8": (Booth8Products, "dadda"),
    "operator": (OperatorProduct, "operator"),
}
"""Architecture -> (the partial products, the compression of their columns)."""


def partial_products(architecture: str, **parameters) -> Block:
    """The block of one product's partial products."""
    return MULTIPLIERS[check_choice("Multiplier", architecture, MULTIPLIERS)][0](**parameters)


class Multiplier(Block):
    """``p = a * b (+ addend)``.

    Latency: combinational.

    Parameters
    ----------
    a_bits, b_bits: widths, 1 to 64; ``a_signed``, ``b_signed``: two's complement or not.
    architecture: a key of :data:`MULTIPLIERS`.
    adder: of the last addition, a key of :data:`~bmhw.hdl.arithmetic.adders.ADDERS`.
    addend: a constant that the compressor adds, as for rounding; ``p`` is modulo ``2^(a_bits + b_bits)``.

    Members
    -------
    a : In(a_bits)
    b : In(b_bits)
    p : Out(a_bits + b_bits)
    """

    def __init__(self, *, a_bits: int, b_bits: int, a_signed: bool = False, b_signed: bool = False,
                 architecture: str = "dadda", adder: str = "sklansky", addend: int = 0):
        self.products_parameters = {"a_bits": a_bits, "b_bits": b_bits, "a_signed": a_signed, "b_signed": b_signed}
        check_choice("Multiplier", architecture, MULTIPLIERS)
        check_choice("Adder", adder, ADDERS)
        self.architecture, self.adder, self.width, self.addend = architecture, adder, a_bits + b_bits, addend
        super().__init__({"a": In(a_bits), "b": In(b_bits), "p": Out(a_bits + b_bits)})

    def elaborate(self, platform):
        m = Module()
        products = place(m, platform, "products", partial_products(self.architecture, **self.products_parameters))
        m.d.comb += [products.a.eq(self.a), products.b.eq(self.b)]
        m.d.comb += self.p.eq(added_products(
            m, platform, products, products.bits, width=self.width, compression=MULTIPLIERS[self.architecture][1],
            adder=self.adder, addend=self.addend))
        return m


def added_products(m: Module, platform, products: Block, bits: Value, *, width: int, compression: str,
                   adder: str = "operator", addend: int = 0) -> Value:
    """The sum of partial products, of ``width`` bits and a carry to leave out, of their ``bits``, which may have come
    through registers."""
    columns = Columns(width=width)
    for bit, (column, negative) in zip(bits, products.weights, strict=True):
        columns.add_bit(column, bit, negative=negative)
    compressor = place(m, platform, "compressor", Compressor(
        heights=columns.heights, constant=columns.constant + addend, compression=compression))
    last = place(m, platform, "adder", ADDERS[adder](width=width))
    m.d.comb += [compressor.bits.eq(columns.packed()), last.a.eq(compressor.row0), last.b.eq(compressor.row1)]
    return last.sum
