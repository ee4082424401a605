# SPDX-License-Identifier: Apache-2.0
"""Folding a trained network: batch normalisation into thresholds and weights, scales into powers of two.

For gamma g, mean mu, deviation s and beta: ``relu(g * (y - mu) / s + beta) = |g| / s * relu(+-(y - t))`` with
``t = mu - beta * s / g``; the factor |g| / s (the *gain*) multiplies the next layer's weights of that
channel. The remaining scales are powers of two: per channel, of each layer's input (a shift that fills
``bits`` bits) and of each layer's output (so that its largest weight lies in (1/2, 1]).
"""

import torch
from torch import Tensor, nn

from .architecture import Node
from .errors import ModelError
from .network import Network
from .quantise import NORM_UNIT, FoldedLayer, FoldedNetwork, FoldedNorm, Quantisation, out_fraction

__all__ = ["fold"]

# A channel that never exceeds this share of the layer's largest one gets no finer scale than that share.
SMALLEST_RANGE = 2.0**-16
# A scale of 0 makes a channel constant, which a threshold can't; so small a scale is as good in few bits, and
# its threshold stays a number of ordinary width.
SMALLEST_GAMMA = 2.0**-9


@torch.no_grad()
def fold(network: Network, images: Tensor, quantisation: Quantisation) -> FoldedNetwork:
    """The folded network of a trained one, in evaluation mode.

    images: training images, pixel / 256, on which the ranges of the activations are measured.
    """
    network.eval()
    architecture, values = network.architecture, network.trace(images)
    exponents: dict[str, Tensor] = {}
    gains: dict[str, Tensor] = {}
    steps: dict[str, FoldedLayer | FoldedNorm] = {}
    for node in architecture.nodes:
        if node.operation == "image":
            exponent, gain = torch.full((node.channels,), -8.0), torch.ones(node.channels)
        else:
            exponent = torch.stack([exponents[name] for name in node.inputs]).amin(dim=0)
            gain = gains[node.inputs[0]]
        if node.operation == "norm":
            steps[node.name], gain = _fold_norm(network.steps[node.name], exponent, gain)
        elif node.operation == "add" and any((gains[name] != 1).any() for name in node.inputs):
            raise ModelError(
                f"Node {node.name} adds values behind a batch normalisation, whose scale can't be folded"
            )
        elif node.operation == "pool":
            gain = gain / (node.kernel[0] * node.kernel[1])  # the folded pool is a sum
        elif node.is_layer:
            source = node.inputs[0]
            step = _fold_layer(network, node, values[source], exponents[source], gain, quantisation)
            steps[node.name], exponent, gain = step, step.exponent, torch.ones(node.channels)
        exponents[node.name], gains[node.name] = exponent, gain
    return FoldedNetwork(architecture, steps)


def _fold_norm(norm: nn.BatchNorm2d, exponent: Tensor, gain: Tensor) -> tuple[FoldedNorm, Tensor]:
    deviation = torch.sqrt(norm.running_var + norm.eps)
    gamma = torch.where(norm.weight.abs() < SMALLEST_GAMMA, SMALLEST_GAMMA, norm.weight)
    threshold = (norm.running_mean - norm.bias * deviation / gamma) / gain
    return FoldedNorm(
        threshold * torch.exp2(-exponent) / NORM_UNIT, gamma < 0
    ), gain * gamma.abs() / deviation


def _fold_layer(
    network: Network, node: Node, inputs: Tensor, exponent: Tensor, gain: Tensor, quantisation: Quantisation
) -> FoldedLayer:
    layout, step = network.layouts[node.name], network.steps[node.name]
    signed = not network.architecture.nonnegative(node.inputs[0])
    fmt = quantisation.format(layout, network.architecture.fan_in(node), signed)
    # the smallest shift that saturates nothing on these images
    ranges = inputs.abs().amax(dim=(0, 2, 3)) / gain * torch.exp2(-exponent)
    ranges = ranges.clamp(min=max(float(ranges.max()) * SMALLEST_RANGE, 1e-9))
    shift = torch.ceil(torch.log2(ranges / fmt.x.maximum))
    weight = step.weight.detach() if layout in ("signed", "mac") else step.weight.detach().abs()
    weight = weight * (gain * torch.exp2(shift + exponent + fmt.x.magnitude_bits)).view(-1, 1, 1)
    outputs_axis = weight.ndim - 4
    other_axes = tuple(axis for axis in range(weight.ndim) if axis != outputs_axis)
    largest = weight.abs().amax(dim=other_axes).clamp(min=1e-12)
    scale = torch.exp2(torch.ceil(torch.log2(largest)))
    bias = torch.zeros(node.channels) if step.bias is None else step.bias.detach() / scale
    return FoldedLayer(
        node,
        layout,
        fmt,
        weight / scale.view(-1, 1, 1, 1),
        bias,
        shift,
        torch.log2(scale) - out_fraction(fmt),
    )
