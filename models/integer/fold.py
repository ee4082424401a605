# SPDX-License-Identifier: Apache-2.0
"""Folding a trained network: batch normalisation into thresholds and weights, scales into powers of two.

For gamma g, mean mu, deviation s and beta: ``relu(g * (y - mu) / s + beta) = |g| / s * relu(+-(y - t))`` with
``t = mu - beta * s / g``; the factor |g| / s (the *gain*) multiplies the next layer's weights of that
channel. The remaining scales are powers of two: per channel, of each layer's input (a shift that fills
``bits`` bits) and of each layer's output (so that its largest weight lies in (1/2, 1]).
"""

import dataclasses
import math

import torch
from torch import Tensor, nn

from bmhw.hdl.formats.bm import BmFormat
from bmhw.hdl.formats.choices import ONE_SUM
from bmhw.hdl.formats.mac import MacFormat
from bmhw.models.errors import ModelError
from bmhw.models.networks.architecture import Node
from bmhw.models.networks.network import Network

from .quantise import FoldedLayer, FoldedNetwork, FoldedNorm, Quantisation, out_fraction

__all__ = ["fold"]

# A channel that never exceeds this share of the layer's largest one gets no finer scale than that share.
SMALLEST_RANGE = 2.0**-16
# A scale of 0 makes a channel constant, which a threshold can't; so small a scale is as good in few bits, and
# its threshold stays a number of ordinary width.
SMALLEST_GAMMA = 2.0**-9


# A bias candidate starts this far from 0 at least, so that it can be trained.
SMALLEST_BIAS = 2.0**-12


@torch.no_grad()
def fold(network: Network, images: Tensor, quantisation: Quantisation) -> FoldedNetwork:
    """The folded network of a trained one, in evaluation mode.

    images: training images, pixel / 256, on which the ranges of the activations are measured.
    """
    network.eval()
    architecture, values = network.architecture, network.trace(images)
    exponents: dict[str, Tensor] = {}
    gains: dict[str, Tensor] = {}
    code_gains: dict[str, Tensor] = {}
    steps: dict[str, FoldedLayer | FoldedNorm] = {}
    code_layers = architecture.code_layers(network.layouts) if quantisation.combine == "logarithmic" else ()
    ends = {node.name: node.inputs[0] for node in architecture.nodes if {*node.inputs} & {*code_layers}}
    for node in architecture.nodes:
        if node.operation == "image":
            exponent, gain = torch.full((node.channels,), -8.0), torch.ones(node.channels)
        else:
            exponent = torch.stack([exponents[name] for name in node.inputs]).amin(dim=0)
            gain = gains[node.inputs[0]]
        if node.name in ends:
            gain = code_gains[node.name]
        elif node.operation == "norm":
            steps[node.name], gain = _fold_norm(network.steps[node.name], exponent, gain, quantisation)
        elif node.operation == "add" and any((gains[name] != 1).any() for name in node.inputs):
            raise ModelError(
                f"Node {node.name} adds values behind a batch normalisation, whose scale can't be folded"
            )
        elif node.operation == "pool":
            gain = gain / (node.kernel[0] * node.kernel[1])  # the folded pool is a sum
        elif node.is_layer:
            source = node.inputs[0]
            takes_codes = source in ends
            if takes_codes:
                exponent = torch.full_like(exponent, -float(quantisation.bits))
            layer = _Scaled(network, node, values[source], exponent, gain, quantisation, takes_codes)
            if node.name in code_layers:
                norm = next(name for name, behind in ends.items() if behind == node.name)
                step, code_gains[norm] = layer.with_codes(network.steps[norm], values[norm])
            else:
                step = layer.linear()
            steps[node.name], exponent, gain = step, step.exponent, torch.ones(node.channels)
        exponents[node.name], gains[node.name] = exponent, gain
    return FoldedNetwork(architecture, steps)


