# SPDX-License-Identifier: Apache-2.0
"""Folding a trained network: batch normalisation into thresholds and weights, scales into powers of two.

For gamma g, mean mu, deviation s and beta: ``relu(g * (y - mu) / s + beta) = |g| / s * relu(+-(y - t))`` with
``t = mu - beta * s / g``; the factor |g| / s (the *gain*) multiplies the next layer's weights of that
channel. The remaining scales are powers of two: per channel, of each layer's input (a shift that fills
``bits`` bits) and of each layer's output (so that its largest weight lies in (1/2, 1], where that scale isn't finer
than ``SMALLEST_RANGE`` of what it stands beside: a pruned filter, of zeros, has no scale of its own).
"""

import dataclasses
import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from bmhw.hdl.formats.bm import BmFormat
from bmhw.hdl.formats.choices import ONE_SUM
from bmhw.hdl.formats.mac import MacFormat
from bmhw.models.errors import ModelError, ModelUsageError
from bmhw.models.networks.architecture import Architecture, Node
from bmhw.models.networks.layers import wired_signs, with_signs
from bmhw.models.networks.network import Network

from .limits import EXPONENT, SHIFT, SMALLEST_RANGE
from .quantise import FoldedLayer, FoldedNetwork, FoldedNorm, Quantisation, out_fraction

__all__ = ["check_foldable", "fold"]

# A scale of 0 makes a channel constant, which a threshold can't; so small a scale is as good in few bits, and
# its threshold stays a number of ordinary width.
SMALLEST_GAMMA = 2.0**-9

# Of layout wired: far below every code, but with a sign.
SMALLEST_WEIGHT = 2.0**-100
# A bias candidate starts this far from 0 at least, so that it can be trained.
SMALLEST_BIAS = 2.0**-12


def check_foldable(architecture: Architecture, layouts: Mapping[str, str], quantisation: Quantisation) -> None:
    """Whether :func:`fold` can do every network of this kind: known before one is trained.

    Raises ModelUsageError for a layer that has no such format, ModelError for a sum whose scales can't be folded.
    """
    code_layers, ends = _ends(architecture, layouts, quantisation)
    scaled: set[str] = set()
    for node in architecture.nodes:
        if node.operation == "add" and scaled & {*node.inputs}:
            raise ModelError(
                f"Node {node.name} adds values behind a normalisation or a pool, whose scale can't be folded"
            )
        window = node.operation == "pool" and node.kernel != (1, 1)
        if node.operation == "norm" or window or (node.operation in ("relu", "pool") and scaled & {*node.inputs}):
            scaled.add(node.name)
        if node.is_layer:
            for gives_codes in {False, node.name in code_layers}:
                try:
                    quantisation.format(
                        layouts[node.name],
                        architecture.fan_in(node),
                        not architecture.nonnegative(node.inputs[0]),
                        takes_codes=node.inputs[0] in ends,
                        gives_codes=gives_codes,
                    )
                except ValueError as error:
                    raise ModelUsageError(f"Layer {node.name}: {error}") from None


def _ends(
    architecture: Architecture, layouts: Mapping[str, str], quantisation: Quantisation
) -> tuple[tuple[str, ...], dict[str, str]]:
    """The layers that give codes, and the normalisations that become part of these: name -> layer."""
    code_layers = tuple(architecture.code_layers(layouts)) if quantisation.combine == "logarithmic" else ()
    return code_layers, {n.name: n.inputs[0] for n in architecture.nodes if {*n.inputs} & {*code_layers}}


@torch.no_grad()
def fold(network: Network, images: Tensor, quantisation: Quantisation) -> FoldedNetwork:
    """The folded network of a trained one, in evaluation mode.

    images: training images, pixel / 256, on which the ranges of the activations are measured.
    """
    network.eval()
    check_foldable(network.architecture, network.layouts, quantisation)
    architecture, values = network.architecture, network.trace(images)
    exponents: dict[str, Tensor] = {}
    gains: dict[str, Tensor] = {}
    code_gains: dict[str, Tensor] = {}
    steps: dict[str, FoldedLayer | FoldedNorm] = {}
    code_layers, ends = _ends(architecture, network.layouts, quantisation)
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
        elif node.operation == "pool":
            gain = gain / (node.kernel[0] * node.kernel[1])  # the folded pool is a sum
        elif node.is_layer:
            source = node.inputs[0]
            takes_codes = source in ends
            if takes_codes:
                exponent = torch.full_like(exponent, -float(quantisation.bits))
            beside = _beside(network, node, values)
            layer = _Scaled(network, node, values[source], exponent, gain, beside, quantisation, takes_codes)
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
    # nor may what varies be lost beside the constant
    least = (norm.bias.abs() * SMALLEST_RANGE).clamp(min=SMALLEST_GAMMA)
    gamma = torch.where(norm.weight.abs() < least, torch.where(norm.weight < 0, -least, least), norm.weight)
    return norm.running_mean - norm.bias * deviation / gamma, gamma / deviation


