# SPDX-License-Identifier: Apache-2.0
"""The layers of the folded network in PyTorch (``folded_network``), and the number formats of all of them.

A quantised forward pass gives the integer network's integers exactly while they stay below 2^24 (8-bit
inputs do; wider ones need float64); gradients pass through each rounding as if
it weren't there (straight-through, Bengio et al., arXiv 1308.3432). Tables come from the
format objects, so that every log2 and exp2 method is trained as the hardware computes it.
"""

import dataclasses
import functools
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from bmhw.hdl.formats.bm import BmFormat
from bmhw.hdl.formats.choices import ONE_SUM
from bmhw.hdl.formats.codes import LinearCode
from bmhw.hdl.formats.mac import MacFormat
from bmhw.models.networks.architecture import Node
from bmhw.models.networks.groups import Groups, groups_of, has_groups
from bmhw.models.networks.layers import combine_layout, padded
from bmhw.models.operators.max_product import max_product, straight_through
from bmhw.models.operators.smoothed import norm_difference
from bmhw.models.operators.tables import LARGEST_FRACTION, product_table, table_differences

from .fixed_point import FixedPoint
from .folded_end import FoldedEnd
from .layer import IntegerLayer
from .limits import BIAS, EXPONENT, FINE, SHIFT
from .rounding import integers, round_half_up

__all__ = ["FoldedLayer", "Quantisation"]

LARGEST_PAIR_TABLE = 1024
"""Sums of which a table holds all pairs: 4 MB."""


