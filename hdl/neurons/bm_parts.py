# SPDX-License-Identifier: Apache-2.0
"""The parts of a bipolar morphological neuron: log2, sums, maxima, exp2 and combine, or log_subtract.

Port names connect the parts: what one part calls ``c`` is what the next one reads as ``c``.
"""

import itertools

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib.wiring import In, Member, Out

from bmhw.hdl.arithmetic.adders import ADDERS
from bmhw.hdl.arithmetic.comparators import CompareSelect
from bmhw.hdl.arithmetic.compressors import MultiOperandAdder, Operand
from bmhw.hdl.arithmetic.exponential import Exp2Block
from bmhw.hdl.arithmetic.logarithm import Log2Block
from bmhw.hdl.arithmetic.maxima import MAXIMA
from bmhw.hdl.block import Block, place
from bmhw.hdl.formats.bm import BmFormat
from bmhw.hdl.formats.choices import ONE_SUM

__all__ = [
    "CodeSum", "Combine", "ExponentialPart", "LogarithmPart", "MaximaPart", "ReluLog2", "RunningMaximaPart",
    "SummingPart", "SumsPart",
]


class Magnitude(Block):
    """Sign and magnitude of a two's complement number; the magnitude reaches ``2^(width - 1)``.

    Members
    -------
    x : In(width)
    magnitude : Out(width)
    """

    def __init__(self, *, width: int):
        self.width = width
        super().__init__({"x": In(width), "magnitude": Out(width)})

    def elaborate(self, platform):
        m = Module()
        # -x = ~x + 1 = bits inverted above the lowest one: a chain of OR instead of an adder
        below = Signal(self.width)
        for i in range(self.width):
            m.d.comb += below[i].eq(self.x[:i].any() if i else 0)
        m.d.comb += self.magnitude.eq(self.x ^ (below & self.x[-1].replicate(self.width)))
        return m


class LogarithmPart(Block):
    """The log codes of all inputs' magnitudes, each with its own log2 unit; and their signs.

    Members
    -------
    x : In(n * bits)
    c : Out(n * log_bits)
    negative : Out(n), for signed inputs
    """

    block_name = "log2"

    def __init__(self, *, format: BmFormat, inputs: int):
        self.format, self.inputs = format, inputs
        ports = {"x": In(inputs * format.bits), "c": Out(inputs * format.log_bits)}
        if format.signed_inputs:
            ports["negative"] = Out(inputs)
        super().__init__(ports)

    def elaborate(self, platform):
        m = Module()
        for i in range(self.inputs):
            x = self.x.word_select(i, self.format.bits)
            unit = place(m, platform, f"log2_{i}", Log2Block(log2=self.format.log2_unit,
                                                             full_scale_input=self.format.signed_inputs))
            m.d.comb += self.c.word_select(i, self.format.log_bits).eq(unit.c)
            if self.format.signed_inputs:
                magnitude = place(m, platform, f"magnitude_{i}", Magnitude(width=self.format.bits))
                m.d.comb += [magnitude.x.eq(x), unit.x.eq(magnitude.magnitude), self.negative[i].eq(x[-1])]
            else:
                m.d.comb += unit.x.eq(x)
        return m


