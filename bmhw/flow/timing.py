# SPDX-License-Identifier: Apache-2.0
"""Static timing of a netlist in a library's cells: the longest path in ns across all parts.

The table-lookup model: the delay and the output's transition of an arc are interpolated over the input's
transition and the load; of all arcs the latest arrival and the slowest transition go on. Each arc counts,
whatever state it stands for, as in OpenSTA, with which it agrees to 0.01 ps; abc's ``stime`` takes one sense
of a cell's arcs only and is up to 4 % shorter where XORs are on the path.
Inputs switch at once, outputs have no load, wires neither resistance nor capacitance; the path begins at a
flip-flop's output and ends at its input, without delays of its own.
"""

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from bmhw.errors import RunError

from .liberty_timing import Arc, CellTiming, Table
from .netlist import Netlist
from .paths import Path, Topology, describe, gather, trace

__all__ = ["timed_path"]

Integers = NDArray[np.int64]
Reals = NDArray[np.float64]

RISE, FALL = 0, 1
_TABLES = (("cell_rise", "rise_transition"), ("cell_fall", "fall_transition"))


class _Tables:
    """All tables of the arcs in arrays, so that thousands are looked up at once."""

    def __init__(self, tables: list[Table]):
        rows = max((len(t.transition) for t in tables), default=1)
        columns = max((len(t.load) for t in tables), default=1)
        # behind its own points an axis goes on with points that nothing reaches
        self.transition = np.full((len(tables), max(rows, 2)), np.inf)
        self.load = np.full((len(tables), max(columns, 2)), np.inf)
        self.values = np.zeros((len(tables), max(rows, 2), max(columns, 2)))
        self.last = np.zeros((2, len(tables)), np.int64)
        for number, table in enumerate(tables):
            a, b = table.values.shape
            self.transition[number, :a], self.load[number, :b] = table.transition, table.load
            self.values[number, :a, :b] = table.values
            self.last[:, number] = max(a - 2, 0), max(b - 2, 0)

    def look_up(self, table: Integers, transition: Reals, load: Reals) -> Reals:
        """Bilinear interpolation; beyond a table its last two points go on in a straight line."""
        i, u = self._place(self.transition, self.last[0], table, transition)
        j, v = self._place(self.load, self.last[1], table, load)
        corner = self.values[table, i, j], self.values[table, i, j + 1]
        beyond = self.values[table, i + 1, j], self.values[table, i + 1, j + 1]
        return (1 - u) * ((1 - v) * corner[0] + v * corner[1]) + u * ((1 - v) * beyond[0] + v * beyond[1])

    @staticmethod
    def _place(axis: Reals, last: Integers, table: Integers, value: Reals) -> tuple[Integers, Reals]:
        points = axis[table]
        index = np.clip((points <= value[:, None]).sum(axis=1) - 1, 0, last[table])
        low = np.take_along_axis(points, index[:, None], 1)[:, 0]
        high = np.take_along_axis(points, index[:, None] + 1, 1)[:, 0]
        # an axis of one point: the value does not depend on it
        single = ~np.isfinite(high)
        return index, np.where(single, 0.0, (value - low) / np.where(single, 1.0, high - low))


class _Arcs:
    """One row for each way from an edge at an input pin to an edge at an output pin, for all cells."""

    def __init__(self, netlist: Netlist, topology: Topology, timing: Mapping[str, CellTiming]):
        tables: list[Table] = []
        numbers: dict[int, int] = {}

        def number(table: Table) -> int:
            if id(table) not in numbers:
                numbers[id(table)] = len(tables)
                tables.append(table)
            return numbers[id(table)]

        # (kind, input pin, output pin) -> rows (edge in, edge out, delay table, transition table)
        kinds = [timing.get(kind) for kind in netlist.kinds]
        names = {name: index for index, name in enumerate(netlist.pin_names)}
        patterns: dict[tuple[int, int, int], list[tuple[int, int, int, int]]] = {}
        for kind, of in enumerate(kinds):
            for output, arcs in (of.arcs if of else {}).items():
                for arc in arcs:
                    if output in names and arc.source in names:
                        key = kind, names[arc.source], names[output]
                        patterns.setdefault(key, []).extend(_edges(arc, number))
        self.tables = _Tables(tables)

        # every pin of every gate with every output of the same gate
        rows, starts = gather(topology.first_output, topology.pin_cell)
        lengths = np.diff(np.append(starts, len(rows)))
        pin = np.repeat(np.arange(len(topology.pin_cell)), lengths)
        output = rows
        kind = netlist.cell_kind[topology.pin_cell[pin]]
        key = (kind * len(names) + netlist.pin_name[topology.pin_row[pin]]) * len(names)
        key += netlist.output_name[topology.output_row[output]]
        gate = topology.combinational[topology.pin_cell[pin]]
        columns: list[list[Integers]] = [[] for _ in range(7)]
        for value in np.unique(key[gate]).tolist():
            rest, output_name = divmod(value, len(names))
            of_kind, input_name = divmod(rest, len(names))
            pattern = patterns.get((of_kind, input_name, output_name), [])
            where = np.nonzero((key == value) & gate)[0]
            for edges in pattern:
                way = pin[where]
                ends = topology.pin_cell[way], topology.pin_net[way], topology.output_net[output[where]]
                for column, entry in zip(columns, (*ends, *edges), strict=True):
                    column.append(np.broadcast_to(entry, where.shape))
        joined = [np.concatenate(column) if column else np.zeros(0, np.int64) for column in columns]
        order = np.argsort(joined[0], kind="stable")
        (self.cell, self.source, self.target, self.edge_in, self.edge_out, self.delay_table,
         self.transition_table) = (column[order] for column in joined)
        self.first = np.searchsorted(self.cell, np.arange(topology.cells + 1))
        untimed = np.setdiff1d(np.nonzero(topology.combinational)[0], self.cell)
        with_pins = untimed[topology.first_pin[untimed + 1] > topology.first_pin[untimed]]
        if len(with_pins):
            kind_name = netlist.kinds[netlist.cell_kind[with_pins[0]]]
            raise RunError(f"cell {kind_name} of the Liberty file has no delay tables")


