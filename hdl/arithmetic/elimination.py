# SPDX-License-Identifier: Apache-2.0
"""The largest of many numbers by elimination, most significant digit first: one node of it."""

from amaranth.hdl import Cat, Module, Signal, Value
from amaranth.lib.wiring import In, Out

from bmhw.hdl.block import Block

from .reduction import any_of

__all__ = ["EliminationNode"]


class EliminationNode(Block):
    """The largest of some numbers, most significant digit first.

    Every candidate still alive shows its bit; the result's bit is one if any shows a one, and then who shows a zero
    drops out. The lower bits of a digit don't wait for that: under each outcome that the higher bits of the digit may
    have, it is already found out whether any candidate would show a one, and the outcome selects the answer.

    With n candidates a bit of its own costs 4 n gates and log2(n) + 3 levels, the second bit of a digit 6 n gates and
    4 levels, the third one 10 n gates and 4 levels: for d bits 2^d - 1 AND and OR and 2 d gates to survive, which the
    last digit saves.

    Parameters
    ----------
    width, count, masked, clear: as for :class:`~bmhw.hdl.arithmetic.maxima.Maximum`.
    digits: bits of each digit, most significant one first.

    Members
    -------
    a : In(width * count)
    enable : In(count), if ``masked``
    m : Out(width)
    """

    def __init__(self, *, width: int, count: int, digits: tuple[int, ...], masked: bool = False,
                 clear: bool = False):
        if sum(digits) != width:
            raise ValueError(f"Digits must have {width} bits together, not {sum(digits)}")
        self.width, self.count, self.digits = width, count, digits
        self.masked, self.clear = masked, clear
        ports = {"a": In(width * count), "m": Out(width)}
        if masked:
            ports["enable"] = In(count)
        super().__init__(ports)

    def elaborate(self, platform):
        m = Module()
        # by bit, every candidate's; a list, since a bit taken from a Cat carries all of it along
        bits = [[self.a[i * self.width + bit] for i in range(self.count)] for bit in range(self.width)]
        # of each candidate, whether it is alive: all of these
        alive: list[list[Value]] = [[self.enable[i]] if self.masked else [] for i in range(self.count)]
        top = self.width
        for size in self.digits:
            # who is left, for each outcome of the digit's bits so far; an outcome that isn't so leaves nobody
            left: list[Value | None] = [None]
            for bit in range(top - 1, top - size - 1, -1):
                shown = [Signal(self.count, name=f"shows_{bit}_{i}") for i in range(len(left))]
                some = Signal(len(left), name=f"some_{bit}")
                known = self.clear and bit == self.width - 1
                m.d.comb += shown[0].eq(Cat(self._shown(one, [] if known else conditions)
                                            for one, conditions in zip(bits[bit], alive, strict=True)))
                m.d.comb += [signal.eq(Cat(bits[bit]) & group)
                             for signal, group in zip(shown[1:], left[1:], strict=True)]
                m.d.comb += some.eq(Cat(any_of(self._paired(signal)) for signal in shown))
                answers = list(some)
                for higher in range(top - 1, bit, -1):  # the outcome of the highest bit is there first
                    half = len(answers) // 2
                    answers = [one | (zero & ~self.m[higher])
                               for zero, one in zip(answers[:half], answers[half:], strict=True)]
                m.d.comb += self.m[bit].eq(answers[0])
                left = [group for pair in zip(left, shown, strict=True) for group in pair]
            top -= size
            for bit in range(top + size - 1, top - 1, -1):
                if top:
                    alive = self._survive(m, bit, alive, bits[bit], shown[0] if size == 1 else None)
        return m

    @property
    def hurried(self) -> tuple[int, ...]:
        """Candidates that must show their bits a level before the others, so that one more than a power of two need no
        further level of ORs: the first two for a gate more a digit each."""
        return (0, 1) if self.count > 4 and (self.count - 1).bit_count() == 1 else ()

    def _paired(self, shown: Value) -> list[Value]:
        """The leaves of a tree of ORs: the hurried candidates as one."""
        first = len(self.hurried)
        return [*([shown[:first].any()] if first else []), *shown[first:]]

    def _shown(self, bit: Value, conditions: list[Value]) -> Value:
        """A candidate's bit if it is alive; the last condition is the last to be known."""
        for condition in conditions:
            bit = bit & condition
        return bit

    def _survive(self, m: Module, bit: int, alive: list[list[Value]], bits: list[Value],
                 shown: Value | None) -> list[list[Value]]:
        """Who is alive after a bit of the result: who shows a one, or everybody if nobody does."""
        survivors = Signal(self.count, name=f"alive_after_{bit}")
        stays = Signal(self.count, name=f"stays_{bit}")
        m.d.comb += stays.eq(Cat(bits) | (~self.m[bit]).replicate(self.count))
        following = []
        for i, conditions in enumerate(alive):
            before = Cat(conditions).all()
            if i in self.hurried and conditions:
                following.append([before, stays[i]])
            else:
                # with the bit shown at hand the same in another way: fewer gates after mapping
                m.d.comb += survivors[i].eq(before & stays[i] if shown is None else
                                            shown[i] | (before & ~self.m[bit]))
                following.append([survivors[i]])
        return following
