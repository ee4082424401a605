# SPDX-License-Identifier: Apache-2.0
"""The parts of a network on a chip, from its integers: what stands where, how wide it is, what waits for what."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bmhw.errors import UsageError
from bmhw.hdl.block import Block
from bmhw.hdl.formats.bm import BmFormat
from bmhw.hdl.formats.codes import LinearCode
from bmhw.hdl.network.encoder import ChannelCode, Encoder
from bmhw.hdl.network.folded import FoldedLayer
from bmhw.hdl.network.network import Network, Part
from bmhw.hdl.network.pixels import Grid, LargestIndex, Pool, Rectifier
from bmhw.hdl.network.streams import Add, Fifo, Fork
from bmhw.hdl.technology import ANY, Memory, Technology
from bmhw.models.integer.layer import IntegerLayer
from bmhw.models.integer.network import IntegerNetwork, Threshold
from bmhw.models.networks.architecture import Node

from .layers import folded_layer, input_codes, input_converter, shape_of, takes
from .timing import PartOf, most_waiting

__all__ = ["Assembly", "Depths", "Shown", "assemble"]

Integers = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Wire:
    """A node's stream: which part gives it, how many bits its payload has, and where its numbers lie, by channel; None
    of codes."""

    part: str
    bits: int
    low: Integers | None = None
    high: Integers | None = None
    port: str = "o"


@dataclass(frozen=True)
class Shown:
    """What a part gives in the integer network: the value of a node or, of an encoder, its codes: those of all its
    layers or, if only one has its own, that ``layer``'s."""

    node: str
    codes: bool = False
    layer: str = ""

    def expected(self, network: IntegerNetwork, value: Integers) -> Integers:
        """Of the node's value (images, channels, height, width): (images, pixels, channels), log codes with their sign
        as the highest bit."""
        if self.codes and not self.layer:
            encoder = network.encoders[self.node]
            value = encoder.compute(value)
            value = np.where(value < 0, (1 << encoder.end.log.bits) - value, value)
        elif self.codes:
            value = input_codes(network.layers[self.layer], value)
        return value.transpose(0, 2, 3, 1).reshape(len(value), -1, value.shape[1])

    def is_signed(self, network: IntegerNetwork) -> bool:
        """Whether its numbers are in two's complement."""
        if self.layer:
            fmt = network.layers[self.layer].format
            return fmt.signed_inputs and not isinstance(fmt, BmFormat)
        return not self.codes and not (self.node in network.layers and network.layers[self.node].gives_codes)


@dataclass
class Assembly:
    """Parts as they are put together.

    ``folding``: as in :func:`assemble`; ``technologies``: of the memories of each part, none: any; ``blocks``: name ->
    (kind, parameters); ``sources``: (part, input) -> wire; ``fifos``: name -> depths of a shortcut's FIFO; ``shown``:
    part -> what its transfers are in the integer network, for benches.
    """

    network: IntegerNetwork
    folding: Mapping[str, int]
    technologies: Mapping[str, Technology] = field(default_factory=dict)
    blocks: dict[str, tuple[type[Block], dict[str, Any]]] = field(default_factory=dict)
    sources: dict[tuple[str, str], Wire] = field(default_factory=dict)
    shown: dict[str, Shown] = field(default_factory=dict)
    fifos: dict[str, "Depths"] = field(default_factory=dict)

    def add(self, name: str, kind: type[Block], inputs: Mapping[str, Wire], **parameters: Any) -> str:
        if name in self.blocks:
            raise ValueError(f"Part {name} is there already")
        self.blocks[name] = kind, parameters
        for port, wire in inputs.items():
            self.sources[name, port] = wire
        return name

    def technology(self, part: str) -> Technology:
        return self.technologies.get(part, ANY)

    @property
    def memories(self) -> dict[tuple[str, str], Memory]:
        """Of all parts, by part and name there."""
        blocks = {name: kind(**parameters) for name, (kind, parameters) in self.blocks.items()
                  if hasattr(kind, "memories")}
        return {(part, name): memory for part, block in blocks.items() for name, memory in block.memories.items()}

    def block(self, *, taps: bool = False, limits: bool = False) -> Network:
        """The network; a stream with several readers gets a fork. ``taps``, ``limits``: for benches, with the parts'
        transfers shown, and with ports that make shortcuts' FIFOs smaller."""
        sources = dict(self.sources)
        blocks = dict(self.blocks)
        if limits:
            for fifo in self.fifos:
                kind, parameters = blocks[fifo]
                blocks[fifo] = kind, {**parameters, "limited": True}
        readers: dict[tuple[str, str], list[tuple[str, str]]] = {}
        for reader, wire in self.sources.items():
            readers.setdefault((wire.part, wire.port), []).append(reader)
        for (part, _), behind in readers.items():
            if len(behind) == 1:
                continue
            wire, fork = self.sources[behind[0]], f"{part or 'image'}_fork"
            blocks[fork] = Fork, {"width": wire.bits, "readers": len(behind)}
            sources[fork, "i"] = wire
            for n, reader in enumerate(behind):
                sources[reader] = dataclasses.replace(sources[reader], part=fork, port=f"o{n}")
        parts, placed = [], {""}
        while len(parts) < len(blocks):
            for name, (kind, parameters) in blocks.items():
                inputs = {port: wire for (part, port), wire in sources.items() if part == name}
                if name not in placed and all(wire.part in placed for wire in inputs.values()):
                    placed.add(name)
                    parts.append(Part(
                        name=name, kind=kind, parameters=tuple(parameters.items()),
                        inputs=tuple((port, (wire.part, wire.port)) for port, wire in inputs.items())))
        last = next(part for part in parts if part.kind is LargestIndex)
        parts.remove(last)
        shown = {"taps": tuple((part, "o") for part in self.shown), "gauges": tuple(self.fifos)} if taps else {}
        return Network(parts=(*parts, last), **shown)


