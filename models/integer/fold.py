# SPDX-License-Identifier: Apache-2.0
"""Folding a trained network: batch normalisation into thresholds and weights, scales into powers of two.

For gamma g, mean mu, deviation s and beta: ``relu(g * (y - mu) / s + beta) = |g| / s * relu(+-(y - t))`` with
``t = mu - beta * s / g``; the factor |g| / s (the *gain*) multiplies the next layer's weights of that
channel. The remaining scales are powers of two: per channel, of each layer's input (a shift that fills
``bits`` bits) and of each layer's output (so that its largest weight lies in (1/2, 1], where that scale isn't finer
than ``SMALLEST_RANGE`` of what it stands beside: a pruned filter, of zeros, has no scale of its own).

In a network with groups (see ``code_plan``) activations are codes whose scale, one a layer, lies in the offsets of
log2; thresholds in front of codes become biases, the sign of gamma goes into the weights.
"""

import dataclasses
import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from bmhw.hdl.formats.bm import BmFormat
from bmhw.hdl.formats.choices import LARGEST_BIAS_BITS, ONE_SUM
from bmhw.hdl.formats.codes import EXACT_LIMIT, LinearCode
from bmhw.hdl.formats.conversions import LinearEnd
from bmhw.models.errors import ModelError, ModelUsageError
from bmhw.models.networks.architecture import Architecture, Node
from bmhw.models.networks.layers import wired_signs, with_signs
from bmhw.models.networks.learned_steps import LearnedStep
from bmhw.models.networks.network import Network

from .code_plan import CodePlan
from .folded_end import FoldedEncoder
from .folded_mac import FoldedMac
from .folded_network import FoldedNetwork
from .folded_norm import FoldedBatchNorm, FoldedNorm, threshold_and_factor
from .limits import EXPONENT, SHIFT, SMALLEST_RANGE
from .quantise import FoldedLayer, Quantisation
from .scales import (
    SMALLEST_WEIGHT,
    ceil_log2,
    code_offsets,
    full_scale_of,
    largest_weights,
    stream_units,
)

__all__ = ["check_foldable", "fold"]

# A bias candidate starts this far from 0 at least, so that it can be trained.
SMALLEST_BIAS = 2.0**-12

# Octaves by which training can enlarge the range of an encoder.
ENCODER_REACH = 2


def check_foldable(architecture: Architecture, layouts: Mapping[str, str], quantisation: Quantisation) -> None:
    """Whether :func:`fold` can do every network of this kind: known before one is trained.

    Raises ModelUsageError for a layer that has no such format, ModelError for a sum whose scales can't be folded.
    """
    plan = CodePlan(architecture, layouts, quantisation)
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
            for gives_codes in {False, node.name in plan.layers}:
                try:
                    plan.format(node, gives_codes)
                except ValueError as error:
                    raise ModelUsageError(f"Layer {node.name}: {error}") from None


