# SPDX-License-Identifier: Apache-2.0
"""Constants by index, such as those of each channel, in tables: which of them are memories, how wide these are, and how
they are written where a network's constants can be replaced.

A block's constants are :class:`Numbers` by name. In a chip with its weights inside, a table is as wide as its entries
need, and what is the same for all is no table. In one whose weights can be written, a :class:`Form` says for each name
between which numbers any network's entries lie: it is that of the first network, which the hardware is built for.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar

from amaranth.hdl import Module
from amaranth.lib.wiring import In, Member

from bmhw.hdl.block import Block
from bmhw.hdl.technology import ANY, Memory, Technology

__all__ = ["Form", "Loaded", "Numbers", "OutOfSpanError", "Span", "Table", "connect_loads", "load_members"]


class OutOfSpanError(ValueError):
    """An entry that the hardware has no room for: the entry's ``name``, ``index`` and ``value``, and what fits."""

    def __init__(self, name: str, index: int, value: int, span: "Span"):
        self.name, self.index, self.value, self.span = name, index, value, span
        super().__init__(f"{name} of channel {index} must be {span}, not {value}")


@dataclass(frozen=True)
class Span:
    """The integers from ``low`` to ``high``, both included."""

    low: int
    high: int

    @classmethod
    def of(cls, entries: Iterable[int]) -> "Span":
        """The least one with all entries."""
        entries = tuple(entries)
        return cls(min(entries), max(entries))

    @property
    def constant(self) -> bool:
        return self.low == self.high

    @property
    def signed(self) -> bool:
        return self.low < 0

    @property
    def bits(self) -> int:
        """Of a number in it, in two's complement where one is below 0."""
        low = ~self.low if self.low < 0 else self.low
        return max(low.bit_length(), self.high.bit_length()) + self.signed

    @property
    def whole(self) -> "Span":
        """All numbers of as many bits; a constant stays one."""
        if self.constant:
            return self
        return Span(-(1 << self.bits - 1), (1 << self.bits - 1) - 1) if self.signed else Span(0, (1 << self.bits) - 1)

    def __str__(self) -> str:
        return str(self.low) if self.constant else f"from {self.low} to {self.high}"


@dataclass(frozen=True)
class Numbers:
    """Entries of a table. ``choice``: of one that holds which of a few hard-wired options each index has; then these
    are the options."""

    entries: tuple[int, ...]
    choice: bool = False

    @classmethod
    def of(cls, entries: Iterable[int], *, choice: bool = False) -> "Numbers":
        return cls(tuple(map(int, entries)), choice)

    @property
    def span(self) -> Span:
        return Span.of(self.entries)


@dataclass(frozen=True)
class Table:
    """What a memory that can be written holds: ``words``, unsigned, of ``width`` bits."""

    width: int
    words: tuple[int, ...]

    @property
    def memory(self) -> Memory:
        return Memory(len(self.words), self.width)


@dataclass(frozen=True)
class Form:
    """Between which numbers the entries of a block's tables lie, whatever the network, by name.

    What a span has one number of is a constant of the hardware, everything else a memory.
    """

    spans: tuple[tuple[str, Span], ...]

    @classmethod
    def of(cls, spans: Mapping[str, Span]) -> "Form":
        return cls(tuple(spans.items()))

    def __getitem__(self, name: str) -> Span:
        return dict(self.spans)[name]

    def __or__(self, other: "Form") -> "Form":
        return Form((*self.spans, *other.spans))

    def table(self, name: str, numbers: Numbers) -> Table | None:
        """The words of numbers, None of constants; :class:`OutOfSpanError` at one that doesn't fit."""
        span = self[name]
        for index, entry in enumerate(numbers.entries):
            if not span.low <= entry <= span.high:
                raise OutOfSpanError(name, index, entry, span)
        if span.constant:
            return None
        if numbers.choice:
            return Table((span.high - span.low).bit_length(), tuple(entry - span.low for entry in numbers.entries))
        return Table(span.bits, tuple(entry & ((1 << span.bits) - 1) for entry in numbers.entries))


def load_members(loads: Mapping[str, Table]) -> dict[str, Member]:
    """The ports through which memories are written, none of none: ``load_write``, a bit for each memory, in order;
    ``load_address`` and ``load_data``, of which a memory takes the lowest bits."""
    if not loads:
        return {}
    return {"load_write": In(len(loads)), "load_address": In(range(max(2, *(len(of.words) for of in loads.values())))),
            "load_data": In(max(of.width for of in loads.values()))}


class Loaded(Block):
    """A block with memories of constants that can be written, where it has a form.

    Members (:func:`load_members`)
    -------
    load_write, load_address, load_data : In
    """

    form: Form | None = None
    technology: Technology = ANY
    """Of the memories."""
    loads: Mapping[str, Table]
    """Its memories, in the order of the bits of ``load_write``."""

    numbers: ClassVar[Mapping[str, Numbers]] = {}

    def open(self, form: Form | None, technology: Technology) -> dict[str, Member]:
        """Take the tables of ``numbers`` as those of a form; the ports through which they are written. None: there are
        none. :class:`OutOfSpanError` where the form has no room for a number."""
        self.form, self.technology = form, technology
        tables = {} if form is None else {name: form.table(name, of) for name, of in self.numbers.items()}
        self.loads = {name: table for name, table in tables.items() if table is not None}
        return load_members(self.loads)

    @property
    def memories(self) -> dict[str, Memory]:
        return {name: table.memory for name, table in self.loads.items()}


def connect_loads(m: Module, block: Block, children: Iterable[Block]) -> None:
    """Let children be written through the ports ``load_...`` of a block that has them or writes them; its memories are
    those of the children, one behind the other."""
    at = 0
    for child in children:
        count = len(getattr(child, "loads", ()))
        if count:
            m.d.comb += [child.load_write.eq(block.load_write[at:at + count]),
                         child.load_address.eq(block.load_address[:len(child.load_address)]),
                         child.load_data.eq(block.load_data[:len(child.load_data)])]
        at += count
    there = len(block.load_write) if hasattr(block, "load_write") else 0
    if at != there:
        raise RuntimeError(f"{at} of {there} memories of {block.block_name} are written: this is a bug")
