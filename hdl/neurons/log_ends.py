# SPDX-License-Identifier: Apache-2.0
"""The logarithmic end of a bipolar morphological neuron: one interface, several architectures."""

from collections.abc import Mapping, Sequence

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib.wiring import In, Out

from bmhw.hdl.arithmetic.adders import ADDERS
from bmhw.hdl.arithmetic.lookup import Lookup
from bmhw.hdl.arithmetic.reduction import any_of
from bmhw.hdl.block import Block, place
from bmhw.hdl.formats.bm import BmFormat

__all__ = ["LOG_ENDS", "LogSelectPart", "LogSubtractPart", "LogarithmicEnd"]


class LogarithmicEnd(Block):
    """The logarithmic end: log2(relu(2^m1 - 2^m2)) as a log code (:class:`~bmhw.hdl.formats.conversions.LogSubtract`).

    Latency: combinational. Subclasses choose the architecture; see :data:`LOG_ENDS`.

    Members
    -------
    m1, m2 : In(maximum_bits)
    z : Out(log_bits)
    """

    block_name = "log_subtract"

    most_bits: int = 17
    """The widest maxima that it is made for."""

    def __init__(self, *, format: BmFormat, adder: str):
        self.format, self.adder = format, adder
        super().__init__({"m1": In(format.maximum_bits), "m2": In(format.maximum_bits), "z": Out(format.log_bits)})


class LogSubtractPart(LogarithmicEnd):
    """The logarithmic end as it is written, for few gates.

    Two subtractions with a table between: the distance ``m1 - m2``, what it takes off, and ``m1`` less that. An
    equal pair takes off more than there is, so that only ``m1 < m2`` needs a check of its own.
    """

    def elaborate(self, platform):
        m = Module()
        fmt, end = self.format, self.format.log_subtract
        raised = end.full_scale + max(end.offset, 0)
        taken = end.phi + end.origin - min(end.offset, 0)
        width = max(raised, int(taken.max())).bit_length()
        # the entry of distance 0 is never less than m1 raised
        entries = [(1 << width) - 1, *map(int, taken[1:])][::1 << fmt.dropped_bits]
        used = max(i for i, entry in enumerate(entries) if entry != entries[-1]) + 2
        size = 1 << (used - 1).bit_length()

        distance = place(m, platform, "distance", ADDERS[self.adder](width=fmt.maximum_bits, carry_in=True))
        table = place(m, platform, "taken", Lookup(table=tuple(entries[:size]), width=width))
        rest = place(m, platform, "rest", ADDERS[self.adder](width=width, carry_in=True))
        index = distance.sum[:fmt.maximum_bits]
        beyond = index[len(table.index):].any() if len(index) > len(table.index) else 0
        m.d.comb += [
            distance.a.eq(self.m1),
            distance.b.eq(~self.m2),
            distance.carry_in.eq(1),
            table.index.eq(index),
            rest.a.eq(Cat(Const(0, fmt.dropped_bits), self.m1) + max(end.offset, 0)),
            rest.b.eq(~Mux(beyond, entries[-1], table.value)),
            rest.carry_in.eq(1),
        ]
        # a carry means that nothing was borrowed
        positive = Signal()
        code = Signal(width)
        m.d.comb += [
            positive.eq(distance.sum[-1] & rest.sum[-1]),
            code.eq(rest.sum[:width] & positive.replicate(width)),
        ]
        saturated = raised - int(taken[1:].min()) > end.log.maximum
        m.d.comb += self.z.eq(Mux(code > end.log.maximum, end.log.maximum, code) if saturated else code)
        return m


