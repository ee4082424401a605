# SPDX-License-Identifier: Apache-2.0
"""The cells of a Liberty file, as far as mapping and timing need them, in ns and pF.

A cell that can't be mapped to says why not: one that the file forbids, a latch, a pad. A cell of which no delay is
known says that too, and may still have an area.
"""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from bmhw.errors import RunError

from .liberty_functions import Function
from .liberty_syntax import Group, number, parse
from .liberty_timing import ArcText, CellTiming, NotTimed, TableText, Units, arcs_of

__all__ = ["LibraryCell", "Pin", "read_cells"]

# Most of a library's text, and nothing that is needed.
_SKIPPED = frozenset(("internal_power", "leakage_power", "pg_pin", "test_cell", "receiver_capacitance",
                      "output_current_rise", "output_current_fall", "ccsn_first_stage", "ccsn_last_stage"))
_STORAGE = ("ff", "latch", "ff_bank", "latch_bank", "statetable")
_FF_FUNCTIONS = ("clocked_on", "next_state", "clear", "preset")
_FF_WORDS = ("clear_preset_var1", "clear_preset_var2")
# What Yosys and abc can both read, in a Liberty file and in the netlist that comes back.
_CELL_NAME = re.compile(r"[A-Za-z_][\w.$\-]*")
_PIN_NAME = re.compile(r"[A-Za-z_]\w*")

# Value for each combination of one or two inputs, see Function.truth.
_KINDS = {(1, 0b01): "inverter", (1, 0b10): "buffer", (2, 0b0111): "nand2"}


class Pin(NamedTuple):
    """A pin. ``function`` of an output; for an input ``capacitance``, and that of a rising and a falling edge, in pF;
    ``max_capacitance`` in pF and ``max_transition`` in ns where the file has them."""

    name: str
    direction: str
    function: str | None = None
    capacitance: float = 0.0
    rise_capacitance: float = 0.0
    fall_capacitance: float = 0.0
    max_capacitance: float | None = None
    max_transition: float | None = None


@dataclass(frozen=True)
class LibraryCell:
    """A cell. ``area`` in the file's own unit; ``line`` where it begins.

    ``kind``: ``inverter``, ``buffer``, ``nand2``, ``gate`` for another gate of two inputs that with an inverter makes
    every function, or empty. ``flip_flop``: what the ``ff`` group says, of a flip-flop. ``unused``: why it can't be
    mapped to, ``untimed``: why its delays are not known; empty where it can and they are.
    """

    name: str
    line: int
    area: float
    pins: list[Pin] = field(default_factory=list)
    arcs: dict[str, list[ArcText]] = field(default_factory=dict)
    kind: str = ""
    flip_flop: dict[str, Any] | None = None
    unused: str = ""
    untimed: str = ""

    def names(self, direction: str) -> list[str]:
        return [pin.name for pin in self.pins if pin.direction == direction]

    def timing(self) -> CellTiming:
        capacitance = {pin.name: (pin.rise_capacitance, pin.fall_capacitance) for pin in self.pins
                       if pin.direction == "input"}
        return CellTiming(capacitance, {output: [arc.arc() for arc in arcs] for output, arcs in self.arcs.items()})

    def to_dict(self) -> dict[str, Any]:
        """JSON values; :meth:`from_dict` takes them back."""
        return dict(vars(self))

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "LibraryCell":
        pins = [Pin(*pin) for pin in values["pins"]]
        arcs = {output: [ArcText(source, sense, tuple(TableText(*table) for table in tables))
                         for source, sense, tables in arcs] for output, arcs in values["arcs"].items()}
        return cls(**{**values, "pins": pins, "arcs": arcs})


def read_cells(text: str) -> tuple[dict[str, LibraryCell], str]:
    """The cells of all library groups in a text, by name, and :meth:`Units.wire_loads` of the first.

    ``RunError`` with the line, and the cell where there is one.

    Two cells of one name are an error, as they are to Yosys.
    """
    libraries = list(parse(text, _SKIPPED).of("library"))
    if not libraries:
        raise RunError("line 1: no library group")
    cells: dict[str, LibraryCell] = {}
    wire_loads = ""
    for library in libraries:
        if "include_file" in library.attributes:
            raise RunError(f"line {library.line}: include_file ({library.first('include_file')}) is not followed; "
                           "give each file by itself")
        try:
            units = Units(library)
            wire_loads = wire_loads or units.wire_loads()
        except ValueError as error:
            raise RunError(f"line {library.line}: library {' '.join(library.arguments)}: {error}") from error
        for group in library.of("cell"):
            if len(group.arguments) != 1:
                raise RunError(f"line {group.line}: a cell has one name, not {len(group.arguments)}")
            name = group.arguments[0]
            if name in cells:
                raise RunError(f"line {group.line}: cell {name} is there a second time, after line "
                               f"{cells[name].line}")
            try:
                cells[name] = _cell(group, units)
            except ValueError as error:
                raise RunError(f"line {group.line}: cell {name}: {error}") from error
    return cells, wire_loads


