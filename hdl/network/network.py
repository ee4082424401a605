# SPDX-License-Identifier: Apache-2.0
"""A whole network: blocks with streams, put together as a list of parts says."""

from dataclasses import dataclass

from amaranth.hdl import Cat, Module
from amaranth.lib.wiring import In, Out, connect

from bmhw.hdl.block import Block, place

from .loading import WORD, Loader, LoadLayout
from .tables import connect_loads

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
    taps: parts whose transfers are shown, and gauges: FIFOs whose filling is, for benches.
    layout: of images of weights, where these can be written: the memories of all parts, in their order.

    Members
    -------
    in_data : In(8), in_valid : In(1), in_ready : Out(1): a stream of pixels
    out_data : Out, out_valid : Out(1), out_ready : In(1): the stream of what the last part gives
    NAME_payload : Out, of each tap, and NAME_moves : Out(1): it is transferred
    NAME_level : Out, of each gauge, and NAME_waits : Out(1): a number waits in front of it; of a limited FIFO also
        NAME_limit : In
    load_data : In(32), load_last, load_valid : In(1), load_ready : Out(1): with a layout, a stream of images; and
        load_busy, load_done, load_error : Out(1) (:class:`~bmhw.hdl.network.loading.Loader`)
    """

    clocked = True
    block_name = "network"

    def __init__(self, *, parts: tuple[Part, ...], taps: tuple[tuple[str, str], ...] = (),
                 gauges: tuple[str, ...] = (), layout: LoadLayout | None = None):
        self.parts, self.taps, self.gauges, self.layout = parts, taps, gauges, layout
        blocks = {part.name: part.create() for part in parts}
        members = {}
        for name, port in taps:
            members |= {f"{name}_payload": Out(len(getattr(blocks[name], port).payload)), f"{name}_moves": Out(1)}
        for name in gauges:
            members |= {f"{name}_level": Out(len(blocks[name].level)), f"{name}_waits": Out(1)}
            if blocks[name].limited:
                members[f"{name}_limit"] = In(len(blocks[name].limit))
        if layout is not None:
            members |= {"load_data": In(WORD), "load_last": In(1), "load_valid": In(1), "load_ready": Out(1),
                        "load_busy": Out(1), "load_done": Out(1), "load_error": Out(1)}
        super().__init__({"in_data": In(8), "in_valid": In(1), "in_ready": Out(1),
                          "out_data": Out(len(blocks[parts[-1].name].o.payload)), "out_valid": Out(1),
                          "out_ready": In(1), **members})

    def elaborate(self, platform):
        m = Module()
        blocks: dict[str, Block] = {}
        for part in self.parts:
            block = blocks[part.name] = place(m, platform, part.name, part.create())
            for port, (source, output) in part.inputs:
                if source:
                    connect(m, getattr(blocks[source], output), getattr(block, port))
                else:
                    first = getattr(block, port)
                    m.d.comb += [first.payload.eq(self.in_data), first.valid.eq(self.in_valid),
                                 self.in_ready.eq(first.ready)]
        if self.layout is not None:
            loader = place(m, platform, "loader", Loader(layout=self.layout))
            m.d.comb += [
                loader.i.payload.eq(Cat(self.load_data, self.load_last)), loader.i.valid.eq(self.load_valid),
                self.load_ready.eq(loader.i.ready), self.load_busy.eq(loader.busy), self.load_done.eq(loader.done),
                self.load_error.eq(loader.error),
            ]
            connect_loads(m, loader, blocks.values())
        last = blocks[self.parts[-1].name].o
        m.d.comb += [self.out_data.eq(last.payload), self.out_valid.eq(last.valid), last.ready.eq(self.out_ready)]
        for name, port in self.taps:
            tapped = getattr(blocks[name], port)
            m.d.comb += [getattr(self, f"{name}_payload").eq(tapped.payload),
                         getattr(self, f"{name}_moves").eq(tapped.valid & tapped.ready)]
        for name in self.gauges:
            gauged = blocks[name]
            m.d.comb += [getattr(self, f"{name}_level").eq(gauged.level),
                         getattr(self, f"{name}_waits").eq(gauged.i.valid & ~gauged.i.ready)]
            if gauged.limited:
                m.d.comb += gauged.limit.eq(getattr(self, f"{name}_limit"))
        return m
