# SPDX-License-Identifier: Apache-2.0
"""What a network on a chip is made of, before anything is built."""

from dataclasses import dataclass

from bmhw.hdl.network.folded import FoldedLayer
from bmhw.hdl.network.shape import LayerShape
from bmhw.hdl.network.technology import Memory, Technology

from .parts import Assembly

__all__ = ["LayerPlan", "Memory", "Plan", "plan"]


@dataclass(frozen=True, kw_only=True)
class LayerPlan:
    """A layer: its shape with the folding, and its memories by name (:attr:`Folded.memories`)."""

    name: str
    shape: LayerShape
    memories: dict[str, Memory]

    @property
    def weights(self) -> Memory:
        return self.memories["weights"]

    @property
    def window(self) -> Memory:
        return self.memories["window"]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """``fifos``: of shortcuts; ``others``: memories of other parts; ``technology``: what all of them are made of."""

    name: str
    layers: tuple[LayerPlan, ...]
    fifos: dict[str, Memory]
    others: dict[str, Memory]
    technology: Technology

    @property
    def memories(self) -> list[Memory]:
        return [*(memory for layer in self.layers for memory in layer.memories.values()), *self.fifos.values(),
                *self.others.values()]

    @property
    def block_rams(self) -> int:
        """What the memories take of the device; 0 where there is none."""
        return sum(map(self.technology.blocks, self.memories))

    @property
    def memory_luts(self) -> int:
        """Look-up tables of memories, in round numbers; 0 where there is no device."""
        return sum(map(self.technology.luts, self.memories)) if self.technology.shapes else 0

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
    layers, found = [], {}
    for (part, name), memory in assembly.memories.items():
        found.setdefault(part, {})[name] = memory
    for name, (kind, parameters) in assembly.blocks.items():
        if kind is FoldedLayer:
            layers.append(LayerPlan(name=name, shape=parameters["folded"].shape, memories=found.pop(name)))
    fifos = {name: found.pop(name)["numbers"] for name in assembly.fifos}
    others = {f"{part}_{name}": memory for part, of in found.items() for name, memory in of.items()}
    return Plan(name=assembly.network.name, layers=tuple(layers), fifos=fifos, others=others,
                technology=assembly.technology)
