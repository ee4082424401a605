# SPDX-License-Identifier: Apache-2.0
"""Paths through a netlist: cells in the order of the data, the longest path in gates, its parts."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bmhw.errors import RunError

from .netlist import Netlist

__all__ = ["Path", "PathStep", "Stage", "Topology", "gather", "longest_path", "pipeline_stages"]

Integers = NDArray[np.int64]


def gather(first: Integers, chosen: Integers) -> tuple[Integers, Integers]:
    """Rows of the groups ``chosen`` in a table sorted by group, and where each group's rows begin among them.

    ``first[g]`` is the first row of group g, ``first[-1]`` the number of rows.
    """
    lengths = first[chosen + 1] - first[chosen]
    starts = np.cumsum(lengths) - lengths
    rows = np.arange(int(lengths.sum())) + np.repeat(first[chosen] - starts, lengths)
    return rows, starts


class Topology:
    """The combinational cells of a netlist in waves: each cell in the first wave after all that drive it.

    Cell c's inputs are ``pin_net[first_pin[c] : first_pin[c + 1]]``, its outputs likewise. ``pin_row`` and
    ``output_row`` are their rows in ``netlist.pin_*`` and ``netlist.output_*``.
    """

    def __init__(self, netlist: Netlist):
        self.cells, self.nets = len(netlist.cell_kind), netlist.nets
        self.combinational = ~netlist.is_flip_flop
        self.pin_row = np.argsort(netlist.pin_cell, kind="stable")
        self.pin_cell, self.pin_net = netlist.pin_cell[self.pin_row], netlist.pin_net[self.pin_row]
        self.first_pin = np.searchsorted(self.pin_cell, np.arange(self.cells + 1))
        self.output_row = np.argsort(netlist.output_cell, kind="stable")
        self.output_cell = netlist.output_cell[self.output_row]
        self.output_net = netlist.output_net[self.output_row]
        self.first_output = np.searchsorted(self.output_cell, np.arange(self.cells + 1))

        driving = self.combinational[self.output_cell]
        self.driver = np.full(netlist.nets, -1, np.int64)
        self.driver[self.output_net[driving]] = self.output_cell[driving]
        self.driver[0] = -1  # constants
        self.waves = list(self._waves())

    def _waves(self) -> Iterator[Integers]:
        inner = self.combinational[self.pin_cell] & (self.driver[self.pin_net] >= 0)
        waiting = np.bincount(self.pin_cell[inner], minlength=self.cells)
        sources = self.driver[self.pin_net[inner]]
        order = np.argsort(sources, kind="stable")
        sinks = self.pin_cell[inner][order]
        first_sink = np.searchsorted(sources[order], np.arange(self.cells + 1))
        ready = np.nonzero(self.combinational & (waiting == 0))[0]
        known = 0
        while len(ready):
            yield ready
            known += len(ready)
            reached, times = np.unique(sinks[gather(first_sink, ready)[0]], return_counts=True)
            waiting[reached] -= times
            ready = reached[waiting[reached] == 0]
        if known < int(self.combinational.sum()):
            raise RunError("the mapped netlist has a combinational loop")


    def propagate(self, level: Integers, step: Integers | int) -> Integers:
        """Set the ``level`` of each net that a combinational cell drives to that of the cell's highest input and
        ``step`` (of each cell, or of all); returns the highest input's level of each combinational cell.
        """
        step = np.broadcast_to(step, self.cells)
        arrival = np.zeros(self.cells, np.int64)
        for wave in self.waves:
            with_pins = wave[self.first_pin[wave + 1] > self.first_pin[wave]]
            if len(with_pins):
                rows, starts = gather(self.first_pin, with_pins)
                arrival[with_pins] = np.maximum.reduceat(level[self.pin_net[rows]], starts)
            rows, _ = gather(self.first_output, wave)
            cells = self.output_cell[rows]
            level[self.output_net[rows]] = arrival[cells] + step[cells]
        return arrival


class Stage(NamedTuple):
    """What lies between two ranks of registers: ``depth`` gates, and ``flip_flops`` in the rank behind them."""

    depth: int
    flip_flops: int


def pipeline_stages(netlist: Netlist, delays: Mapping[str, int] | None = None) -> list[Stage]:
    """The stages of a pipeline from the inputs to the outputs; none where registers feed back to themselves.

    A flip-flop is in the rank behind the highest rank that its input depends on, the inputs being rank 0. A cell is
    one deep, or as deep as ``delays`` has it for its kind.
    """
    topology = Topology(netlist)
    registers = np.nonzero(netlist.is_flip_flop)[0]
    pins, _ = gather(topology.first_pin, registers)
    outputs, _ = gather(topology.first_output, registers)
    if not len(registers):
        return []
    rank = np.zeros(topology.cells, np.int64)  # of each flip-flop
    for _ in range(len(registers) + 1):
        before = np.zeros(topology.nets, np.int64)
        before[topology.output_net[outputs]] = rank[topology.output_cell[outputs]]
        topology.propagate(before, 0)
        found = np.zeros(topology.cells, np.int64)
        np.maximum.at(found, topology.pin_cell[pins], before[topology.pin_net[pins]] + 1)
        if (found == rank).all():
            break
        rank = found
    else:
        return []
    level = np.zeros(topology.nets, np.int64)
    kinds = np.array([(delays or {}).get(kind, 1) for kind in netlist.kinds], np.int64)
    topology.propagate(level, kinds[netlist.cell_kind])
    # where a path ends: at a flip-flop's pin, or at an output behind gates
    ends = [topology.pin_net[pins], np.array([net for net in netlist.outputs if level[net]], np.int64)]
    depth = np.zeros(int(rank.max()) + 1, np.int64)
    for nets in ends:
        np.maximum.at(depth, before[nets], level[nets])
    numbers = np.bincount(rank[registers], minlength=len(depth) + 1)[1:]
    stages = [Stage(int(d), int(n)) for d, n in zip(depth, numbers, strict=True)]
    return stages if stages[-1] != (0, 0) else stages[:-1]


class PathStep(NamedTuple):
    """A stretch of a path inside one part: ``gates`` cells one behind the other, ``delay`` of them all."""

    part: str
    gates: int
    delay: float


@dataclass(frozen=True)
class Path:
    """A path, first cell to last. ``begin``, ``end``: bits of ports, ``register``, or empty for no path.

    ``delay``: in gates, or in the unit of whoever timed it.
    """

    cells: list[int]
    steps: list[PathStep]
    begin: str
    end: str
    delay: float

    @property
    def gates(self) -> int:
        return len(self.cells)


def longest_path(netlist: Netlist) -> Path:
    """The longest path in gates between inputs or flip-flops and outputs or flip-flops.

    Ties are broken by the order of the cells, so that the same netlist gives the same path.
    """
    topology = Topology(netlist)
    level = np.zeros(topology.nets, np.int64)
    arrival = topology.propagate(level, 1)
    leaving = np.where(topology.combinational, arrival, -1)
    if not len(leaving) or leaving.max() < 0:
        return Path([], [], "", "", 0)

    def before(cell: int) -> int | None:
        for row in range(topology.first_pin[cell], topology.first_pin[cell + 1]):
            net = topology.pin_net[row]
            if level[net] == arrival[cell] and topology.driver[net] >= 0:
                return int(topology.driver[net])
        return None

    cells = trace(int(np.argmax(leaving)), before)
    return describe(netlist, topology, cells, np.ones(len(cells)))


def trace(last: int, before: Callable[[int], int | None]) -> list[int]:
    """The gates from the first to the ``last`` one; ``before`` names the cell that a cell waits for."""
    cells: list[int] = []
    cell: int | None = last
    while cell is not None:
        cells.append(cell)
        cell = before(cell)
    return cells[::-1]


def describe(netlist: Netlist, topology: Topology, cells: list[int], delays: NDArray[np.float64]) -> Path:
    """A path of these cells, each with its delay."""
    steps: list[PathStep] = []
    for cell, delay in zip(cells, delays.tolist(), strict=True):
        part = netlist.parts[netlist.cell_part[cell]]
        if steps and steps[-1].part == part:
            steps[-1] = PathStep(part, steps[-1].gates + 1, steps[-1].delay + delay)
        else:
            steps.append(PathStep(part, 1, delay))
    begin, end = _ends(netlist, topology, cells)
    return Path(cells, steps, begin, end, float(delays.sum()))


def _ends(netlist: Netlist, topology: Topology, cells: list[int]) -> tuple[str, str]:
    """Names of the bits of ports where a path begins and ends; ``register`` where it is none."""
    first, last = cells[0], cells[-1]
    into = topology.pin_net[topology.first_pin[first] : topology.first_pin[first + 1]].tolist()
    out = topology.output_net[topology.first_output[last] : topology.first_output[last + 1]].tolist()
    begins = [netlist.inputs[net] for net in into if net in netlist.inputs]
    ends = [netlist.outputs[net] for net in out if net in netlist.outputs]
    return (begins or ["register"])[0], (ends or ["register"])[0]