class CodeSum(Block):
    """What the maxima see of the sum of an activation's and a weight's code.

    A module of its own, so that it is mapped without the bits that are dropped even where its neuron is mapped block
    by block.

    Members
    -------
    c : In(log_bits)
    k : In(weight_bits)
    s : Out(maximum_bits)
    reached : Out(1), if ``format.reached``: whether a clamped sum reaches the smallest code, or none of the codes of a
        full one is 0; if not, the highest bit of ``s`` is 0, and the others mean nothing
    """

    def __init__(self, *, format: BmFormat, adder: str):
        self.format, self.adder = format, adder
        self.clamped = format.sums == "clamped"
        ports = {"c": In(format.log_bits), "k": In(format.weight_bits), "s": Out(format.maximum_bits)}
        super().__init__({**ports, **({"reached": Out(1)} if format.reached else {})})

    def elaborate(self, platform):
        m = Module()
        fmt = self.format
        width = max(fmt.log_bits, fmt.weight_bits)
        adder = place(m, platform, "add", ADDERS[self.adder](width=width, carry_in=self.clamped))
        m.d.comb += [
            adder.a.eq(self.c),
            adder.b.eq(self.k),
            self.s.eq(adder.sum[fmt.dropped_bits:fmt.sum_bits]),
        ]
        if self.clamped:
            # c + k - (2^B - 1) = c + k + 1 - 2^B: not negative if there is a carry. With it the sum's highest bit is
            # the carry into that bit if both operands show a one there, else 0: masked for no gate more.
            m.d.comb += [adder.carry_in.eq(1), self.reached.eq(adder.sum[width]),
                         self.s[-1].eq(self.c[-1] & self.k[-1] & adder.sum[width - 1])]
        elif fmt.reached:
            # what one code alone is has one bit less than a full sum
            m.d.comb += self.reached.eq(self.c.any() & self.k.any())
        return m


class SumsPart(Block):
    """The sums of activation and weight codes: the candidates of the maxima.

    Layout ``relu``: ``s1 = c + k1``, ``s2 = c + k2``. ``bipolar``: of the positive part of the input ``s1``,
    ``s2``, of the negative part ``s3``, ``s4``. ``signed``: one sum ``s = c + k`` for both maxima. ``wired``: the
    sums of the first half of each group's inputs are ``s1``, those of the second half ``s2``.
    ``enter1``, ``enter2``, ...: which candidates enter each maximum, where not all do (layout ``signed``; clamped sums:
    those that reach the smallest code; full ones with an exact zero: those that aren't 0).
    With a logarithmic end, candidates of both signs enter the first maximum: where a negative one is its largest, the
    second maximum is no smaller and the result is 0 either way.

    Members
    -------
    c : In(n * log_bits), negative : In(n) for signed inputs
    k1, k2 : In(n * weight_bits); for ``wired`` k : In(n * weight_bits), for ``signed`` sign : In(n) as well
    s or s1, s2, ... : Out(candidates * maximum_bits)
    enter1, enter2, ... : Out(candidates), if ``format.masked``
    """

    block_name = "sums"

    def __init__(self, *, format: BmFormat, inputs: int, adder: str):
        self.format, self.inputs, self.adder = format, inputs, adder
        ports = {"c": In(inputs * format.log_bits)}
        if format.signed_inputs:
            ports["negative"] = In(inputs)
        weights = ("k",) if format.layout in ONE_SUM else ("k1", "k2")
        ports |= {name: In(inputs * format.weight_bits) for name in weights}
        if format.layout == "signed":
            ports["sign"] = In(inputs)
        super().__init__({**ports, **{name: Out(width) for name, width in _candidate_ports(format, inputs).items()}})

    def elaborate(self, platform):
        m = Module()
        fmt = self.format
        reached: list[list[Value | None]] = [[] for _ in fmt.branches]
        for i in range(self.inputs):

            def add(branch: str, code: Value, weights: Value, i=i, place_in_branch=i) -> Value | None:
                unit = place(m, platform, f"sum{branch}_{i}", CodeSum(format=fmt, adder=self.adder))
                m.d.comb += [
                    unit.c.eq(code),
                    unit.k.eq(weights.word_select(i, fmt.weight_bits)),
                    getattr(self, f"s{branch}").word_select(place_in_branch, fmt.maximum_bits).eq(unit.s),
                ]
                return unit.reached if fmt.reached else None

            code = self.c.word_select(i, fmt.log_bits)
            if fmt.layout == "signed":
                reached[0].append(add("", code, self.k))
                reached[1] = reached[0]
            elif fmt.layout == "wired":
                group, within = divmod(i, fmt.group_inputs)
                branch, before = (0, 0) if within < fmt.positive_inputs else (1, fmt.positive_inputs)
                place_in_branch = group * fmt.candidates[branch] + within - before
                reached[branch].append(add(str(branch + 1), code, self.k, place_in_branch=place_in_branch))
            elif fmt.layout == "relu":
                reached[0].append(add("1", code, self.k1))
                reached[1].append(add("2", code, self.k2))
            else:
                positive = Signal(fmt.log_bits, name=f"positive_{i}")
                opposite = Signal(fmt.log_bits, name=f"opposite_{i}")
                mask = self.negative[i].replicate(fmt.log_bits)
                m.d.comb += [positive.eq(code & ~mask), opposite.eq(code & mask)]
                for branch, (half, weights) in enumerate(itertools.product((positive, opposite), (self.k1, self.k2))):
                    reached[branch].append(add(str(branch + 1), half, weights))
        if fmt.masked:
            for branch in range(len(fmt.branches)):
                enter = Cat(reached[branch]) if fmt.reached else Const(-1, self.inputs)
                if fmt.layout == "signed" and (branch or fmt.combine == "linear"):
                    minus = self.sign ^ self.negative if fmt.signed_inputs else self.sign
                    enter = enter & (minus if branch else ~minus)
                m.d.comb += getattr(self, f"enter{branch + 1}").eq(enter)
        return m