def _channels(values: Tensor) -> Tensor:
    """The largest magnitude of each channel."""
    return values.abs().amax(dim=(0, 2, 3))


def _beside(network: Network, layer: Node, values: Mapping[str, Tensor]) -> Tensor:
    """The largest number of each channel of a layer's result, of its bias, of all sums and pools that it enters before
    the next layer or normalisation, and of the thresholds of these; of all channels where they are the classes'."""
    found, reached = [_channels(values[layer.name])], {layer.name}
    bias = network.steps[layer.name].bias
    if bias is not None:
        found.append(bias.abs())
    for node in network.architecture.nodes:
        if not reached & {*node.inputs} or node.is_layer:
            continue
        if node.operation == "norm":
            found.append(_threshold(network.steps[node.name])[0].abs())
        else:
            reached.add(node.name)
            found.append(_channels(values[node.name]))
    largest = torch.stack(found).amax(dim=0)
    return largest.amax().expand_as(largest) if network.architecture.nodes[-1].name in reached else largest


def _ceil_log2(values: Tensor) -> Tensor:
    """The smallest integer e with values <= 2^e, for values > 0; exact, which a logarithm isn't on every processor."""
    mantissa, exponent = torch.frexp(values)
    return exponent.to(values.dtype) - (mantissa == 0.5).to(values.dtype)


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
        beside: Tensor,
        quantisation: Quantisation,
        takes_codes: bool,
    ):
        """``beside``: (channels,), see :func:`_beside`."""
        self.node, self.layout, step = node, network.layouts[node.name], network.steps[node.name]
        self.quantisation, self.takes_codes = quantisation, takes_codes
        self.signed = not network.architecture.nonnegative(node.inputs[0])
        self.fan_in = network.architecture.fan_in(node)
        fmt = self.format(gives_codes=False)
        # the smallest shift that saturates nothing on these images
        ranges = _channels(inputs) / gain * torch.exp2(-exponent)
        # what comes is integers: a range below 1 is that of nothing
        ranges = ranges.clamp(min=max(float(ranges.max()) * SMALLEST_RANGE, 1.0))
        self.shift = _ceil_log2(ranges / fmt.x.maximum).clamp(*SHIFT)
        if takes_codes:
            self.shift = torch.zeros_like(self.shift)
        elif self.layout == "mac":
            real = inputs / gain.view(-1, 1, 1) * torch.exp2(-exponent).view(-1, 1, 1)
            self.shift = _least_error(real, self.shift, fmt.x.minimum, fmt.x.maximum, 1)
        weight = step.weight.detach() if self.layout in (*ONE_SUM, "mac") else step.weight.detach().abs()
        weight = weight * (gain * torch.exp2(self.shift + exponent + fmt.x.magnitude_bits)).view(-1, 1, 1)
        outputs_axis = weight.ndim - 4
        other_axes = tuple(axis for axis in range(weight.ndim) if axis != outputs_axis)
        largest = weight.abs().amax(dim=other_axes)
        largest = torch.maximum(largest, SMALLEST_RANGE * torch.maximum(largest.max(), beside))
        scale = _ceil_log2(torch.where(largest > 0, largest, 1.0))
        if self.layout == "mac":
            fraction = fmt.w.bits - 1
            scale = _least_error(weight, scale - fraction, -fmt.w.maximum, fmt.w.maximum, 0) + fraction
        self.scale = torch.exp2(scale.clamp(EXPONENT.minimum + out_fraction(fmt), EXPONENT.maximum))
        self.weight = weight / self.scale.view(-1, 1, 1, 1)
        if self.layout == "wired":  # a zero is an input of one of the maxima too
            self.weight = with_signs(self.weight, wired_signs(self.weight), SMALLEST_WEIGHT)
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
        largest = float((_channels(outputs) / gain).max()) or 1.0  # 0: of a layer that is 0 everywhere
        largest = max(largest, SMALLEST_RANGE)
        fmt = self.format(gives_codes=True)
        offset = max(0, math.floor(-math.log2(largest) * (1 << fmt.log_fraction)))
        fmt = dataclasses.replace(fmt, offset=offset)
        return self._folded(fmt, weight, biases), gain * 2.0 ** (-offset / (1 << fmt.log_fraction))
