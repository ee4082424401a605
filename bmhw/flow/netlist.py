# SPDX-License-Identifier: Apache-2.0
"""Mapped netlists as NumPy arrays: read from Yosys's JSON, joined across modules, counted, timed in gates.

The parts of a neuron are mapped one by one, each once however often it is used; :func:`join` puts them
together again, so that the critical path is found across all of them.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import RunError

__all__ = ["Block", "Cell", "Netlist", "PathStep", "join", "read_blocks"]

Integers = NDArray[np.int64]

_CONSTANT = 0  # the net of every constant and undefined bit


class Cell(NamedTuple):
    """What a netlist has to know of a kind of cell: its output pins and whether it is a flip-flop."""

    outputs: frozenset[str]
    flip_flop: bool = False


@dataclass
class Block:
    """One mapped module: cells in arrays, instances of other modules by name. Net 0 is every constant."""

    name: str
    ports: dict[str, tuple[str, Integers]]
    nets: int
    kinds: list[str]
    cell_kind: Integers
    pin_cell: Integers
    pin_net: Integers
    output_cell: Integers
    output_net: Integers
    instances: list[tuple[str, str, dict[str, Integers]]]

    def counts(self) -> dict[str, int]:
        """Number of cells of each kind, without those of the instances."""
        numbers = np.bincount(self.cell_kind, minlength=len(self.kinds))
        return {kind: int(n) for kind, n in zip(self.kinds, numbers, strict=True)}


def read_blocks(document: Mapping[str, Any], cell_of: Callable[[str], Cell | None]) -> dict[str, Block]:
    """The modules of a netlist written by Yosys's ``write_json``; ``cell_of`` knows the kinds of cells."""
    modules = document["modules"]
    return {name: _read_block(name, module, modules, cell_of) for name, module in modules.items()}


def _read_block(name: str, module: Mapping[str, Any], modules: Mapping[str, Any],
                cell_of: Callable[[str], Cell | None]) -> Block:
    local: dict[int | str, int] = {constant: _CONSTANT for constant in "01xz"}

    def net(bit: int | str) -> int:
        return local.setdefault(bit, len(local) - 3)  # the four constants share net 0

    kinds: dict[str, int] = {}
    cell_kind: list[int] = []
    pins: list[tuple[int, int]] = []
    outputs: list[tuple[int, int]] = []
    instances = []
    ports = {port: (description["direction"], _integers([net(bit) for bit in description["bits"]]))
             for port, description in module["ports"].items()}
    for cell_name, cell in module["cells"].items():
        kind, connections = cell["type"], cell["connections"]
        known = cell_of(kind)
        if known is None:
            if kind not in modules:
                raise RunError(f"the mapped netlist of {name} has a cell of unknown kind {kind}")
            bits = {port: _integers([net(bit) for bit in wires]) for port, wires in connections.items()}
            instances.append((cell_name, kind, bits))
            continue
        index = len(cell_kind)
        cell_kind.append(kinds.setdefault(kind, len(kinds)))
        for pin, wires in connections.items():
            (outputs if pin in known.outputs else pins).extend((index, net(bit)) for bit in wires)
    pin_cell, pin_net = _columns(pins)
    output_cell, output_net = _columns(outputs)
    return Block(name, ports, max(local.values()) + 1, list(kinds), _integers(cell_kind), pin_cell, pin_net,
                 output_cell, output_net, instances)


class PathStep(NamedTuple):
    """A stretch of a path inside one part: ``gates`` cells one behind the other."""

    part: str
    gates: int