def assemble(network: IntegerNetwork, folding: Mapping[str, int]) -> Assembly:
    """The parts of a network, their memories of any technology.

    ``folding``: outputs of each layer that are computed at a time. UsageError for a layer that no block computes.
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
        key = wire.part, wire.port, kind, tuple(parameters.items())
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
            values[node.name] = _layer(assembly, layer, input_of(layer), folding[node.name],
                                       architecture[node.inputs[0]])
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
    _shortcuts(assembly)
    _bursts(assembly)
    return assembly


def _bits(low: Integers, high: Integers) -> int:
    """Of a signed number that lies there in each channel."""
    return LinearCode.covering(min(int(low.min()), -1), int(high.max())).bits


def _layer(assembly: Assembly, layer: IntegerLayer, wire: Wire, parallel: int, source: Node) -> Wire:
    node = layer.node
    shape = shape_of(assembly.network, node.name, parallel)
    if (shape.height, shape.width) != (source.height, source.width):
        part = assembly.add(f"{node.name}_grid", Grid, {"i": wire}, height=source.height, width=source.width,
                            channels=source.channels, stride=node.stride, bits=wire.bits)
        wire = dataclasses.replace(wire, part=part, port="o")
    folded, results = folded_layer(layer, shape)
    part = assembly.add(node.name, FoldedLayer, {"i": wire}, folded=folded)
    low, high = results or (None, None)
    return Wire(part=part, bits=folded.output_bits, low=low, high=high)


@dataclass(frozen=True)
class Depths:
    """Numbers that a shortcut's FIFO holds.

    ``working``: with so many the network never stops. ``fast``: with so many nothing waits for it at full speed.
    """

    working: int
    fast: int


def _shortcuts(assembly: Assembly) -> None:
    """Put a FIFO where what comes through a shortcut waits for what comes through layers with windows.

    Before the branch of layers gives its pixel p, so many pixels must have entered it; what of them has come through
    the shortcut and isn't one of the p before waits in the FIFO: the largest such number over an image is the depth
    that the network works with (``working``). Of a shortcut without a layer, one less is enough, as the fork hands the
    last number to the branch first, and no fewer; a layer in it keeps some more pixels itself.

    For full speed the FIFO holds what waits there while all layers compute as soon as they can and pixels come evenly
    (:func:`~bmhw.chip.timing.most_waiting`).
    """
    slowest = max(parameters["folded"].shape.cycles for kind, parameters in assembly.blocks.values()
                  if kind is FoldedLayer)
    for name in [name for name, (kind, _) in assembly.blocks.items() if kind is Add]:
        paths = [_path(assembly, name, port) for port in ("i0", "i1")]
        common = next(wire for _, wire in paths[0] if any(wire == other for _, other in paths[1]))
        paths = [path[: 1 + [wire for _, wire in path].index(common)] for path in paths]
        waiting = [_pixels_needed(assembly, path) for path in paths]
        short = 0 if waiting[0].sum() <= waiting[1].sum() else 1
        path = paths[short]
        # in front of the shortcut's own layer, where numbers are codes, and behind its stride
        reader, wire = next(((reader, wire) for reader, wire in path if assembly.blocks[reader[0]][0] is FoldedLayer),
                            path[0])
        behind = path[path.index((reader, wire)) + 1:]
        channels = _channels(assembly, reader[0])
        working = channels * _waiting(_pixels_needed(assembly, paths[1 - short]), _pixels_needed(assembly, behind))
        own = assembly.blocks[reader[0]] if reader[0] != name else None
        fast = FREEING + most_waiting(
            _parts_of(assembly, paths[1 - short][1:]), _parts_of(assembly, behind), own, channels=channels,
            cycles=slowest)
        depths = Depths(max(working, 2), max(working, fast))
        fifo = f"{name}_shortcut_fifo"
        assembly.add(fifo, Fifo, {"i": wire}, width=wire.bits, depth=depths.fast, registered=reader[0] == name)
        assembly.sources[reader] = dataclasses.replace(wire, part=fifo, port="o")
        assembly.fifos[fifo] = depths


def _bursts(assembly: Assembly) -> None:
    """Let layers of 1 x 1 kernels right behind a stride keep a row of pixels: these come at the rate of all pixels, and
    then none for the rows between."""
    for name, (kind, parameters) in list(assembly.blocks.items()):
        if kind is FoldedLayer and assembly.blocks.get(assembly.sources[name, "i"].part, (None,))[0] is Grid:
            folded = parameters["folded"]
            rows = max(folded.rows, folded.shape.width + 1)
            assembly.blocks[name] = kind, {**parameters, "folded": dataclasses.replace(folded, rows=rows)}


FREEING = Fifo.latency - 1
"""Numbers that may come to a full FIFO before the place of one that leaves it is free again."""


def _path(assembly: Assembly, part: str, port: str) -> list[tuple[tuple[str, str], Wire]]:
    """From a part's input back to the network's, of parts with one input each: (part, input), wire."""
    path = []
    while True:
        wire = assembly.sources[part, port]
        path.append(((part, port), wire))
        if not wire.part:
            return path
        part, port = wire.part, "i" if (wire.part, "i") in assembly.sources else "i0"


def _parts_of(assembly: Assembly, path: list[tuple[tuple[str, str], Wire]]) -> list[PartOf]:
    """In the order of the data."""
    return [assembly.blocks[part] for (part, _), _ in reversed(path)]


def _pixels_needed(assembly: Assembly, path: list[tuple[tuple[str, str], Wire]]) -> Integers:
    """For each pixel that leaves a path, how many must have entered it; none: a path that changes no pixels."""
    needed: Integers = np.zeros(0, dtype=np.int64)
    for (part, _), _wire in path:
        kind, parameters = assembly.blocks[part]
        if kind is FoldedLayer:
            shape = parameters["folded"].shape
            ends = np.array([shape.oldest_row(row) + shape.needed_rows(row) for row in range(shape.output_rows)])
            own = np.repeat(ends * shape.stored[1], shape.out_pixels // shape.output_rows)
        elif kind is Grid:
            rows, columns = (np.arange(0, parameters[size], parameters["stride"]) for size in ("height", "width"))
            own = (rows[:, None] * parameters["width"] + columns + 1).ravel()
        else:
            continue
        needed = own[needed - 1] if len(needed) else own
    return needed


def _waiting(needed: Integers, kept: Integers) -> int:
    """The most pixels that wait, of those that must have entered before each pixel leaves; of them only those are kept
    that ``kept`` names, none: all are."""
    arrived = np.searchsorted(kept, needed, side="right") if len(kept) else needed
    return int((arrived - np.arange(len(needed))).max())


def _channels(assembly: Assembly, part: str) -> int:
    kind, parameters = assembly.blocks[part]
    return parameters["folded"].shape.channels if kind is FoldedLayer else len(parameters["shifts"])
