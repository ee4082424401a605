# SPDX-License-Identifier: Apache-2.0
"""A layer of the integer network as a folded one: its shape, its words of weights, its numbers' widths; and what makes
its input codes."""

import dataclasses
import math
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bmhw.errors import UsageError
from bmhw.hdl.block import Block
from bmhw.hdl.formats.bm import BmFormat
from bmhw.hdl.formats.choices import ONE_SUM
from bmhw.hdl.formats.codes import EXACT_LIMIT, LinearCode
from bmhw.hdl.formats.conversions import LinearEnd
from bmhw.hdl.formats.mac import FittedMacFormat, MacFormat
from bmhw.hdl.network.encoder import ChannelCode, Encoder
from bmhw.hdl.network.layer import Folded
from bmhw.hdl.network.requantizer import ChannelScale, Requantization, Requantizer
from bmhw.hdl.network.shape import LayerShape
from bmhw.models.integer.fixed_point import FixedPoint, per_channel
from bmhw.models.integer.layer import IntegerLayer
from bmhw.models.integer.network import IntegerNetwork, Threshold

__all__ = ["Range", "folded_layer", "input_codes", "input_converter", "shape_of", "takes"]

Integers = NDArray[np.int64]
Range = tuple[Integers, Integers]
"""Between which numbers each channel's lie, both included, whatever comes in."""


def shape_of(network: IntegerNetwork, name: str, parallel: int) -> LayerShape:
    """The shape of a layer that computes so many outputs at a time; of one with kernels of 1 x 1, of the pixels on the
    grid of its stride, which are all that come to it."""
    layer = network.layers[name]
    node, source = layer.node, network.architecture[layer.node.inputs[0]]
    height, width, stride = source.height, source.width, node.stride
    if node.kernel == (1, 1) and node.padding == 0:
        height, width, stride = node.height, node.width, 1
    mac = isinstance(layer.format, MacFormat)
    groups, shown = (_flushes(layer, parallel), 1) if mac else (layer.format.groups, len(layer.format.branches))
    return LayerShape(height=height, width=width, channels=source.channels, kernel=node.kernel, stride=stride,
                      padding=node.padding, outputs=node.channels, groups=groups, parallel=parallel, shown=shown)


def folded_layer(layer: IntegerLayer, shape: LayerShape) -> tuple[Folded, Range | None]:
    """What a layer is on a chip, and where its results lie; None where these are codes. UsageError for what no block
    computes."""
    mac = isinstance(layer.format, MacFormat)
    if not mac and layer.format.combine != "linear":
        raise UsageError(f"Layer {layer.name} must have a linear end to be on a chip, not a {layer.format.combine} one")
    border: tuple[int, ...] = ()
    if layer.node.border:
        pixels = per_channel(np.array(layer.node.border_codes, dtype=np.int64))
        border = tuple(input_codes(layer, pixels).ravel().tolist())
    fields, results = (_mac if mac else _bm)(layer, shape)
    codes, bits = Folded.packed(fields["format"], layer.weights)
    folded = Folded(shape=shape, weights=shape.words(codes, bits), border=border, rows=shape.overlapping_rows,
                    results=shape.parallel, **fields)
    return dataclasses.replace(folded, results=folded.ample_results), results


# -- BM


def _bm(layer: IntegerLayer, shape: LayerShape) -> tuple[dict[str, Any], Range | None]:
    fmt = layer.format
    codes: tuple[ChannelCode, ...] = ()
    if layer.gives_codes:
        fine = np.zeros(layer.channels, dtype=np.int64) if layer.fine is None else layer.fine
        codes = tuple(ChannelCode(end=dataclasses.replace(fmt.end, offset=fmt.end.offset + int(f))) for f in fine)
    # neurons that are wired have each another order of their inputs: stored signs stand for it
    linear = dataclasses.replace(fmt, boundary="layer", result="linear", offset=0,
                                 layout="signed" if fmt.layout == "wired" else fmt.layout)
    fields = {"format": linear, "biases": tuple(map(int, layer.biases["bias"])), "codes": codes}
    return fields, None if codes else _bm_sums(layer)