def _cell(group: Group, units: Units) -> LibraryCell:
    name = group.arguments[0]
    area = number(group.first("area") or "0")
    if area < 0:
        raise ValueError(f"area must be 0 or more, not {area:g}")
    common = {"name": name, "line": group.line, "area": area}
    reason = _unused(group) or ("" if area else "no area")
    pins = [_pin(pin, of, units) for of, pin in _pins(group)]
    for pin, times in Counter(pin.name for pin in pins).items():
        if times > 1:
            raise ValueError(f"pin {pin} is there {times} times")
    if not reason:
        reason = next((f"pin {pin.name}: {pin.direction or 'without a direction'}" for pin in pins
                       if pin.direction not in ("input", "output")), "")
    if reason:
        return LibraryCell(**common, kind=_kind(pins), unused=reason)
    flip_flop = next((_flip_flop(of) for of in group.of("ff")), None)
    inputs = frozenset(pin.name for pin in pins if pin.direction == "input")
    outputs = {pin.name: pin.function for pin in pins if pin.direction == "output"}
    state = flip_flop["state"] if flip_flop else []
    if not outputs:
        reason = "no output"
    for output, function in outputs.items():
        if function is None:
            reason = reason or f"pin {output}: no function"
        elif unknown := [word for word in Function(function).names if word not in (*inputs, *state)]:
            reason = reason or f"pin {output}: function of {unknown[0]}, which is no input"
    if reason or flip_flop:
        return LibraryCell(**common, pins=pins, kind=_kind(pins), flip_flop=flip_flop, unused=reason)
    arcs, untimed = _arcs(group, pins, inputs, units)
    return LibraryCell(**common, pins=pins, arcs=arcs, kind=_kind(pins), untimed=untimed)


def _unused(group: Group) -> str:
    """Why nothing may be mapped to a cell, as far as the cell as a whole says it."""
    for attribute in ("dont_use", "dont_touch"):
        if (group.first(attribute) or "").lower() == "true":
            return attribute
    storage = [of.kind for of in group.groups if of.kind in _STORAGE]
    if storage and storage != ["ff"]:
        return storage[0] if len(storage) == 1 else "several storage elements"
    if shape := next(group.of("bus", "bundle"), None):
        return shape.kind
    if any("three_state" in pin.attributes for pin in group.of("pin")):
        return "three_state"
    if not _CELL_NAME.fullmatch(group.arguments[0]):
        return "its name"
    if odd := next((name for name, _ in _pins(group) if not _PIN_NAME.fullmatch(name)), None):
        return f"the name of its pin {odd}"
    return ""


def _pins(cell: Group) -> Iterator[tuple[str, Group]]:
    """Each pin with its name: a group may stand for several."""
    for group in cell.of("pin"):
        for name in " ".join(group.arguments).replace(",", " ").split():
            yield name, group


def _pin(group: Group, name: str, units: Units) -> Pin:
    direction = (group.first("direction") or "").lower()
    if direction == "input":
        edges = {edge: units.capacitance(group, f"{edge}_capacitance", "capacitance", "input_pin_cap")
                 for edge in ("rise", "fall")}
        plain = units.capacitance(group, "capacitance")
        known = [value for value in edges.values() if value is not None]
        rise, fall = (value or 0.0 for value in edges.values())
        return Pin(name, direction, None, max(known, default=0.0) if plain is None else plain, rise, fall, None,
                   units.transition(group, "max_transition"))
    text = group.first("function")
    return Pin(name, direction, Function(text).text if text else None,
               max_capacitance=units.capacitance(group, "max_capacitance"),
               max_transition=units.transition(group, "max_transition"))


def _flip_flop(group: Group) -> dict[str, Any]:
    """The words of an ``ff`` group that a mapper needs, its functions in one style."""
    found: dict[str, Any] = {"state": group.arguments}
    found |= {name: Function(text).text for name in _FF_FUNCTIONS if (text := group.first(name))}
    return found | {name: text for name in _FF_WORDS if (text := group.first(name))}


def _kind(pins: list[Pin]) -> str:
    inputs = [pin.name for pin in pins if pin.direction == "input"]
    functions = [pin.function for pin in pins if pin.direction == "output"]
    if len(functions) != 1 or functions[0] is None or not 1 <= len(inputs) <= 2 or len(pins) > len(inputs) + 1:
        return ""
    function = Function(functions[0])
    if not set(function.names) <= set(inputs):
        return ""
    truth = function.truth(inputs)
    odd = len(inputs) == 2 and bin(truth).count("1") in (1, 3)
    return _KINDS.get((len(inputs), truth), "gate" if odd else "")


def _arcs(group: Group, pins: list[Pin], inputs: frozenset[str],
          units: Units) -> tuple[dict[str, list[ArcText]], str]:
    """The arcs to each output, and what is missing that a function depends on."""
    functions = {pin.name: pin.function for pin in pins if pin.direction == "output"}
    arcs: dict[str, list[ArcText]] = {}
    try:
        for name, pin in _pins(group):
            if name in functions:
                arcs[name] = list(arcs_of(pin, inputs, units))
    except NotTimed as error:
        return {}, str(error)
    for output, function in functions.items():
        sources = {arc.source for arc in arcs[output]}
        for name in Function(function or "0").support:
            if name not in sources:
                return {}, f"no delay tables from {name} to {output}"
    if inputs and not any(arcs.values()):
        return {}, "no delay tables"
    return arcs, ""
