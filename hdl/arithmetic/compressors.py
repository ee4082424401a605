# SPDX-License-Identifier: Apache-2.0
"""Sums of many bits of different weight: columns, their reduction to two rows, and the final addition."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import zip_longest

from amaranth.hdl import Cat, Const, Module, Signal, Value
from amaranth.lib.wiring import In, Out

from bmhw.hdl.block import Block, place
from bmhw.hdl.checks import check_choice

from .adders import ADDERS

__all__ = ["COMPRESSIONS", "Columns", "Compressor", "MultiOperandAdder", "Operand", "compressed"]

COMPRESSIONS = ("dadda", "wallace", "linear", "operator")


@dataclass
class Columns:
    """Bits by weight, and a constant: the integer ``sum_c 2^c * sum(columns[c]) + constant``, modulo ``2^width``.

    A bit of negative weight enters inverted, ``-b = (1 - b) - 1``, with the -1 in the constant (Baugh and Wooley
    1973), so that signed operands cost no sign extension.
    """

    width: int
    columns: list[list[Value]] = field(default_factory=list)
    constant: int = 0

    def __post_init__(self):
        self.columns = self.columns or [[] for _ in range(self.width)]

    def add_bit(self, column: int, bit: Value, *, negative: bool = False) -> None:
        if column < self.width:
            self.columns[column].append(~bit if negative else bit)
        if negative:
            self.constant -= 1 << column

    def add(self, value: Value, *, signed: bool, negative: bool = False, column: int = 0) -> None:
        """Add a number: two's complement if ``signed``; subtract it if ``negative``."""
        for i in range(len(value)):
            self.add_bit(column + i, value[i], negative=negative != (signed and i == len(value) - 1))

    @property
    def heights(self) -> tuple[int, ...]:
        return tuple(len(column) for column in self.columns)

    def packed(self) -> Value:
        """All bits, column 0 first: what a :class:`Compressor` of the same heights takes."""
        return Cat(bit for column in self.columns for bit in column)


class Compressor(Block):
    """Reduce columns of bits to two rows with the same sum, modulo ``2^width``, by full and half adders.

    Latency: combinational, or a cycle for each of ``registers``.

    Parameters
    ----------
    heights: bits in each column, column 0 first; their number is the width.
    constant: added modulo ``2^width``; its ones are constant bits in the columns.
    compression: ``dadda`` (Dadda 1965: as few adders as the stage count allows), ``wallace`` (Wallace 1964: all
        that can be compressed at each stage), ``linear`` (one bit after the other, as in an array multiplier),
        ``operator`` (a binary tree of ``+``, left to the synthesis tool: carry chains on an FPGA).
    registers: stages with registers behind them.

    Members
    -------
    bits : In(sum(heights)), column 0 first
    row0, row1 : Out(width)
    """

    def __init__(self, *, heights: tuple[int, ...], constant: int = 0, compression: str = "dadda",
                 registers: tuple[int, ...] = ()):
        self.heights = heights
        self.width = len(heights)
        self.constant = constant & ((1 << self.width) - 1)
        self.compression = check_choice("Compression", compression, COMPRESSIONS)
        super().__init__({"bits": In(max(1, sum(heights))), "row0": Out(self.width), "row1": Out(self.width)})
        self.check_registers(registers)

    @cached_property
    def levels(self) -> int:
        """Number of stages, 1 at least."""
        m = Module()
        m._MustUse__silence = True  # only counted in, never built
        return max(self._reduce(m)[1], 1)

    def elaborate(self, platform):
        m = Module()
        columns, _ = self._reduce(m)
        rows = [Cat(column[row] if row < len(column) else Const(0, 1) for column in columns) for row in (0, 1)]
        m.d.comb += [self.row0.eq(rows[0]), self.row1.eq(rows[1])]
        return m

    def _reduce(self, m: Module) -> tuple[list[list[Value]], int]:
        """Columns of two bits at most, and the number of stages that they took."""
        columns: list[list[Value]] = []
        position = 0
        for column, height in enumerate(self.heights):
            constant: list[Value] = [Const(1, 1)] if self.constant >> column & 1 else []
            columns.append(constant + [self.bits[i] for i in range(position, position + height)])
            position += height
        step = {"dadda": self._dadda, "wallace": self._wallace, "linear": self._linear,
                "operator": partial(self._operator, m)}[self.compression]
        stage = 0
        while max(map(len, columns)) > 2:
            stage += 1
            columns = self._named(m, stage, step(columns))
        return columns, stage

    def _named(self, m: Module, stage: int, columns: list[list[Value]]) -> list[list[Value]]:
        """Put the bits of a stage into one signal a column, a register where there are some."""
        domain = m.d.sync if stage in self.registers else m.d.comb
        result = []
        for weight, column in enumerate(columns):
            if not column:
                result.append([])
                continue
            signal = Signal(len(column), name=f"stage_{stage}_column_{weight}", reset_less=True)
            domain += signal.eq(Cat(column))
            # constants stay visible as such to the next stage
            result.append([bit if isinstance(bit, Const) else signal[i] for i, bit in enumerate(column)])
        return result

    def _dadda(self, columns: list[list[Value]]) -> list[list[Value]]:
        """One stage: every column down to the next smaller number of 2, 3, 4, 6, 9, 13, ..."""
        goal = 2
        while goal * 3 // 2 < max(map(len, columns)):
            goal = goal * 3 // 2
        carries: list[list[Value]] = [[] for _ in range(self.width + 1)]
        result = []
        for weight, column in enumerate(columns):
            # Carries of this stage count for the height but wait for the next stage.
            waiting, sums = list(column), []
            while len(waiting) + len(sums) + len(carries[weight]) > goal and len(waiting) >= 2:
                take = 3 if len(waiting) + len(sums) + len(carries[weight]) - goal >= 2 and len(waiting) >= 3 else 2
                total, carry = _add_bits(waiting[:take])
                waiting = waiting[take:]
                sums.append(total)
                carries[weight + 1].append(carry)
            result.append(waiting + sums + carries[weight])
        return result

    def _wallace(self, columns: list[list[Value]]) -> list[list[Value]]:
        """One stage: every three bits of a column through a full adder, a rest of two through a half adder."""
        result: list[list[Value]] = [[] for _ in range(self.width + 1)]
        for weight, column in enumerate(columns):
            for i in range(0, len(column), 3):
                group = column[i:i + 3]
                # a column that is short enough keeps its rest: a half adder there compresses nothing
                if len(group) == 1 or (len(group) == 2 and len(column) <= 2):
                    result[weight] += group
                    continue
                total, carry = _add_bits(group)
                result[weight].append(total)
                result[weight + 1].append(carry)
        return result[:self.width]

    def _linear(self, columns: list[list[Value]]) -> list[list[Value]]:
        """One row of adders: the running pair takes in one more bit of each column."""
        result: list[list[Value]] = [[] for _ in range(self.width + 1)]
        for weight, column in enumerate(columns):
            if len(column) <= 2:
                result[weight] = result[weight] + column
                continue
            total, carry = _add_bits(column[:3])
            result[weight] = [total, *result[weight], *column[3:]]
            result[weight + 1].append(carry)
        return result[:self.width]


    def _operator(self, m: Module, columns: list[list[Value]]) -> list[list[Value]]:
        """One level of a binary tree of additions of whole rows: row i holds the i-th bit of each column."""
        result: list[list[Value]] = [[] for _ in range(self.width + 1)]
        rows = [[column[row] if row < len(column) else None for column in columns]
                for row in range(max(map(len, columns)))]
        for low_row, high_row in zip_longest(rows[::2], rows[1::2], fillvalue=[None] * self.width):
            both = [i for i in range(self.width) if low_row[i] is not None and high_row[i] is not None]
            # bits outside of where both rows have some take no adder, but for those that a carry may reach
            first = both[0] if both else self.width
            last = max((i for i in range(first, self.width) if low_row[i] is not None or high_row[i] is not None),
                       default=first)
            for i, bits in enumerate(zip(low_row[:first], high_row[:first], strict=True)):
                result[i] += [bit for bit in bits if bit is not None]
            if both:
                operands = [Cat(Const(0, 1) if bit is None else bit for bit in row[first:last + 1])
                            for row in (low_row, high_row)]
                total = Signal(last - first + 2, name="sum_of_rows")
                m.d.comb += total.eq(operands[0] + operands[1])
                for i in range(len(total)):
                    if first + i < self.width:
                        result[first + i].append(total[i])
        return result[:self.width]


