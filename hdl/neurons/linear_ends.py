# SPDX-License-Identifier: Apache-2.0
"""The linear end of a bipolar morphological neuron: exponentials, their sum, ReLU and log2; several architectures."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from amaranth.hdl import Module
from amaranth.lib.wiring import In, Out

from bmhw.hdl.arithmetic.compressors import compressed
from bmhw.hdl.arithmetic.maxima import MAXIMA
from bmhw.hdl.arithmetic.sum_lookup import SumLookup
from bmhw.hdl.block import Block, place
from bmhw.hdl.formats.bm import BmFormat
from bmhw.hdl.formats.codes import EXACT_LIMIT

from .bm_parts import Combine, ExponentialPart, ReluLog2, SummingPart
from .log_ends import LOG_ENDS, LogarithmicEnd

__all__ = ["ENDS", "LINEAR_ENDS", "CombineRows", "LinearEndParts", "RowsLog2", "refusal"]


class CombineRows(SummingPart):
    """The exponentials with their signs, and the bias, as two rows that add up to y.

    Members
    -------
    e1, e2, ..., bias, r : In, as of :class:`~bmhw.hdl.neurons.bm_parts.SummingPart`
    row0, row1 : Out(width of y), whose sum modulo 2^width is y
    """

    def __init__(self, *, format: BmFormat):
        super().__init__(format=format, outputs={"row0": Out(format.y.bits), "row1": Out(format.y.bits)})

    def elaborate(self, platform):
        m = Module()
        compressor = compressed(m, platform, self.operands(), self.format.y.bits)
        m.d.comb += [self.row0.eq(compressor.row0), self.row1.eq(compressor.row1)]
        return m


class RowsLog2(Block):
    """ReLU and log2 of a linear result in two rows, before their sum is known: the next layer's activation code.

    One table of what :class:`~bmhw.hdl.formats.conversions.LinearEnd` makes of y, looked up by
    :class:`~bmhw.hdl.arithmetic.sum_lookup.SumLookup`.

    Members
    -------
    row0, row1 : In(width of y)
    z : Out(log_bits)
    """

    block_name = "relu_log2"

    most_bits = EXACT_LIMIT
    """Fraction bits and octaves above 1 of y, which index the table."""

    def __init__(self, *, format: BmFormat):
        self.format = format
        width = format.y.bits
        super().__init__({"row0": In(width), "row1": In(width), "z": Out(format.log_bits)})

    def elaborate(self, platform):
        m = Module()
        fmt = self.format
        codes = fmt.code_of(range(min(fmt.end.full_scale, fmt.y.maximum) + 1))
        table = place(m, platform, "table", SumLookup(width=fmt.y.bits, table=tuple(map(int, codes))))
        m.d.comb += [table.a.eq(self.row0), table.b.eq(self.row1), self.z.eq(table.value)]
        return m


@dataclass(frozen=True, kw_only=True)
class LinearEndParts:
    """An architecture of the linear end; see :data:`LINEAR_ENDS`.

    Parameters
    ----------
    exponential: the ``end`` of :class:`~bmhw.hdl.neurons.bm_parts.ExponentialPart`.
    rows: whether y stays two rows, whose log2 doesn't wait for their sum; only where a code follows.
    most_bits: the widest maxima that it is made for.
    """

    exponential: str
    rows: bool = False
    most_bits: int = LOG_ENDS["subtract"].most_bits

    def makers(self, fmt: BmFormat, maximum: str, adder: str) -> dict[str, Callable[[], Block]]:
        """Name of a part -> what makes it, in the order of the data."""
        makers: dict[str, Callable[[], Block]] = {
            "exp2": lambda: ExponentialPart(format=fmt, end=self.exponential, maximum=maximum),
            "combine": lambda: CombineRows(format=fmt) if self.rows else Combine(format=fmt, adder=adder),
        }
        if fmt.result == "code":
            makers["relu_log2"] = lambda: (RowsLog2 if self.rows else ReluLog2)(format=fmt)
        return makers


_SELECT = {"exponential": "select", "most_bits": LOG_ENDS["select"].most_bits}

LINEAR_ENDS = {
    "subtract": LinearEndParts(exponential="subtract"),
    "select": LinearEndParts(**_SELECT),
    "anticipate": LinearEndParts(exponential="subtract", rows=True),
    "select_anticipate": LinearEndParts(**_SELECT, rows=True),
}

ENDS = tuple(LOG_ENDS | LINEAR_ENDS)


def refusal(fmt: BmFormat, maximum: str, end: str, form: str = "parallel") -> str | None:
    """Why a neuron of the format can't have these maxima and this end of :data:`ENDS`, in a line; None if it can."""
    logarithmic = fmt.combine == "logarithmic"
    ends: Mapping[str, type[LogarithmicEnd] | LinearEndParts] = LOG_ENDS if logarithmic else LINEAR_ENDS
    if end not in ends:
        return f"End of a {fmt.combine} combine must be one of {', '.join(ends)}, not {end}"
    for what, name, most in (("Maximum", maximum, MAXIMA[maximum].most_bits), ("End", end, ends[end].most_bits)):
        if fmt.maximum_bits > most:
            return f"{what} {name} is for maxima of {most} bits or fewer, not {fmt.maximum_bits}"
    if MAXIMA[maximum].unary and (fmt.combine != "linear" or form == "serial"):
        return (f"Maximum {maximum} hands its steps to exponentials: it needs a linear combine and form parallel or "
                f"pipelined, not {fmt.combine} and {form}")
    if fmt.combine == "linear" and LINEAR_ENDS[end].rows:
        if form == "serial" or fmt.result != "code":
            return (f"End {end} takes the log2 of a sum in two rows: it needs result code and form parallel or "
                    f"pipelined, not {fmt.result} and {form}")
        bits = fmt.out_fraction + fmt.end_octaves
        if bits > RowsLog2.most_bits:
            return (f"End {end} is for linear results of {RowsLog2.most_bits} or fewer fraction bits and octaves above "
                    f"1 together, not {bits}")
    return None