def _threshold(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """(t, factor) of ``norm(y) = factor * (y - t)``."""
    deviation = torch.sqrt(norm.running_var + norm.eps)
    gamma = torch.where(norm.weight.abs() < SMALLEST_GAMMA, SMALLEST_GAMMA, norm.weight)
    return norm.running_mean - norm.bias * deviation / gamma, gamma / deviation


def _fold_norm(
    norm: nn.BatchNorm2d, exponent: Tensor, gain: Tensor, quantisation: Quantisation
) -> tuple[FoldedNorm, Tensor]:
    threshold, factor = _threshold(norm)
    # a product of full scales, in the integers that layers give
    unit = 2.0 ** (2 * quantisation.bits - 2)
    return (
        FoldedNorm(threshold / gain * torch.exp2(-exponent) / unit, factor < 0, unit),
        gain * factor.abs(),
    )


def _least_error(values: Tensor, exponent: Tensor, low: int, high: int, axis: int) -> Tensor:
    """The power of two, for each index of an axis, that rounds the values with the least square error.

    ``exponent`` is the smallest that saturates none; finer ones saturate the largest values, which a sum of
    products bears and a maximum doesn't.
    """
    shape = [-1 if i == axis else 1 for i in range(values.ndim)]
    others = [i for i in range(values.ndim) if i != axis]
    errors = []
    for finer in range(3):
        step = torch.exp2(exponent - finer).view(shape)
        rounded = torch.floor(values / step + 0.5).clamp(low, high) * step
        errors.append(((rounded - values) ** 2).sum(dim=others))
    return exponent - torch.stack(errors).argmin(dim=0)


class _Scaled:
    """A layer whose weights have taken up the scales around it, before its end is chosen."""

    def __init__(
        self,
        network: Network,
        node: Node,
        inputs: Tensor,
        exponent: Tensor,
        gain: Tensor,
        quantisation: Quantisation,
        takes_codes: bool,
    ):
        self.node, self.layout, step = node, network.layouts[node.name], network.steps[node.name]
        self.quantisation, self.takes_codes = quantisation, takes_codes
        self.signed = not network.architecture.nonnegative(node.inputs[0])
        self.fan_in = network.architecture.fan_in(node)
        fmt = self.format(gives_codes=False)
        # the smallest shift that saturates nothing on these images
        ranges = inputs.abs().amax(dim=(0, 2, 3)) / gain * torch.exp2(-exponent)
        ranges = ranges.clamp(min=max(float(ranges.max()) * SMALLEST_RANGE, 1e-9))
        self.shift = torch.ceil(torch.log2(ranges / fmt.x.maximum))
        if takes_codes:
            self.shift = torch.zeros_like(self.shift)
        elif self.layout == "mac":
            real = inputs / gain.view(-1, 1, 1) * torch.exp2(-exponent).view(-1, 1, 1)
            self.shift = _least_error(real, self.shift, fmt.x.minimum, fmt.x.maximum, 1)
        weight = step.weight.detach() if self.layout in (*ONE_SUM, "mac") else step.weight.detach().abs()
        weight = weight * (gain * torch.exp2(self.shift + exponent + fmt.x.magnitude_bits)).view(-1, 1, 1)
        outputs_axis = weight.ndim - 4
        other_axes = tuple(axis for axis in range(weight.ndim) if axis != outputs_axis)
        largest = weight.abs().amax(dim=other_axes).clamp(min=1e-12)
        scale = torch.ceil(torch.log2(largest))
        if self.layout == "mac":
            fraction = fmt.w.bits - 1
            scale = _least_error(weight, scale - fraction, -fmt.w.maximum, fmt.w.maximum, 0) + fraction
        self.scale = torch.exp2(scale)
        self.weight = weight / self.scale.view(-1, 1, 1, 1)
        self.bias = torch.zeros(node.channels) if step.bias is None else step.bias.detach()

    def format(self, gives_codes: bool) -> BmFormat | MacFormat:
        return self.quantisation.format(
            self.layout, self.fan_in, self.signed, takes_codes=self.takes_codes, gives_codes=gives_codes
        )

    def _folded(self, fmt: BmFormat | MacFormat, weight: Tensor, biases: tuple[Tensor, ...]) -> FoldedLayer:
        exponent = torch.log2(self.scale) - out_fraction(fmt)
        return FoldedLayer(self.node, self.layout, fmt, weight, biases, self.shift, exponent)

    def linear(self) -> FoldedLayer:
        return self._folded(self.format(gives_codes=False), self.weight, (self.bias / self.scale,))

    def with_codes(self, norm: nn.BatchNorm2d, outputs: Tensor) -> tuple[FoldedLayer, Tensor]:
        """The layer together with the normalisation behind it, giving codes, and the gain of these.

        The threshold becomes a candidate of the maximum on its side: what it stands for where it wins, and
        what training goes on from. Where gamma < 0, the sides are swapped. outputs: of the normalisation on
        the calibration images; the largest fills the code.
        """
        threshold, factor = _threshold(norm)
        threshold = (threshold - self.bias) / self.scale * factor.sign()
        biases = tuple(side.clamp(min=SMALLEST_BIAS, max=1.0) for side in (-threshold, threshold))
        swapped = (factor < 0).view(-1, 1, 1, 1)
        opposite = -self.weight if self.layout in ONE_SUM else self.weight.flip(0)
        weight = torch.where(swapped, opposite, self.weight)
        gain = self.scale * factor.abs()
        largest = float((outputs.amax(dim=(0, 2, 3)) / gain).max().clamp(min=1e-9))
        fmt = self.format(gives_codes=True)
        offset = max(0, math.floor(-math.log2(largest) * (1 << fmt.log_fraction)))
        fmt = dataclasses.replace(fmt, offset=offset)
        return self._folded(fmt, weight, biases), gain * 2.0 ** (-offset / (1 << fmt.log_fraction))
