# SPDX-License-Identifier: Apache-2.0
"""The folded network in PyTorch: the integer network's structure with trainable parameters.

Its quantised forward pass gives the integer network's integers exactly while they stay below 2^24 (8-bit
inputs do; wider ones need float64); gradients pass through
each rounding as if it weren't there (straight-through, Bengio et al., arXiv 1308.3432). Tables come from the
format objects, so that every log2 and exp2 method is trained as the hardware computes it.
"""

import dataclasses
import functools
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from bmhw.hdl.formats.bm import BmFormat
from bmhw.hdl.formats.choices import ONE_SUM
from bmhw.hdl.formats.codes import LinearCode
from bmhw.hdl.formats.mac import MacFormat
from bmhw.models.networks.architecture import Architecture, Node
from bmhw.models.networks.layers import combine_layout, padded
from bmhw.models.operators.max_product import max_product, straight_through
from bmhw.models.operators.smoothed import norm_difference

from .limits import BIAS, EXPONENT, SHIFT, THRESHOLD, Limit
from .network import IntegerLayer, IntegerNetwork, Threshold

__all__ = ["FoldedLayer", "FoldedNetwork", "FoldedNorm", "Quantisation"]

LARGEST_PAIR_TABLE = 1024
"""Sums of which a table holds all pairs: 4 MB."""


