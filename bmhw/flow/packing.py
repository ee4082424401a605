# SPDX-License-Identifier: Apache-2.0
"""The logic cells of a netlist: what nextpnr packs Yosys's cells into, before anything is placed.

More than look-up tables: a carry chain has cells that lead into it and out of it; where a register has no table of its
own in front of it, it takes a logic cell of an iCE40. By name, so that cells can be told to the parts they are of.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["logic_cells"]

_Cells = Mapping[str, Mapping[str, Any]]
_Users = Mapping[int, list[tuple[str, str]]]
"""Net -> (cell, input) of those that it leads to."""


def logic_cells(family: str, cells: _Cells) -> Counter[str]:
    """Name of a cell -> logic cells that it takes; those of shared ones are of the look-up table. ``cells``: of a flat
    module in Yosys's JSON, in cells of the ``family``."""
    users: dict[int, list[tuple[str, str]]] = defaultdict(list)
    for name, cell in cells.items():
        for port, nets in cell["connections"].items():
            if cell["port_directions"][port] == "input":
                for net in nets:
                    if isinstance(net, int):
                        users[net].append((name, port))
    return _PACKERS[family](cells, users)


def _ecp5(cells: _Cells, users: _Users) -> Counter[str]:
    """A carry cell is two logic cells; two lead into each chain and, where its last carry has a net, two out of it, and
    two more wherever a carry is read. A memory of 16 words of 4 bits takes six."""
    packed: Counter[str] = Counter()
    carried = {_net(cell, "COUT") for cell in cells.values() if cell["type"] == "CCU2C"} - {None}
    for name, cell in cells.items():
        if cell["type"] == "LUT4":
            packed[name] = 1
        elif cell["type"] == "TRELLIS_DPR16X4":
            packed[name] = 6
        elif cell["type"] == "CCU2C":
            readers = users.get(_net(cell, "COUT"), ())
            on = sum(port == "CIN" for _, port in readers)
            leads_out = bool(cell["connections"].get("COUT")) and (not on or len(readers) > 1)
            packed[name] = 2 + 2 * (_net(cell, "CIN") not in carried) + 2 * leads_out
    return packed


def _ice40(cells: _Cells, users: _Users) -> Counter[str]:
    """A register shares a logic cell with the table that leads to it alone, a carry with a table that has its operands
    and its carry or, if there is none, that makes one of its operands of one or two nets; others are alone. One more
    leads into a chain from elsewhere, one out of it."""
    packed = Counter({name: 1 for name, cell in cells.items() if cell["type"] == "SB_LUT4"})
    operands_of = {name: (_net(cells[name], "I1"), _net(cells[name], "I2")) for name in packed}
    drivers = {_net(cells[name], "O"): name for name in packed}
    carried = {_net(cell, "CO") for cell in cells.values() if cell["type"] == "SB_CARRY"} - {None}
    alone = set(operands_of)  # tables that share their logic cell with nothing
    carries = []
    for name, cell in cells.items():
        if cell["type"].startswith("SB_DFF"):
            net = _net(cell, "D")
            shared = net in drivers and len(users[net]) == 1
            packed[name] = int(not shared)
            if shared:
                alone.discard(drivers[net])
        elif cell["type"] == "SB_CARRY":
            carry, operands = _net(cell, "CI"), (_net(cell, "I0"), _net(cell, "I1"))
            # those that read the carry or, where that is a constant, an operand
            near = users[carry] if carry is not None else [of for net in operands if net for of in users[net]]
            table = next((of for of, port in near if (port == "I3" or carry is None)
                          and operands_of.get(of) == operands), None)
            if table is None:
                carries.append((name, operands))
            alone.discard(table)
            readers = users.get(_net(cell, "CO"), ())
            on, read = (sum(port == wanted for _, port in readers) for wanted in ("CI", "I3"))
            leads_out = bool(readers) and (len(readers) > on + read or read > 1)
            leads_in = carry is not None and carry not in carried
            packed[name] = leads_out + leads_in
    for name, operands in carries:
        table = next((drivers[net] for net in operands if net in drivers and drivers[net] in alone
                      and sum(_net(cells[drivers[net]], f"I{n}") is not None for n in range(4)) <= 2), None)
        packed[name] += table is None
        alone.discard(table)
    return packed


def _net(cell: Mapping[str, Any], port: str) -> int | None:
    """What a port of one bit is connected to; None: a constant, or nothing."""
    nets = cell["connections"].get(port)
    return nets[0] if nets and isinstance(nets[0], int) else None


_PACKERS: dict[str, Callable[[_Cells, _Users], Counter[str]]] = {"ecp5": _ecp5, "ice40": _ice40}
