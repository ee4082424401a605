# SPDX-License-Identifier: Apache-2.0
"""How long an image is under way in a network on a chip."""

from functools import reduce

import numpy as np

from .assembly import Assembly
from .timing import Times, leaving

__all__ = ["latency"]


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
        for name, part in list(waiting.items()):
            sources = [wire.part for (reader, _), wire in assembly.sources.items() if reader == name]
            if all(source in times for source in sources):
                times[name] = leaving(part, reduce(np.maximum, (times[source] for source in sources)))
                del waiting[name]
    return int(max(part.max() for part in times.values()))