@torch.no_grad()
def fold(network: Network, images: Tensor, quantisation: Quantisation) -> FoldedNetwork:
    """The folded network of a trained one, in evaluation mode.

    images: training images, pixel / 256, on which the ranges of the activations are measured.
    """
    if network.groups != quantisation.groups:
        raise ModelUsageError(f"Groups of the quantisation must be the network's {network.groups}, "
                              f"not {quantisation.groups}")
    network.eval()
    check_foldable(network.architecture, network.layouts, quantisation)
    architecture, values = network.architecture, network.trace(images)
    plan = CodePlan(architecture, network.layouts, quantisation)
    exponents: dict[str, Tensor] = {}
    gains: dict[str, Tensor] = {}
    code_gains: dict[str, Tensor] = {}
    steps: dict[str, FoldedLayer | FoldedNorm] = {}
    encoders: dict[str, FoldedEncoder] = {}
    learned: dict[tuple[str, LinearCode], LearnedStep] = {}
    full_scales = {name: full_scale_of(values[name], plan.reader(name)) for name in plan.codes}
    units = stream_units(network, plan, full_scales)
    for node in architecture.nodes:
        if node.operation == "image":
            exponent, gain = torch.full((node.channels,), -8.0), torch.ones(node.channels)
        else:
            exponent = torch.stack([exponents[name] for name in node.inputs]).amin(dim=0)
            gain = gains[node.inputs[0]]
        if node.name in plan.ends:
            gain = code_gains[node.name]
        elif node.name in plan.live_norms:
            steps[node.name] = FoldedBatchNorm(network.steps[node.name])
        elif node.operation == "norm":
            steps[node.name], gain = _fold_norm(network.steps[node.name], exponent, gain, quantisation)
        elif node.operation == "pool":
            gain = gain / (node.kernel[0] * node.kernel[1])  # the folded pool is a sum
        elif node.is_layer and network.layouts[node.name] == "mac":
            source, fmt = node.inputs[0], plan.format(node)
            if (source, fmt.x) not in learned:
                learned[source, fmt.x] = LearnedStep(fmt.x)
                learned[source, fmt.x].start(values[source])
            inputs, gain = learned[source, fmt.x], units.get(node.name, torch.ones(node.channels))
            steps[node.name] = step = FoldedMac(
                node, fmt, network.steps[node.name], inputs, _beside(network, node, values),
                None if node.name in plan.mac_codes else gain,
            )
            exponent = torch.zeros(node.channels) if step.gives_sums else step.exponent
        elif node.is_layer:
            source = node.inputs[0]
            beside = _beside(network, node, values)
            fmt = plan.format(node)
            unit = units.get(node.name)
            layer = _Scaled(network, node, values[source], exponent, code_gains.get(source, gain), beside, fmt, unit)
            if node.name in plan.layers:
                norm = next(name for name, behind in plan.ends.items() if behind == node.name)
                step, code_gains[norm] = layer.with_codes(network.steps[norm], values[norm], full_scales.get(norm))
            else:
                step = layer.linear()
            steps[node.name], exponent = step, step.exponent
            gain = torch.ones(node.channels) if unit is None else unit
        if node.name in plan.encoded:
            encoders[node.name], code_gains[node.name] = _fold_encoder(
                node, full_scales[node.name], gain * torch.exp2(exponent), plan.reader(node.name)
            )
        exponents[node.name], gains[node.name] = exponent, gain
    return FoldedNetwork(architecture, steps, encoders).eval()


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
            found.append(threshold_and_factor(network.steps[node.name])[0].abs())
        else:
            reached.add(node.name)
            found.append(_channels(values[node.name]))
    largest = torch.stack(found).amax(dim=0)
    return largest.amax().expand_as(largest) if network.architecture.nodes[-1].name in reached else largest


def _fold_norm(
    norm: nn.BatchNorm2d, exponent: Tensor, gain: Tensor, quantisation: Quantisation
) -> tuple[FoldedNorm, Tensor]:
    threshold, factor = threshold_and_factor(norm)
    # a product of full scales, in the integers that layers give
    unit = 2.0 ** (2 * quantisation.bits - 2)
    return (
        FoldedNorm(threshold / gain * torch.exp2(-exponent) / unit, factor, unit),
        gain * factor.abs(),
    )


