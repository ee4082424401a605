# SPDX-License-Identifier: Apache-2.0
"""When the pixels of images leave the parts of a network on a chip, and how many numbers wait in a shortcut meanwhile.

Times are cycles, pixels those of images back to back.
"""

import numpy as np
from numpy.typing import NDArray

from bmhw.hdl.block import Block
from bmhw.hdl.network.folded import FoldedLayer
from bmhw.hdl.network.layer import Folded
from bmhw.hdl.network.pixels import Grid, Pool
from bmhw.hdl.network.shape import LayerShape

__all__ = ["PartOf", "Times", "leaving", "most_waiting"]

Times = NDArray[np.int64]

PartOf = tuple[type[Block], dict]
"""What makes a block, and its parameters."""

IMAGES = 3
"""Back to back: the first one finds the parts empty, the last one is followed by none."""


def leaving(part: PartOf, arrived: Times) -> Times:
    """When each pixel of a part's output leaves it, of those of its input; registers not counted."""
    kind, parameters = part
    if kind is FoldedLayer:
        return _computed(parameters["folded"].shape, arrived)
    if kind is Grid:
        stride = parameters["stride"]
        maps = arrived.reshape(-1, parameters["height"], parameters["width"])
        return maps[:, ::stride, ::stride].ravel()
    if kind is Pool:
        height, width = parameters["kernel"]
        rows, columns = parameters["height"] // height, parameters["width"] // width
        maps = arrived.reshape(-1, parameters["height"], parameters["width"])[:, :rows * height, :columns * width]
        return maps.reshape(-1, rows, height, columns, width).max(axis=(2, 4)).ravel()
    return arrived


def _computed(shape: LayerShape, arrived: Times) -> Times:
    """A pixel begins when the pixels that its row needs are there and the pixel before it is done."""
    pixels, rows = shape.out_pixels // shape.output_rows, np.arange(shape.output_rows)
    needed = np.array([shape.oldest_row(row) + shape.needed_rows(row) for row in rows]) * shape.stored[1] - 1
    begins = arrived.reshape(-1, shape.stored[0] * shape.stored[1])[:, needed].ravel()
    # a row begins when it can or behind the one before it: the largest sum of a begin and of all rows since then
    row_cycles = pixels * _pixel_cycles(shape)
    since = row_cycles * np.arange(len(begins))
    ends = np.maximum.accumulate(begins - since) + since + row_cycles
    return (ends[:, None] - _pixel_cycles(shape) * np.arange(pixels)[::-1]).ravel()


def _fold_cycles(shape: LayerShape) -> int:
    return shape.groups * shape.group_cycles


def _pixel_cycles(shape: LayerShape) -> int:
    return shape.folds * _fold_cycles(shape)


def _registers(part: PartOf) -> int:
    """Cycles from the last input of a pixel to its last number at the output, computing not counted."""
    kind, parameters = part
    if kind is not FoldedLayer:
        return getattr(kind, "latency", 1)
    folded: Folded = parameters["folded"]
    return folded.latency + folded.shape.parallel


def most_waiting(branch: list[PartOf], behind: list[PartOf], reader: PartOf | None, *, channels: int,
                 cycles: int) -> int:
    """How many numbers wait at most in the FIFO of a shortcut at full speed.

    The branch's pixels come evenly, an image in so many ``cycles``: what is in front of it may be as slow as the
    slowest layer, and then nothing that it is kept from giving can be made up for. The layers of the branch compute as
    soon as they can. Of the numbers that have come when one leaves the FIFO, this one and all behind it wait.

    ``branch``: its parts in the order of the data. ``behind``: those between the fork and the FIFO. ``reader``: the
    shortcut's own layer right behind the FIFO, None: the sum. ``channels``: of a pixel in the FIFO.
    """
    pixels = _pixels_taken(branch)
    arrived = cycles * np.arange(1, IMAGES * pixels + 1) // pixels
    done = arrived
    for part in branch:
        done = leaving(part, done) + _registers(part)
    came = arrived
    for part in behind:
        came = leaving(part, came)
    # a pixel's numbers come evenly, and leave the branch as the folds of its last layer end
    last = next(parameters["folded"].shape for kind, parameters in reversed(branch) if kind is FoldedLayer)
    enters = (came[:, None] - np.arange(channels)[::-1] * cycles // (pixels * channels)).ravel()
    folds_left = last.folds - 1 - np.arange(last.outputs) // last.parallel
    leaves = taken = (done[:, None] - folds_left * _fold_cycles(last)).ravel()
    if reader is not None:
        leaves = np.repeat(_read(reader[1]["folded"], came, taken), channels)
    return int((np.searchsorted(enters, leaves, side="right") - np.arange(len(leaves))).max())


def _read(layer: Folded, came: Times, taken: Times) -> Times:
    """When a layer reads each pixel, of the time it came and the times at which each number of its output is taken."""
    shape, held = layer.shape, layer.rows
    if not shape.pointwise:
        return taken[shape.outputs - 1::shape.outputs]  # no later: it's the one with the same place in the output
    # its window has the place of an earlier pixel when this one's last fold is done, whose last group begins when the
    # queue of results has room for it
    room = np.arange(1, len(came) + 1) * shape.outputs - layer.results
    done = np.minimum(taken[np.maximum(room, 1) - 1] + shape.group_cycles, taken[shape.outputs - 1::shape.outputs])
    return np.concatenate([came[:held], np.maximum(done[:-held], came[held:])])


def _pixels_taken(parts: list[PartOf]) -> int:
    """Of an image, by the first of the parts that says it."""
    for kind, parameters in parts:
        if kind is FoldedLayer:
            rows, columns = parameters["folded"].shape.stored
            return rows * columns
        if kind is Grid:
            return parameters["height"] * parameters["width"]
    raise ValueError("A branch of a residual sum must have a layer")
