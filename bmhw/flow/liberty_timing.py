# SPDX-License-Identifier: Apache-2.0
"""Capacitances and delay tables of a library's cells, read from the text of a Liberty file.

Only what a table-lookup delay model needs of the cells asked for: Yosys has checked the file before.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from bmhw.errors import RunError

__all__ = ["Arc", "CellTiming", "Table", "read_timing"]

_TOKEN = re.compile(r'/\*.*?\*/|//[^\n]*|"(?:[^"\\]|\\.)*"|[{}():;,]|[^\s{}():;,"\\]+', re.DOTALL)
# A pattern that begins with a plain word is found many times faster than one that begins with a look behind.
_CELL = re.compile(r'cell\s*\(\s*"?([^")\s]+)"?\s*\)\s*\{')
_BRACE = re.compile(r'[{}]|"[^"]*"')
# Most of a library's text, and nothing of its timing.
_SKIPPED = frozenset(("internal_power", "leakage_power", "pg_pin", "ff", "test_cell"))
_TABLES = ("cell_rise", "cell_fall", "rise_transition", "fall_transition")


@dataclass
class Group:
    """A Liberty group: ``kind (arguments) { attributes and groups }``."""

    kind: str
    arguments: list[str]
    attributes: dict[str, list[str]] = field(default_factory=dict)
    groups: list["Group"] = field(default_factory=list)

    def of(self, *kinds: str) -> Iterator["Group"]:
        return (group for group in self.groups if group.kind in kinds)

    def first(self, attribute: str) -> str | None:
        return self.attributes.get(attribute, [None])[0]


@dataclass(frozen=True)
class Table:
    """Values in ns over the input's transition in ns (axis 0) and the output's load in pF (axis 1)."""

    transition: NDArray[np.float64]
    load: NDArray[np.float64]
    values: NDArray[np.float64]


@dataclass(frozen=True)
class Arc:
    """From one input pin to one output pin. ``sense``: +1 same edge, -1 opposite edge, 0 either."""

    source: str
    sense: int
    cell_rise: Table
    cell_fall: Table
    rise_transition: Table
    fall_transition: Table


@dataclass(frozen=True)
class CellTiming:
    """Capacitance in pF of each input pin (for a rising, a falling edge), and the arcs to each output pin."""

    capacitance: dict[str, tuple[float, float]]
    arcs: dict[str, list[Arc]]


def read_timing(content: bytes, cells: Iterable[str]) -> dict[str, CellTiming]:
    """The timing of these cells; ``RunError`` where a cell or what it needs is not in the text."""
    text = content.decode(errors="replace")
    starts = [(match.group(1), match.start()) for match in _CELL.finditer(text)
              if text[match.start() - 1].isspace() or text[match.start() - 1] in "{};/"]
    ends = [start for _, start in starts[1:]] + [len(text)]
    header = _parse(text[: starts[0][1]] if starts else text)
    units = _Units(header)
    places = {name: (start, end) for (name, start), end in zip(starts, ends, strict=True)}
    timing = {}
    for name in cells:
        if name not in places:
            raise RunError(f"the Liberty file has no cell {name}")
        start, end = places[name]
        group = next(_parse(text[start:end]).of("cell"))
        timing[name] = _cell_timing(group, units)
    return timing


def _parse(text: str) -> Group:
    """A text of groups and attributes, the last of them perhaps cut off, as the groups of one."""
    root = Group("", [])
    stack = [root]
    words: list[str] = []
    arguments: list[str] | None = None
    inside = False  # of parentheses
    position = 0
    while match := _TOKEN.search(text, position):
        token, position = match.group(), match.end()
        if token.startswith(("/*", "//")):
            continue
        if token == "(":
            inside, arguments = True, []
        elif token == ")":
            inside = False
        elif inside:
            if token != "," and arguments is not None:
                arguments.append(token.strip('"'))
        elif token == "{" and words and words[0] in _SKIPPED:
            position = _behind(text, position)
            words, arguments = [], None
        elif token == "{":
            group = Group(words[0] if words else "", arguments or [])
            stack[-1].groups.append(group)
            stack.append(group)
            words, arguments = [], None
        elif token == "}":
            words, arguments = [], None
            if len(stack) > 1:
                stack.pop()
        elif token == ";":
            if words:
                # name : value;  or  name (values);
                stack[-1].attributes[words[0]] = arguments if arguments is not None else words[1:]
            words, arguments = [], None
        elif token != ":":
            if arguments is not None:  # a call without its semicolon
                stack[-1].attributes[words[0]] = arguments
                words, arguments = [], None
            words.append(token.strip('"'))
    return root


def _behind(text: str, position: int) -> int:
    """The place behind the group that begins before ``position``."""
    depth = 1
    while depth and (match := _BRACE.search(text, position)):
        depth += {"{": 1, "}": -1}.get(match.group(), 0)
        position = match.end()
    return position


class _Units:
    """Scales to ns and pF, and the templates of tables, from what stands before the first cell."""

    def __init__(self, header: Group):
        library = next(header.of("library"), Group("library", []))
        self.time = _unit(library.first("time_unit") or "1ns", "s") / 1e-9
        load = library.attributes.get("capacitive_load_unit", ["1", "pf"])
        self.load = float(load[0]) * _unit(f"1{load[1].lower()}", "f") / 1e-12
        self.templates = {group.arguments[0]: group for group in library.of("lu_table_template")
                          if group.arguments}
        self.default_capacitance = float(library.first("default_input_pin_cap") or 0) * self.load

    def table(self, group: Group) -> Table:
        template = self.templates.get(group.arguments[0] if group.arguments else "", Group("", []))
        axes: dict[str, NDArray[np.float64]] = {}
        order = []
        for number in (1, 2):
            variable = template.first(f"variable_{number}")
            index = group.attributes.get(f"index_{number}") or template.attributes.get(f"index_{number}")
            if variable is None or index is None:
                continue
            name = "load" if "capacitance" in variable else "transition"
            axes[name] = _numbers(index) * (self.load if name == "load" else self.time)
            order.append(name)
        values = _numbers(group.attributes.get("values", [])) * self.time
        values = values.reshape([len(axes[name]) for name in order])
        for name in ("transition", "load"):
            if name not in axes:  # a table that does not depend on it
                axes[name] = np.zeros(1)
                values = values[..., None]
                order.append(name)
        if order[0] != "transition":
            values = values.T
        return Table(axes["transition"], axes["load"], values)


def _cell_timing(cell: Group, units: _Units) -> CellTiming:
    capacitance: dict[str, tuple[float, float]] = {}
    arcs: dict[str, list[Arc]] = {}
    for pin in cell.of("pin"):
        name, direction = pin.arguments[0], pin.first("direction")
        if direction == "input":
            plain = pin.first("capacitance")
            both = [pin.first(f"{edge}_capacitance") or plain for edge in ("rise", "fall")]
            rise, fall = (units.default_capacitance if of is None else float(of) * units.load for of in both)
            capacitance[name] = rise, fall
        elif direction == "output":
            arcs[name] = [arc for timing in pin.of("timing") for arc in _arcs(timing, units)]
    return CellTiming(capacitance, arcs)


_SENSES = {"positive_unate": 1, "negative_unate": -1, "non_unate": 0}


def _arcs(timing: Group, units: _Units) -> Iterator[Arc]:
    tables = {kind: next(timing.of(kind), None) for kind in _TABLES}
    if timing.first("timing_type") not in (None, "combinational") or any(t is None for t in tables.values()):
        return
    read = [units.table(table) for table in tables.values() if table is not None]
    sense = _SENSES.get(timing.first("timing_sense") or "", 0)
    for source in (timing.first("related_pin") or "").split():
        yield Arc(source, sense, *read)


def _unit(text: str, base: str) -> float:
    """``100ps`` in seconds, ``1ff`` in farads."""
    match = re.fullmatch(r"\s*([\d.]+)\s*([munpf]?)" + base, text)
    if not match:
        raise RunError(f"the Liberty file has a unit {text!r} that is not understood")
    prefixes = {"": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9, "p": 1e-12, "f": 1e-15}
    return float(match.group(1)) * prefixes[match.group(2)]


def _numbers(values: list[str]) -> NDArray[np.float64]:
    """The numbers of ``"1, 2", "3, 4"``."""
    rows = (row.replace("\\", " ").replace(",", " ").split() for row in values)
    return np.array([float(number) for row in rows for number in row])