@dataclass(frozen=True, kw_only=True)
class Quantisation:
    """The number formats of all layers: widths in bits; None means the format's default (see ``BmFormat``).

    ``bits`` of the linear inputs, ``log_bits`` and ``log_fraction`` of the log codes of activations and
    weights, ``log2`` and ``exp2`` methods, ``sums``: ``full`` or ``clamped``, ``maximum_bits``: high bits of
    the sums that the maxima see, ``linear_maximum_bits``: the same of layers with a linear result (None: as many),
    ``mac_weight_bits``. ``combine``: ``logarithmic`` lets the layers that can (``Architecture.code_layers``) hand on
    log codes.
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

    def format(
        self,
        layout: str,
        fan_in: int,
        signed_inputs: bool,
        *,
        takes_codes: bool = False,
        gives_codes: bool = False,
    ) -> BmFormat | MacFormat:
        """``takes_codes``: inputs are log codes; ``gives_codes``: so are outputs (logarithmic end)."""
        if layout == "mac":
            return MacFormat(
                inputs=fan_in, bits=self.bits, signed_inputs=signed_inputs, weight_bits=self.mac_weight_bits
            )
        return BmFormat(
            inputs=fan_in,
            bits=self.bits,
            layout=layout,
            signed_inputs=signed_inputs,
            log_bits=self.log_bits,
            log_fraction=self.log_fraction,
            log2=self.log2,
            exp2=self.exp2,
            sums=self.sums,
            maximum_bits=self.maximum_bits if gives_codes or self.linear_maximum_bits is None
            else self.linear_maximum_bits,
            boundary="layer" if takes_codes else "neuron",
            combine="logarithmic" if gives_codes else "linear",
            result="code" if gives_codes else "linear",
        )


def _integers(real: Tensor, limit: Limit) -> np.ndarray:
    """Rounded, halves up, int64; the nearest one within the limit."""
    # a float64 above 2^53 need not be the limit itself: the last step is in integers
    rounded = torch.floor(real.detach().double() + 0.5).clamp(float(limit.minimum), float(limit.maximum))
    return np.clip(rounded.long().cpu().numpy(), limit.minimum, limit.maximum)


def round_half_up(real: Tensor) -> Tensor:
    return straight_through(real, torch.floor(real + 0.5))


class FoldedLayer(nn.Module):
    """A layer whose weights hold the scales around it: magnitudes 0..1. With the format's half step the largest weight
    code is a little less than 1: what is above is clamped, which costs less than an octave of range for all others.

    ``weight``: as in :class:`.layers.BmConv2d` (for ``mac``: signed); ``bias``: in units of the output's
    full scale 2^out_fraction; ``shift`` and ``exponent``: see :class:`.integer.IntegerLayer`. A layer that
    gives codes has two biases instead, the candidates of its maxima in the unit of the weights, and its
    outputs are the codes' values, 0..1; a layer that takes codes takes such values. ``gradient_norm``: the p of
    the p-norms whose gradient it trains with; None: that of the maxima.
    """

    def __init__(
        self,
        node: Node,
        layout: str,
        fmt: BmFormat | MacFormat,
        weight: Tensor,
        biases: tuple[Tensor, ...],
        shift: Tensor,
        exponent: Tensor,
    ):
        super().__init__()
        self.node, self.layout, self.format = node, layout, fmt
        self.weight = nn.Parameter(weight)
        self.biases = nn.ParameterList(nn.Parameter(bias) for bias in biases)
        self.takes_codes = isinstance(fmt, BmFormat) and fmt.boundary == "layer"
        self.gives_codes = isinstance(fmt, BmFormat) and fmt.combine == "logarithmic"
        self.gradient_norm: float | None = None
        self.register_buffer("shift", shift.float())
        self.register_buffer("exponent", exponent.float())
        # pixels: as they are, and as the hardware has them
        for name, pixels in (("border", node.border), ("border_codes", node.border_codes)):
            values = torch.tensor(pixels, dtype=torch.float32) if pixels else None
            self.register_buffer(name, values, persistent=False)
        if isinstance(fmt, BmFormat):
            magnitudes = np.arange((1 << fmt.x.magnitude_bits) + 1)
            values = fmt.activation.value(fmt.log2_unit.compute(magnitudes))
            self.register_buffer("log_values", torch.tensor(values, dtype=torch.float32), persistent=False)
            sums = fmt.exp2_unit.compute(np.arange(fmt.full_scale + 1))
            self.register_buffer("exp2_table", torch.tensor(sums, dtype=torch.float32), persistent=False)
            codes = fmt.activation.value(np.arange(fmt.activation.maximum + 1))
            self.register_buffer("code_values", torch.tensor(codes, dtype=torch.float32), persistent=False)
            # of the logarithmic end: the value of each pair of sums' code
            ends, states = None, fmt.full_scale + 1
            if self.gives_codes and states <= LARGEST_PAIR_TABLE:
                every = np.arange(states)
                ends = self.code_values[torch.from_numpy(fmt.log_subtract.compute(every[:, None], every).ravel())]
            self.register_buffer("end_values", ends, persistent=False)

    @property
    def output_bits(self) -> int:
        """log2 of the output integers in 1.0 * 1.0 (full-scale input times largest weight)."""
        return out_fraction(self.format)

    @property
    def _smooth(self) -> bool:
        return self.training and self.gradient_norm is not None

    def forward(self, y: Tensor, quantised: bool = True) -> Tensor:
        """Output integers of input integers (batch, channels, height, width); values 0..1 in the place of
        codes."""
        code, padding = self.format.x, (self.node.padding,) * 4
        full_scale = 2.0**code.magnitude_bits
        if self.takes_codes:
            # a zero is code 0, the smallest value
            x = (
                functional.pad(y, padding, value=float(self.code_values[0]) if quantised else 0.0)
                * full_scale
            )
        else:
            if self.border is not None:
                y = padded(y, self.node.padding, self.border_codes if quantised else self.border)
            x = y * torch.exp2(-self.shift).view(-1, 1, 1)
            if quantised:
                x = round_half_up(x).clamp(code.minimum, code.maximum)
            if self.border is None:
                x = functional.pad(x, padding)  # before the logarithm: a zero is code 0 there as everywhere
        weight = self.quantised_weight() if quantised else self.effective_weight()
        if self.layout == "mac":
            out = functional.conv2d(x / full_scale, weight, stride=self.node.stride) * 2.0**self.output_bits
        elif self.gives_codes:
            end = functools.partial(self._code_end, quantised=quantised)
            x = self._log_value(x) if quantised else x / full_scale
            return combine_layout(self.layout, x, weight, self.node.stride, 0, end)
        elif quantised:
            out = combine_layout(
                self.layout, x, weight, self.node.stride, 0, self._difference, self._log_value
            )
        else:
            out = (
                combine_layout(self.layout, x / full_scale, weight, self.node.stride, 0)
                * 2.0**self.output_bits
            )
        bias = self.biases[0] * 2.0**self.output_bits
        return out + (round_half_up(bias) if quantised else bias).view(-1, 1, 1)

    def _log_value(self, x: Tensor) -> Tensor:
        """The value of the log code of integers x, its sign kept (0 is positive)."""
        if self.takes_codes:
            return x / 2.0**self.format.x.magnitude_bits
        values = self.log_values[x.detach().abs().long()]
        return straight_through(x / 2.0**self.format.x.magnitude_bits, torch.where(x < 0, -values, values))

    def _difference(self, x: Tensor, w: Tensor, stride: int, padding: int) -> Tensor:
        """exp2 of the first maxima minus exp2 of the second ones, in integers.

        The products are powers of two whose exponents are the sums.
        """
        if self._smooth:
            with torch.no_grad():
                sums = self._sums(max_product(x, w.flatten(0, 1), stride, padding))
                first, second = self.exp2_table[sums].chunk(2, dim=1)
            smooth = norm_difference(x, w, stride, padding, p=self.gradient_norm)
            return straight_through(smooth * 2.0**self.output_bits, first - second)
        products = max_product(x, w.flatten(0, 1), stride, padding)
        values = straight_through(products * 2.0**self.output_bits, self.exp2_table[self._sums(products)])
        first, second = values.chunk(2, dim=1)
        return first - second

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
            difference = straight_through(norm_difference(x, w, stride, 0, p=self.gradient_norm), difference)
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
        return self.weight if self.layout in (*ONE_SUM, "mac") else self.weight.abs()

    def codes(self) -> Tensor:
        """The weights' codes, in the shape of ``weight``: log codes, or signed integers for ``mac``."""
        weight = self.weight.detach().double()
        if self.layout == "mac":
            code = self.format.w
            scaled = torch.floor(weight * 2.0 ** (code.bits - 1) + 0.5)
            return scaled.clamp(-code.maximum, code.maximum).long()
        code = self.format.weight
        codes = torch.floor(torch.log2(weight.abs()) * (1 << code.fraction) + 0.5)
        codes += code.maximum + self.format.half_step
        return codes.clamp(0, code.maximum).long()

    def quantised_weight(self) -> Tensor:
        """The values of the codes, with the gradient of the weight."""
        weight, codes = self.effective_weight(), self.codes()
        if self.layout == "mac":
            return straight_through(weight, codes.float() / 2.0 ** (self.format.w.bits - 1))
        code = self.format.weight
        values = torch.exp2((codes - code.maximum - self.format.half_step).float() / (1 << code.fraction))
        return straight_through(weight, torch.where(weight < 0, -values, values))

    def to_integer(self) -> IntegerLayer:
        codes = self.codes().cpu().numpy()
        if self.layout == "mac":
            weights = {"w": codes}
        elif self.layout in ONE_SUM:
            weights = {"k": codes, "sign": (self.weight.detach() < 0).long().cpu().numpy()}
        else:
            weights = {"k1": codes[0], "k2": codes[1]}
        fmt = self.format
        if self.gives_codes:
            sums = [self._sums(bias.detach().abs()).long().cpu().numpy() for bias in self.biases]
            biases = dict(zip(("bias1", "bias2"), sums, strict=True))
        else:
            bias = _integers(self.biases[0] * 2.0**self.output_bits, BIAS)
            needed = LinearCode.covering(min(int(bias.min()), -1), max(int(bias.max()), 0)).bits
            fmt, biases = dataclasses.replace(fmt, bias_bits=max(fmt.bias_bits, needed)), {"bias": bias}
        return IntegerLayer(
            node=self.node,
            format=fmt,
            weights={port: array.reshape(self.node.channels, -1) for port, array in weights.items()},
            biases=biases,
            shift=_integers(self.shift, SHIFT),
            exponent=_integers(self.exponent, EXPONENT),
        )


