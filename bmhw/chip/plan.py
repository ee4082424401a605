# SPDX-License-Identifier: Apache-2.0
"""What a network on a chip is made of, before anything is built."""

from dataclasses import dataclass

from bmhw.hdl.network.folded import FoldedLayer
from bmhw.hdl.network.shape import LayerShape
from bmhw.hdl.technology import Memory

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
    """``fifos``: of shortcuts; ``others``: memories of other parts; ``block_rams``, ``memory_luts``: what all memories
    take of a device (``on_device``: its family, where there is one)."""

    name: str
    layers: tuple[LayerPlan, ...]
    fifos: dict[str, Memory]
    others: dict[str, Memory]
    on_device: str
    number_bits: int
    block_rams: int
    memory_luts: int

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
    layers = []
    found: dict[str, dict[str, Memory]] = {}
    for (part, name), memory in assembly.memories.items():
        found.setdefault(part, {})[name] = memory
    for name, (kind, parameters) in assembly.blocks.items():
        if kind is FoldedLayer:
            layers.append(LayerPlan(name=name, shape=parameters["folded"].shape, memories=found.pop(name)))
    fifos = {name: found.pop(name)["numbers"] for name in assembly.fifos}
    others = {f"{part}_{name}": memory for part, of in found.items() for name, memory in of.items()}
    taken = [(assembly.technology(part), memory) for (part, _), memory in assembly.memories.items()]
    return Plan(name=assembly.network.name, layers=tuple(layers), fifos=fifos, others=others,
                on_device=max((technology.name for technology, _ in taken), default=""),
                number_bits=sum(memory.size for _, memory in taken if memory.writable),
                block_rams=sum(technology.blocks(memory) for technology, memory in taken),
                memory_luts=sum(technology.luts(memory) for technology, memory in taken))
