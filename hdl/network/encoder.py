# SPDX-License-Identifier: Apache-2.0
"""From the linear numbers of a stream to activation codes: threshold, ReLU, shift and log2, each channel's own."""

import dataclasses
from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np
from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import stream
from amaranth.lib.wiring import In, Out, connect, flipped

from bmhw.hdl.arithmetic.logarithm import NormalizingShift, log2_fraction
from bmhw.hdl.block import place
from bmhw.hdl.formats.codes import LinearCode, LogCode
from bmhw.hdl.formats.conversions import LinearEnd, Log2
from bmhw.hdl.technology import ANY, Technology

from .pipeline import Pipeline, beyond_bits, threshold_numbers, threshold_spans
from .streams import Skid, loops
from .tables import Form, Loaded, Numbers, OutOfSpanError, Span

__all__ = ["ChannelCode", "Encoder"]


@dataclass(frozen=True, kw_only=True)
class ChannelCode:
    """How a channel's numbers become codes: ``end`` of ``round_shift(+-(y - threshold), shift)``.

    ``negative``: the minus sign. ``shift`` below 0 goes left. ``end.offset`` is this channel's.
    """

    end: LinearEnd
    threshold: int = 0
    negative: bool = False
    shift: int = 0

    @property
    def half(self) -> int:
        """Of a step of the shift, which rounds."""
        return 1 << max(self.shift, 0) >> 1

    @property
    def seen(self) -> int:
        """The lowest bit that log2 sees before that shift; below 0: there is none so low."""
        return self.shift + self.end.shift

    @property
    def floor(self) -> int:
        """The least code of a number above 0."""
        return min(max(self.end.code_offset, 0), self.end.log.maximum)


