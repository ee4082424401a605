# SPDX-License-Identifier: Apache-2.0
"""What the memories of a network on a chip take of a device's block RAMs."""

import dataclasses
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from bmhw.hdl.network.technology import Memory, Technology

from bmhw.flow.fpga import Device

from .parts import Assembly, assemble

__all__ = ["MOST_BLOCKS", "fitted", "technology_for"]

MOST_BLOCKS = 0.97
"""Share of a device's block RAMs up to which memories are put there: the last ones have nowhere else to be placed."""

PRICES = tuple(round(64 * 2 ** (step / 4)) for step in range(25))
"""Look-up tables that a block RAM may be worth, cheapest first; beyond the last one it is worth any number."""


def fitted(assembly: Assembly, device: Device) -> Assembly:
    """The same parts with the memories of a device, cut so that they fit its block RAMs if they can."""
    technology = technology_for(device.technology, assembly.memories.values(), device.block_rams)
    return assemble(assembly.network, assembly.folding, technology)


def technology_for(technology: Technology, memories: Iterable[Memory], block_rams: int) -> Technology:
    """The technology with prices of block RAMs at which the memories take so many at most, or as few as they can.

    From each memory's cheapest cut with cheap block RAMs on, the cut is changed that costs the fewest look-up tables for
    a block RAM that becomes free; equal memories have equal cuts.
    """
    count = Counter(memories)
    cuts = {memory: _cuts(technology, memory) for memory in count}
    total = sum(number * cuts[memory][0].blocks for memory, number in count.items())
    while total > MOST_BLOCKS * block_rams:
        able = [memory for memory, left in cuts.items() if len(left) > 1]
        if not able:
            break
        dearest = min(able, key=lambda memory: cuts[memory][0].cost_of_a_block(cuts[memory][1]))
        total -= count[dearest] * (cuts[dearest][0].blocks - cuts[dearest][1].blocks)
        del cuts[dearest][0]
    return dataclasses.replace(technology, price=PRICES[0], prices=tuple(
        (memory, left[0].price) for memory, left in cuts.items() if left[0].price != PRICES[0]))


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
    found: list[_Cut] = []
    for price in PRICES:
        priced = dataclasses.replace(technology, price=price, prices=())
        cut = _Cut(price, priced.blocks(memory), priced.luts(memory))
        if not found or cut.blocks < found[-1].blocks:
            found.append(cut)
    return found
