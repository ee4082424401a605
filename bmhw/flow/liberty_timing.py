# SPDX-License-Identifier: Apache-2.0
"""Delay tables of a library's cells: from the groups of a Liberty file to ns and pF.

Only what a table-lookup delay model needs. A table is kept as text (:class:`TableText`), from which it is written for
other tools and read as numbers (:class:`Table`) where a cell is used.
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .liberty_syntax import Group, number

__all__ = ["TABLES", "Arc", "ArcText", "CellTiming", "Table", "TableText", "Units", "arcs_of"]

TABLES = ("cell_rise", "cell_fall", "rise_transition", "fall_transition")

_SENSES = {"positive_unate": 1, "negative_unate": -1, "non_unate": 0}
_AXES = {"input_net_transition": "transition", "input_transition_time": "transition",
         "related_pin_transition": "transition", "total_output_net_capacitance": "load"}


@dataclass(frozen=True)
class Table:
    """Values in ns over the input's transition in ns (axis 0) and the output's load in pF (axis 1)."""

    transition: NDArray[np.float64]
    load: NDArray[np.float64]
    values: NDArray[np.float64]


class TableText(NamedTuple):
    """A :class:`Table` as three lists of numbers, ``"0.1, 0.2"``, the values row by row."""

    transition: str
    load: str
    values: str

    def table(self) -> Table:
        transition, load, values = (np.array(text.split(","), dtype=np.float64) for text in self)
        return Table(transition, load, values.reshape(len(transition), len(load)))


@dataclass(frozen=True)
class Arc:
    """From one input pin to one output pin. ``sense``: +1 same edge, -1 opposite edge, 0 either."""

    source: str
    sense: int
    cell_rise: Table
    cell_fall: Table
    rise_transition: Table
    fall_transition: Table


class ArcText(NamedTuple):
    """An :class:`Arc` whose tables, in the order of ``TABLES``, are text."""

    source: str
    sense: int
    tables: tuple[TableText, ...]

    def arc(self) -> Arc:
        return Arc(self.source, self.sense, *(table.table() for table in self.tables))


@dataclass(frozen=True)
class CellTiming:
    """Capacitance in pF of each input pin (for a rising, a falling edge), and the arcs to each output pin."""

    capacitance: dict[str, tuple[float, float]]
    arcs: dict[str, list[Arc]]


class NotTimed(Exception):
    """A delay that the model can't have, though the file is no broken one: ``str()`` says why."""


