# SPDX-License-Identifier: Apache-2.0
"""From the linear numbers of a stream to others of a fixed-point scale: what multiply-accumulate layers take and give.
"""

from dataclasses import dataclass
from functools import cached_property

from amaranth.hdl import Module, Mux, Value
from amaranth.lib import stream
from amaranth.lib.wiring import In, Out, connect, flipped

from bmhw.hdl.arithmetic.multipliers import BoothProducts, added_products
from bmhw.hdl.block import place
from bmhw.hdl.checks import check_range
from bmhw.hdl.formats.codes import LinearCode
from bmhw.hdl.technology import ANY, Technology

from .pipeline import Pipeline, threshold_numbers, threshold_spans
from .streams import Skid, loops
from .tables import Form, Loaded, Numbers, Span

__all__ = ["ChannelScale", "Requantization", "Requantizer"]


@dataclass(frozen=True, kw_only=True)
class ChannelScale:
    """How a channel's numbers are scaled: ``(+-(y - threshold) * multiplier + half) >> shift``, half of ``2^shift``.

    ``negative``: the minus sign. ``multiplier``: 0 or more. ``shift`` below 0 goes left.
    """

    multiplier: int = 1
    shift: int = 0
    threshold: int = 0
    negative: bool = False

    def __post_init__(self):
        check_range("Multiplier of a channel", self.multiplier, 0)


@dataclass(frozen=True, kw_only=True)
class Requantization:
    """What linear numbers become: ``channels``: each one's scale; ``relu``: what is below 0 becomes 0 first;
    ``code``: of the results. What lies beyond saturates, if it ``saturates``; else nothing does lie there."""

    channels: tuple[ChannelScale, ...]
    code: LinearCode
    relu: bool
    saturates: bool = True


class Requantizer(Loaded):
    """Linear numbers as those of another scale, each channel's own: one multiplier for all of them.

    - Latency: :attr:`latency` cycles.
    - Throughput: one number a cycle.

    Without a multiplier other than 1, shifts alone.

    Parameters
    ----------
    width: of the numbers, signed.
    to: what they become.
    form: of its tables where these can be written (:meth:`open_form`); technology: of these.

    Members
    -------
    i : In(stream of width), o : Out(stream of the code's bits)
    load_write, load_address, load_data : In, where tables can be written (:class:`~bmhw.hdl.network.tables.Loaded`)
    """

    clocked = True
    latency = 6

    def __init__(self, *, width: int, to: Requantization, form: Form | None = None, technology: Technology = ANY):
        self.width, self.to = check_range("Width of a stream", width, 1), to
        super().__init__({"i": In(stream.Signature(width)), "o": Out(stream.Signature(to.code.bits)),
                          **self.open(form, technology)})

    @cached_property
    def numbers(self) -> dict[str, Numbers]:
        """The constants of each channel: those of :meth:`Pipeline.beyond`, ``multipliers`` and ``shift``."""
        channels = self.to.channels
        return {**threshold_numbers((c.threshold, c.negative) for c in channels),
                "multipliers": Numbers.of(c.multiplier for c in channels),
                "shift": Numbers.of((c.shift for c in channels), choice=True)}

    def open_form(self) -> Form:
        """The form of a requantizer like this one whose tables can be written: shifts in the range that these have, any
        thresholds and multipliers that take no more bits; no multipliers where there are none here."""
        thresholds = threshold_spans(self.numbers, [(c.threshold, c.negative) for c in self.to.channels])
        return Form.of({**thresholds, "multipliers": self.numbers["multipliers"].span.whole,
                        "shift": self.numbers["shift"].span})

    def elaborate(self, platform):
        m = Module()
        numbers = self.numbers
        skid = place(m, platform, "skid", Skid(width=self.to.code.bits))
        moves, pipe = skid.i.ready, Pipeline(m, platform, enable=skid.i.ready, owner=self)
        channel = loops(m, self.i.valid & moves, {"channel": len(self.to.channels)})[0]["channel"]
        m.d.comb += self.i.ready.eq(moves)
        at = pipe.delayed("channel", channel, 3)
        left = pipe.beyond(self.i.payload.as_signed(), numbers, at[0])
        left = pipe.register("left", Mux(left < 0, 0, left)[:len(left) - 1] if self.to.relu else left)
        multiplier = pipe.table("multipliers", numbers["multipliers"], at[1])
        product = self._product(m, platform, pipe, left, multiplier)
        # down to one bit below the result's lowest, which the rounding of halves up needs
        taken = pipe.register("taken", pipe.chosen(
            "shift", numbers["shift"], at[3],
            lambda shift: product >> (shift - 1) if shift > 0 else product << (1 - shift)))
        m.d.comb += [skid.i.payload.eq(self._saturated((taken + 1) >> 1)),
                     skid.i.valid.eq(pipe.flags("valid", self.i.valid, self.latency - 1))]
        connect(m, skid.o, flipped(self.o))
        return m

    def _product(self, m: Module, platform, pipe: Pipeline, number: Value, multiplier: Value) -> Value:
        """Two steps later."""
        if pipe.span("multipliers", self.numbers["multipliers"]) == Span(1, 1):
            return pipe.delayed("product", number, 2)[2]
        signed = number.shape().signed
        products = place(m, platform, "products", BoothProducts(
            a_bits=len(number), b_bits=len(multiplier), a_signed=signed, b_signed=False))
        m.d.comb += [products.a.eq(number), products.b.eq(multiplier)]
        # few rows, added by carry chains: the fewest tables of an FPGA
        width = len(number) + len(multiplier)
        product = added_products(m, platform, products, pipe.register("products", products.bits), width=width,
                                 compression="operator")[:width]
        return pipe.register("product", product.as_signed() if signed else product)

    def _saturated(self, number: Value) -> Value:
        """A number, signed or not, in the code's bits."""
        code = self.to.code
        result = number[:code.bits]
        if not self.to.saturates or len(number) <= code.bits:
            return number if len(number) <= code.bits else result
        if not number.shape().signed:
            return Mux(number[code.magnitude_bits:].any(), code.maximum, result)
        minus, beyond = number[-1], number[code.magnitude_bits:]
        if not code.signed:
            return Mux(minus, 0, Mux(beyond.any(), code.maximum, result))
        fits = beyond == minus.replicate(len(beyond))
        return Mux(fits, result, Mux(minus, code.minimum & ((1 << code.bits) - 1), code.maximum))
