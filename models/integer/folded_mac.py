# SPDX-License-Identifier: Apache-2.0
"""Multiply-accumulate layers of folded networks: integers of few bits with learned steps (LSQ: Esser et al.,
arXiv 1902.08153).

Each layer has a step for its inputs and one a channel for its weights; its sums count the product of both. What comes
in becomes codes, and what goes out becomes linear numbers that others are added to, or the next layer's codes, by one
scale a channel (``FixedPoint``), a ratio of what two integers stand for.
"""

import dataclasses

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from bmhw.hdl.formats.codes import LinearCode
from bmhw.hdl.formats.mac import MacFormat
from bmhw.models.networks.architecture import Node
from bmhw.models.networks.layers import padded
from bmhw.models.networks.learned_steps import LearnedStep

from .fixed_point import MULTIPLIER, FixedPoint
from .layer import IntegerLayer
from .limits import BIAS, EXPONENT, SHIFT, SMALLEST_RANGE
from .network import Threshold
from .rounding import integers

__all__ = ["FoldedMac", "fixed_point", "scaled", "to_fixed_point"]

SUM_FRACTION = 2
"""Octaves by which the unit of linear numbers is below that of the sums, at least: then the rounding of numbers that
are added is little beside that of the products' factors."""
LINEAR_BITS = 16
"""But what is added needs no finer unit than 2^-16 of the largest number: no code has more bits, and single precision
holds sums of 256 such numbers exactly (a pool's)."""

MOST_BIAS = 1 << 50
"""In front of a ReLU and a requantisation: nobody sees by how much more a sum is below 0 or beyond the largest code,
and the product with a multiplier is an int64."""


def fixed_point(ratio: Tensor) -> tuple[Tensor, Tensor]:
    """The nearest multiplier / 2^shift of ratios >= 0, as :data:`.fixed_point.MULTIPLIER` says: both float64, whole
    numbers. The shift is at least 1, which a requantisation rounds by."""
    ratio = ratio.double()
    _mantissa, exponent = torch.frexp(ratio)
    shift = (MULTIPLIER.bits - exponent).clamp(1, SHIFT.maximum).double()

    def multiplier() -> Tensor:
        return torch.floor(ratio * torch.exp2(shift) + 0.5)

    shift = torch.where(multiplier() > MULTIPLIER.maximum, (shift - 1).clamp(min=1), shift)  # it rounds to 2^bits
    return multiplier().clamp(max=MULTIPLIER.maximum), shift


def scaled(values: Tensor, ratio: Tensor) -> Tensor:
    """Integers (batch, channels, height, width) times a ratio (channels,), as ``FixedPoint.compute``; exact while a
    product stays below 2^53."""
    multiplier, shift = fixed_point(ratio)
    factor = multiplier * torch.exp2(-shift)
    return (values.double() * factor.view(-1, 1, 1)).add_(0.5).floor_()


def to_fixed_point(ratio: Tensor) -> FixedPoint:
    return FixedPoint(*(part.long().cpu().numpy() for part in fixed_point(ratio.detach())))