def out_fraction(fmt: BmFormat | MacFormat) -> int:
    """log2 of the output integer that full-scale input times largest weight gives."""
    return fmt.out_fraction if isinstance(fmt, BmFormat) else fmt.x.magnitude_bits + fmt.w.bits - 1


class FoldedNorm(nn.Module):
    """A threshold and a ReLU; see :class:`.integer.Threshold`.

    threshold: in units of ``unit`` integers, so that this parameter is of the order of 1 as all others are.
    """

    def __init__(self, threshold: Tensor, negative: Tensor, unit: float):
        super().__init__()
        self.unit = unit
        self.threshold = nn.Parameter(threshold)
        self.register_buffer("sign", torch.where(negative, -1.0, 1.0))

    def forward(self, y: Tensor, quantised: bool = True) -> Tensor:
        threshold = self.threshold * self.unit
        threshold = round_half_up(threshold) if quantised else threshold
        return torch.relu((y - threshold.view(-1, 1, 1)) * self.sign.view(-1, 1, 1))

    def to_integer(self) -> Threshold:
        return Threshold(_integers(self.threshold * self.unit, THRESHOLD), (self.sign < 0).cpu().numpy())


class FoldedNetwork(nn.Module):
    """The whole network on integers (held as floats); input: pixels 0..255, output: (batch, classes).

    ``quantised``: whether to round as the hardware does; without, it is the floating-point network again.
    """

    def __init__(self, architecture: Architecture, steps: Mapping[str, FoldedLayer | FoldedNorm]):
        super().__init__()
        self.architecture, self.quantised = architecture, True
        self.steps = nn.ModuleDict(steps)

    def trace(self, images: Tensor) -> dict[str, Tensor]:
        values: dict[str, Tensor] = {}
        exponents: dict[str, Tensor] = {}
        for node in self.architecture.nodes:
            inputs = [values[name] for name in node.inputs]
            if node.operation == "image":
                value, exponent = images, torch.full((node.channels,), -8.0, device=images.device)
            else:
                exponent = torch.stack([exponents[name] for name in node.inputs]).amin(dim=0)
                if node.name in self.steps:
                    step = self.steps[node.name]
                    value = step(*inputs, quantised=self.quantised)
                    exponent = getattr(step, "exponent", exponent)
                elif node.operation == "norm":
                    value = inputs[0]  # part of the codes that its layer gives
                elif node.operation == "relu":
                    value = torch.relu(*inputs)
                elif node.operation == "pool":
                    value = functional.avg_pool2d(inputs[0], node.kernel, divisor_override=1)
                else:
                    value = sum(
                        v * torch.exp2(exponents[name] - exponent).view(-1, 1, 1)
                        for name, v in zip(node.inputs, inputs, strict=True)
                    )
            values[node.name], exponents[node.name] = value, exponent
        last = self.architecture.nodes[-1].name
        # logits as real numbers, so that a loss sees the scale that the network was trained with
        values["logits"] = (values[last] * torch.exp2(exponents[last]).view(-1, 1, 1)).flatten(1)
        return values

    def scores(self, trace: Mapping[str, Tensor]) -> Tensor:
        """(batch, classes), from the values of the nodes."""
        return trace["logits"]

    def forward(self, images: Tensor) -> Tensor:
        return self.scores(self.trace(images))

    def to_integer(self, name: str, samples: np.ndarray) -> IntegerNetwork:
        """The integer network; ``samples``: held-out images, uint8 (count, channels, height, width)."""
        layers = {key: step.to_integer() for key, step in self.steps.items() if isinstance(step, FoldedLayer)}
        thresholds = {
            key: step.to_integer() for key, step in self.steps.items() if isinstance(step, FoldedNorm)
        }
        return IntegerNetwork(
            name=name, architecture=self.architecture, layers=layers, thresholds=thresholds, samples=samples
        )
