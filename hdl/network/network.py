# SPDX-License-Identifier: Apache-2.0
"""A whole network: blocks with streams, put together as a list of parts says."""

from dataclasses import dataclass

from amaranth.hdl import Module
from amaranth.lib import stream
from amaranth.lib.wiring import In, Out, connect, flipped

from bmhw.hdl.block import Block, place

__all__ = ["Network", "Part"]


@dataclass(frozen=True, kw_only=True)
class Part:
    """A block of a network: its name, what makes it, and where its inputs come from.

    ``kind``, ``parameters``: of the block. ``inputs``: its input stream -> (part, output stream); the part ``""`` is
    the network's own input.
    """

    name: str
    kind: type[Block]
    parameters: tuple[tuple[str, object], ...]
    inputs: tuple[tuple[str, tuple[str, str]], ...]

    def create(self) -> Block:
        return self.kind(**dict(self.parameters))


class Network(Block):
    """A trained network with its weights: an image's pixels in, its class out.

    Pixels come in raster order, the channels of each one after the other; images without a gap.

    Parameters
    ----------
    parts: in the order of the data; the last one's stream ``o`` is the network's.
    taps: parts whose transfers are shown, for benches.

    Members
    -------
    i : In(stream of pixels, 8 bits), o : Out(stream)
    NAME : Out of each tap's payload, and NAME_moves : Out(1): it is transferred
    """

    clocked = True
    block_name = "network"

    def __init__(self, *, parts: tuple[Part, ...], taps: tuple[tuple[str, str], ...] = ()):
        self.parts, self.taps = parts, taps
        blocks = {part.name: part.create() for part in parts}
        members = {}
        for name, port in taps:
            members |= {f"{name}_payload": Out(len(getattr(blocks[name], port).payload)), f"{name}_moves": Out(1)}
        super().__init__({"i": In(stream.Signature(8)),
                          "o": Out(stream.Signature(len(blocks[parts[-1].name].o.payload))), **members})

    def elaborate(self, platform):
        m = Module()
        blocks: dict[str, Block] = {}
        for part in self.parts:
            block = blocks[part.name] = place(m, platform, part.name, part.create())
            for port, (source, output) in part.inputs:
                if source:
                    connect(m, getattr(blocks[source], output), getattr(block, port))
                else:
                    m.d.comb += [getattr(block, port).payload.eq(self.i.payload),  # unsigned: a bit more
                                 getattr(block, port).valid.eq(self.i.valid),
                                 self.i.ready.eq(getattr(block, port).ready)]
        connect(m, blocks[self.parts[-1].name].o, flipped(self.o))
        for name, port in self.taps:
            tapped = getattr(blocks[name], port)
            m.d.comb += [getattr(self, f"{name}_payload").eq(tapped.payload),
                         getattr(self, f"{name}_moves").eq(tapped.valid & tapped.ready)]
        return m
