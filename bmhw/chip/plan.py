# SPDX-License-Identifier: Apache-2.0
"""What a network on a chip is made of and what it takes of a device, before anything is built."""

import math
from dataclasses import dataclass

from bmhw.flow.fpga import Device
from bmhw.hdl.network.folded import FoldedLayer
from bmhw.hdl.network.shape import LayerShape
from bmhw.hdl.technology import Memory

from .assembly import Assembly
from .estimate import Estimate, estimate
from .memories import MOST_BLOCKS

__all__ = ["MOST_CELLS", "LayerPlan", "Memory", "Plan", "plan"]

MOST_CELLS = 0.65
"""Share of a device's logic cells that a chip is planned for at most: above, routing takes hours or fails."""


@dataclass(frozen=True, kw_only=True)
class LayerPlan:
    """A layer: its shape with the folding, its memories by name (:attr:`Folded.memories`) and, on a device, its logic
    cells by estimate, with what makes its codes."""

    name: str
    shape: LayerShape
    memories: dict[str, Memory]
    cells: int | None

    @property
    def weights(self) -> Memory:
        return self.memories["weights"]

    @property
    def window(self) -> Memory:
        return self.memories["window"]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """``fifos``: of shortcuts; ``others``: memories of other parts; ``blocks``: block RAMs of each memory by its part
    and its name there, taken and as many as its bits would fill; ``block_rams``: of all memories; ``other_cells``,
    ``memory_cells``: logic cells of what is in no layer, and of memories in no block RAM, by estimate (``device``: the
    one that all this is for, if any). ``tables``: memories of constants of each channel that can be written, of all
    parts; they, and weights, are no ``number_bits``."""

    name: str
    layers: tuple[LayerPlan, ...]
    fifos: dict[str, Memory]
    others: dict[str, Memory]
    tables: dict[str, Memory]
    device: Device | None
    number_bits: int
    blocks: dict[tuple[str, str], tuple[int, float]]
    block_rams: int
    other_cells: int
    memory_cells: int

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

    @property
    def table_bits(self) -> int:
        return sum(memory.size for memory in self.tables.values())

    @property
    def cells(self) -> int:
        """Logic cells of the whole chip, by estimate; 0 without a device."""
        return self.other_cells + sum(layer.cells or 0 for layer in self.layers)

    @property
    def missing(self) -> dict[str, tuple[int, int, int]]:
        """What the device has too little of: name -> (needed, limit, there are). Empty: the chip fits, by plan."""
        if self.device is None:
            return {}
        needs = {"logic cells": (self.cells, math.floor(MOST_CELLS * self.device.luts), self.device.luts),
                 "block RAMs": (self.block_rams, math.floor(MOST_BLOCKS * self.device.block_rams),
                                self.device.block_rams)}
        return {name: need for name, need in needs.items() if need[0] > need[1]}

    @property
    def takes(self) -> str:
        """What the chip takes of its device, in words; empty without one."""
        if self.device is None:
            return ""
        return (f"{self.device.chip}: about {self.cells:,} logic cells, {self.cells / self.device.luts:.0%} of "
                f"{self.device.luts:,} (of them {self.other_cells:,} in no layer and {self.memory_cells:,} for "
                f"memories), without DSP blocks; {self.block_rams} block RAMs of {self.device.block_rams}")


def plan(assembly: Assembly, device: Device | None = None) -> Plan:
    """``device``: the one that the assembly's memories are cut for (:func:`~bmhw.chip.memories.fitted`)."""
    estimated = Estimate({}, 0) if device is None else estimate(device.family, assembly)
    cells = estimated.parts
    layers, counted = [], 0
    found: dict[str, dict[str, Memory]] = {}
    memories = assembly.memories
    tables = {(part, name): memory for (part, name), memory in memories.items()
              if name != "weights" and (part, name) in assembly.loads}
    for (part, name), memory in memories.items():
        if (part, name) not in tables:
            found.setdefault(part, {})[name] = memory
    for name, (kind, parameters) in assembly.blocks.items():
        if kind is FoldedLayer:
            own = round(sum(cells.get(part, 0) for part in (name, f"{name}_codes", f"{name}_grid")))
            counted += own
            layers.append(LayerPlan(name=name, shape=parameters["folded"].shape, memories=found.pop(name),
                                    cells=None if device is None else own))
    fifos = {name: found.pop(name)["numbers"] for name in assembly.fifos}
    others = {f"{part}_{name}": memory for part, of in found.items() for name, memory in of.items()}
    blocks = {}
    for (part, name), memory in memories.items():
        technology = assembly.technology(part)
        if technology.shapes:
            blocks[part, name] = technology.blocks(memory), memory.size / technology.block_bits
    numbers = sum(memory.size for name, memory in memories.items() if memory.writable and name not in assembly.loads)
    return Plan(name=assembly.network.name, layers=tuple(layers), fifos=fifos, others=others, device=device,
                tables={f"{part}.{name}": memory for (part, name), memory in tables.items()}, number_bits=numbers,
                blocks=blocks, block_rams=sum(taken for taken, _ in blocks.values()),
                other_cells=round(sum(cells.values())) - counted, memory_cells=round(estimated.memories))