def _bm_sums(layer: IntegerLayer) -> Range:
    fmt = layer.format
    largest = fmt.activation.maximum

    def part(port: str, chosen: Integers | bool = True) -> Integers:
        """Of the exponentials of a maximum, their largest sum; an empty one is exp2(0), which may be above 0."""
        k = layer.weights[port]
        enters = chosen & ((k > 0) | (fmt.zero == "step"))
        sums = np.where(enters, np.maximum(k + largest - fmt.sum_origin, 0), 0)
        return fmt.exp2_unit.compute(sums.reshape(layer.channels, fmt.groups, -1).max(axis=2)).sum(axis=1)

    if fmt.layout in ONE_SUM:
        minus_sign = layer.weights["sign"] == 1
        plus, minus = part("k", ~minus_sign), part("k", minus_sign)
        if fmt.signed_inputs:
            plus = minus = part("k")
    else:
        plus, minus = part("k1"), part("k2")
        if fmt.layout == "bipolar":
            plus = minus = plus + minus
    bias = layer.biases["bias"]
    return bias - minus, bias + plus


# -- MAC


def _mac(layer: IntegerLayer, shape: LayerShape) -> tuple[dict[str, Any], Range | None]:
    fmt, bias = layer.format, layer.biases["bias"]
    low, high = _accumulated(layer, 1)
    low, high = low[:, 0], high[:, 0]
    requantized = None
    if layer.gives_codes:
        scales = layer.rescale
        if not fmt.has_scale:
            scales = FixedPoint.of_shift(scales.shift)
        # a bias is a threshold below 0, and needn't be further away than where nothing or all saturates
        bias = -_within(-bias, np.zeros(len(bias), dtype=bool), scales, fmt.z, (low, high))
        requantized = _requantization(scales, fmt.z, relu=True)
    sums = low + bias, high + bias
    results: Range | None = sums
    if layer.gives_codes:
        results = None
    elif layer.rescale is not None:
        results = _scaled(layer.rescale, sums[0]), _scaled(layer.rescale, sums[1])
        code = LinearCode.covering(min(int(results[0].min()), -1), int(results[1].max()))
        requantized = _requantization(layer.rescale, code, relu=False, saturates=False)
    parts = _accumulated(layer, shape.groups)
    fitted = FittedMacFormat.of(
        dataclasses.replace(fmt, bias_bits=LinearCode.covering(min(int(bias.min()), -1), int(bias.max())).bits),
        sums=(int(sums[0].min()), int(sums[1].max())), accumulated=(int(parts[0].min()), int(parts[1].max())))
    return {"format": fitted, "biases": tuple(map(int, bias)), "requantized": requantized}, results


def _accumulated(layer: IntegerLayer, flushes: int) -> Range:
    """Between which numbers the products of each flush add up, (channels, flushes)."""
    x, w = layer.format.x, layer.weights["w"].reshape(layer.channels, flushes, -1)
    products = np.minimum(w * x.minimum, w * x.maximum), np.maximum(w * x.minimum, w * x.maximum)
    return products[0].sum(axis=2), products[1].sum(axis=2)


@lru_cache(maxsize=1024)
def _accumulator_bits(layer: IntegerLayer) -> dict[int, int]:
    """Number of flushes -> bits of an accumulator, for all numbers that divide the channels."""
    channels = layer.format.inputs // (layer.node.kernel[0] * layer.node.kernel[1])
    bits = {}
    for flushes in (n for n in range(1, channels + 1) if channels % n == 0):
        low, high = _accumulated(layer, flushes)
        bits[flushes] = LinearCode.covering(min(int(low.min()), -1), int(high.max())).bits
    return bits


ACCUMULATOR_TABLES, SUM_TABLES, MEMORY_TABLES, MEMORY_WORDS = 3, 4, 2, 16
"""Lookup tables of a bit: of an accumulator and its copy, an element; of what adds accumulators to sums that wait, once
a layer; of the memory of these, each 16 elements."""


