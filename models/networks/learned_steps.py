# SPDX-License-Identifier: Apache-2.0
"""Classical networks in integers of few bits, with learned step sizes (LSQ: Esser et al., arXiv 1902.08153).

Each layer has a step for its activations and one a channel for its weights; what it computes are sums of products of
integers, in units of the product of both. So the integer network follows without another rounding of weights or
activations: ``MacFormat`` with ``requantize="scale"`` takes the integers (:meth:`SteppedConv2d.codes`), and the scale
of each channel is a ratio of steps (:func:`rescaling`).
"""

import copy
import math
from typing import NamedTuple

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from bmhw.hdl.checks import check_range
from bmhw.hdl.formats.codes import LinearCode

from .layers import padded
from .network import Network

__all__ = ["LayerCodes", "LearnedStep", "SteppedConv2d", "quantised_by_steps", "rescaling", "with_learned_steps"]

SMALLEST_STEP = 2.0**-40
"""A step stays above 0, whatever training does to it."""
CANDIDATES, SATURATED_OCTAVES = 4, 5
"""Steps an octave, and octaves below the step that saturates nothing, from which the first step is chosen."""
MOST_VALUES = 1 << 20
"""By which it is chosen."""


class _Quantised(torch.autograd.Function):
    """Values rounded to multiples of a step, within codes low..high; equation 3 and 5 of the paper."""

    @staticmethod
    def forward(ctx, values, step, low, high):
        scaled = values / step
        codes = torch.floor(scaled + 0.5).clamp(low, high)
        ctx.save_for_backward(scaled, codes, step)
        ctx.range = low, high
        return codes * step

    @staticmethod
    def backward(ctx, gradient):
        scaled, codes, step = ctx.saved_tensors
        low, high = ctx.range
        inside = (scaled >= low) & (scaled <= high)
        slopes = torch.where(inside, codes - scaled, codes) * gradient
        share = 1 / math.sqrt(scaled.numel() / step.numel() * high)
        others = [axis for axis in range(scaled.ndim) if step.ndim == 0 or step.shape[axis] == 1]
        to_step = slopes.sum(dim=others, keepdim=step.ndim > 0).view_as(step) * share
        return torch.where(inside, gradient, 0), to_step, None, None


def quantised_by_steps(values: Tensor, step: Tensor, low: int, high: int) -> Tensor:
    """``step * clamp(round(values / step), low, high)``, halves up, with the gradients of learned step sizes.

    step: a number, or of as many axes as the values, 1 where one step serves all.
    """
    return _Quantised.apply(values, step, low, high)