class LogSelectPart(LogarithmicEnd):
    """The logarithmic end for maxima that arrive most significant bit first: few levels behind their last bits.

    The distance of all but the last two bits of m1 and m2 is kept one-hot, and a bit more of both doubles it and
    adds -1, 0 or 1: two levels a bit, while the maxima are still at work. It ends at the distance beyond which
    nothing is taken off. For each of the sixteen values that the last two bits of both may have, the distance then
    gives what is left at these bits' place and below, and how much is borrowed from the bits above; these are there
    less each borrow that occurs, and the last bits select.

    The tables grow with the number of distances times that of borrows: made for few bits of m1 and m2.
    """

    most_bits = 9
    LAST = 2  # bits of the maxima that are waited for

    def elaborate(self, platform):
        m = Module()
        fmt, end = self.format, self.format.log_subtract
        last = min(self.LAST, fmt.maximum_bits)
        low = last + fmt.dropped_bits
        above1, above2 = self.m1[last:], self.m2[last:]
        largest = (1 << len(above1)) - 1
        # distances of the bits above from which on nothing is taken off whatever the last bits are
        nothing = int((end.phi[1:] > 0).sum()) // (1 << low) + 2
        states = min(largest, nothing)
        distance = self._distance(m, above1, above2, states)

        entries: dict[tuple[int, int], list[tuple[int, int] | None]] = {}
        for i in range(1 << last):
            for j in range(1 << last):
                rows: list[tuple[int, int] | None] = []
                for state in range(states + 1):
                    d = (state << low) + ((i - j) << fmt.dropped_bits)
                    taken = int(end.phi[d]) if 0 < d < len(end.phi) else 0
                    rest = (i << fmt.dropped_bits) + end.offset - end.origin - taken
                    rows.append((-(rest >> low), rest % (1 << low)) if d > 0 else None)
                entries[i, j] = rows
        borrows = sorted({entry[0] for rows in entries.values() for entry in rows if entry})
        tops = {borrow: self._less(m, platform, above1, borrow, low) for borrow in borrows}

        # a distance as it counts where so much is borrowed: not if more than there is
        counts: dict[tuple[int, int], Value] = {}
        for rows in entries.values():
            for state, entry in enumerate(rows):
                if entry and (state, entry[0]) not in counts:
                    # the bits above are at least the distance
                    needs = max(entry[0], 0) > state
                    signal = distance[state]
                    if needs:
                        signal = Signal(name=f"distance_{state}_borrows_{entry[0]}")
                        m.d.comb += signal.eq(distance[state] & tops[entry[0]][1])
                    counts[state, entry[0]] = signal

        def plane(wanted) -> Value:
            """Of each pair of last bits: the distances with wanted entries; then the pair selects."""
            planes = {pair: tuple((state, entry[0]) for state, entry in enumerate(rows) if entry and wanted(entry))
                      for pair, rows in entries.items()}
            return self._select(m, planes, counts, last)

        below = Cat(plane(lambda entry, bit=bit: entry[1] >> bit & 1) for bit in range(low))
        tops_chosen, overflow = [], []
        for borrow, (top, _, over) in tops.items():
            chosen = plane(lambda entry, borrow=borrow: entry[0] == borrow)
            tops_chosen.append(top & chosen.replicate(len(top)))
            if over is not None:
                overflow.append(over & chosen)
        z = Cat(below, any_of(tops_chosen))
        m.d.comb += self.z.eq(z | Cat(overflow).any().replicate(fmt.log_bits) if overflow else z)
        return m

    def _distance(self, m: Module, a: Value, b: Value, states: int) -> list[Value]:
        """One-hot a - b from 0 to ``states``, the last one also for what is beyond; none for a < b."""
        state: list[Value] = [Const(1)]
        for bit in reversed(range(len(a))):
            more, less, same = a[bit] & ~b[bit], b[bit] & ~a[bit], ~(a[bit] ^ b[bit])
            # what can still come back below the last one
            reach = min(2 * len(state) - 1, states + (1 << bit) if bit else states)
            following = Signal(reach + 1, name=f"distance_above_{bit}")
            terms: list[list[Value]] = [[] for _ in range(reach + 1)]
            for old, signal in enumerate(state):
                stays = old == len(state) - 1 and bit < len(a) - 1 and 2 * old - 1 >= reach
                if stays:
                    terms[reach].append(signal)
                    continue
                for step, value in ((-1, less), (0, same), (1, more)):
                    if 2 * old + step >= 0:
                        terms[min(2 * old + step, reach)].append(signal & value)
            m.d.comb += following.eq(Cat(any_of(values) for values in terms))
            state = list(following)
        return state

    def _less(self, m: Module, platform, above: Value, borrow: int, low: int) -> tuple[Value, Value, Value | None]:
        """The bits of z from ``low`` on: ``above - borrow``, or 0 if that is negative; whether it isn't; whether it
        is more than z holds (None if it never is)."""
        bits = max(self.format.log_bits - low, 0)
        rests = [value - borrow for value in range(1 << len(above))]
        table = [max(rest, 0) & ((1 << bits) - 1) for rest in rests]
        limit = 1 << bits
        entries = [entry | (rest >= 0) << bits | (rest >= limit) << bits + 1
                   for entry, rest in zip(table, rests, strict=True)]
        name = f"above_less_{borrow}".replace("-", "minus_")
        lookup = place(m, platform, name, Lookup(table=tuple(entries), width=bits + 2))
        m.d.comb += lookup.index.eq(above)
        over = lookup.value[bits + 1] if rests[-1] >= limit else None
        return lookup.value[:bits], lookup.value[bits], over

    def _select(self, m: Module, planes: Mapping[tuple[int, int], tuple], counts: Mapping[tuple[int, int], Value],
                last: int) -> Value:
        """The OR of the plane that the last bits of m1 and m2 choose, higher bits first."""
        level = {pair: any_of([counts[key] for key in plane]) for pair, plane in planes.items()}
        keys: dict = dict(planes)
        for bit in reversed(range(last)):
            following, following_keys = {}, {}
            for i in range(1 << bit):
                for j in range(1 << bit):
                    parts = {(x, y): (i | x << bit, j | y << bit) for x in (0, 1) for y in (0, 1)}
                    groups: dict = {}
                    for choice, pair in parts.items():
                        groups.setdefault(keys[pair], []).append((choice, level[pair]))
                    following[i, j] = self._choose(groups, bit)
                    following_keys[i, j] = tuple(keys[pair] for pair in parts.values())
                    if len(groups) == 1:
                        following_keys[i, j] = next(iter(groups))
            level, keys = following, following_keys
        return level[0, 0]

    def _choose(self, groups: Mapping, bit: int) -> Value:
        if len(groups) == 1:
            return next(iter(groups.values()))[0][1]
        terms = []
        for key, members in groups.items():
            if key == ():
                continue
            choices = [choice for choice, _ in members]
            terms.append(members[0][1] & self._chosen(choices, bit))
        return any_of(terms)

    def _chosen(self, choices: Sequence[tuple[int, int]], bit: int) -> Value:
        """Whether bit ``bit`` of m1 and m2 is one of the choices."""
        a, b = self.m1[bit], self.m2[bit]
        return any_of([(a if x else ~a) & (b if y else ~b) for x, y in choices])


LOG_ENDS: dict[str, type[LogarithmicEnd]] = {"subtract": LogSubtractPart, "select": LogSelectPart}