def _flushes(layer: IntegerLayer, parallel: int) -> int:
    """How often the accumulators of so many elements are added to sums that wait, for the fewest tables: 1 where they
    hold whole sums. A flush is no shorter than they take to leave, so that it costs no cycle."""
    bits, fan_in = _accumulator_bits(layer), layer.format.inputs

    def tables(flushes: int) -> int:
        end = SUM_TABLES + MEMORY_TABLES * math.ceil(parallel / MEMORY_WORDS) if flushes > 1 else 0
        return ACCUMULATOR_TABLES * parallel * bits[flushes] + end * bits[1]

    able = [n for n in bits if n == 1 or fan_in // n >= max(parallel, LayerShape.UNLOADING)]
    return min(able, key=lambda n: (tables(n), n))


# -- scales


def _scaled(scale: FixedPoint, values: Integers) -> Integers:
    """Of one number a channel."""
    return scale.compute(per_channel(values)).ravel()


def _requantization(scale: FixedPoint, code: LinearCode, *, relu: bool, saturates: bool = True,
                    threshold: Integers | None = None, negative: Integers | None = None) -> Requantization:
    zeros = np.zeros(len(scale.shift), dtype=np.int64)
    threshold, negative = (zeros if values is None else values for values in (threshold, negative))
    return Requantization(code=code, relu=relu, saturates=saturates, channels=tuple(
        ChannelScale(multiplier=int(m), shift=int(s), threshold=int(t), negative=bool(n))
        for m, s, t, n in zip(scale.multiplier, scale.shift, threshold, negative, strict=True)))


def _within(threshold: Integers, negative: Integers, scale: FixedPoint, code: LinearCode, numbers: Range) -> Integers:
    """Thresholds in front of a ReLU and a scale, moved to where they make no difference yet: no further beyond the
    numbers than where all of these become 0 or the largest code. So numbers behind them are no wider than needed."""
    result = []
    for t, n, m, s, low, high in zip(*(values.tolist() for values in (
            threshold, negative, scale.multiplier, scale.shift, *numbers)), strict=True):
        # the least number that becomes the largest code
        needed = (code.maximum << s) - (1 << s >> 1) if s > 0 else code.maximum
        saturates = -(-needed // (m << max(-s, 0))) if m else 0
        least, most = (low, high + saturates) if n else (low - saturates, high)
        result.append(min(max(t, least), most))
    return np.array(result, dtype=np.int64)


# -- inputs


def input_codes(layer: IntegerLayer, values: Integers) -> Integers:
    """The codes that a layer makes itself of linear numbers, (images, channels, height, width), as they are on a chip:
    log codes with their sign as the highest bit, linear ones as numbers."""
    fmt, x = layer.format, layer.inputs(values)
    if isinstance(fmt, MacFormat):
        return x
    codes, negative = fmt.log_codes(x)
    return codes | (negative & (_zeros_signed(fmt) | (codes > 0))) << fmt.log_bits


def _zeros_signed(fmt: BmFormat) -> bool:
    """Whether code 0 has a sign, which names the maximum that its smallest step enters."""
    return bool(fmt.signed_inputs) and fmt.layout == "signed" and fmt.zero == "step"


def takes(layer: IntegerLayer, bits: int) -> bool:
    """Whether a layer takes the linear codes of another one, of so many bits, as they are."""
    fmt = layer.format
    as_they_are = layer.scale.is_shift and not layer.scale.shift.any()
    return isinstance(fmt, MacFormat) and fmt.x == LinearCode(bits=bits) and as_they_are


def input_converter(layer: IntegerLayer, width: int, numbers: Range,
                    norm: Threshold | None) -> tuple[type[Block], dict[str, Any]]:
    """What makes a layer's input codes of linear numbers of so many bits, or of what a normalisation leaves of them:
    the kind of a block and its parameters. UsageError for what none makes."""
    fmt, scale = layer.format, layer.scale
    zeros = np.zeros(len(scale.shift), dtype=np.int64)
    threshold, negative = (zeros, zeros != 0) if norm is None else (norm.threshold, norm.negative)
    if isinstance(fmt, MacFormat):
        if norm is not None:
            threshold = _within(threshold, negative, scale, fmt.x, numbers)
        return Requantizer, {"width": width, "to": _requantization(
            scale, fmt.x, relu=not fmt.signed_inputs, threshold=threshold, negative=negative)}
    bits = fmt.x.magnitude_bits
    if not scale.is_shift or bits > EXACT_LIMIT:
        raise UsageError(f"Layer {layer.name} must make log codes of numbers of 2 to {EXACT_LIMIT} bits by shifts to "
                         f"be on a chip, not of {bits} bits")
    end = LinearEnd(out_fraction=bits, log=fmt.activation, method=fmt.log2)
    channels = tuple(ChannelCode(end=end, shift=int(s), threshold=int(t), negative=bool(n))
                     for s, t, n in zip(scale.shift, threshold, negative, strict=True))
    # what is larger than the largest linear code has its log code, or nearly always that of full scale
    differs = int(end.compute(fmt.x.maximum)) != fmt.activation.maximum
    return Encoder, {"width": width, "channels": channels, "relu": not fmt.signed_inputs,
                     "saturation": fmt.x if differs else None,
                     "zeros_signed": _zeros_signed(fmt)}
