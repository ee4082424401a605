# SPDX-License-Identifier: Apache-2.0
"""Scales of folded networks: what the largest code or integer stands for, of least error on calibration images."""

from collections.abc import Mapping

import torch
from torch import Tensor

from bmhw.hdl.formats.bm import BmFormat
from bmhw.models.networks.architecture import Node
from bmhw.models.networks.network import Network

from .code_plan import CodePlan
from .limits import FINE, SMALLEST_RANGE

__all__ = [
    "SMALLEST_WEIGHT", "ceil_log2", "code_offsets", "full_scale_of", "largest_weights", "stream_units",
]  # fmt: skip

# Activations that a scale is chosen by.
MOST_VALUES = 1 << 20
# It is looked for from where nothing saturates down so many octaves, in steps of a part of an octave.
SATURATED_OCTAVES = 4
FINEST = 8
# Of layout wired: far below every code, but with a sign.
SMALLEST_WEIGHT = 2.0**-100


def ceil_log2(values: Tensor) -> Tensor:
    """The smallest integer e with values <= 2^e, for values > 0; exact, which a logarithm isn't on every processor."""
    mantissa, exponent = torch.frexp(values)
    return exponent.to(values.dtype) - (mantissa == 0.5).to(values.dtype)


def _square_error(values: Tensor, full_scale: float, fmt: BmFormat) -> float:
    """Of values >= 0 in codes of this full scale."""
    code = fmt.activation
    codes = torch.floor(torch.log2(values / full_scale) * (1 << code.fraction) + 0.5) + code.maximum
    table = torch.tensor(fmt.value(code, range(code.maximum + 1)) * full_scale, dtype=values.dtype)
    return float(((table[codes.clamp(0, code.maximum).int()] - values) ** 2).sum())


def _sampled(values: Tensor) -> Tensor:
    """Magnitudes of enough of the values to choose a scale by."""
    return values.detach().flatten()[:: max(1, values.numel() // MOST_VALUES)].abs()


def full_scale_of(values: Tensor, fmt: BmFormat) -> float:
    """What the largest code of activations stands for: the scale with the least square error. values: (batch, channels,
    height, width).

    A maximum bears it when what is largest and rare saturates; when nothing does, a code of few bits has none left for
    what is usual.
    """
    values = _sampled(values)
    largest = max(float(values.max()), SMALLEST_RANGE)
    scales = [largest * 2.0 ** (-step / FINEST) for step in range(SATURATED_OCTAVES * FINEST + 1)]
    errors = [_square_error(values, scale, fmt) for scale in scales]
    return scales[errors.index(min(errors))]


def code_offsets(unit: Tensor, full_scale: float, fmt: BmFormat) -> Tensor:
    """The offsets (channels,), whole steps, with which the codes of numbers in units of ``unit`` (channels,) stand for
    one scale, or nearly."""
    steps = 1 << fmt.log_fraction
    return torch.floor(torch.log2(unit / full_scale) * steps + 0.5).clamp(FINE.minimum, fmt.activation.maximum)


def stream_units(network: Network, plan: CodePlan, full_scales: Mapping[str, float]) -> dict[str, Tensor]:
    """The unit (channels,), in [1, 2), of each layer with a linear result that takes codes or reads the image, and of
    multiply-accumulate layers whose results are added to such: what an integer stands for is a power of two of it, so
    that the largest weight can be the largest code.

    Layers whose results are added have one unit in each channel: the one that is best for all of them. What the classes
    are made of has none, since it is compared as it is.
    """
    streams: dict[str, list[Node]] = {}
    for node in plan.architecture.nodes:
        sources = [streams[name] for name in node.inputs if name in streams]
        if node.is_layer:
            streams[node.name] = [node]
        elif node.operation in ("add", "relu", "pool") and sources:
            merged = [layer for stream in sources for layer in stream]
            for name in [name for name, stream in streams.items() if any(layer in merged for layer in stream)]:
                streams[name] = merged
            streams[node.name] = merged
    last = streams.get(plan.architecture.nodes[-1].name, [])
    units = {}
    for layer in plan.architecture.layers:
        # the sums of a multiply-accumulate layer can have any unit
        stream = [name for name in dict.fromkeys(node.name for node in streams[layer.name])
                  if plan.layouts[name] != "mac"]
        scales = [_input_scale(plan, plan.architecture[name], full_scales) for name in stream]
        if not stream or None in scales or layer in last or layer.name in (*plan.layers, *plan.mac_codes):
            continue
        weights = [network.steps[name].weight for name in stream]
        largest = [largest_weights(weight) * scale for weight, scale in zip(weights, scales, strict=True)]
        octaves = torch.log2(torch.stack(largest).clamp(min=SMALLEST_WEIGHT))
        starts = octaves - torch.floor(octaves)
        # how far below the largest code each layer's largest weight is, for each start: (starts, layers, channels)
        below = (starts[:, None] - octaves[None]) % 1
        best = below.sum(dim=1).argmin(dim=0)
        units[layer.name] = torch.exp2(starts.gather(0, best[None])[0])
    return units


def _input_scale(plan: CodePlan, layer: Node, full_scales: Mapping[str, float]) -> float | None:
    """What the largest input of a layer stands for, or a power of two of it; None if that isn't the same one in every
    channel."""
    source = layer.inputs[0]
    if not plan.quantisation.has_groups:
        return None
    return 1.0 if plan.architecture[source].operation == "image" else full_scales.get(source)


def largest_weights(weight: Tensor) -> Tensor:
    """The largest magnitude of each output's weights, (outputs,)."""
    return weight.detach().abs().amax(dim=tuple(axis for axis in range(weight.ndim) if axis != weight.ndim - 4))
