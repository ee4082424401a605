# SPDX-License-Identifier: Apache-2.0
"""A network with the edge of a chip around it, as it is delivered."""

import dataclasses

from bmhw.errors import UsageError
from bmhw.hdl.network.edge import Chip
from bmhw.hdl.network.pixels import Logits

from .assembly import Assembly
from .loading import layout_of

__all__ = ["LOGIT_BITS", "chip_of"]

LOGIT_BITS = 32
IMAGES_IN_A_LAYER = 2
"""Under way at a time: one in a layer's window and one among its results."""


def chip_of(assembly: Assembly, *, logits: bool = False, counters: bool = False) -> Chip:
    """The chip of a network.

    ``logits``: each class's number in front of the class, all in one scale, as
    :meth:`~bmhw.models.integer.network.IntegerNetwork.logits` gives them. ``counters``: outputs that count frames and
    stalls. UsageError where a number has more than :data:`LOGIT_BITS`.
    """
    network = assembly.network
    channels, height, width = network.architecture.image.shape
    *parts, last = assembly.parts()
    if logits:
        last = dataclasses.replace(last, kind=Logits, parameters=(*last.parameters, ("bits", LOGIT_BITS)))
        try:
            last.create()
        except ValueError as error:
            raise UsageError(f"--logits: {error}") from None
    return Chip(parts=(*parts, last), pixels=height * width, channels=channels,
                beats=1 + logits * network.architecture.classes,
                images=IMAGES_IN_A_LAYER * (len(network.layers) + 1), counters=counters,
                **({"layout": layout_of(assembly)} if assembly.writable else {}))