def _candidate_ports(fmt: BmFormat, inputs: int) -> dict[str, int]:
    """Names and widths of the candidates' ports between sums and maxima."""
    counts = ([count * fmt.groups for count in fmt.candidates] if inputs == fmt.inputs else
              (inputs,) * len(fmt.branches))  # or one input's
    sums = {"s": inputs} if fmt.layout == "signed" else {f"s{b}": count for b, count in enumerate(counts, start=1)}
    enter = {f"enter{b}": count for b, count in enumerate(counts, start=1)} if fmt.masked else {}
    return {**{name: count * fmt.maximum_bits for name, count in sums.items()}, **enter}


class MaximaPart(Block):
    """The maximum of each branch; with a logarithmic end the bias is one more candidate.

    Of several groups one maximum a group.

    Latency: combinational, or a cycle for each of ``registers``, levels of the maxima with registers behind them.

    Members
    -------
    s or s1, s2, ... and enter1, enter2 : In, as :class:`SumsPart` gives them
    bias1, bias2 : In(sum_bits), with a logarithmic end
    m1, m2, ... : Out(groups * maximum_bits), group 0 in the lowest bits; of a unary maximum a bit a step
    """

    block_name = "maxima"

    def __init__(self, *, format: BmFormat, maximum: str, registers: tuple[int, ...] = ()):
        self.format, self.maximum = format, maximum
        self.result_bits = MAXIMA[maximum].result_bits(format.maximum_bits)
        self.branches = range(1, len(format.branches) + 1)
        self.biased = format.combine == "logarithmic"
        self.unit = {"width": format.maximum_bits, "count": max(format.candidates) + self.biased,
                     "masked": format.masked}
        self.check_registers(registers)
        ports = {name: In(width) for name, width in _candidate_ports(format, format.inputs).items()}
        if self.biased:
            ports |= {f"bias{b}": In(format.sum_bits) for b in self.branches}
        super().__init__({**ports, **{f"m{b}": Out(format.groups * self.result_bits) for b in self.branches}})

    @property
    def levels(self) -> int:
        return MAXIMA[self.maximum](**self.unit).levels

    def elaborate(self, platform):
        m = Module()
        fmt = self.format
        # whoever is masked only for being too small shows a 0 anyway
        small = [fmt.reached and (fmt.layout != "signed" or (self.biased and branch == 1)) for branch in self.branches]
        for branch, group in itertools.product(self.branches, range(fmt.groups)):
            count = fmt.candidates[branch - 1]
            inside = slice(group * count * fmt.maximum_bits, (group + 1) * count * fmt.maximum_bits)
            candidates = (self.s if fmt.layout == "signed" else getattr(self, f"s{branch}"))[inside]
            enter = getattr(self, f"enter{branch}")[group * count:(group + 1) * count] if fmt.masked else None
            # all maxima are of one size, so that they have as many levels: the highest candidate that one lacks is 0
            if self.biased:
                candidates = Cat(candidates, getattr(self, f"bias{branch}")[fmt.dropped_bits:])
                enter = Cat(enter, 1) if fmt.masked else None
            name = f"maximum_{branch}" if fmt.groups == 1 else f"maximum_{branch}_{group}"
            unit = place(m, platform, name, MAXIMA[self.maximum](
                **self.unit, clear=small[branch - 1], **({"registers": self.registers} if self.registers else {})))
            m.d.comb += [unit.a.eq(candidates),
                         getattr(self, f"m{branch}").word_select(group, self.result_bits).eq(unit.m)]
            if fmt.masked:
                m.d.comb += unit.enable.eq(enter)
        return m