class LearnedStep(nn.Module):
    """Rounds to the integers of a :class:`LinearCode` times a learned step.

    ``channels``: a step for each index of axis 0, None: one for all. ``symmetric``: without the code's lowest integer,
    whose negative it lacks (for weights).
    """

    def __init__(self, code: LinearCode, *, channels: int | None = None, symmetric: bool = False):
        super().__init__()
        self.code = code
        self.low, self.high = (-code.maximum if symmetric else code.minimum), code.maximum
        self.octaves = nn.Parameter(torch.zeros(()) if channels is None else torch.zeros(channels))

    @property
    def step(self) -> Tensor:
        """2^``octaves``: a step that is learned in octaves stays above 0 and moves by shares of itself."""
        return torch.exp2(self.octaves).clamp(min=SMALLEST_STEP)

    def _like(self, values: Tensor) -> Tensor:
        step = self.step
        return step if step.ndim == 0 else step.view(-1, *[1] * (values.ndim - 1))

    @torch.no_grad()
    def start(self, values: Tensor) -> None:
        """The step to begin with: of those that saturate nothing or more and more, the one of least square error.
        (The paper's, ``2 mean |v| / sqrt(high)``, is far too large for 8 bits.)"""
        rows = values.reshape(1, -1) if self.octaves.ndim == 0 else values.flatten(1)
        rows = rows[:, :: max(1, rows.numel() // MOST_VALUES)]
        largest = torch.log2((rows.abs().amax(dim=1, keepdim=True) / self.high).clamp(min=SMALLEST_STEP))
        candidates = [largest - k / CANDIDATES for k in range(CANDIDATES * SATURATED_OCTAVES + 1)]
        rounded = (quantised_by_steps(rows, torch.exp2(octaves), self.low, self.high) for octaves in candidates)
        best = torch.stack([((found - rows) ** 2).sum(dim=1) for found in rounded]).argmin(dim=0)
        self.octaves.copy_((largest.squeeze(1) - best / CANDIDATES).view(self.octaves.shape))

    def forward(self, values: Tensor) -> Tensor:
        return quantised_by_steps(values, self._like(values), self.low, self.high)

    @torch.no_grad()
    def codes(self, values: Tensor) -> Tensor:
        """The integers, int64."""
        return torch.floor(values / self._like(values) + 0.5).clamp(self.low, self.high).long()


class LayerCodes(NamedTuple):
    """What a layer is in integers: sums of products of inputs (codes of ``input_step``) and ``weight``, and ``bias``,
    count ``unit``, (channels,)."""

    weight: Tensor
    bias: Tensor
    input_step: Tensor
    unit: Tensor

    @torch.no_grad()
    def with_norm(self, norm: nn.BatchNorm2d, step: Tensor) -> tuple["LayerCodes", Tensor]:
        """The layer together with the normalisation and the ReLU behind it, and the ratios, (channels,), that its sums
        are multiplied by to count ``step``, that of the next layer's inputs.

        For a scale below 0 the weights change their signs; one of 0 leaves a constant: a bias, and weights of 0.
        """
        factor = norm.weight.double() / torch.sqrt(norm.running_var.double() + norm.eps)
        constant = norm.bias.double() - factor * norm.running_mean.double()
        unit, flat = self.unit.double(), factor == 0
        ratio = torch.where(flat, step.double(), factor.abs() * unit) / step.double()
        weight = self.weight * torch.where(flat, 0, factor.sign()).long().view(-1, 1, 1, 1)
        bias = factor.sign() * self.bias + torch.floor(constant / (ratio * step.double()) + 0.5)
        return self._replace(weight=weight, bias=bias.long(), unit=ratio * step.double()), ratio


class SteppedConv2d(nn.Module):
    """A classical convolution of integers of few bits; shapes as of ``nn.Conv2d``.

    ``bits`` of the inputs, signed or not, ``weight_bits`` of the weights. It pads with zeros or, where ``classical``
    has one, with its border.
    """

    def __init__(self, classical: nn.Conv2d, bits: int, weight_bits: int, signed_inputs: bool):
        super().__init__()
        check_range("Width in bits", bits, 2, 16)
        check_range("Width of weights in bits", weight_bits, 2, 16)
        self.stride, self.padding = classical.stride[0], classical.padding[0]
        self.weight = nn.Parameter(classical.weight.detach().clone())
        self.bias = None if classical.bias is None else nn.Parameter(classical.bias.detach().clone())
        self.inputs = LearnedStep(LinearCode(bits=bits, signed=signed_inputs))
        weights = LinearCode(bits=weight_bits, signed=True)
        self.weights = LearnedStep(weights, channels=len(self.weight), symmetric=True)
        self.weights.start(self.weight)
        border = getattr(classical, "border", None)
        self.register_buffer("border", border if border is None else border.clone(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        padding = self.padding
        if self.border is not None:
            x, padding = padded(x, padding, self.border), 0
        return functional.conv2d(self.inputs(x), self.weights(self.weight), self.bias, self.stride, padding)

    @torch.no_grad()
    def codes(self) -> LayerCodes:
        """The layer in integers; a bias is rounded to its unit, halves up."""
        unit = self.inputs.step * self.weights.step
        bias = torch.zeros(len(self.weight)) if self.bias is None else self.bias
        return LayerCodes(
            weight=self.weights.codes(self.weight),
            bias=torch.floor(bias.double() / unit.double() + 0.5).long(),
            input_step=self.inputs.step.clone(),
            unit=unit,
        )


def with_learned_steps(
    classical: Network, images: Tensor, bits: int, *, weight_bits: int | None = None, edge_bits: int | None = None
) -> Network:
    """A copy of a classical network whose layers compute with integers of ``bits`` (2..16) and weights of
    ``weight_bits`` (None: as many), in the first and the last layer of ``edge_bits`` (None: as in all).

    images: pixel / 256, on whose activations the steps begin. They and all weights are parameters; the rest of the
    network is as it was.
    """
    network = copy.deepcopy(classical).eval()
    edges = (network.architecture.layers[0].name, network.architecture.layers[-1].name)
    for node in network.architecture.layers:
        edge = edge_bits is not None and node.name in edges
        widths = (edge_bits, edge_bits) if edge else (bits, bits if weight_bits is None else weight_bits)
        signed = not network.architecture.nonnegative(node.inputs[0])
        network.steps[node.name] = SteppedConv2d(network.steps[node.name], *widths, signed)
    with torch.no_grad():
        values = classical.eval().trace(images)
    for node in network.architecture.layers:
        network.steps[node.name].inputs.start(values[node.inputs[0]])
    return network


def rescaling(ratios: Tensor, scale_bits: int) -> tuple[Tensor, int]:
    """Each channel's scale, an integer of ``scale_bits``, and one shift for all: ``ratio ~ scale / 2^shift``.

    ratios: (channels,) > 0, what an integer in front of a requantisation counts in units of the code behind it. The
    largest fills the scale's bits, so that a ratio is off by at most half a unit of the scale; none becomes 0 unless it
    is below that. ValueError if the largest one is too large for the scale without a shift to the left.
    """
    most = (1 << scale_bits) - 1
    largest = float(ratios.max())
    if not 0 < largest <= most:
        raise ValueError(f"The largest ratio of steps must be above 0 and at most {most}, not {largest:g}")
    shift = math.floor(math.log2((most + 0.49) / largest))
    while math.floor(largest * 2.0**shift + 0.5) > most:  # the logarithm may be off by its rounding
        shift -= 1
    return torch.floor(ratios.double() * 2.0**shift + 0.5).long(), shift
