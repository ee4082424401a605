# SPDX-License-Identifier: Apache-2.0
"""Many words at once to one after the other."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib.wiring import In, Out

from bmhw.hdl.arithmetic.reduction import any_of
from bmhw.hdl.block import Block
from bmhw.hdl.checks import check_range

from .pipeline import Pipeline

__all__ = ["Serializer"]


class Serializer(Block):
    """Words that come at once leave one after the other, the first one in the cycle behind ``load``.

    - Latency: :attr:`latency` cycles from ``step`` to the word that it asks for.
    - Throughput: a word a cycle; a load may come with the last step of the words before it.

    Where a flip-flop has an input of its own beside that of its look-up table, words wait in such ones; the one that
    is asked for goes into others, which its neighbours leave at 0, and an OR of all these is a third of a look-up table
    a bit, with a register behind it. Elsewhere (``shifts``) words move through a shift register, whose look-up tables
    load it: one a bit.

    Parameters
    ----------
    width: of a word. words: how many come at once.
    shifts: whether it is a shift register.

    Members
    -------
    load : In(1), with i : In(words * width), the first word in the lowest bits
    step : In(1), from the cycle behind ``load`` on: the next word is asked for
    o : Out(width)
    """

    clocked = True

    def __init__(self, *, width: int, words: int, shifts: bool = False):
        self.width, self.words = check_range("Width of a word", width, 1), check_range("Words", words, 1)
        self.shifts = shifts
        super().__init__({"load": In(1), "i": In(words * width), "step": In(1), "o": Out(width)})

    @property
    def latency(self) -> int:
        return 1 if self.shifts else 2

    def elaborate(self, platform):
        m = Module()
        pipe = Pipeline(m, platform)
        waiting = Signal(self.words * self.width, name="waiting", reset_less=True)
        with m.If(self.load):
            m.d.sync += waiting.eq(self.i)
        if self.shifts:
            with m.Elif(self.step):
                m.d.sync += waiting.eq(waiting >> self.width)
            m.d.comb += self.o.eq(pipe.register("word", waiting[:self.width]))
            return m
        turn = Signal(self.words, name="turn", reset_less=True)  # whose, one bit of it
        with m.If(self.load):
            m.d.sync += turn.eq(1)
        with m.Elif(self.step):
            m.d.sync += turn.eq(turn << 1)
        words = [waiting.word_select(n, self.width) for n in range(self.words)]
        shown = any_of(pipe.register(f"word_{n}", Mux(turn[n], word, 0)) for n, word in enumerate(words))
        m.d.comb += self.o.eq(pipe.register("shown", shown))
        return m