def _fold_encoder(node: Node, full_scale: float, unit: Tensor, fmt: BmFormat) -> tuple[FoldedEncoder, Tensor]:
    """What encodes a node's integers, each of which stands for ``unit`` (channels,), for a layer of format ``fmt``; and
    the real numbers that its largest codes stand for, (channels,)."""
    out_fraction, steps = EXACT_LIMIT, 1 << fmt.log_fraction
    offsets = code_offsets(unit, full_scale, fmt)
    # whole octaves are shifts, up to where the code's full scale has the bits of the end
    shift = torch.floor(0.5 - offsets / steps - out_fraction).clamp(*SHIFT)
    fine = offsets + (shift + out_fraction) * steps
    end = LinearEnd(out_fraction=out_fraction, log=fmt.activation, reach=ENCODER_REACH, method=fmt.log2)
    code_values = torch.tensor(fmt.value(fmt.activation, range(fmt.activation.maximum + 1)), dtype=torch.float32)
    return FoldedEncoder(end, code_values, node, shift, fine), unit * torch.exp2(-offsets / steps)


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
        fmt: BmFormat,
        unit: Tensor | None,
    ):
        """``gain``: (input channels,), what its inputs, times 2^exponent, stand for; of codes, what the largest does.
        ``beside``: (channels,), see :func:`_beside`; ``unit``: (channels,), what an output's integers stand for a power
        of two of, as :func:`stream_units` chose it; None: 1."""
        self.node, self.layout, self.format = node, network.layouts[node.name], fmt
        step = network.steps[node.name]
        takes_codes = fmt.boundary == "layer"
        if takes_codes:
            exponent = torch.full_like(exponent, -float(fmt.x.magnitude_bits))
        # the smallest shift that saturates nothing on these images
        ranges = _channels(inputs) / gain * torch.exp2(-exponent)
        # what comes is integers: a range below 1 is that of nothing
        ranges = ranges.clamp(min=max(float(ranges.max()) * SMALLEST_RANGE, 1.0))
        self.shift = ceil_log2(ranges / fmt.x.maximum).clamp(*SHIFT)
        if takes_codes:
            self.shift = torch.zeros_like(self.shift)
        weight = step.weight.detach() if self.layout in ONE_SUM else step.weight.detach().abs()
        weight = weight * (gain * torch.exp2(self.shift + exponent + fmt.x.magnitude_bits)).view(-1, 1, 1)
        largest = largest_weights(weight)
        largest = torch.maximum(largest, SMALLEST_RANGE * torch.maximum(largest.max(), beside))
        largest = torch.where(largest > 0, largest, 1.0)
        if unit is None:
            unit, scale = torch.ones_like(largest), ceil_log2(largest)
        else:  # which knew the inputs' scales but for half a step: what is above the largest code becomes that code
            scale = ceil_log2(largest / unit * 2.0 ** (-1 / (1 << fmt.log_fraction)))
        self.exponent = scale.clamp(EXPONENT.minimum + fmt.out_fraction, EXPONENT.maximum)
        self.scale, self.gain = torch.exp2(self.exponent) * unit, unit
        if self.has_linear_codes and fmt.half_step == 0:
            self.scale = torch.minimum(self.scale, largest)
        self.weight = weight / self.scale.view(-1, 1, 1, 1)
        if self.layout == "wired":  # a zero is an input of one of the maxima too
            self.weight = self._wired(self.weight)
        self.bias = torch.zeros(node.channels) if step.bias is None else step.bias.detach()

    def _wired(self, weight: Tensor) -> Tensor:
        return with_signs(weight, wired_signs(weight, self.format.groups), SMALLEST_WEIGHT)

    @property
    def has_linear_codes(self) -> bool:
        """Whether ReLU and log2 follow its linear end: then a scale is no matter of a power of two."""
        return self.format.result == "code" and self.format.combine == "linear"

    def _folded(
        self,
        fmt: BmFormat,
        weight: Tensor,
        biases: tuple[Tensor, ...],
        fine: Tensor | None = None,
    ) -> FoldedLayer:
        exponent = self.exponent - fmt.out_fraction
        return FoldedLayer(self.node, self.layout, fmt, weight, biases, self.shift, exponent, fine, self.gain)

    def linear(self) -> FoldedLayer:
        return self._folded(self.format, self.weight, (self.bias / self.scale,))

    def with_codes(
        self, norm: nn.BatchNorm2d, outputs: Tensor, full_scale: float | None
    ) -> tuple[FoldedLayer, Tensor]:
        """The layer together with the normalisation behind it, giving codes, and the gain of these.

        The threshold becomes the bias; with a logarithmic end a candidate of the maximum on its side: what it stands
        for where it wins, and what training goes on from. Where gamma < 0, the sides are swapped. outputs: of the
        normalisation on the calibration images; with a logarithmic end the largest fills the code, else ``full_scale``
        does.
        """
        threshold, factor = threshold_and_factor(norm)
        threshold = (threshold - self.bias) / self.scale * factor.sign()
        swapped = (factor < 0).view(-1, 1, 1, 1)
        opposite = -self.weight if self.layout in ONE_SUM else self.weight.flip(0)
        weight = torch.where(swapped, opposite, self.weight)
        if self.layout == "wired":  # of an odd number of inputs one more has a positive weight
            weight = self._wired(weight)
        gain, steps = self.scale * factor.abs(), 1 << self.format.log_fraction
        if self.has_linear_codes:
            offsets = code_offsets(gain, full_scale, self.format)
            offset = int(offsets.median())
            # a bit more, for what training makes of it
            largest = int(threshold.abs().max() * (2 << self.format.out_fraction)) + 1
            bits = max(self.format.bias_bits, min(LARGEST_BIAS_BITS, LinearCode.covering(-largest, largest).bits))
            fmt = dataclasses.replace(self.format, offset=offset, bias_bits=bits)
            return self._folded(fmt, weight, (-threshold,), offsets - offset), gain * torch.exp2(-offsets / steps)
        biases = tuple(side.clamp(min=SMALLEST_BIAS, max=1.0) for side in (-threshold, threshold))
        largest = float((_channels(outputs) / gain).max()) or 1.0  # 0: of a layer that is 0 everywhere
        largest = max(largest, SMALLEST_RANGE)
        offset = max(0, math.floor(-math.log2(largest) * steps))
        fmt = dataclasses.replace(self.format, offset=offset)
        return self._folded(fmt, weight, biases), gain * 2.0 ** (-offset / steps)