class RunningMaximaPart(Block):
    """One step of a serial neuron's maxima: the larger of the running maximum and the new sum.

    Members
    -------
    s or s1, s2, ... and enter1, enter2 : In, one input's, as :class:`SumsPart` gives them
    running1, ... : In(maximum_bits), 0 or the bias before the first input
    m1, m2, ... : Out(maximum_bits)
    """

    block_name = "maxima"

    def __init__(self, *, format: BmFormat):
        self.format = format
        self.branches = range(1, len(format.branches) + 1)
        ports = {name: In(width) for name, width in _candidate_ports(format, 1).items()}
        ports |= {f"running{b}": In(format.maximum_bits) for b in self.branches}
        super().__init__({**ports, **{f"m{b}": Out(format.maximum_bits) for b in self.branches}})

    def elaborate(self, platform):
        m = Module()
        for branch in self.branches:
            candidate = self.s if self.format.layout == "signed" else getattr(self, f"s{branch}")
            if self.format.masked:
                candidate = candidate & getattr(self, f"enter{branch}").replicate(self.format.maximum_bits)
            unit = place(m, platform, f"larger_{branch}", CompareSelect(width=self.format.maximum_bits))
            m.d.comb += [
                unit.a.eq(candidate),
                unit.b.eq(getattr(self, f"running{branch}")),
                getattr(self, f"m{branch}").eq(unit.m),
            ]
        return m


class ExponentialPart(Block):
    """The exponentials of the maxima.

    Parameters
    ----------
    end: ``subtract`` for the usual architecture of an exponential, ``select`` for one that has few levels behind the
        last bits of the maxima.
    maximum: architecture of the maxima; of a unary one the exponentials are, too, whatever the end.

    Members
    -------
    m1, m2, ... : In, as :class:`MaximaPart` gives them
    e1, e2, ... : Out(groups * (out_fraction + 1))
    """

    block_name = "exp2"

    def __init__(self, *, format: BmFormat, end: str, maximum: str = "tree"):
        self.format = format
        self.unary = MAXIMA[maximum].unary
        self.maximum_bits = MAXIMA[maximum].result_bits(format.maximum_bits)
        self.architecture = "unary" if self.unary else "select" if end == "select" else "auto"
        self.branches = range(1, len(format.branches) + 1)
        groups = format.groups
        super().__init__({**{f"m{b}": In(groups * self.maximum_bits) for b in self.branches},
                          **{f"e{b}": Out(groups * format.exp2_unit.out_bits) for b in self.branches}})

    def elaborate(self, platform):
        m = Module()
        fmt = self.format
        for branch, group in itertools.product(self.branches, range(fmt.groups)):
            name = f"exp2_{branch}" if fmt.groups == 1 else f"exp2_{branch}_{group}"
            unit = place(m, platform, name, Exp2Block(
                exp2=fmt.exp2_unit, zero_bits=fmt.dropped_bits, architecture=self.architecture))
            maximum = getattr(self, f"m{branch}").word_select(group, self.maximum_bits)
            m.d.comb += [
                unit.m.eq(maximum if self.unary else Cat(Const(0, fmt.dropped_bits), maximum)),
                getattr(self, f"e{branch}").word_select(group, fmt.exp2_unit.out_bits).eq(unit.e),
            ]
        return m


