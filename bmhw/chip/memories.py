# SPDX-License-Identifier: Apache-2.0
"""What the memories of a network on a chip take of a device's block RAMs."""

import dataclasses
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from bmhw.flow.fpga import Device
from bmhw.hdl.technology import Memory, Technology

from .assembly import Assembly

__all__ = ["MOST_BLOCKS", "fitted"]

Name = tuple[str, str]
"""Of a memory: its part and what it is there."""

MOST_BLOCKS = 0.97
"""Share of a device's block RAMs that memories take at most: where the last one is needed, placement has no choice."""

PRICES = tuple(round(64 * 2 ** (step / 4)) for step in range(25))
"""Look-up tables that a block RAM may be worth, cheapest first; the last one is more than a full block of constants
takes on any device."""


def fitted(assembly: Assembly, device: Device) -> Assembly:
    """The same parts with their memories cut for a device, so that they fit its block RAMs if they can."""
    # a ring of rows has as many words as suit the device
    assembly = _of(assembly, dict.fromkeys((part for part, _ in assembly.memories), device.technology))
    memories = assembly.memories
    prices = _prices(device.technology, memories, int(MOST_BLOCKS * device.block_rams))
    technologies = {
        part: dataclasses.replace(device.technology, price=PRICES[0], prices=tuple(
            (memory, prices[owner, name]) for (owner, name), memory in memories.items() if owner == part))
        for part, _ in memories}
    return _of(assembly, technologies)


def _of(assembly: Assembly, technologies: Mapping[str, Technology]) -> Assembly:
    blocks = {part: (kind, _made_of(parameters, technologies.get(part)))
              for part, (kind, parameters) in assembly.blocks.items()}
    return dataclasses.replace(assembly, technologies=technologies, blocks=blocks)


def _made_of(parameters: dict[str, Any], technology: Technology | None) -> dict[str, Any]:
    """A block's parameters, with its memories of another technology; None: it has none."""
    if technology is None:
        return parameters
    if "folded" in parameters:
        return {**parameters, "folded": dataclasses.replace(parameters["folded"], technology=technology)}
    return {**parameters, "technology": technology}


def _prices(technology: Technology, memories: Mapping[Name, Memory], block_rams: int) -> dict[Name, int]:
    """What a block RAM is worth in each memory so that all take so many at most, or as few as they can.

    From the cuts with cheap block RAMs on, the one is changed that costs the fewest look-up tables for a block RAM that
    becomes free. What was changed without need in the end is changed back.
    """
    cuts = {name: _cuts(technology, memory) for name, memory in memories.items()}
    at = dict.fromkeys(cuts, 0)
    free = block_rams - sum(options[0].blocks for options in cuts.values())
    while free < 0:
        able = [name for name in cuts if at[name] + 1 < len(cuts[name])]
        if not able:
            break
        name = min(able, key=lambda name: cuts[name][at[name]].cost_of_a_block(cuts[name][at[name] + 1]))
        at[name] += 1
        free += cuts[name][at[name] - 1].blocks - cuts[name][at[name]].blocks
    for name in sorted(cuts, key=lambda name: -cuts[name][at[name]].luts):
        while at[name] and cuts[name][at[name] - 1].blocks - cuts[name][at[name]].blocks <= free:
            at[name] -= 1
            free -= cuts[name][at[name]].blocks - cuts[name][at[name] + 1].blocks
    return {name: options[at[name]].price for name, options in cuts.items()}


@dataclass(frozen=True)
class _Cut:
    price: int
    blocks: int
    luts: int

    def cost_of_a_block(self, other: "_Cut") -> float:
        """Look-up tables for each block RAM that the other cut leaves free."""
        return (other.luts - self.luts) / (self.blocks - other.blocks)


def _cuts(technology: Technology, memory: Memory) -> list[_Cut]:
    """Those with fewer and fewer block RAMs, each the one with the fewest look-up tables of its kind."""
    @cache
    def cut(number: int) -> _Cut:
        priced = dataclasses.replace(technology, price=PRICES[number], prices=())
        return _Cut(PRICES[number], priced.blocks(memory), priced.luts(memory))

    last, found = len(PRICES) - 1, [cut(0)]
    while (most := found[-1].blocks) > cut(last).blocks:  # a higher price never takes more of them
        fewer = bisect_left(range(last + 1), True, key=lambda number: cut(number).blocks < most)
        found.append(cut(fewer))
    return found
