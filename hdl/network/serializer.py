# SPDX-License-Identifier: Apache-2.0
"""Many words at once to one after the other."""

from amaranth.hdl import Array, Module, Mux, Signal
from amaranth.lib.wiring import In, Out

from bmhw.hdl.arithmetic.reduction import any_of
from bmhw.hdl.block import Block, place
from bmhw.hdl.checks import check_range
from bmhw.hdl.technology import ANY, Memory, Technology

from .memories import Ram
from .pipeline import Pipeline
from .streams import stepped

__all__ = ["Gather", "Serializer"]


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


class Gather(Block):
    """Rows of numbers that come side by side become one: all of the first row, then all of the second one, ...

    - Latency: :attr:`latency` cycles for the numbers of the first row.
    - Throughput: a number a cycle; the rows' next ``length`` numbers may begin ``rows * length`` cycles behind these.

    Parameters
    ----------
    width: of a number. rows: two or more. length: of a row, whose numbers come in consecutive cycles.
    technology: of the memory in which all rows but the first one wait.

    Members
    -------
    valid : In(1), i : In(rows * width): the next number of each row, the first row's in the lowest bits
    o_valid : Out(1), o : Out(width)
    """

    clocked = True
    latency = 2

    def __init__(self, *, width: int, rows: int, length: int, technology: Technology = ANY):
        self.width, self.rows = check_range("Width of a number", width, 1), check_range("Rows", rows, 2)
        self.length, self.technology = check_range("Length of a row", length, 1), technology
        super().__init__({"valid": In(1), "i": In(rows * width), "o_valid": Out(1), "o": Out(width)})

    @property
    def memory(self) -> Memory:
        return Memory(max(self.length, 2), (self.rows - 1) * self.width)

    def elaborate(self, platform):
        m = Module()
        pipe = Pipeline(m, platform)
        memory = place(m, platform, "memory", Ram(width=self.memory.bits, depth=self.length,
                                                  technology=self.technology))
        at, row = Signal(range(max(self.length, 2)), name="at"), Signal(range(self.rows), name="row")
        moves = Signal(name="moves")
        m.d.comb += [
            moves.eq(self.valid | (row != 0)), memory.addr.eq(at), memory.en.eq(1),
            memory.write_addr.eq(at), memory.write_data.eq(self.i[self.width:]), memory.write_en.eq(self.valid),
        ]
        with m.If(moves):
            m.d.sync += at.eq(stepped(at, self.length))
            with m.If(at == self.length - 1):
                m.d.sync += row.eq(stepped(row, self.rows))
        first, shown = pipe.register("first", self.i[:self.width]), pipe.register("row", row)
        waiting = [memory.data.word_select(n, self.width) for n in range(self.rows - 1)]
        m.d.comb += [self.o.eq(pipe.register("number", Array([first, *waiting])[shown])),
                     self.o_valid.eq(pipe.flags("moves", moves, self.latency))]
        return m