@dataclass
class Netlist:
    """A flat netlist. Cell ``i`` has kind ``kinds[cell_kind[i]]`` and lies in part ``parts[cell_part[i]]``.

    ``pin_*`` hold the inputs and ``output_*`` the outputs of cells, one row a pin. An alias is a net that has
    another one's signal without a cell between.
    """

    kinds: list[str]
    parts: list[str]
    nets: int
    cell_kind: Integers
    cell_part: Integers
    pin_cell: Integers
    pin_net: Integers
    output_cell: Integers
    output_net: Integers
    alias_from: Integers
    alias_to: Integers
    flip_flop_kinds: frozenset[str] = frozenset()
    net_names: dict[int, str] = field(default_factory=dict)

    @cached_property
    def is_flip_flop(self) -> NDArray[np.bool_]:
        of_kind = np.array([kind in self.flip_flop_kinds for kind in self.kinds], dtype=bool)
        return of_kind[self.cell_kind] if len(self.cell_kind) else np.zeros(0, dtype=bool)

    def count(self, part: str | None = None) -> tuple[int, int]:
        """Gates and flip-flops, of one part or of all."""
        chosen = np.ones(len(self.cell_kind), bool) if part is None else self._in_part(part)
        flip_flops = int((self.is_flip_flop & chosen).sum())
        return int(chosen.sum()) - flip_flops, flip_flops

    def total(self, weights: Mapping[str, float], part: str | None = None) -> float:
        """Sum of a weight of each kind of cell, such as its area."""
        of_kind = np.array([weights[kind] for kind in self.kinds], dtype=float)
        cells = self.cell_kind if part is None else self.cell_kind[self._in_part(part)]
        return float(of_kind[cells].sum())

    def _in_part(self, part: str) -> NDArray[np.bool_]:
        return self.cell_part == (self.parts.index(part) if part in self.parts else -1)

    @cached_property
    def critical_path(self) -> Integers:
        """The gates of a longest path, first to last; ties by the order of the cells."""
        return self._levels_and_path()[1]

    @property
    def depth(self) -> int:
        """Gates on the longest path from an input or a flip-flop to an output or a flip-flop."""
        return len(self.critical_path)

    def path_steps(self) -> list[PathStep]:
        """The critical path as stretches within one part each."""
        steps: list[PathStep] = []
        for part in (self.parts[index] for index in self.cell_part[self.critical_path]):
            if steps and steps[-1].part == part:
                steps[-1] = PathStep(part, steps[-1].gates + 1)
            else:
                steps.append(PathStep(part, 1))
        return steps

    def path_ends(self) -> tuple[str, str]:
        """Names of the ports' bits where the critical path begins and ends; ``register`` for a flip-flop."""
        path = self.critical_path
        if not len(path):
            return "", ""
        level = self._levels_and_path()[0]
        first_pins = self.pin_net[self.pin_cell == path[0]]
        starts = sorted(self.net_names[net] for net in first_pins.tolist()
                        if level[net] == 0 and net in self.net_names)
        outputs = set(self.output_net[self.output_cell == path[-1]].tolist())
        for source, target in zip(self.alias_from.tolist(), self.alias_to.tolist(), strict=True):
            if source in outputs:
                outputs.add(target)
        ends = sorted(self.net_names[net] for net in outputs if net in self.net_names)
        return (starts or ["register"])[0], (ends or ["register"])[0]

    def _levels_and_path(self) -> tuple[Integers, Integers]:
        if "_timing" not in self.__dict__:
            self.__dict__["_timing"] = self._longest_path()
        return self.__dict__["_timing"]

    def _longest_path(self) -> tuple[Integers, Integers]:
        """Level of each net, and the gates of a longest path: levels in waves, each wave at once.

        An alias counts as a cell of weight 0 behind the real ones.
        """
        cells = len(self.cell_kind)
        aliases = len(self.alias_from)
        weight = np.concatenate([np.where(self.is_flip_flop, 0, 1), np.zeros(aliases, np.int64)])
        alias_cell = np.arange(cells, cells + aliases)
        combinational = ~np.concatenate([self.is_flip_flop, np.zeros(aliases, bool)])

        pin_cell = np.concatenate([self.pin_cell, alias_cell])
        pin_net = np.concatenate([self.pin_net, self.alias_from])
        output_cell = np.concatenate([self.output_cell, alias_cell])
        output_net = np.concatenate([self.output_net, self.alias_to])
        used = combinational[pin_cell]
        pin_cell, pin_net = pin_cell[used], pin_net[used]
        driving = combinational[output_cell]
        driver = np.full(self.nets, -1, np.int64)
        driver[output_net[driving]] = output_cell[driving]
        driver[_CONSTANT] = -1

        # waiting: inputs of a cell whose level isn't known yet
        inner = driver[pin_net] >= 0
        waiting = np.bincount(pin_cell[inner], minlength=cells + aliases)
        order = np.argsort(driver[pin_net[inner]], kind="stable")
        sink = pin_cell[inner][order]
        first = np.searchsorted(driver[pin_net[inner]][order], np.arange(cells + aliases + 1))

        arrival = np.zeros(cells + aliases, np.int64)  # of the latest input so far
        latest = np.full(cells + aliases, -1, np.int64)  # the cell that it comes from
        ready = np.nonzero(combinational & (waiting == 0))[0]
        known = 0
        while len(ready):
            known += len(ready)
            lengths = first[ready + 1] - first[ready]
            sources = np.repeat(ready, lengths)
            offsets = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
            sinks = sink[np.repeat(first[ready], lengths) + offsets]
            reached = arrival[sources] + weight[sources]
            # descending by arrival, then the lowest cell: the first row of each sink is its latest input
            rows = np.lexsort((sources, -reached, sinks))
            sinks, sources, reached = sinks[rows], sources[rows], reached[rows]
            leading = np.ones(len(sinks), bool)
            leading[1:] = sinks[1:] != sinks[:-1]
            targets = sinks[leading]
            better = (reached[leading] > arrival[targets]) | (latest[targets] < 0)
            arrival[targets[better]] = reached[leading][better]
            latest[targets[better]] = sources[leading][better]
            starts = np.nonzero(leading)[0]
            waiting[targets] -= np.diff(np.append(starts, len(sinks)))
            ready = targets[waiting[targets] == 0]
        if known < int(combinational.sum()):
            raise RunError("the mapped netlist has a combinational loop")

        level = np.zeros(self.nets, np.int64)
        driven = driver >= 0
        level[driven] = (arrival + weight)[driver[driven]]
        path = []
        leaving = np.where(combinational, arrival + weight, -1)
        cell = int(np.argmax(leaving)) if known else -1
        while cell >= 0:
            if weight[cell]:
                path.append(cell)
            cell = int(latest[cell])
        return level, _integers(path[::-1])


