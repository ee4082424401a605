# SPDX-License-Identifier: Apache-2.0
"""What the cells of a chip are of, by the names that flattening keeps."""

import re

from bmhw.hdl.network.folded import FoldedLayer
from bmhw.hdl.network.streams import Add, Fifo, Fork

from .assembly import Assembly

__all__ = ["EDGE", "KINDS", "kind_of", "part_of"]

KINDS = ("elements", "unloading", "ends", "windows", "weights", "results", "codes", "shortcuts", "other")
"""What cells of a chip are of: elements; the queues in which groups wait for the end that they share, and that end with
the sums of a fold; windows; weights; queues of results; what makes codes of linear numbers; FIFOs, forks and sums of
shortcuts; the rest."""

EDGE = ""
"""The part around the network."""

_INSIDE = {
    # a cell has the name of the net that it drives, which may be that of an input of the block behind it
    "elements": r"element_|unloading(_\d+)?\.((m\d+|a)|values\.i)_",
    "ends": r"unloading(_\d+)?\.(group_end(?!_(m\d*|a)_)|sums|bias|y_)",
    "unloading": "unloading|gather", "windows": "window", "weights": "weights", "results": "results",
    "codes": "encoder|requantizer"}
"""How the names of cells inside a layer begin; the first one that fits counts."""


def part_of(cell: str) -> str:
    """The part of the network that a cell of a chip is in, or :data:`EDGE`."""
    top, _, rest = cell.partition(".")
    return rest.partition(".")[0] if top == "network" else EDGE


def kind_of(assembly: Assembly, cell: str) -> str:
    part, _, rest = cell.removeprefix("network.").partition(".")
    block = assembly.blocks.get(part, (None, {}))[0]
    if block is FoldedLayer:
        return next((kind for kind, name in _INSIDE.items() if re.match(name, rest)), "other")
    if part.endswith("_codes"):
        return "codes"
    return "shortcuts" if block in (Add, Fifo, Fork) or part.endswith("_fork") else "other"
