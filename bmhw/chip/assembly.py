# SPDX-License-Identifier: Apache-2.0
"""The parts of a network on a chip as they are put together, and what each of them gives in the integer network."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bmhw.hdl.block import Block
from bmhw.hdl.formats.bm import BmFormat
from bmhw.hdl.network.loading import LoadLayout
from bmhw.hdl.network.network import Network, Part
from bmhw.hdl.network.pixels import LargestIndex
from bmhw.hdl.network.streams import Fork
from bmhw.hdl.network.tables import Table
from bmhw.hdl.technology import ANY, Memory, Technology
from bmhw.models.integer.network import IntegerNetwork

from .layers import input_codes

__all__ = ["Assembly", "Depths", "Integers", "Shown", "Wire"]

Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Depths:
    """Numbers that a shortcut's FIFO holds.

    ``working``: with so many the network never stops. ``fast``: with so many nothing waits for it at full speed.
    """

    working: int
    fast: int


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
    part -> what its transfers are in the integer network, for benches; ``writable``: whether weights and constants can
    be written at run time (:mod:`~bmhw.chip.loading`).
    """

    network: IntegerNetwork
    folding: Mapping[str, int]
    technologies: Mapping[str, Technology] = field(default_factory=dict)
    blocks: dict[str, tuple[type[Block], dict[str, Any]]] = field(default_factory=dict)
    sources: dict[tuple[str, str], Wire] = field(default_factory=dict)
    shown: dict[str, Shown] = field(default_factory=dict)
    fifos: dict[str, Depths] = field(default_factory=dict)
    writable: bool = False

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

    @cached_property
    def loads(self) -> dict[tuple[str, str], Table]:
        """What the memories hold that can be written, by part and name there, in the order of the data; of a network
        with fixed weights none."""
        if not self.writable:
            return {}
        return {(part.name, name): table for part in self.parts()
                for name, table in getattr(part.create(), "loads", {}).items()}

    def block(self, *, taps: bool = False, limits: bool = False, layout: LoadLayout | None = None) -> Network:
        """The network. ``taps``, ``limits``: for benches, with the parts' transfers shown, and with ports that make
        shortcuts' FIFOs smaller. ``layout``: of images of weights, where these can be written."""
        shown = {"taps": tuple((part, "o") for part in self.shown), "gauges": tuple(self.fifos)} if taps else {}
        loaded = {} if layout is None else {"layout": layout}
        return Network(parts=self.parts(limits=limits), **shown, **loaded)

    def parts(self, *, limits: bool = False) -> tuple[Part, ...]:
        """In the order of the data, the class last; a stream with several readers gets a fork."""
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
        return (*parts, last)