class Encoder(Loaded):
    """Linear numbers as activation codes.

    - Latency: :attr:`latency` cycles.
    - Throughput: one number a cycle.

    Of magnitudes with a sign kept or, with ``relu``, of what is above 0. No channel's number is shifted: what its shift
    and its end don't see of it becomes 0, and the rest is an addition of the channel's constant to the code of one
    log2, whose table of fractions all channels share. Codes saturate in the place of numbers.

    Parameters
    ----------
    width: of the numbers, signed.
    channels: what each channel's numbers become; the same code for all.
    relu: whether what is below 0 becomes code 0; else its magnitude's code comes with a sign, 1 for below 0.
    saturation: a linear code in which the shifted numbers saturate, where that makes a difference.
    zeros_signed: whether code 0, which may stand for its smallest step, has a sign as well.
    form: of its tables where these can be written (:meth:`open_form`); technology: of these.

    Members
    -------
    i : In(stream of width, signed)
    o : Out(stream of log_bits, or one more, the highest, for the sign)
    load_write, load_address, load_data : In, where tables can be written (:class:`~bmhw.hdl.network.tables.Loaded`)
    """

    clocked = True
    latency = 7

    def __init__(self, *, width: int, channels: tuple[ChannelCode, ...], relu: bool,
                 saturation: LinearCode | None = None, zeros_signed: bool = False, form: Form | None = None,
                 technology: Technology = ANY):
        self.width, self.channels, self.relu = width, channels, relu
        self.saturation, self.zeros_signed = saturation, zeros_signed
        logs = {channel.end.log for channel in channels}
        if len(logs) > 1:
            raise ValueError(f"All channels of an encoder have one code, not {len(logs)}")
        self.log: LogCode = channels[0].end.log
        self.form = form
        self._check_form()
        super().__init__({"i": In(stream.Signature(width)), "o": Out(stream.Signature(self.log.bits + (not relu))),
                          **self.open(form, technology)})

    def elaborate(self, platform):
        m = Module()
        skid = place(m, platform, "skid", Skid(width=len(self.o.payload)))
        moves, pipe = skid.i.ready, Pipeline(m, platform, enable=skid.i.ready, owner=self)
        numbers = self.numbers
        channel = loops(m, self.i.valid & moves, {"channel": len(self.channels)})[0]["channel"]
        m.d.comb += self.i.ready.eq(moves)
        valid, at = pipe.flags("valid", self.i.valid, self.latency - 1), pipe.delayed("channel", channel, 5)
        # step 2: what is above the threshold, or below it, and half a step
        left = pipe.register("left", pipe.beyond(self.i.payload.as_signed(), numbers, at[0]))
        # step 3: its magnitude
        minus, bits = left[-1], left[:] & pipe.chosen("shift", numbers["shift"], at[1],
                                                      lambda bit: _from(bit, len(left)))
        below = pipe.delayed("below", minus, 4)[4]
        bits = bits[:-1] & ~minus.replicate(len(left) - 1) if self.relu else (
            (bits ^ minus.replicate(len(left))) + minus)[:len(left)]
        magnitude = pipe.register("magnitude", bits)
        above = pipe.delayed("above", magnitude.any(), 3)[3]
        number = magnitude if "seen" not in numbers else magnitude & pipe.chosen(
            "seen", numbers["seen"], at[2], lambda bit: _from(bit, len(magnitude)))
        # steps 4 and 5: its leading one goes to the top, over so many zeros
        distances, kept = self._distances(len(number)), self.log2.mantissa_bits + 1
        half = len(distances) // 2
        coarse = place(m, platform, "coarse", NormalizingShift(
            width=len(number), distances=distances[:half], kept=min(len(number), kept + sum(distances[half:]))))
        fine = place(m, platform, "fine", NormalizingShift(
            width=coarse.kept, distances=distances[half:], kept=min(len(number), kept)))
        m.d.comb += [coarse.x.eq(number), fine.x.eq(pipe.register("coarse", coarse.y))]
        normal = pipe.register("fine", fine.y)
        zeros = pipe.register("zeros", Cat(fine.zeros, pipe.register("coarse_zeros", coarse.zeros)))
        # step 6: log2; a fraction of 1 as the largest one and a carry into the sum behind it
        mantissa = Cat(Const(0, kept - fine.kept), normal[:-1])
        rounded = Signal(self.log.fraction + 1, name="rounded")
        m.d.comb += rounded.eq(log2_fraction(m, platform, self.log2, mantissa))
        fraction = pipe.register("fraction", Cat(bit | rounded[-1] for bit in rounded[:-1]))
        carry = pipe.register("carry", rounded[-1])
        exponent, found = pipe.register("exponent", ~zeros), pipe.register("found", normal[-1])
        # step 7: the channel's constant, the range of codes
        constant = pipe.table("constants", numbers["constants"], at[5])
        total = (Cat(carry, fraction, exponent) + ((constant << 1) | carry)) >> 1
        floor = pipe.table("floors", numbers["floors"], at[5])
        ceiling = pipe.table("ceilings", numbers["ceilings"], at[5])
        if "ceilings_below" in numbers:
            ceiling = Mux(below, pipe.table("ceilings_below", numbers["ceilings_below"], at[5]), ceiling)
        code = Mux(found & (total >= floor), Mux(total > ceiling, ceiling, total), Mux(above, floor, 0))
        code = code[:self.log.bits]
        sign = below if self.zeros_signed else below & code.any()
        m.d.comb += [skid.i.payload.eq(code if self.relu else Cat(code, sign)), skid.i.valid.eq(valid)]
        connect(m, skid.o, flipped(self.o))
        return m

    @property
    def log2(self) -> Log2:
        """The log2 whose fractions those of all channels are: the widest, of any network of this form."""
        widest = max((channel.end.log2 for channel in self.channels), key=lambda log2: log2.bits)
        return widest if self.form is None else dataclasses.replace(widest, bits=self.form[LOG2_BITS].high)

    @cached_property
    def numbers(self) -> dict[str, Numbers]:
        """The constants of each channel: those of :meth:`Pipeline.beyond`; ``shift``, the lowest bit of what is left
        that isn't cleared; ``seen``, the lowest one that log2 sees, where that isn't the same; ``constants``, what is
        added to log2's code; ``floors``, ``ceilings`` and, of numbers below 0, ``ceilings_below``: the range of codes.
        """
        shifts, seen, floors = (Numbers.of((getattr(c, name) for c in self.channels), choice=name != "floor")
                                for name in ("shift", "seen", "floor"))
        # where all floors are 0, so is the code of what log2 doesn't see
        alike = self.relu and (floors.span if self.form is None else self.form["floors"]) == Span(0, 0)
        shifts = seen if alike else shifts
        numbers = {**threshold_numbers([(c.threshold, c.negative) for c in self.channels],
                                       plus=[c.half for c in self.channels]), "shift": shifts}
        if (shifts != seen) if self.form is None else ("seen" in dict(self.form.spans)):
            numbers["seen"] = seen
        offsets = numbers["offsets"].span if self.form is None else self.form["offsets"]
        numbers |= {"constants": Numbers.of(self._constants(self._magnitude_bits(offsets))), "floors": floors,
                    "ceilings": Numbers.of(self._ceilings(minus=False))}
        if not self.relu and self.saturation is not None:
            numbers["ceilings_below"] = Numbers.of(self._ceilings(minus=True))
        return numbers

    def open_form(self) -> Form:
        """The form of an encoder like this one whose tables can be written: shifts in the range that these have; where
        channels have ends of their own, any; of any thresholds that take no more bits."""
        seen, shift = (Span.of(getattr(c, name) for c in self.channels) for name in ("seen", "shift"))
        halves = [ChannelCode(end=self.channels[0].end, shift=s).half for s in range(shift.low, shift.high + 1)]
        spans = threshold_spans(self.numbers, [(c.threshold, c.negative) for c in self.channels], halves)
        own_ends = len({c.end for c in self.channels}) > 1
        codes = Span(0, self.log.maximum)
        spans |= {name: codes if own_ends else numbers.span for name, numbers in self.numbers.items()
                  if name in ("floors", "ceilings", "ceilings_below")}
        alike = self.relu and spans["floors"] == Span(0, 0)
        spans["shift"] = seen if alike else shift
        if not alike and (own_ends or seen != shift):
            spans["seen"] = seen
        widths = Span.of(c.end.log2.bits for c in self.channels)
        spans[LOG2_BITS] = widths if self.log2.method == "piecewise" else Span(1, widths.high)
        constants = Span.of(self._constants(self._magnitude_bits(spans["offsets"]), lowest=0))
        spans["constants"] = constants.whole
        return Form.of(spans)

    def _check_form(self) -> None:
        """What a form leaves no table for; OutOfSpanError."""
        if self.form is None:
            return
        spans = dict(self.form.spans)
        for channel, of in enumerate(self.channels):
            if not spans[LOG2_BITS].low <= of.end.log2.bits <= spans[LOG2_BITS].high:
                raise OutOfSpanError("bits in front of log2", channel, of.end.log2.bits, spans[LOG2_BITS])
            if "seen" not in spans and not (self.relu and spans["floors"] == Span(0, 0)) and of.seen != of.shift:
                raise OutOfSpanError("lowest bit in front of log2", channel, of.seen, Span(of.shift, of.shift))

    def _magnitude_bits(self, offsets: Span) -> int:
        """Of what is left of a number, without its sign where nothing is below 0."""
        return beyond_bits(self.width, offsets) - self.relu

    def _ceilings(self, *, minus: bool) -> list[int]:
        """The codes of the largest numbers above 0, or of those below it, by channel."""
        largest = None if self.saturation is None else -self.saturation.minimum if minus else self.saturation.maximum
        return [_code(c.end, c.end.full_scale if largest is None else min(largest, c.end.full_scale))
                for c in self.channels]

    def _distances(self, width: int, lowest: int | None = None) -> tuple[int, ...]:
        """Of the shifts that find the leading one of so many bits where a code isn't the floor yet: in the ``lowest``
        bit or above; of any network wherever it is."""
        if lowest is None:
            lowest = 0 if self.form else min(max(_least_octave(c.end) + c.seen, 0) for c in self.channels)
        return tuple(1 << level for level in reversed(range(max(width - 1 - lowest, 2).bit_length())))

    def _constants(self, width: int, lowest: int | None = None) -> tuple[int, ...]:
        """What is added to a code whose exponent is that of the highest bits, the leading one in the lowest place that
        the shifts reach at 0, by channel."""
        highest = sum(self._distances(width, lowest))
        return tuple(c.end.log2.offset + c.end.code_offset + ((width - 1 - highest - c.seen) << self.log.fraction)
                     for c in self.channels)


LOG2_BITS = "log2_bits"
"""Name in a form of how many bits log2 sees at most."""


def _from(bit: int, width: int) -> Const:
    """Ones from a bit on."""
    return Const((1 << width) - (1 << min(max(bit, 0), width)), width)


@cache
def _code(end: LinearEnd, number: int) -> int:
    return int(end.compute(number))


@cache
def _least_octave(end: LinearEnd) -> int:
    """The first octave of what log2 sees that has other codes than the least one of a number above 0."""
    octaves = np.arange(end.log2.bits)
    largest = np.maximum.reduceat(end.compute(np.arange(1, 1 << end.log2.bits) << end.shift), (1 << octaves) - 1)
    return next((int(octave) for octave in octaves if largest[octave] > max(end.code_offset, 0)), end.log2.bits)