class Units:
    """What a library says outside of its cells, wherever that stands: scales to ns and pF, templates, defaults.

    ``ValueError`` for what is not understood.
    """

    def __init__(self, library: Group):
        self.time = _scale(library.first("time_unit") or "1ns", "s") / 1e-9
        load = " ".join(library.attributes.get("capacitive_load_unit", ["1", "pf"])).replace(",", " ")
        self.load = _scale(load, "f") / 1e-12
        # the quotients of some scales are not what they stand for: 1e-9 / 1e-12 is 1000.0000000000001
        self.time, self.load = float(f"{self.time:.12g}"), float(f"{self.load:.12g}")
        self.templates = {group.arguments[0]: group for group in library.of("lu_table_template") if group.arguments}
        self._library = library

    def capacitance(self, group: Group, *names: str) -> float | None:
        """The first of these attributes that a pin has, in pF."""
        return self._scaled(group, names, self.load)

    def transition(self, group: Group, *names: str) -> float | None:
        """The first of these attributes that a pin has, in ns."""
        return self._scaled(group, names, self.time)

    def _scaled(self, group: Group, names: tuple[str, ...], scale: float) -> float | None:
        for of in (group, self._library):
            for name in names if of is group else [f"default_{name}" for name in names]:
                if text := of.first(name):
                    return number(text) * scale
        return None

    def wire_loads(self) -> str:
        """The library's estimates of wires by fan-out, as attributes and groups in pF: abc's buffering uses them,
        the timing here does not."""
        lines = [f'  {name} : "{value}";\n' for name in ("default_wire_load", "default_wire_load_selection")
                 if (value := self._library.first(name))]
        for group in self._library.of("wire_load", "wire_load_selection"):
            words = [f"{name} : {number(value) * (self.load if name == 'capacitance' else 1.0)!r};"
                     for name in ("resistance", "capacitance", "area", "slope") if (value := group.first(name))]
            words += [f"{name} ({', '.join(map(_word, values))});" for name, values in group.lists]
            lines.append(f'  {group.kind} ({", ".join(map(_word, group.arguments))}) {{ {" ".join(words)} }}\n')
        return "".join(lines)

    def table(self, group: Group) -> TableText:
        """A table, turned so that its rows are transitions; ``NotTimed`` where it depends on something else."""
        name = group.arguments[0] if group.arguments else "scalar"
        values = _numbers(group.attributes.get("values", []), self.time)
        template = self.templates.get(name)
        if template is None and len(values) != 1:
            raise NotTimed(f"its {group.kind} is a table of the template {name}, which the file does not have")
        axes: dict[str, list[float]] = {}
        for index in ("1", "2", "3") if template else ():
            variable = template.first(f"variable_{index}")
            if variable is None:
                continue
            points = group.attributes.get(f"index_{index}") or template.attributes.get(f"index_{index}")
            axis = _AXES.get(variable)
            if axis is None or axis in axes:
                raise NotTimed(f"its {group.kind} is a table over {variable}, which is not known here")
            if points is None:
                raise NotTimed(f"its {group.kind} has no index_{index}, nor has the template {name}")
            axes[axis] = _numbers(points, self.load if axis == "load" else self.time)
            if any(a >= b for a, b in zip(axes[axis], axes[axis][1:], strict=False)):
                raise ValueError(f"index_{index} of {group.kind} does not rise")
        sizes = [len(points) for points in axes.values()]
        if len(values) != np.prod(sizes, dtype=int):
            raise ValueError(f"{group.kind} has {len(values)} values, not {' x '.join(map(str, sizes)) or '1'}")
        if group.kind.startswith("cell") and max(values) <= 0:
            raise NotTimed(f"its {group.kind} has no value above 0")
        if list(axes) == ["load", "transition"]:
            rows, columns = len(axes["transition"]), len(axes["load"])
            values = [values[column * rows + row] for row in range(rows) for column in range(columns)]
        return TableText(_text(axes.get("transition", [0.0])), _text(axes.get("load", [0.0])), _text(values))


def arcs_of(pin: Group, inputs: frozenset[str], units: Units) -> Iterator[ArcText]:
    """The combinational arcs to an output pin; ``NotTimed`` where a table is none for this model."""
    for timing in pin.of("timing"):
        tables = [next(timing.of(kind), None) for kind in TABLES]
        if timing.first("timing_type") not in (None, "combinational") or any(table is None for table in tables):
            continue
        sense = _SENSES.get(timing.first("timing_sense") or "", 0)
        read = tuple(units.table(table) for table in tables if table)
        for source in " ".join(timing.attributes.get("related_pin", [])).split():
            if source in inputs:
                yield ArcText(source, sense, read)


def _scale(text: str, base: str) -> float:
    """``100ps`` in seconds, ``1 ff`` in farads."""
    match = re.fullmatch(r"\s*([\d.+\-e]+)\s*([munpf]?)" + base, text.strip().lower())
    value = number(match.group(1)) if match else 0.0
    if not match or value <= 0:
        raise ValueError(f"a unit {text!r} that is not understood")
    prefixes = {"": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9, "p": 1e-12, "f": 1e-15}
    return value * prefixes[match.group(2)]


def _numbers(values: list[str], scale: float) -> list[float]:
    """The numbers of ``"1, 2", "3, 4"``."""
    words = [text for row in values for text in row.replace(",", " ").split()]
    try:
        numbers = [value * scale for value in map(float, words)]
    except ValueError:
        numbers = []
    if numbers and all(map(math.isfinite, numbers)):
        return numbers
    return [number(text) * scale for text in words]  # an expression, or the error that names it


def _word(text: str) -> str:
    """A number as it is, anything else in quotes."""
    try:
        return repr(number(text))
    except ValueError:
        return f'"{text}"'


def _text(values: list[float]) -> str:
    return ", ".join(map(repr, values))
