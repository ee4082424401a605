# SPDX-License-Identifier: Apache-2.0
"""Registers and tables of a block whose data move together, under one clock enable."""

from collections.abc import Callable, Sequence

from amaranth.hdl import Const, Module, Mux, Signal, Value

from bmhw.hdl.block import place
from bmhw.hdl.formats.codes import LinearCode

from .memories import RomBank

__all__ = ["Pipeline"]

class Pipeline:
    """Places registers in a module that are loaded where ``enable`` is 1; those of data have no reset."""

    def __init__(self, m: Module, platform, *, enable: Value | int = 1):
        self.m, self.platform, self.enable = m, platform, Value.cast(enable)

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

    def table(self, name: str, entries: Sequence[int], index: Value) -> Value:
        """``entries[index]`` a step later, signed where an entry is below 0; a constant where all are the same."""
        low, high = min(entries), max(entries)
        if low == high:
            return Const(low)
        bits = max((low if low >= 0 else ~low).bit_length(), high.bit_length()) + (low < 0)
        words = tuple(int(entry) & ((1 << bits) - 1) for entry in entries)
        memory = place(self.m, self.platform, name, RomBank(width=bits, words=words, style="logic"))
        self.m.d.comb += [memory.addr.eq(index), memory.en.eq(self.enable)]
        return memory.data.as_signed() if low < 0 else memory.data

    def chosen(self, name: str, options: Sequence[int], index: Value, value: Callable[[int], Value]) -> Value:
        """``value`` of the option that an index had a step before."""
        kinds = sorted(set(options))
        which = self.table(name, [kinds.index(option) for option in options], index)
        result = value(kinds[0])
        for number, option in enumerate(kinds[1:], start=1):
            result = Mux(which == number, value(option), result)
        return result

    def beyond(self, number: Value, thresholds: Sequence[tuple[int, bool]], index: Value,
               plus: Sequence[int] | None = None) -> Value:
        """What a number is above the threshold of an index or, where that says so, below it, and ``plus`` so much; no
        wider than such sums are. All of it comes from registers."""
        code = LinearCode(bits=len(number), signed=True)
        number = self.register("number", number)
        minus = self.table("minus", [int(negative) for _, negative in thresholds], index)
        # one addition for both signs: -n is ~n + 1
        offsets = [(threshold + 1 if negative else -threshold) + more
                   for (threshold, negative), more in zip(thresholds, plus or (0,) * len(thresholds), strict=True)]
        low, high = min(offsets) + code.minimum, max(offsets) + code.maximum
        total = Mux(minus, ~number, number) + self.table("offsets", offsets, index)
        return total[:LinearCode.covering(min(low, -2), high).bits].as_signed()
