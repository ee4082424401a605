# SPDX-License-Identifier: Apache-2.0
"""An image of all that can be written in a chip: where each memory's words lie in it, and what writes them.

An image is a row of words of 32 bits: a header that names the chip, the words of each memory, and a CRC-32 of all words
before it. A memory's word of more bits takes several of the image, the lowest bits first; unused bits are 0.
:class:`LoadLayout` is the one owner of that: the hardware, the files and the data sheet come from it.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

from amaranth.hdl import Module, Mux, ResetSignal, Signal
from amaranth.lib import stream
from amaranth.lib.crc import Parameters
from amaranth.lib.crc.catalog import CRC32_ISO_HDLC
from amaranth.lib.wiring import In, Out

from bmhw.hdl.block import Block, place
from bmhw.hdl.checks import check_range
from bmhw.hdl.technology import Memory

from .pipeline import Pipeline
from .tables import Numbers, Table

__all__ = ["WORD", "Admission", "Checksum", "LoadLayout", "Loader", "Section", "checksum"]

WORD = 32
"""Bits of a word of an image."""


CRC: Parameters = CRC32_ISO_HDLC(data_width=WORD)
"""That of ``zlib.crc32``, which takes a word as four bytes, the lowest one first."""


def checksum(words: Iterable[int]) -> int:
    """The CRC-32 of words."""
    return CRC.compute(words)


@dataclass(frozen=True)
class Section:
    """A memory in an image: ``name``: of its part and of itself; ``memory``: its words and their bits; ``first``: the
    place of its first word in the image."""

    name: str
    memory: Memory
    first: int

    @property
    def parts(self) -> int:
        """Words of the image that one of the memory takes."""
        return math.ceil(self.memory.bits / WORD)

    @property
    def length(self) -> int:
        """In words of the image."""
        return self.memory.words * self.parts


@dataclass(frozen=True)
class LoadLayout:
    """What is where in a chip's image.

    Parameters
    ----------
    chip: the header, that of no other chip.
    memories: (name, words and bits) of each one, in the order in which they are written.
    """

    chip: int
    memories: tuple[tuple[str, Memory], ...]

    def __post_init__(self):
        check_range("Header of an image", self.chip, 0, (1 << WORD) - 1)

    @cached_property
    def sections(self) -> tuple[Section, ...]:
        found, first = [], 1
        for name, memory in self.memories:
            found.append(Section(name, memory, first))
            first += found[-1].length
        return tuple(found)

    @property
    def length(self) -> int:
        """Words of an image, with its header and its checksum."""
        return 2 + sum(section.length for section in self.sections)

    @property
    def data_bits(self) -> int:
        """Of the widest memory."""
        return max(memory.bits for _, memory in self.memories)

    def image(self, tables: Mapping[str, Table]) -> tuple[int, ...]:
        """The words of an image with what each memory is to hold, by name."""
        words = [self.chip]
        for section in self.sections:
            table = tables[section.name]
            if table.memory != section.memory:
                raise ValueError(f"Memory {section.name} has {section.memory}, not {table.memory}")
            for word in table.words:
                words += [word >> part * WORD & ((1 << WORD) - 1) for part in range(section.parts)]
        return (*words, checksum(words))


class Checksum(Block):
    """A CRC-32 of words (``amaranth.lib.crc``), one a cycle.

    Latency: one cycle.

    Members
    -------
    data : In(32), valid : In(1): a word; start : In(1): no word was before it
    match : Out(1): the last word was the checksum of those before it
    """

    clocked = True

    def __init__(self):
        super().__init__({"data": In(WORD), "valid": In(1), "start": In(1), "match": Out(1)})

    def elaborate(self, platform):
        processor = CRC.create()
        processor._MustUse__silence = True  # it is part of this module, not one in it
        m = processor.elaborate(platform)
        m.d.comb += [processor.data.eq(self.data), processor.valid.eq(self.valid), processor.start.eq(self.start),
                     self.match.eq(processor.match_detected)]
        return m


class Admission(Block):
    """Lets either pixels into a chip or words of weights: these when no image is in it, and no pixel until they are in.

    What waits to be loaded keeps the next image out, so that it waits no longer than for the images that are under way.

    Latency: from registers.

    Parameters
    ----------
    images: that may be under way.

    Members
    -------
    offered : In(1), busy : In(1): a word waits; its image has begun
    pixel : In(1), last : In(1): a pixel comes; it is an image's last one
    leaves : In(1): the end of an image's result does
    pixels : Out(1), words : Out(1): they may come
    """

    clocked = True

    def __init__(self, *, images: int):
        self.images = check_range("Images under way", images, 1)
        super().__init__({name: In(1) for name in ("offered", "busy", "pixel", "last", "leaves")}
                         | {"pixels": Out(1), "words": Out(1)})

    def elaborate(self, platform):
        m = Module()
        held, words, begun, begun_after = (Signal(name=name) for name in (
            "pixels_held", "words_may", "image_begun", "begun_after"))  # an image that isn't whole yet
        # the result of an image that is too long may leave before its end comes: then it is one less than none
        under_way = Signal((self.images + 1).bit_length() + 1, name="under_way")
        waits = Signal(name="waits")
        m.d.comb += [begun_after.eq(Mux(self.pixel, ~self.last, begun)),
                     waits.eq((self.offered | self.busy) & ~begun_after),
                     self.pixels.eq(~held), self.words.eq(words)]
        m.d.sync += [begun.eq(begun_after), held.eq(waits), words.eq(waits & held & (under_way == 0)),
                     under_way.eq(under_way + (self.pixel & self.last) - self.leaves)]
        return m


class Loader(Block):
    """Takes images and writes memories while their words come.

    An image whose header isn't this chip's is dropped whole. One with a wrong checksum or of another length is found at
    its end, when it is written.

    - Throughput: a word every second cycle.
    - Latency: what a word completes is written two cycles behind it; ``done`` and ``error`` follow an image by three.

    Parameters
    ----------
    layout: of the images.

    Members
    -------
    i : In(stream of 33): a word, above it the end of an image
    busy : Out(1): an image has begun and its end isn't done
    done : Out(1): the last image was a good one; 0 from the first word of an image on
    error : Out(1): the last image that ended wasn't. Until a good one has ended, or a reset
    load_write : Out(1 for each memory), load_address : Out, load_data : Out(of the widest memory)
    """

    clocked = True

    def __init__(self, *, layout: LoadLayout):
        self.layout = layout
        super().__init__({
            "i": In(stream.Signature(WORD + 1)), "busy": Out(1), "done": Out(1), "error": Out(1),
            "load_write": Out(len(layout.sections)), "load_data": Out(layout.data_bits),
            "load_address": Out(range(max(2, *(section.memory.words for section in layout.sections))))})

    def elaborate(self, platform):
        m = Module()
        pipe, sections = Pipeline(m, platform), self.layout.sections
        # cycle 0: a word comes; cycle 1: it is looked at; cycle 2: the place of the next one is known
        ready, takes = Signal(name="ready"), Signal(name="takes")
        m.d.comb += [self.i.ready.eq(ready), takes.eq(self.i.valid & ready)]
        m.d.sync += ready.eq(~takes)
        word, ends = pipe.register("word", self.i.payload[:WORD]), pipe.register("ends", self.i.payload[WORD])
        came = pipe.flags("came", takes, 1)
        begun, busy = Signal(name="begun"), Signal(name="busy_held")  # the header has been looked at
        m.d.sync += busy.eq((busy | takes) & ~(came & ends))
        m.d.comb += self.busy.eq(busy)

        # where a word goes
        memory = Signal(range(max(len(sections), 2)), name="memory")
        address, part = Signal(len(self.load_address), name="place"), Signal(range(max(2, *(
            section.parts for section in sections))), name="part")
        last_address, last_part = (pipe.table(name, Numbers.of(last), memory) for name, last in (
            ("last_addresses", (section.memory.words - 1 for section in sections)),
            ("last_parts", (section.parts - 1 for section in sections))))
        whole = Signal(name="whole")  # all memories are written
        ours, wrong = Signal(name="ours"), Signal(name="wrong")
        fills, completes = Signal(name="fills"), Signal(name="completes")
        m.d.comb += [fills.eq(came & begun & ours & ~whole), completes.eq(fills & (part == last_part))]
        with m.If(fills):
            m.d.sync += part.eq(part + 1)
        with m.If(completes):
            m.d.sync += [part.eq(0), address.eq(address + 1)]
            with m.If(address == last_address):
                m.d.sync += [address.eq(0), memory.eq(memory + 1), whole.eq(memory == len(sections) - 1)]
        with m.If(came & ~begun):
            m.d.sync += [begun.eq(1), ours.eq(word == self.layout.chip)]
        with m.If(came & whole & ~ends):  # goes on behind its checksum
            m.d.sync += wrong.eq(1)
        with m.If(came & ends):
            m.d.sync += [begun.eq(0), part.eq(0), address.eq(0), memory.eq(0), whole.eq(0), wrong.eq(0)]

        for number in range(math.ceil(len(self.load_data) / WORD)):
            low = number * WORD
            width = min(WORD, len(self.load_data) - low)
            held = Signal(width, name=f"data_{number}", reset_less=True)
            with m.If(fills & (part == number)):
                m.d.sync += held.eq(word[:width])
            m.d.comb += self.load_data[low:low + width].eq(held)
        m.d.comb += self.load_address.eq(pipe.register("address", address))
        # in the first cycle of a reset registers may hold anything, and what a memory begins with must stay
        for number in range(len(sections)):
            writes = pipe.flags(f"write_{number}", completes & (memory == number), 1)
            m.d.comb += self.load_write[number].eq(writes & ~ResetSignal())

        crc = place(m, platform, "checksum", Checksum())
        m.d.comb += [crc.data.eq(word), crc.valid.eq(came), crc.start.eq(~begun)]
        ended, right = pipe.flags("ended", came & ends, 1), pipe.register("right", begun & ours & whole & ~wrong)
        done, error = Signal(name="good"), Signal(name="bad")
        with m.If(ended):
            m.d.sync += [done.eq(right & crc.match), error.eq(~(right & crc.match))]
        with m.Elif(came):
            m.d.sync += done.eq(0)
        m.d.comb += [self.done.eq(done), self.error.eq(error)]
        return m
