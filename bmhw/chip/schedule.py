# SPDX-License-Identifier: Apache-2.0
"""When the pixels of an image leave each part of a network on a chip, in cycles, from its first number on."""

from functools import reduce

import numpy as np
from numpy.typing import NDArray

from bmhw.hdl.network.folded import FoldedLayer
from bmhw.hdl.network.pixels import Grid, Pool
from bmhw.hdl.network.shape import LayerShape

from .parts import Assembly

__all__ = ["latency"]

Times = NDArray[np.int64]


def latency(assembly: Assembly) -> int:
    """Cycles from an image's first number to its class, if the chip is empty and both ends keep up.

    Computed from what layers wait for and how long they take: a layer's pixel begins when the pixels that its row needs
    have left the part before it, and the pixel before it is done. The registers of the parts come on top, some ten
    cycles each.
    """
    channels, height, width = assembly.network.architecture.image.shape
    times: dict[str, Times] = {"": channels * np.arange(1, height * width + 1)}
    waiting = dict(assembly.blocks)
    while waiting:
        for name, (kind, parameters) in list(waiting.items()):
            sources = [wire.part for (part, _), wire in assembly.sources.items() if part == name]
            if all(source in times for source in sources):
                arrived = reduce(np.maximum, (times[source] for source in sources))
                times[name] = _leaving(kind, parameters, arrived)
                del waiting[name]
    return int(max(part.max() for part in times.values()))


def _leaving(kind: type, parameters: dict, arrived: Times) -> Times:
    """When each pixel of a part's output leaves it, of those of its input."""
    if kind is FoldedLayer:
        return _computed(parameters["folded"].shape, arrived)
    if kind is Grid:
        rows, columns = (np.arange(0, parameters[size], parameters["stride"]) for size in ("height", "width"))
        return arrived[(rows[:, None] * parameters["width"] + columns).ravel()]
    if kind is Pool:
        height, width = parameters["kernel"]
        rows, columns = parameters["height"] // height, parameters["width"] // width
        cut = arrived.reshape(parameters["height"], parameters["width"])[:rows * height, :columns * width]
        return cut.reshape(rows, height, columns, width).max(axis=(1, 3)).ravel()
    return arrived


def _computed(shape: LayerShape, arrived: Times) -> Times:
    pixels = shape.out_pixels // shape.output_rows
    pixel = shape.folds * shape.groups * shape.group_cycles
    leaving, done = [], 0
    for row in range(shape.output_rows):
        stored = (shape.oldest_row(row) + shape.needed_rows(row)) * shape.stored[1]
        done = max(done, int(arrived[stored - 1])) + pixels * pixel
        leaving.extend(range(done - (pixels - 1) * pixel, done + 1, pixel))
    return np.array(leaving)
