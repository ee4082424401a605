# SPDX-License-Identifier: Apache-2.0
"""The FIFOs of shortcuts: where they stand and how deep they are."""

import dataclasses

import numpy as np

from bmhw.hdl.network.folded import FoldedLayer
from bmhw.hdl.network.pixels import Grid
from bmhw.hdl.network.streams import Add, Fifo

from .assembly import Assembly, Depths, Integers, Wire
from .timing import PartOf, most_waiting

__all__ = ["add_fifos", "keep_bursts"]


def add_fifos(assembly: Assembly) -> None:
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


def keep_bursts(assembly: Assembly) -> None:
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
