# SPDX-License-Identifier: Apache-2.0
"""Registers and tables of a block whose data move together, under one clock enable."""

from collections.abc import Callable, Iterable, Mapping, Sequence

from amaranth.hdl import Const, Module, Mux, Signal, Value

from bmhw.hdl.block import Block, place
from bmhw.hdl.formats.codes import LinearCode

from .memories import Ram, RomBank
from .tables import Numbers, Span

__all__ = ["Pipeline", "beyond_bits", "threshold_numbers", "threshold_spans"]


def threshold_numbers(thresholds: Iterable[tuple[int, bool]], plus: Sequence[int] | None = None) -> dict[str, Numbers]:
    """What :meth:`Pipeline.beyond` takes: ``minus``, whether a number is wanted below its threshold, and ``offsets``,
    what is added to the number, or to its complement. Of thresholds and signs, with ``plus`` so much of each index."""
    thresholds = tuple(thresholds)
    # one addition for both signs: -n is ~n + 1
    offsets = [(threshold + 1 if negative else -threshold) + more
               for (threshold, negative), more in zip(thresholds, plus or (0,) * len(thresholds), strict=True)]
    return {"minus": Numbers.of(int(negative) for _, negative in thresholds), "offsets": Numbers.of(offsets)}


def threshold_spans(numbers: Mapping[str, Numbers], thresholds: Iterable[tuple[int, bool]],
                    plus: Iterable[int] = (0,)) -> dict[str, Span]:
    """Of those in a chip whose thresholds can be replaced, ``plus`` any such number: where this network has thresholds
    any of as many bits and of any sign, else none."""
    if any(threshold or negative for threshold, negative in thresholds):
        offsets = numbers["offsets"].span
        return {"minus": Span(0, 1), "offsets": Span.of((*plus, offsets.low, offsets.high, -offsets.high)).whole}
    return {"minus": Span(0, 0), "offsets": Span.of(plus).whole}


def beyond_bits(width: int, offsets: Span) -> int:
    """Of what :meth:`Pipeline.beyond` gives, signed, of numbers of so many bits."""
    code = LinearCode(bits=width, signed=True)
    return LinearCode.covering(min(offsets.low + code.minimum, -2), offsets.high + code.maximum).bits


class Pipeline:
    """Places registers in a module that are loaded where ``enable`` is 1; those of data have no reset.

    ``owner``: the block that it is in, where that one's tables can be written: it has a ``form``, its memories in
    ``loads``, the ports to write them, and their ``technology``.
    """

    def __init__(self, m: Module, platform, *, enable: Value | int = 1, owner: Block | None = None):
        self.m, self.platform, self.enable = m, platform, Value.cast(enable)
        self.owner = None if owner is None or owner.form is None else owner

    def register(self, name: str, value: Value, *, reset: bool = False) -> Signal:
        """The value a step later; ``reset``: 0 behind a reset."""
        value = Value.cast(value)
        register = Signal(value.shape(), name=f"{name}_held", reset_less=not reset)
        with self.m.If(self.enable):
            self.m.d.sync += register.eq(value)
        return register

    def delayed(self, name: str, value: Value, steps: int) -> list[Value]:
        """The value now and 1 to ``steps`` steps later."""
        values = [Value.cast(value)]
        for step in range(1, steps + 1):
            values.append(self.register(f"{name}_{step}", values[-1]))
        return values

    def flags(self, name: str, value: Value, steps: int) -> Value:
        """A flag ``steps`` steps later, 0 behind a reset."""
        for step in range(1, steps + 1):
            value = self.register(f"{name}_{step}", value, reset=True)
        return value

    def span(self, name: str, numbers: Numbers) -> Span:
        """Between which numbers the entries of a table lie: those of this network or of any."""
        return numbers.span if self.owner is None else self.owner.form[name]

    def table(self, name: str, numbers: Numbers, index: Value) -> Value:
        """The entry of an index a step later, signed where one is below 0; a constant where all are the same."""
        span = self.span(name, numbers)
        if span.constant:
            return Const(span.low)
        if self.owner is None:
            words = tuple(entry & ((1 << span.bits) - 1) for entry in numbers.entries)
            memory = place(self.m, self.platform, name, RomBank(width=span.bits, words=words, style="logic"))
            self.m.d.comb += [memory.addr.eq(index), memory.en.eq(self.enable)]
        else:
            memory = self._written(name, index)
        return memory.data.as_signed() if span.signed else memory.data

    def _written(self, name: str, index: Value) -> Block:
        """The memory of the owner's table of a name."""
        owner = self.owner
        table, number = owner.loads[name], list(owner.loads).index(name)
        memory = place(self.m, self.platform, name, Ram(width=table.width, depth=len(table.words), words=table.words,
                                                        technology=owner.technology))
        self.m.d.comb += [
            memory.addr.eq(index), memory.en.eq(self.enable), memory.write_addr.eq(owner.load_address),
            memory.write_data.eq(owner.load_data), memory.write_en.eq(owner.load_write[number]),
        ]
        return memory

    def chosen(self, name: str, options: Numbers, index: Value, value: Callable[[int], Value]) -> Value:
        """``value`` of the option that an index had a step before."""
        if self.owner is None:
            kinds = sorted(set(options.entries))
            which = self.table(name, Numbers.of(map(kinds.index, options.entries)), index)
        else:
            span = self.span(name, options)
            kinds = list(range(span.low, span.high + 1))
            which = Const(0) if span.constant else self._written(name, index).data
        result = value(kinds[0])
        for number, option in enumerate(kinds[1:], start=1):
            result = Mux(which == number, value(option), result)
        return result

    def beyond(self, number: Value, numbers: Mapping[str, Numbers], index: Value) -> Value:
        """What a number is above the threshold of an index or, where that says so, below it
        (:func:`threshold_numbers`); no wider than such sums are. All of it comes from registers."""
        bits = beyond_bits(len(number), self.span("offsets", numbers["offsets"]))
        number = self.register("number", number)
        minus = self.table("minus", numbers["minus"], index)
        total = Mux(minus, ~number, number) + self.table("offsets", numbers["offsets"], index)
        return total[:bits].as_signed()
