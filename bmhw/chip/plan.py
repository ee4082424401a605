# SPDX-License-Identifier: Apache-2.0
"""What a network on a chip is made of, before anything is built."""

from dataclasses import dataclass
from typing import Any

from bmhw.hdl.network.folded import FoldedLayer
from bmhw.hdl.network.shape import LayerShape

from .parts import Assembly

__all__ = ["LayerPlan", "Memory", "Plan", "plan"]


@dataclass(frozen=True)
class Memory:
    """Words of so many bits."""

    words: int
    bits: int

    @property
    def size(self) -> int:
        """In bits."""
        return self.words * self.bits


@dataclass(frozen=True, kw_only=True)
class LayerPlan:
    """A layer: its shape with the folding, its weights, the window of its inputs, the queue of its results."""

    name: str
    shape: LayerShape
    weights: Memory
    window: Memory
    results: Memory


@dataclass(frozen=True, kw_only=True)
class Plan:
    """``fifos``: of shortcuts."""

    name: str
    layers: tuple[LayerPlan, ...]
    fifos: dict[str, Memory]

    @property
    def cycles(self) -> int:
        """An image, of the slowest layer."""
        return max(layer.shape.cycles for layer in self.layers)

    @property
    def elements(self) -> int:
        return sum(layer.shape.parallel for layer in self.layers)

    @property
    def weight_bits(self) -> int:
        """Of all weight memories, elements without an output in a layer's last fold included."""
        return sum(layer.weights.size for layer in self.layers)


def plan(assembly: Assembly) -> Plan:
    layers, fifos = [], {}
    for name, (kind, parameters) in assembly.blocks.items():
        if kind is FoldedLayer:
            layers.append(_layer(name, parameters))
        elif name in assembly.fifos:
            fifos[name] = Memory(parameters["depth"], parameters["width"])
    return Plan(name=assembly.network.name, layers=tuple(layers), fifos=fifos)


def _layer(name: str, parameters: dict[str, Any]) -> LayerPlan:
    folded = parameters["folded"]
    shape = folded.shape
    return LayerPlan(
        name=name, shape=shape,
        weights=Memory(len(folded.weights), shape.parallel * folded.weight_bits),
        window=Memory(folded.rows * shape.stored[1] * shape.channels, folded.input_bits),
        results=Memory(folded.results, folded.output_bits))
