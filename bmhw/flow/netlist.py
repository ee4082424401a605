# SPDX-License-Identifier: Apache-2.0
"""Mapped netlists as NumPy arrays: read from Yosys's JSON, joined across modules, counted.

The parts of a neuron are mapped one by one, each once however often it is used; :func:`join` puts them
together again, so that the critical path is found across all of them.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bmhw.errors import RunError

__all__ = ["Block", "Cell", "Netlist", "join", "read_blocks"]

Integers = NDArray[np.int64]

_CONSTANT = 0  # the net of every constant and undefined bit


class Cell(NamedTuple):
    """What a netlist has to know of a kind of cell: its output pins and whether it is a flip-flop."""

    outputs: frozenset[str]
    flip_flop: bool = False


@dataclass
class Block:
    """One mapped module: cells in arrays, instances of other modules by name. Net 0 is every constant.

    ``pin_*`` and ``output_*``: one row for each pin of a cell; ``*_name`` is an index into ``pin_names``.
    """

    name: str
    ports: dict[str, tuple[str, Integers]]
    nets: int
    kinds: list[str]
    pin_names: list[str]
    cell_kind: Integers
    pin_cell: Integers
    pin_net: Integers
    pin_name: Integers
    output_cell: Integers
    output_net: Integers
    output_name: Integers
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
    names: dict[str, int] = {}
    pins: list[tuple[int, int, int]] = []
    outputs: list[tuple[int, int, int]] = []
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
            pin_name = names.setdefault(pin, len(names))
            (outputs if pin in known.outputs else pins).extend((index, net(bit), pin_name) for bit in wires)
    return Block(name, ports, max(local.values()) + 1, list(kinds), list(names), _integers(cell_kind),
                 *_columns(pins), *_columns(outputs), instances)


@dataclass
class Netlist:
    """A flat netlist. Cell ``i`` has kind ``kinds[cell_kind[i]]`` and lies in part ``parts[cell_part[i]]``.

    ``pin_*`` hold the inputs and ``output_*`` the outputs of cells, one row a pin, ``*_name`` as index into
    ``pin_names``. ``inputs`` and ``outputs``: net -> name of a port's bit. Net 0 is every constant.
    """

    kinds: list[str]
    pin_names: list[str]
    parts: list[str]
    nets: int
    cell_kind: Integers
    cell_part: Integers
    pin_cell: Integers
    pin_net: Integers
    pin_name: Integers
    output_cell: Integers
    output_net: Integers
    output_name: Integers
    flip_flop_kinds: frozenset[str] = frozenset()
    inputs: dict[int, str] = field(default_factory=dict)
    outputs: dict[int, str] = field(default_factory=dict)

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


def join(blocks: Mapping[str, Block], top: str, cell_of: Callable[[str], Cell | None]) -> Netlist:
    """The flat netlist of ``top``: each instance in it is a part; what lies in none is part ``""``."""
    rows: dict[str, list[Integers]] = {name: [] for name in (
        "cell_kind", "cell_part", "pin_cell", "pin_net", "pin_name",
        "output_cell", "output_net", "output_name")}
    same: list[tuple[int, int]] = []  # a net, and one that has its signal without a cell between
    kinds: dict[str, int] = {}
    pin_names: dict[str, int] = {}
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
        of_pin = _integers([pin_names.setdefault(name, len(pin_names)) for name in block.pin_names])
        rows["cell_kind"].append(of_kind[block.cell_kind])
        rows["cell_part"].append(np.full(len(block.cell_kind), part, np.int64))
        for side in ("pin", "output"):
            rows[f"{side}_cell"].append(getattr(block, f"{side}_cell") + base)
            rows[f"{side}_net"].append(nets[getattr(block, f"{side}_net")])
            rows[f"{side}_name"].append(of_pin[getattr(block, f"{side}_name")])
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
                        same.append((int(inside[net]), target))
            place(child, inside, child_part)

    block = blocks[top]
    nets = np.full(block.nets, -1, np.int64)
    nets[_CONSTANT] = _CONSTANT
    place(block, nets, 0)
    source = _sources(size["nets"], same)
    names: dict[str, dict[int, str]] = {"input": {}, "output": {}}
    for port, (direction, bits) in block.ports.items():
        for index, net in enumerate(source[nets[bits]].tolist()):
            names[direction].setdefault(net, port if len(bits) == 1 else f"{port}[{index}]")
    columns = {name: np.concatenate(arrays) for name, arrays in rows.items()}
    for side in ("pin_net", "output_net"):
        columns[side] = source[columns[side]]
    flip_flops = frozenset(kind for kind in kinds if (cell := cell_of(kind)) and cell.flip_flop)
    return Netlist(kinds=list(kinds), pin_names=list(pin_names), parts=parts, nets=size["nets"],
                   flip_flop_kinds=flip_flops, inputs=names["input"], outputs=names["output"], **columns)


def _sources(nets: int, same: list[tuple[int, int]]) -> Integers:
    """For each net the one that its signal comes from."""
    source = np.arange(nets)
    for origin, net in same:
        source[net] = origin
    while not np.array_equal(source[source], source):
        source = source[source]
    return source


def _columns(rows: list[tuple[int, int, int]]) -> tuple[Integers, Integers, Integers]:
    table = np.array(rows, dtype=np.int64).reshape(-1, 3)
    return table[:, 0], table[:, 1], table[:, 2]


def _integers(values: Any) -> Integers:
    return np.array(values, dtype=np.int64)
