# SPDX-License-Identifier: Apache-2.0
"""From the linear numbers of a stream to activation codes: threshold, ReLU, shift and log2, each channel's own."""

from dataclasses import dataclass

from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.lib import stream
from amaranth.lib.wiring import In, Out, connect, flipped

from bmhw.hdl.arithmetic.logarithm import Log2Block
from bmhw.hdl.block import Block, place
from bmhw.hdl.formats.codes import EXACT_LIMIT, LinearCode, LogCode
from bmhw.hdl.formats.conversions import LinearEnd, Log2

from .pipeline import Pipeline
from .streams import Skid, loops

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


class Encoder(Block):
    """Linear numbers as activation codes.

    - Latency: :attr:`latency` cycles.
    - Throughput: one number a cycle.

    Of magnitudes with a sign kept or, with ``relu``, of what is above 0. The log2 of all channels is one unit with an
    addition of the channel's constant behind it, which holds the ends' offsets, shifts and widths.

    Parameters
    ----------
    width: of the numbers, signed.
    channels: what each channel's numbers become; the same code for all.
    relu: whether what is below 0 becomes code 0; else its magnitude's code comes with a sign, 1 for below 0.
    saturation: a linear code in which the shifted numbers saturate, where that makes a difference.
    zeros_signed: whether code 0, which may stand for its smallest step, has a sign as well.

    Members
    -------
    i : In(stream of width, signed)
    o : Out(stream of log_bits, or one more, the highest, for the sign)
    """

    clocked = True
    latency = 6

    def __init__(self, *, width: int, channels: tuple[ChannelCode, ...], relu: bool,
                 saturation: LinearCode | None = None, zeros_signed: bool = False):
        self.width, self.channels, self.relu = width, channels, relu
        self.saturation, self.zeros_signed = saturation, zeros_signed
        logs = {channel.end.log for channel in channels}
        if len(logs) > 1:
            raise ValueError(f"All channels of an encoder have one code, not {len(logs)}")
        self.log: LogCode = channels[0].end.log
        super().__init__({"i": In(stream.Signature(width)), "o": Out(stream.Signature(self.log.bits + (not relu)))})

    def elaborate(self, platform):
        m = Module()
        skid = place(m, platform, "skid", Skid(width=len(self.o.payload)))
        moves, pipe = skid.i.ready, Pipeline(m, platform, enable=skid.i.ready)
        channel = loops(m, self.i.valid & moves, {"channel": len(self.channels)})[0]["channel"]
        m.d.comb += self.i.ready.eq(moves)
        valid, ends = pipe.flags("valid", self.i.valid, self.latency - 1), [c.end for c in self.channels]
        at = pipe.delayed("channel", channel, 4)
        thresholds = [(c.threshold, c.negative) for c in self.channels]
        left = pipe.beyond(self.i.payload.as_signed(), thresholds, at[0])
        left = pipe.register("left", Mux(left < 0, 0, left) if self.relu else left)
        # shift to about the bits of log2, magnitude
        shifts = [c.shift for c in self.channels]
        shifted = pipe.chosen("shift", shifts, at[1], lambda shift: _round_shifted(left, shift))
        if self.saturation is not None:
            low, high = self.saturation.minimum, self.saturation.maximum
            shifted = Mux(shifted < low, low, Mux(shifted > high, high, shifted))
        shifted = pipe.register("shifted", shifted)
        below = pipe.delayed("below", shifted < 0, 2)
        magnitude = shifted.as_unsigned() if self.relu else Mux(below[0], -shifted, shifted).as_unsigned()
        above = pipe.delayed("above", magnitude != 0, 2)
        unit = self.log2
        seen = pipe.chosen("drop", [end.shift for end in ends], at[2], lambda drop: magnitude >> drop)
        seen = pipe.register("seen", Mux(seen > 1 << unit.bits, 1 << unit.bits, seen)[:unit.bits + 1])
        # log2; where a channel's numbers lie in it; the range of codes
        log2 = place(m, platform, "log2", Log2Block(log2=unit, full_scale_input=True))
        m.d.comb += log2.x.eq(seen)
        code = pipe.register("code", log2.c)
        total = code + pipe.table("constants", self.constants, at[4])
        floor, largest = pipe.table("floors", self.floors, at[4]), self.log.maximum
        total = Mux(total < floor, floor, Mux(total > largest, largest, total))
        result = Signal(self.log.bits, name="result")
        sign = below[2] if self.zeros_signed else below[2] & result.any()
        m.d.comb += [result.eq(Mux(above[2], total, 0)),
                     skid.i.payload.eq(result if self.relu else Cat(result, sign)),
                     skid.i.valid.eq(valid)]
        connect(m, skid.o, flipped(self.o))
        return m

    @property
    def log2(self) -> Log2:
        """The one log2: wide enough for each channel's, and with a code that no number is too small for."""
        bits = max(channel.end.log2.bits for channel in self.channels)
        steps = (bits << self.log.fraction) + 1
        return Log2(bits=min(bits, EXACT_LIMIT), log=LogCode(bits=steps.bit_length(), fraction=self.log.fraction),
                    method=self.channels[0].end.method)

    @property
    def constants(self) -> tuple[int, ...]:
        """What is added to the code of :attr:`log2`, by channel."""
        unit, fraction = self.log2, self.log.fraction
        return tuple(
            channel.end.code_offset + channel.end.log2.log.maximum - unit.log.maximum
            + ((unit.bits - channel.end.log2.bits) << fraction)
            for channel in self.channels)

    @property
    def floors(self) -> tuple[int, ...]:
        """The least code of a number above 0, by channel."""
        return tuple(min(max(channel.end.code_offset, 0), self.log.maximum) for channel in self.channels)


def _round_shifted(number: Value, shift: int) -> Value:
    """``round_shift`` of the integer network: to the nearest, halves up."""
    return number << -shift if shift <= 0 else (number + (1 << shift >> 1)) >> shift