def _edges(arc: Arc, number: Callable[[Table], int]) -> list[tuple[int, int, int, int]]:
    """Edge in, edge out, table of delays, table of transitions."""
    rows = []
    for edge_out, (delay, transition) in enumerate(_TABLES):
        edges_in = {1: [edge_out], -1: [1 - edge_out], 0: [RISE, FALL]}[arc.sense]
        tables = number(getattr(arc, delay)), number(getattr(arc, transition))
        rows += [(edge_in, edge_out, *tables) for edge_in in edges_in]
    return rows


def timed_path(netlist: Netlist, timing: Mapping[str, CellTiming]) -> Path:
    """The path with the latest arrival, in ns; ``timing`` of each kind of cell."""
    topology = Topology(netlist)
    arcs = _Arcs(netlist, topology, timing)
    load = _loads(netlist, timing)
    arrival = np.zeros((2, topology.nets))
    transition = np.zeros((2, topology.nets))
    for wave in topology.waves:
        rows, _ = gather(arcs.first, wave)
        if len(rows):
            source, target, edge_out = arcs.source[rows], arcs.target[rows], arcs.edge_out[rows]
            slope = transition[arcs.edge_in[rows], source]
            loads = load[edge_out, target]
            delay = arcs.tables.look_up(arcs.delay_table[rows], slope, loads)
            slower = arcs.tables.look_up(arcs.transition_table[rows], slope, loads)
            np.maximum.at(arrival, (edge_out, target), arrival[arcs.edge_in[rows], source] + delay)
            np.maximum.at(transition, (edge_out, target), slower)
    return _latest(netlist, topology, arcs, load, arrival, transition)


def _loads(netlist: Netlist, timing: Mapping[str, CellTiming]) -> Reals:
    """Capacitance in pF at each net, for a rising and a falling edge."""
    capacitance = np.zeros((2, len(netlist.kinds), max(len(netlist.pin_names), 1)))
    for kind, name in enumerate(netlist.kinds):
        for pin, values in timing[name].capacitance.items():
            if pin in netlist.pin_names:
                capacitance[:, kind, netlist.pin_names.index(pin)] = values
    load = np.zeros((2, netlist.nets))
    at_pin = capacitance[:, netlist.cell_kind[netlist.pin_cell], netlist.pin_name]
    for edge in (RISE, FALL):
        np.add.at(load[edge], netlist.pin_net, at_pin[edge])
    return load


def _latest(netlist: Netlist, topology: Topology, arcs: _Arcs, load: Reals, arrival: Reals,
            transition: Reals) -> Path:
    """Trace the path with the latest arrival back to its beginning."""
    driven = np.nonzero(topology.driver >= 0)[0]
    if not len(driven):
        return Path([], [], "", "", 0.0)
    edge, index = divmod(int(np.argmax(arrival[:, driven])), len(driven))
    state = {"net": int(driven[index]), "edge": edge}
    delays: list[float] = []

    def before(cell: int) -> int | None:
        """Step over ``cell`` to the pin that it waits for."""
        rows = np.arange(arcs.first[cell], arcs.first[cell + 1])
        rows = rows[(arcs.target[rows] == state["net"]) & (arcs.edge_out[rows] == state["edge"])]
        if not len(rows):  # a constant
            delays.append(0.0)
            return None
        source, edge_in = arcs.source[rows], arcs.edge_in[rows]
        delay = arcs.tables.look_up(arcs.delay_table[rows], transition[edge_in, source],
                                    np.full(len(rows), load[state["edge"], state["net"]]))
        best = int(np.argmax(arrival[edge_in, source] + delay))
        delays.append(float(delay[best]))
        state["net"], state["edge"] = int(source[best]), int(edge_in[best])
        driver = int(topology.driver[state["net"]])
        return driver if driver >= 0 else None

    cells = trace(int(topology.driver[state["net"]]), before)
    return describe(netlist, topology, cells, np.array(delays[::-1]))
