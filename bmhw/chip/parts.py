# SPDX-License-Identifier: Apache-2.0
"""The parts of a network on a chip, from its integers: what stands where, how wide it is, what waits for what."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from bmhw.errors import UsageError
from bmhw.hdl.formats.codes import LinearCode
from bmhw.hdl.network.encoder import ChannelCode, Encoder
from bmhw.hdl.network.folded import FoldedLayer
from bmhw.hdl.network.pixels import Grid, LargestIndex, Pool, Rectifier
from bmhw.hdl.network.shape import LayerShape
from bmhw.hdl.network.streams import Add
from bmhw.models.integer.layer import IntegerLayer
from bmhw.models.integer.network import IntegerNetwork, Threshold
from bmhw.models.networks.architecture import Node

from .assembly import Assembly, Integers, Shown, Wire
from .layers import folded_layer, input_converter, shape_of, takes
from .shortcuts import add_fifos, keep_bursts

__all__ = ["assemble"]


def assemble(network: IntegerNetwork, folding: Mapping[str, int], *, like: Assembly | None = None) -> Assembly:
    """The parts of a network, their memories of any technology.

    ``folding``: outputs of each layer that are computed at a time. ``like``: another network of the same architecture
    and formats, whose shapes the layers are to have, and whose layers share codes where those of this one are to.
    UsageError for a layer that no block computes.
    """
    assembly = Assembly(network, dict(folding))
    architecture = network.architecture
    values: dict[str, Wire] = {}  # of nodes, linear or codes
    codes: dict[str, Wire] = {}  # of nodes with linear numbers, encoded
    made: dict[Any, Wire] = {}  # codes that layers make themselves, by what makes them
    readers = {node.name: [n for n in architecture.nodes if node.name in n.inputs] for node in architecture.nodes}

    def linear(name: str) -> tuple[Wire, Threshold | None]:
        """The linear numbers of a node; of a normalisation that only layers read, those before it and itself."""
        if name in values:
            return values[name], None
        return values[architecture[name].inputs[0]], network.thresholds[name]

    def codes_of(name: str) -> Wire:
        """The codes of a node, which its layers take."""
        if name not in network.encoders:
            return values[name]
        if name not in codes:
            encoder, (wire, norm) = network.encoders[name], linear(name)
            channels = tuple(
                ChannelCode(end=dataclasses.replace(encoder.end, offset=encoder.end.offset + int(fine)),
                            shift=int(shift),
                            **({} if norm is None else {"threshold": int(norm.threshold[channel]),
                                                        "negative": bool(norm.negative[channel])}))
                for channel, (fine, shift) in enumerate(zip(encoder.fine, encoder.shift, strict=True)))
            relu = architecture.nonnegative(name)
            # a layer's name with _codes is of what it makes of its input
            part = f"{name}_output_codes" if architecture[name].is_layer else f"{name}_codes"
            assembly.add(part, Encoder, {"i": wire}, width=wire.bits, channels=channels, relu=relu)
            codes[name] = Wire(part=part, bits=encoder.end.log.bits + (not relu))
            assembly.shown[part] = Shown(name, codes=True)
        return codes[name]

    def input_of(layer: IntegerLayer) -> Wire:
        """The codes that a layer takes, or makes itself of linear numbers; layers that make the same have them once."""
        name = layer.node.inputs[0]
        if layer.takes_codes:
            return codes_of(name)
        wire, norm = linear(name)
        if wire.low is None:
            if not takes(layer, wire.bits):
                raise UsageError(f"Layer {layer.name} must take the {wire.bits} bit codes of {name} as they are to be "
                                 "on a chip")
            return wire
        kind, parameters = input_converter(layer, wire.bits, (wire.low, wire.high), norm)
        key: tuple = wire.part, wire.port, kind, tuple(parameters.items())
        if like is not None and f"{layer.name}_codes" in like.blocks:
            key = layer.name, *key
        if key not in made:
            part = assembly.add(f"{layer.name}_codes", kind, {"i": wire}, **parameters)
            made[key] = Wire(part=part, bits=len(kind(**parameters).o.payload))
            assembly.shown[part] = Shown(name, codes=True, layer=layer.name)
        return made[key]

    for node in architecture.nodes:
        if node.operation == "image":
            low = np.zeros(node.channels, dtype=np.int64)
            values[node.name] = Wire(part="", bits=9, low=low, high=low + 255)
            continue
        if node.is_layer:
            layer = network.layers[node.name]
            shape = (shape_of(network, node.name, folding[node.name]) if like is None
                     else like.blocks[node.name][1]["folded"].shape)
            values[node.name] = _layer(assembly, layer, input_of(layer), shape, architecture[node.inputs[0]])
            assembly.shown[node.name] = Shown(node.name)
            continue
        wires = [values[name] for name in node.inputs if name in values]
        if node.operation == "norm":
            threshold = network.thresholds.get(node.name)
            if threshold is None:  # part of the codes of the layer in front of it
                values[node.name] = wires[0]
                continue
            if all(n.is_layer for n in readers[node.name]):
                continue  # part of its encoder
            sign = np.where(threshold.negative, -1, 1)
            ends = np.stack([sign * (wires[0].low - threshold.threshold), sign * (wires[0].high - threshold.threshold)])
            low, high = np.maximum(ends.min(axis=0), 0), np.maximum(ends.max(axis=0), 0)
            part = assembly.add(node.name, Rectifier, {"i": wires[0]}, width=wires[0].bits, out_width=_bits(low, high),
                                channels=tuple(zip(map(int, threshold.threshold), map(bool, threshold.negative),
                                                   strict=True)))
        elif node.operation == "add":
            common = network.exponents[node.name]
            shifts = [network.exponents[name] - common for name in node.inputs]
            low, high = (sum(getattr(wire, end) << shift for wire, shift in zip(wires, shifts, strict=True))
                         for end in ("low", "high"))
            part = assembly.add(node.name, Add, {"i0": wires[0], "i1": wires[1]},
                                widths=tuple(wire.bits for wire in wires), width=_bits(low, high),
                                shifts=tuple(zip(*(map(int, shift) for shift in shifts), strict=True)))
        elif node.operation == "pool":
            source = architecture[node.inputs[0]]
            size = node.kernel[0] * node.kernel[1]
            low, high = wires[0].low * size, wires[0].high * size
            part = assembly.add(node.name, Pool, {"i": wires[0]}, height=source.height, width=source.width,
                                channels=node.channels, kernel=node.kernel, bits=wires[0].bits,
                                out_bits=_bits(low, high))
        else:
            low, high = np.maximum(wires[0].low, 0), np.maximum(wires[0].high, 0)
            part = assembly.add(node.name, Rectifier, {"i": wires[0]}, width=wires[0].bits, out_width=_bits(low, high),
                                channels=((0, False),) * node.channels)
        values[node.name] = Wire(part=part, bits=_bits(low, high), low=low, high=high)
        assembly.shown[part] = Shown(node.name)
    last = architecture.nodes[-1].name
    shift = network.exponents[last] - network.exponents[last].min()
    assembly.add("class", LargestIndex, {"i": values[last]}, width=values[last].bits, shifts=tuple(map(int, shift)))
    add_fifos(assembly)
    keep_bursts(assembly)
    return assembly


def _bits(low: Integers, high: Integers) -> int:
    """Of a signed number that lies there in each channel."""
    return LinearCode.covering(min(int(low.min()), -1), int(high.max())).bits


def _layer(assembly: Assembly, layer: IntegerLayer, wire: Wire, shape: LayerShape, source: Node) -> Wire:
    node = layer.node
    if (shape.height, shape.width) != (source.height, source.width):
        part = assembly.add(f"{node.name}_grid", Grid, {"i": wire}, height=source.height, width=source.width,
                            channels=source.channels, stride=node.stride, bits=wire.bits)
        wire = dataclasses.replace(wire, part=part, port="o")
    folded, results = folded_layer(layer, shape)
    part = assembly.add(node.name, FoldedLayer, {"i": wire}, folded=folded)
    low, high = results or (None, None)
    return Wire(part=part, bits=folded.output_bits, low=low, high=high)