def _add_bits(bits: Sequence[Value]) -> tuple[Value, Value]:
    """Sum and carry of two or three bits; a constant one makes the adder as small as it can be."""
    ones = [bit for bit in bits if isinstance(bit, Const)]
    rest = [bit for bit in bits if not isinstance(bit, Const)]
    if ones and len(rest) == 1:
        return ~rest[0], rest[0]
    if ones and len(rest) == 2:
        return ~(rest[0] ^ rest[1]), rest[0] | rest[1]
    if len(bits) == 2:
        return bits[0] ^ bits[1], bits[0] & bits[1]
    a, b, c = bits
    half = a ^ b
    return half ^ c, (a & b) | (half & c)


Operand = tuple[int, bool, bool]
"""Of a number that is added: (width, signed, negative)."""


def compressed(m: Module, platform, operands: Sequence[tuple[Operand, Value]], width: int) -> Compressor:
    """Place a compressor of several numbers, some of them subtracted, as ``compressor``; its rows are their sum modulo
    ``2^width``."""
    columns = Columns(width=width)
    for (_, signed, negative), value in operands:
        columns.add(value, signed=signed, negative=negative)
    compressor = place(m, platform, "compressor", Compressor(heights=columns.heights, constant=columns.constant))
    m.d.comb += compressor.bits.eq(columns.packed())
    return compressor


class MultiOperandAdder(Block):
    """The sum of several numbers, some of them subtracted: a compressor and one adder.

    Latency: combinational.

    Parameters
    ----------
    operands: for each operand (width, signed, negative).
    width: of the result, two's complement, modulo ``2^width``.
    adder: a key of :data:`~bmhw.hdl.arithmetic.adders.ADDERS`.

    Members
    -------
    a0, a1, ... : In(width of the operand)
    sum : Out(width)
    """

    def __init__(self, *, operands: tuple[Operand, ...], width: int, adder: str = "sklansky"):
        self.operands, self.width, self.adder = operands, width, adder
        ports = {f"a{i}": In(bits) for i, (bits, _, _) in enumerate(operands)}
        super().__init__({**ports, "sum": Out(width)})

    def elaborate(self, platform):
        m = Module()
        operands = [(operand, getattr(self, f"a{i}")) for i, operand in enumerate(self.operands)]
        compressor = compressed(m, platform, operands, self.width)
        adder = place(m, platform, "adder", ADDERS[self.adder](width=self.width))
        m.d.comb += [
            adder.a.eq(compressor.row0),
            adder.b.eq(compressor.row1),
            self.sum.eq(adder.sum),
        ]
        return m