class SummingPart(Block):
    """What adds up a linear result: of each group the exponentials with their signs; the bias, and a residual.

    Members
    -------
    e1, e2, ... : In(groups * (out_fraction + 1))
    bias : In(bias_bits), signed
    r : In(residual_bits), signed, if there are some
    """

    block_name = "combine"

    def __init__(self, *, format: BmFormat, outputs: dict[str, Member]):
        self.format = format
        self.branches = range(1, len(format.branches) + 1)
        self.scalars = {name: code for name, (code, count) in format.inputs_of.items() if name in ("bias", "r")}
        super().__init__({**{f"e{b}": In(format.groups * format.exp2_unit.out_bits) for b in self.branches},
                          **{name: In(code.bits) for name, code in self.scalars.items()}, **outputs})

    def operands(self) -> list[tuple[Operand, Value]]:
        """The numbers that are added."""
        bits = self.format.exp2_unit.out_bits
        operands = [((bits, False, sign < 0), getattr(self, f"e{b}").word_select(group, bits))
                    for b, sign in zip(self.branches, self.format.branches, strict=True)
                    for group in range(self.format.groups)]
        return operands + [((code.bits, True, False), getattr(self, name)) for name, code in self.scalars.items()]


class Combine(SummingPart):
    """The exponentials with their signs, and the bias: ``y = e1 - e2 [- e3 + e4] + bias``.

    Of several groups all exponentials; and the residual ``r`` where there is one. All in one compressor.

    Members
    -------
    e1, e2, ..., bias, r : In, as of :class:`SummingPart`
    y : Out(width of y), signed
    """

    def __init__(self, *, format: BmFormat, adder: str):
        self.adder = adder
        super().__init__(format=format, outputs={"y": Out(format.y.bits)})

    def elaborate(self, platform):
        m = Module()
        operands = self.operands()
        adder = place(m, platform, "adder", MultiOperandAdder(
            operands=tuple(operand for operand, _ in operands), width=self.format.y.bits, adder=self.adder))
        m.d.comb += [getattr(adder, f"a{i}").eq(value) for i, (_, value) in enumerate(operands)]
        m.d.comb += self.y.eq(adder.sum)
        return m


class ReluLog2(Block):
    """ReLU and log2 of a linear result: the next layer's activation code (see :class:`BmFormat`).

    Members
    -------
    y : In(width of y), signed
    z : Out(log_bits)
    """

    block_name = "relu_log2"

    def __init__(self, *, format: BmFormat):
        self.format = format
        super().__init__({"y": In(format.y.bits), "z": Out(format.log_bits)})

    def elaborate(self, platform):
        m = Module()
        fmt = self.format
        log2 = place(m, platform, "log2", Log2Block(log2=fmt.end_log2, full_scale_input=True))
        full_scale = 1 << fmt.end_log2.bits
        shifted = self.y[fmt.end_shift:-1]
        smallest, largest = fmt.end_offset, fmt.end_log2.log.maximum + fmt.end_offset
        code = Signal(range(min(smallest, 0), max(largest, fmt.activation.maximum) + 1))
        m.d.comb += [
            log2.x.eq(Mux(shifted[fmt.end_log2.bits:].any(), full_scale, shifted)),
            code.eq(log2.c + fmt.end_offset),
        ]
        clamped = (Mux(code > fmt.activation.maximum, fmt.activation.maximum, code)
                   if largest > fmt.activation.maximum else code)
        if smallest < 0:
            clamped = Mux(code < 0, 0, clamped)
        m.d.comb += self.z.eq(Mux(self.y[-1] | (self.y == 0), 0, clamped))
        return m