@dataclass(frozen=True, kw_only=True)
class Quantisation:
    """The number formats of all layers: widths in bits; None means the format's default (see ``BmFormat``).

    ``bits`` of the linear inputs, ``log_bits`` and ``log_fraction`` of the log codes of activations and
    weights, ``log2`` and ``exp2`` methods, ``sums``: ``full`` or ``clamped``, ``maximum_bits``: high bits of
    the sums that the maxima see, ``linear_maximum_bits``: the same of layers with a linear result (None: as many),
    ``mac_weight_bits``. ``combine``: ``logarithmic`` lets the layers that can (``Architecture.code_layers``) hand on
    log codes. ``groups`` of input channels as asked for (``groups_of``: what a layer has); in a network that
    ``has_groups`` layers hand on codes through linear ends (see ``CodePlan``). ``zero``: what code 0 stands for (None:
    ``exact`` in such a network, else its step). ``edge_bits``: width of the first and the last layer's inputs and codes
    (None: as all), ``out_fraction``: bits behind the point of all BM layers' linear numbers: a sum has as many as the
    finest of what it adds. ``layer_bits``: (name, width) of multiply-accumulate layers with a width of their own, of
    inputs and weights.
    """

    bits: int = 8
    log_bits: int | None = None
    log_fraction: int | None = None
    log2: str | None = None
    exp2: str | None = None
    sums: str = "full"
    maximum_bits: int | None = None
    linear_maximum_bits: int | None = None
    mac_weight_bits: int | None = None
    combine: str = "linear"
    groups: Groups = 1
    zero: str | None = None
    edge_bits: int | None = None
    out_fraction: int | None = None
    layer_bits: tuple[tuple[str, int], ...] = ()

    @property
    def has_groups(self) -> bool:
        return has_groups(self.groups)

    def format(
        self,
        layout: str,
        fan_in: int,
        signed_inputs: bool,
        *,
        channels: int = 1,
        edge: bool = False,
        takes_codes: bool = False,
        gives_codes: bool = False,
        layer: str | None = None,
    ) -> BmFormat | MacFormat:
        """``channels``: of the input, which groups are made of; ``edge``: whether it is the first or the last layer;
        ``takes_codes``: inputs are log codes; ``gives_codes``: so are outputs; ``layer``: its name, if it is one of
        ``layer_bits``."""
        edge = edge and self.edge_bits is not None
        bits = self.bits
        if edge:
            bits = self.edge_bits if layout == "mac" else max(self.bits, self.edge_bits)
        if layout == "mac":
            weight_bits = self.edge_bits if edge else self.mac_weight_bits
            own = dict(self.layer_bits).get(layer)
            bits, weight_bits = (bits, weight_bits) if own is None else (own, own)
            return MacFormat(inputs=fan_in, bits=bits, signed_inputs=signed_inputs, weight_bits=weight_bits)
        maximum_bits = self.maximum_bits
        if not gives_codes and self.linear_maximum_bits is not None:
            maximum_bits = self.linear_maximum_bits
        return BmFormat(
            inputs=fan_in,
            bits=bits,
            layout=layout,
            signed_inputs=signed_inputs,
            log_bits=self.edge_bits if edge else self.log_bits,
            log_fraction=None if edge else self.log_fraction,
            out_fraction=self.out_fraction,
            log2=self.log2,
            exp2=self.exp2,
            sums=self.sums,
            maximum_bits=None if edge else maximum_bits,
            boundary="layer" if takes_codes else "neuron",
            combine=self.combine if gives_codes else "linear",
            result="code" if gives_codes else "linear",
            groups=groups_of(channels, self.groups, fan_in // channels),
            zero="exact" if self.zero is None and self.has_groups else self.zero,
        )


class FoldedLayer(nn.Module):
    """A BM layer whose weights hold the scales around it: magnitudes 0..1. With the format's half step the largest
    weight code is a little less than 1: what is above is clamped, which costs less than an octave of range for all
    others.

    ``weight``: as in :class:`.layers.BmConv2d`; ``bias``: in units of the output's full scale 2^out_fraction;
    ``shift``, ``exponent`` and ``fine``: see :class:`.layer.IntegerLayer`. A layer that gives codes has outputs that
    are the codes' values, 0..1, and a layer that takes codes takes such values (with the sign of signed inputs); with a
    logarithmic end it has two biases instead, the candidates of its maxima in the unit of the weights. ``gain``:
    (channels,), what its linear integers count times 2^exponent. ``gradient_norm``: the p of the p-norms whose gradient
    it trains with; None: that of the maxima.
    """

    def __init__(
        self,
        node: Node,
        layout: str,
        fmt: BmFormat,
        weight: Tensor,
        biases: tuple[Tensor, ...],
        shift: Tensor,
        exponent: Tensor,
        fine: Tensor | None = None,
        gain: Tensor | None = None,
    ):
        super().__init__()
        self.node, self.layout, self.format = node, layout, fmt
        self.weight = nn.Parameter(weight)
        self.biases = nn.ParameterList(nn.Parameter(bias) for bias in biases)
        self.takes_codes = fmt.boundary == "layer"
        self.gives_codes = fmt.result == "code"
        self.logarithmic = fmt.combine == "logarithmic"
        self.gradient_norm: float | None = None
        self.register_buffer("shift", shift.float())
        self.register_buffer("exponent", exponent.float())
        self.register_buffer("gain", torch.ones_like(self.exponent) if gain is None else gain, persistent=False)
        # pixels: as they are, and as the hardware has them
        for name, pixels in (("border", node.border), ("border_codes", node.border_codes)):
            values = torch.tensor(pixels, dtype=torch.float32) if pixels else None
            self.register_buffer(name, values, persistent=False)
        magnitudes = np.arange((1 << fmt.x.magnitude_bits) + 1)
        values = fmt.value(fmt.activation, fmt.log2_unit.compute(magnitudes))
        self.register_buffer("log_values", torch.tensor(values, dtype=torch.float32), persistent=False)
        sums = fmt.exp2_unit.compute(np.arange(fmt.full_scale + 1))
        self.register_buffer("exp2_table", torch.tensor(sums, dtype=torch.float32), persistent=False)
        codes = fmt.value(fmt.activation, np.arange(fmt.activation.maximum + 1))
        self.register_buffer("code_values", torch.tensor(codes, dtype=torch.float32), persistent=False)
        self.smallest = float(codes[0])
        # of the logarithmic end: the value of each pair of sums' code
        ends, states = None, fmt.full_scale + 1
        if self.logarithmic and states <= LARGEST_PAIR_TABLE:
            every = np.arange(states)
            ends = self.code_values[torch.from_numpy(fmt.log_subtract.compute(every[:, None], every).ravel())]
        self.register_buffer("end_values", ends, persistent=False)
        # the linear result of each product
        known = fmt.log_fraction <= LARGEST_FRACTION and not self.logarithmic
        products = product_table(lambda products: self.exp2_table[self._sums(products)]) if known else None
        self.register_buffer("product_values", products, persistent=False)
        self.end = None if fine is None else FoldedEnd(fmt.end, self.code_values, node, fine)

    @property
    def output_bits(self) -> int:
        """log2 of the output integers in 1.0 * 1.0 (full-scale input times largest weight)."""
        return self.format.out_fraction

    @property
    def _smooth(self) -> bool:
        return self.training and self.gradient_norm is not None

    @property
    def groups(self) -> int:
        return self.format.groups

    @property
    def unit(self) -> Tensor:
        """What a linear integer of each channel stands for, (channels,)."""
        return torch.exp2(self.exponent) * self.gain

    def forward(self, y: Tensor, quantised: bool = True, moved: Tensor | None = None) -> Tensor:
        """Output integers of input integers (batch, channels, height, width); values 0..1 in the place of
        codes. ``moved``: by how many steps the codes that it takes stand for less than when it was folded (see
        :class:`FoldedEnd`)."""
        x = self._inputs(y, quantised)
        weight = self.quantised_weight(moved) if quantised else self.effective_weight()
        full_scale, stride = 2.0**self.format.x.magnitude_bits, self.node.stride
        if self.logarithmic:
            end = functools.partial(self._code_end, quantised=quantised)
            x = self._log_value(x) if quantised else x / full_scale
            return combine_layout(self.layout, x, weight, stride, 0, end)
        elif quantised:
            out = combine_layout(
                self.layout, x, weight, stride, 0, self._difference, self._log_value, groups=self.groups
            )
        else:
            out = combine_layout(self.layout, x / full_scale, weight, stride, 0, groups=self.groups)
            out = out * 2.0**self.output_bits
        bias = self._bias(moved) if quantised else self.biases[0] * 2.0**self.output_bits
        out = out + (self._rounded_bias(bias) if quantised else bias).view(-1, 1, 1)
        return out if self.end is None else self.end(out, quantised, moved)

    def _inputs(self, y: Tensor, quantised: bool) -> Tensor:
        """What enters the neurons, padded, with full scale 2^bits."""
        code, padding = self.format.x, (self.node.padding,) * 4
        if self.takes_codes:
            # a zero is code 0, the smallest value
            zero = self.smallest if quantised else 0.0
            return functional.pad(y, padding, value=zero) * 2.0**code.magnitude_bits
        if self.border is not None:
            y = padded(y, self.node.padding, self.border_codes if quantised else self.border)
        x = y * torch.exp2(-self.shift).view(-1, 1, 1)
        if quantised:
            x = round_half_up(x).clamp(code.minimum, code.maximum)
        # before the logarithm: a zero is code 0 there as everywhere
        return functional.pad(x, padding) if self.border is None else x

    def _bias(self, moved: Tensor | None) -> Tensor:
        """In the output's integers: those are larger where the codes that come in stand for less."""
        bias = self.biases[0] * 2.0**self.output_bits
        return bias if moved is None or self.end is None else bias * torch.exp2(moved / (1 << self.format.log_fraction))

    def _rounded_bias(self, bias: Tensor) -> Tensor:
        if self.end is None:
            return round_half_up(bias)  # the port becomes as wide as it needs to be
        return round_half_up(bias).clamp(self.format.bias.minimum, self.format.bias.maximum)

    def _log_value(self, x: Tensor) -> Tensor:
        """The value of the log code of integers x, its sign kept (0 is positive)."""
        if self.takes_codes:
            x = x / 2.0**self.format.x.magnitude_bits
            # of the two halves of an input one is empty: code 0
            return x.clamp(min=self.smallest) if self.layout == "bipolar" else x
        values = self.log_values[x.detach().abs().long()]
        return straight_through(x / 2.0**self.format.x.magnitude_bits, torch.where(x < 0, -values, values))

    def _difference(self, x: Tensor, w: Tensor, stride: int, padding: int, groups: int = 1) -> Tensor:
        """exp2 of the first maxima minus exp2 of the second ones, in integers, and the sum over the groups.

        The products are powers of two whose exponents are the sums.
        """
        if self._smooth:
            with torch.no_grad():
                exact = self._exact(max_product(x, w.flatten(0, 1), stride, padding, groups), groups)
            smooth = self._norm_difference(x, w, stride, padding, groups)
            return straight_through(smooth * 2.0**self.output_bits, exact)
        products = max_product(x, w.flatten(0, 1), stride, padding, groups)
        values = straight_through(products * 2.0**self.output_bits, self.exp2_table[self._sums(products)])
        return self._total(values, groups)

    def _norm_difference(self, x: Tensor, w: Tensor, stride: int, padding: int, groups: int = 1) -> Tensor:
        # the halves of bipolar inputs, and what a ReLU gives, have nothing below 0
        nonnegative = self.layout == "bipolar" or not self.format.signed_inputs
        return norm_difference(x, w, stride, padding, groups, p=self.gradient_norm, nonnegative=nonnegative)

    def _exact(self, products: Tensor, groups: int) -> Tensor:
        """What the hardware makes of the maxima, without a gradient."""
        if self.product_values is None:
            return self._total(self.exp2_table[self._sums(products)], groups)
        return table_differences(products, self.product_values, groups)

    @staticmethod
    def _total(values: Tensor, groups: int) -> Tensor:
        """The first half of the maxima's numbers less the second, (batch, 2 * outputs * groups, ...), over the
        groups."""
        first, second = values.chunk(2, dim=1)
        difference = first - second
        return difference if groups == 1 else difference.unflatten(1, (-1, groups)).sum(dim=2)

    def _sums(self, products: Tensor) -> Tensor:
        """The sums of codes that products of the codes' values stand for, as the maxima see them: int32.

        The half step is a part of one of the codes there; here the values are those without it, so that products,
        candidates and gradients are in one unit.
        """
        fmt = self.format
        # in place, and in one addition: these maps are large, and a logarithm here is an integer up to its own rounding
        sums = torch.log2(products.detach()).mul_(1 << fmt.log_fraction)
        sums = sums.add_(fmt.full_scale + fmt.half_step + 0.5).clamp_(0, fmt.full_scale).int()
        return sums.bitwise_and_(-1 << fmt.dropped_bits) if fmt.dropped_bits else sums

    def _code_end(self, x: Tensor, w: Tensor, stride: int, padding: int, quantised: bool) -> Tensor:
        """The logarithmic end of the maxima and their bias candidates: values of codes."""
        fmt, biases = self.format, [bias.abs().view(-1, 1, 1) for bias in self.biases]
        smooth = quantised and self._smooth
        with torch.set_grad_enabled(torch.is_grad_enabled() and not smooth):
            products = max_product(x, w.flatten(0, 1), stride, padding).chunk(2, dim=1)
            first, second = (torch.maximum(p, bias) for p, bias in zip(products, biases, strict=True))
            difference = first - second
        if smooth:
            # the bias candidates are the weights of one more input, which is 1: they enter the norms as the maxima
            taps = torch.stack(biases)[:, :, None]
            taps = functional.pad(taps, (0, w.shape[-1] - 1, 0, w.shape[-2] - 1))
            x, w = torch.cat([x, torch.ones_like(x[:, :1])], dim=1), torch.cat([w, taps], dim=2)
            difference = straight_through(self._norm_difference(x, w, stride, 0), difference)
        real = torch.relu(difference) * 2.0 ** (fmt.offset / (1 << fmt.log_fraction))
        if not quantised:
            return real
        a, b = self._sums(first), self._sums(second)
        if self.end_values is not None:
            values = self.end_values[a * (fmt.full_scale + 1) + b]
        else:
            codes = fmt.log_subtract.compute(a.cpu().numpy(), b.cpu().numpy())
            values = self.code_values[torch.from_numpy(codes).to(a.device)]
        return straight_through(real.clamp(max=1), values)

    def effective_weight(self) -> Tensor:
        return self.weight if self.layout in ONE_SUM else self.weight.abs()

    def codes(self, moved: Tensor | None = None) -> Tensor:
        """The weights' codes, in the shape of ``weight``; ``moved``: see :meth:`forward`."""
        weight = self.weight.detach().double()
        code = self.format.weight
        codes = torch.floor(torch.log2(weight.abs()) * (1 << code.fraction) + 0.5)
        codes += code.maximum + self.format.half_step
        if moved is not None and self.end is None:
            codes -= moved.detach()
        return codes.clamp(0, code.maximum).long()

    def quantised_weight(self, moved: Tensor | None = None) -> Tensor:
        """The values of the codes, with the gradient of the weight. What codes stand for less, the end of a layer that
        gives codes makes good, else its weights."""
        weight, codes = self.effective_weight(), self.codes(moved)
        code = self.format.weight
        if moved is not None and self.end is None:
            weight = weight * torch.exp2(-moved / (1 << code.fraction))
        values = torch.exp2((codes - code.maximum - self.format.half_step).float() / (1 << code.fraction))
        if self.format.zero == "exact":
            values = torch.where(codes > 0, values, 0)
        return straight_through(weight, torch.where(weight < 0, -values, values))

    @torch.no_grad()
    def to_integer(self, moved: Tensor | None = None) -> IntegerLayer:
        """``moved``: see :meth:`forward`."""
        codes = self.codes(moved).cpu().numpy()
        if self.layout in ONE_SUM:
            weights = {"k": codes, "sign": (self.weight.detach() < 0).long().cpu().numpy()}
        else:
            weights = {"k1": codes[0], "k2": codes[1]}
        fmt = self.format
        if self.logarithmic:
            sums = [self._sums(bias.detach().abs()).long().cpu().numpy() for bias in self.biases]
            biases = dict(zip(("bias1", "bias2"), sums, strict=True))
        else:
            bias = integers(self._rounded_bias(self._bias(moved)), BIAS)
            if self.end is not None:
                fmt = dataclasses.replace(fmt, offset=self.end.to_integer(moved).offset)
            needed = LinearCode.covering(min(int(bias.min()), -1), max(int(bias.max()), 0)).bits
            fmt, biases = dataclasses.replace(fmt, bias_bits=max(fmt.bias_bits, needed)), {"bias": bias}
        return IntegerLayer(
            node=self.node,
            format=fmt,
            weights={port: array.reshape(self.node.channels, -1) for port, array in weights.items()},
            biases=biases,
            scale=FixedPoint.of_shift(integers(self.shift, SHIFT)),
            exponent=integers(self.exponent, EXPONENT),
            fine=None if self.end is None else integers(self.end.fine, FINE),
        )
