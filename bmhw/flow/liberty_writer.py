# SPDX-License-Identifier: Apache-2.0
"""Liberty files for Yosys and abc, written from the cells that were read, with only what the two need.

Each table has its own axes and a template of the same size before it: abc asserts on much else.
"""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from .liberty_cells import LibraryCell, Pin
from .liberty_timing import TABLES, ArcText, TableText

__all__ = ["BUFFER", "buffer_verilog", "write_liberty"]

BUFFER = "bmhw_buffer"
"""A cell that stands in where a library has no buffer, without which abc maps nothing: two inverters."""

_SENSES = {1: "positive_unate", -1: "negative_unate", 0: "non_unate"}
_PICOSECOND = 1e-3
# Where no delays are known all cells take the same time, so that abc's other aim is a few levels.
_ONE = TableText("0.0", "0.0", "1.0")


def write_liberty(cells: Iterable[LibraryCell], timed: bool, wire_loads: str = "",
                  inverter: LibraryCell | None = None) -> str:
    """A library of these cells, in ns and pF.

    ``timed``: with their tables, else each cell takes 1. ``wire_loads``: of
    :meth:`~bmhw.flow.liberty_timing.Units.wire_loads`. ``inverter``: what the stand-in for a buffer is made of, where
    one is needed.
    """
    sizes: dict[tuple[int, int], None] = {}
    texts = [_cell(cell, timed, sizes) for cell in (*cells, *([_buffer(inverter)] if inverter else []))]
    templates = "".join(
        f"  lu_table_template ({_template(rows, columns)}) {{ variable_1 : input_net_transition; "
        f'variable_2 : total_output_net_capacitance; index_1 ("{_count(rows)}"); index_2 ("{_count(columns)}"); }}\n'
        for rows, columns in sizes)
    return ('library (cells) {\n  delay_model : table_lookup;\n  time_unit : "1ns";\n  voltage_unit : "1V";\n'
            '  current_unit : "1mA";\n  capacitive_load_unit (1, pf);\n'
            + wire_loads + templates + "".join(texts) + "}\n")


def buffer_verilog(inverter: LibraryCell) -> str:
    """The stand-in for a buffer, as the cells that it is."""
    (source,), (target,) = inverter.names("input"), inverter.names("output")
    first, second = (f"  \\{inverter.name} {name} (.{source}({a}), .{target}({y}));\n"
                     for name, a, y in (("first", "A", "between"), ("second", "between", "Y")))
    return f"module {BUFFER}(input A, output Y);\n  wire between;\n{first}{second}endmodule\n"


def _buffer(inverter: LibraryCell) -> LibraryCell:
    """Two inverters as one cell: twice the area, and twice the delay, which only steers abc."""
    (source,), (target,) = inverter.names("input"), inverter.names("output")
    pins = [pin._replace(name="A") if pin.name == source else pin._replace(name="Y", function="A")
            for pin in inverter.pins]
    arcs = [ArcText("A", -arc.sense, tuple(_twice(table) if name.startswith("cell") else table
                                           for name, table in zip(TABLES, arc.tables, strict=True)))
            for arc in inverter.arcs.get(target, [])]
    return LibraryCell(BUFFER, 0, 2 * inverter.area, pins, {"Y": arcs}, "buffer")


def _twice(table: TableText) -> TableText:
    return table._replace(values=", ".join(repr(2 * float(value)) for value in table.values.split(",")))


def _cell(cell: LibraryCell, timed: bool, sizes: dict[tuple[int, int], None]) -> str:
    lines = [f"  cell ({cell.name}) {{\n    area : {cell.area!r};\n"]
    if cell.flip_flop:
        words = "".join(f' {name} : "{value}";' for name, value in cell.flip_flop.items() if name != "state")
        lines.append(f"    ff ({', '.join(cell.flip_flop['state'])}) {{{words} }}\n")
    for pin in cell.pins:
        lines.append(f"    pin ({pin.name}) {{\n{_attributes(pin)}")
        if pin.direction == "output" and not cell.flip_flop:
            arcs = cell.arcs.get(pin.name, []) if timed else [ArcText(source, 0, (_ONE,) * len(TABLES))
                                                              for source in cell.names("input")]
            lines += [_arc(arc, sizes) for arc in arcs]
        lines.append("    }\n")
    return "".join([*lines, "  }\n"])


def _attributes(pin: Pin) -> str:
    values = {"direction": pin.direction, "function": f'"{pin.function}"' if pin.function else None}
    if pin.direction == "input":
        values |= {name: getattr(pin, name) for name in ("capacitance", "rise_capacitance", "fall_capacitance")}
    values |= {"max_capacitance": pin.max_capacitance, "max_transition": pin.max_transition}
    return "".join(f"      {name} : {value};\n" for name, value in values.items() if value is not None)


def _arc(arc: ArcText, sizes: dict[tuple[int, int], None]) -> str:
    tables = "".join(_table(name, table, sizes) for name, table in zip(TABLES, arc.tables, strict=True))
    return (f'      timing () {{\n        related_pin : "{arc.source}";\n'
            f"        timing_sense : {_SENSES[arc.sense]};\n{tables}      }}\n")


def _table(name: str, table: TableText, sizes: dict[tuple[int, int], None]) -> str:
    transition, load, values = _widened(_raised(table) if name.startswith("cell") else table)
    rows, columns = transition.count(",") + 1, load.count(",") + 1
    sizes[rows, columns] = None
    return (f'        {name} ({_template(rows, columns)}) {{ index_1 ("{transition}"); index_2 ("{load}"); '
            f'values ("{values}"); }}\n')


def _widened(table: TableText) -> TableText:
    """The same table with the three points on each axis that abc asks for: of one point two more that change nothing,
    between two points the one in the middle."""
    if table.transition.count(",") > 1 and table.load.count(",") > 1:
        return table
    read = table.table()
    transition, rows = _three(read.transition, read.values)
    load, columns = _three(read.load, rows.T)
    return TableText(*(", ".join(map(repr, numbers.tolist())) for numbers in (transition, load, columns.T.ravel())))


def _raised(table: TableText) -> TableText:
    """The same delays, or where they are below a picosecond for an ideal input and no load, all as much later as it
    takes for one: abc's buffering asserts that they are above 0."""
    read = table.table()
    corner = read.values
    for points in (read.transition, read.load):
        # along the first axis, which is then gone: in a straight line to where it is 0
        corner = corner[0] - (points[0] * (corner[1] - corner[0]) / (points[1] - points[0]) if len(points) > 1 else 0)
    if corner >= _PICOSECOND:
        return table
    return table._replace(values=", ".join(map(repr, (read.values + (_PICOSECOND - corner)).ravel().tolist())))


def _three(axis: NDArray[np.float64], rows: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """An axis and the row of values at each of its points, as long as abc wants it."""
    if len(axis) == 1:
        return axis + np.arange(3.0), np.repeat(rows, 3, axis=0)
    if len(axis) == 2:
        return np.insert(axis, 1, axis.mean()), np.insert(rows, 1, rows.mean(axis=0), axis=0)
    return axis, rows


def _template(rows: int, columns: int) -> str:
    return f"table_{rows}_{columns}"


def _count(points: int) -> str:
    return ", ".join(map(str, range(1, points + 1)))