def join(blocks: Mapping[str, Block], top: str, cell_of: Callable[[str], Cell | None]) -> Netlist:
    """The flat netlist of ``top``: each instance in it is a part; what lies in none is part ``""``."""
    rows: dict[str, list[Integers]] = {name: [] for name in (
        "cell_kind", "cell_part", "pin_cell", "pin_net", "output_cell", "output_net",
        "alias_from", "alias_to")}
    kinds: dict[str, int] = {}
    parts = [""]
    size = {"nets": 1, "cells": 0}

    def place(block: Block, nets: Integers, part: int) -> None:
        """Add a block whose ports' nets are known in ``nets`` (-1 elsewhere)."""
        fresh = nets < 0
        nets[fresh] = size["nets"] + np.arange(int(fresh.sum()))
        size["nets"] += int(fresh.sum())
        base = size["cells"]
        size["cells"] += len(block.cell_kind)
        of_kind = _integers([kinds.setdefault(kind, len(kinds)) for kind in block.kinds])
        rows["cell_kind"].append(of_kind[block.cell_kind])
        rows["cell_part"].append(np.full(len(block.cell_kind), part, np.int64))
        for side in ("pin", "output"):
            rows[f"{side}_cell"].append(getattr(block, f"{side}_cell") + base)
            rows[f"{side}_net"].append(nets[getattr(block, f"{side}_net")])
        for name, module, connections in block.instances:
            child = blocks[module]
            child_part = part
            if block is blocks[top]:
                parts.append(name)
                child_part = len(parts) - 1
            inside = np.full(child.nets, -1, np.int64)
            inside[_CONSTANT] = _CONSTANT
            # inputs first: an output may be one of them, led through
            for port in sorted(connections, key=lambda port: child.ports[port][0] != "input"):
                bits = connections[port]
                direction, own = child.ports[port]
                outside = nets[bits]
                if direction == "input":
                    inside[own] = outside
                    continue
                for net, target in zip(own.tolist(), outside.tolist(), strict=True):
                    if inside[net] < 0:
                        inside[net] = target
                    elif inside[net] != target:
                        rows["alias_from"].append(inside[net : net + 1].copy())
                        rows["alias_to"].append(_integers([target]))
            place(child, inside, child_part)

    block = blocks[top]
    nets = np.full(block.nets, -1, np.int64)
    nets[_CONSTANT] = _CONSTANT
    place(block, nets, 0)
    names: dict[int, str] = {}
    for port, (_direction, bits) in block.ports.items():
        for index, net in enumerate(nets[bits].tolist()):
            names.setdefault(net, port if len(bits) == 1 else f"{port}[{index}]")
    columns = {name: np.concatenate(arrays) if arrays else _integers([]) for name, arrays in rows.items()}
    flip_flops = frozenset(kind for kind in kinds if (cell := cell_of(kind)) and cell.flip_flop)
    return Netlist(kinds=list(kinds), parts=parts, nets=size["nets"], flip_flop_kinds=flip_flops,
                   net_names=names, **columns)


def _columns(pairs: list[tuple[int, int]]) -> tuple[Integers, Integers]:
    table = np.array(pairs, dtype=np.int64).reshape(-1, 2)
    return table[:, 0], table[:, 1]


def _integers(values: Any) -> Integers:
    return np.array(values, dtype=np.int64)