class FoldedMac(nn.Module):
    """A multiply-accumulate layer whose results are integers in the unit :attr:`unit`.

    ``classical``: whose weight and bias it begins with. ``inputs``: the step of what it reads, one for all layers that
    read it. ``gain``: (channels,), what its linear numbers count times a power of two; None where only a normalisation
    and layers with one step follow: its results are the sums then, and the layer of the integer network gives codes.
    ``beside``: (channels,), the largest numbers that linear ones are added to.

    While training it computes on real numbers rounded to their steps, with the gradients of these; evaluated, the
    integers of the integer network, exactly while its linear numbers stay below 2^24.
    """

    takes_codes = gives_codes = False  # not log codes

    def __init__(
        self, node: Node, fmt: MacFormat, classical: nn.Conv2d, inputs: LearnedStep, beside: Tensor, gain: Tensor | None
    ):
        super().__init__()
        self.node, self.format, self.inputs = node, fmt, inputs
        weight = classical.weight.detach()
        # what a step of training moves a weight by is a share of the layer's largest, as in BM layers
        self.register_buffer("largest", weight.abs().max().clamp(min=SMALLEST_RANGE), persistent=False)
        self.weight = nn.Parameter(weight / self.largest)
        self.bias = None if classical.bias is None else nn.Parameter(classical.bias.detach().clone())
        self.weights = LearnedStep(fmt.w, channels=node.channels, symmetric=True)
        self.weights.start(weight)
        # pixels: as they are, and as the hardware has them
        for name, pixels in (("border", node.border), ("border_codes", node.border_codes)):
            values = torch.tensor(pixels, dtype=torch.float32) if pixels else None
            self.register_buffer(name, values, persistent=False)
        exponent = None
        if gain is not None:
            finest = torch.log2(beside.clamp(min=torch.finfo(beside.dtype).tiny) / gain) - LINEAR_BITS
            exponent = torch.log2(self._sum_unit / gain) - SUM_FRACTION
            exponent = torch.floor(torch.maximum(exponent, finest)).detach().clamp(*EXPONENT)
        self.register_buffer("gain", gain)
        self.register_buffer("exponent", exponent)

    @property
    def real_weight(self) -> Tensor:
        """Before it is rounded; the parameter is this in units of the classical layer's largest weight."""
        return self.weight * self.largest

    @property
    def _sum_unit(self) -> Tensor:
        return self.inputs.step * self.weights.step

    @property
    def gives_sums(self) -> bool:
        return self.exponent is None

    @property
    def unit(self) -> Tensor:
        """What a result stands for, (channels,)."""
        if self.exponent is not None:
            return torch.exp2(self.exponent) * self.gain
        return torch.ones_like(self.weights.octaves) if self.training else self._sum_unit

    def forward(self, y: Tensor, unit: Tensor, quantised: bool = True) -> Tensor:
        """Results of integers y (batch, channels, height, width) that count ``unit``, (input channels,)."""
        padding = self.node.padding
        if self.border is not None:
            y, padding = padded(y, padding, self.border_codes if quantised else self.border), 0
        if self.training or not quantised:
            x, weight = y * unit.view(-1, 1, 1), self.real_weight
            if quantised:
                x, weight = self.inputs(x), self.weights(weight)
            out = functional.conv2d(x, weight, self.bias, self.node.stride, padding)
            return out if self.training and self.gives_sums else out / self.unit.view(-1, 1, 1)
        x = self.input_codes(y, unit)
        weight = self.weights.codes(self.real_weight)
        largest = int(weight.abs().flatten(1).sum(dim=1).max()) * max(-self.inputs.low, self.inputs.high)
        exact = torch.float32 if largest < 1 << 24 else torch.float64
        sums = functional.conv2d(x.to(exact), weight.to(exact), None, self.node.stride, padding)
        sums = sums.double().add_(self._bias().view(-1, 1, 1))
        return (sums if self.gives_sums else scaled(sums, self._output_ratio())).to(y.dtype)

    def input_codes(self, y: Tensor, unit: Tensor) -> Tensor:
        """What enters the neurons, float64, whole numbers; see :meth:`forward`."""
        return scaled(y, self.input_ratio(unit)).clamp_(self.inputs.low, self.inputs.high)

    def input_ratio(self, unit: Tensor) -> Tensor:
        """Codes that one of the integers, which count ``unit`` (input channels,), is; float64."""
        return unit.double() / self.inputs.step.double()

    def _output_ratio(self) -> Tensor:
        return self._sum_unit.double() / self.unit.double()

    def _bias(self) -> Tensor:
        """In units of the sums, float64, whole numbers."""
        if self.bias is None:
            return torch.zeros_like(self.weights.octaves, dtype=torch.float64)
        return torch.floor(self.bias.double() / self._sum_unit.double() + 0.5).clamp(*map(float, BIAS))

    @torch.no_grad()
    def to_integer(self, unit: Tensor | None, norm: Threshold | None = None, behind: Tensor | None = None,
                   code: LinearCode | None = None) -> IntegerLayer:
        """``unit``: of what it reads, (channels,); None where these are its codes already. Of a layer that gives codes
        ``norm`` and what follows: numbers ``behind`` it count so much, (channels,), in units of the next ``code``.
        """
        weight, bias = self.weights.codes(self.real_weight).flatten(1).cpu().numpy(), integers(self._bias(), BIAS)
        ratio = self._output_ratio() if norm is None else behind
        rescale = to_fixed_point(ratio)
        if norm is not None:
            sign = 1 - 2 * norm.negative.astype(weight.dtype)
            weight, bias = weight * sign[:, None], ((bias - norm.threshold) * sign).clip(-MOST_BIAS, MOST_BIAS)
        fmt = self._integer_format(bias, code)
        if norm is not None:
            # what is shifted by more than its bits is 0
            most = fmt.y.bits + fmt.scale_bits
            multiplier = rescale.multiplier * (rescale.shift <= most)
            rescale = FixedPoint(multiplier, rescale.shift.clip(max=most))
        inputs = self.weight.shape[1]
        exponent = torch.zeros(self.node.channels) if self.gives_sums else self.exponent
        return IntegerLayer(
            node=self.node, format=fmt, weights={"w": weight}, biases={"bias": bias},
            scale=FixedPoint.identity(inputs) if unit is None else to_fixed_point(self.input_ratio(unit)),
            exponent=integers(exponent, EXPONENT), rescale=rescale,
        )  # fmt: skip

    def _integer_format(self, bias, code: LinearCode | None) -> MacFormat:
        """With a bias as wide as it has to be, and with the end for codes."""
        needed = LinearCode.covering(min(int(bias.min()), -1), max(int(bias.max()), 0)).bits
        end = {} if code is None else {"boundary": "layer", "result": "code", "code_bits": code.bits}
        bias_bits = max(self.format.bias_bits, needed)
        return dataclasses.replace(self.format, bias_bits=bias_bits, requantize_shift=None, **end)
