# SPDX-License-Identifier: Apache-2.0
"""Paths through a netlist: cells in the order of the data, the longest path in gates, its parts."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import RunError
from .netlist import Netlist

__all__ = ["Path", "PathStep", "Topology", "gather", "longest_path"]

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
    arrival = np.zeros(topology.cells, np.int64)  # of a cell's latest input
    for wave in topology.waves:
        with_pins = wave[topology.first_pin[wave + 1] > topology.first_pin[wave]]
        if len(with_pins):
            rows, starts = gather(topology.first_pin, with_pins)
            arrival[with_pins] = np.maximum.reduceat(level[topology.pin_net[rows]], starts)
        rows, _ = gather(topology.first_output, wave)
        level[topology.output_net[rows]] = arrival[topology.output_cell[rows]] + 1
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
