# SPDX-License-Identifier: Apache-2.0
"""Multipliers: partial products of one product, and the complete multiplier."""

from amaranth.hdl import Cat, Module, Signal
from amaranth.lib.wiring import In, Out

from .adders import ADDERS
from .block import Block, place
from .checks import check_choice, check_range
from .compressors import Columns, Compressor

__all__ = [
    "MULTIPLIERS", "BoothProducts", "Multiplier", "OperatorProduct", "PartialProducts", "partial_products",
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
    """Booth's radix-4 partial products of ``a * b``: half as many rows, b recoded to digits -2 to 2.

    Latency: combinational. Digit j of b selects 0, a or 2a, inverted for a negative digit, whose ``+ 1`` is one
    more bit (MacSorley 1961). Row j: ``row_bits`` bits from column 2j, two's complement, then that bit.

    Members
    -------
    a : In(a_bits)
    b : In(b_bits)
    bits : Out(rows * (row_bits + 1))
    """

    def __init__(self, *, a_bits: int, b_bits: int, a_signed: bool, b_signed: bool):
        self.a_bits = check_range("Multiplicand width", a_bits, 1, 64)
        self.b_bits = check_range("Multiplier width", b_bits, 1, 64)
        self.a_signed, self.b_signed = a_signed, b_signed
        # an unsigned b needs a zero above it for its last digit
        self.rows = (b_bits + (0 if b_signed else 1) + 1) // 2
        # 2a takes one bit more, the sign of an unsigned a's negative one more
        self.row_bits = a_bits + 1 + (not a_signed)
        super().__init__({"a": In(a_bits), "b": In(b_bits), "bits": Out(self.rows * (self.row_bits + 1))})

    def elaborate(self, platform):
        m = Module()
        sign = self.b[-1] if self.b_signed else 0
        extended = Cat(0, self.b, sign, sign)  # extended[i + 1] is bit i of b
        wide = Cat(self.a, (self.a[-1] if self.a_signed else 0), 0)[:self.row_bits]
        double = Cat(0, self.a, 0)[:self.row_bits]
        rows = []
        for row in range(self.rows):
            low, middle, high = extended[2 * row], extended[2 * row + 1], extended[2 * row + 2]
            one = Signal(name=f"one_{row}")
            two = Signal(name=f"two_{row}")
            negative = Signal(name=f"negative_{row}")
            selected = Signal(self.row_bits, name=f"row_{row}")
            m.d.comb += [
                one.eq(low ^ middle),
                two.eq((high ^ middle) & ~(low ^ middle)),
                negative.eq(high),
                selected.eq(((wide & one.replicate(self.row_bits)) | (double & two.replicate(self.row_bits)))
                            ^ negative.replicate(self.row_bits)),
            ]
            rows += [selected, negative]
        m.d.comb += self.bits.eq(Cat(rows))
        return m

    @property
    def weights(self) -> list[tuple[int, bool]]:
        """For each bit: its column, and whether its weight is negative."""
        weights = []
        for row in range(self.rows):
            weights += [(2 * row + i, i == self.row_bits - 1) for i in range(self.row_bits)] + [(2 * row, False)]
        return weights


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
    adder: of the last addition, a key of :data:`~bmhw.hdl.adders.ADDERS`.
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
        columns = Columns(width=self.width)
        for bit, (column, negative) in zip(products.bits, products.weights, strict=True):
            columns.add_bit(column, bit, negative=negative)
        compressor = place(m, platform, "compressor", Compressor(
            heights=columns.heights, constant=columns.constant + self.addend,
            compression=MULTIPLIERS[self.architecture][1]))
        adder = place(m, platform, "adder", ADDERS[self.adder](width=self.width))
        m.d.comb += [
            products.a.eq(self.a),
            products.b.eq(self.b),
            compressor.bits.eq(columns.packed()),
            adder.a.eq(compressor.row0),
            adder.b.eq(compressor.row1),
            self.p.eq(adder.sum),
        ]
        return m
