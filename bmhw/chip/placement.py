# SPDX-License-Identifier: Apache-2.0
"""Whole networks on an FPGA: from parts to placed cells, Fmax and images a second, units in the key names.

The chip is placed as it is delivered, its ports on pins; Fmax is that of paths from register to register.
"""

import hashlib
import json
from collections import Counter
from typing import Any

from bmhw.flow.fpga import count_cells
from bmhw.flow.work_folder import work_folder
from bmhw.hdl.verilog.convert import block_to_verilog
from bmhw.measure.fpga import Fpga

from .assembly import Assembly
from .bench import Bench
from .edge import chip_of
from .kinds import KINDS, kind_of
from .mapping import TOP, mapped_chip, script_of
from .plan import plan

__all__ = ["measure_chip"]

METHOD = {
    "cells": "Yosys's cells of the whole chip, flattened",
    "fmax_mhz": "nextpnr's, of paths from register to register; of several seeds the median (of an even number the "
                "lower middle one), whose critical path is shown",
    "cycles_per_image": "measured in simulation, images back to back, every number compared with the integer network",
    "frames_per_second": "fmax_mhz / cycles_per_image",
}

SIMULATED = 3
"""Images of which the rate is measured: the first one fills the chip."""


def measure_chip(fpga: Fpga, assembly: Assembly) -> dict[str, Any]:
    """A network's figures, as JSON values. ``DoesNotFitError``."""
    network, planned = assembly.network, plan(assembly, fpga.device)
    fpga.progress(f"{network.name}: generating")
    verilog = block_to_verilog(chip_of(assembly), TOP)
    fpga.progress(f"{network.name}: synthesising")
    script = script_of(fpga.device, **fpga.resources)
    mapped = mapped_chip(fpga.engine, fpga.cache, verilog, script)
    counts = count_cells(fpga.device, json.loads(mapped["cells.json"]), TOP)
    placed = fpga.place(network.name, mapped["netlist.json"], _part_of)
    cycles = _cycles(fpga, assembly, verilog)
    return {
        "name": network.name, "accuracy": network.card["accuracy"], "device": fpga.told_device,
        "folding": dict(assembly.folding), "elements": planned.elements, "planned_cycles": planned.cycles,
        "planned_block_rams": planned.block_rams, "planned_cells": planned.cells, **counts,
        "kinds": _kinds(fpga, assembly, mapped["netlist.json"]), **placed,
        "cycles_per_image": cycles, "frames_per_second": placed["fmax_mhz"] * 1e6 / cycles,
        "verilog_sha256": hashlib.sha256(verilog.encode()).hexdigest(),
        "method": {**METHOD, "yosys_script": script, "nextpnr_options": list(fpga.device.options)},
        "tools": fpga.told_tools(mapped["netlist.json"]),
    }


def _cycles(fpga: Fpga, assembly: Assembly, verilog: str) -> float:
    """Cycles an image, back to back, of held-out images."""
    def simulate() -> dict[str, Any]:
        fpga.progress(f"{assembly.network.name}: simulating {SIMULATED} images")
        with work_folder("bmhw-network-") as folder:
            bench = Bench(assembly, folder)
            bench.build()
            run = bench.run(assembly.network.samples[:SIMULATED])
        return {"cycles": run.cycles_per_image}

    return fpga.stored(lambda: ("chip cycles", 1, verilog), simulate)["cycles"]


def _kinds(fpga: Fpga, assembly: Assembly, netlist: str) -> dict[str, dict[str, int]]:
    """Cells by :data:`KINDS`, by the names of their parts, which flattening keeps."""
    cells: dict[str, Counter[str]] = {kind: Counter() for kind in KINDS}
    for name, cell in json.loads(netlist)["modules"][TOP]["cells"].items():
        cells[kind_of(assembly, name)][cell["type"]] += 1
    return {kind: count_cells(fpga.device, {"modules": {f"\\{kind}": {"num_cells_by_type": found}}}, kind)
            for kind, found in cells.items()}


def _part_of(cell: str) -> str | None:
    """The part of a cell: ``network.conv2.window...`` is in ``conv2 window``."""
    words = cell.split(".")
    if words[0] != "network":
        return "edge" if len(words) > 1 else None
    return " ".join(words[1:3]) if len(words) > 3 else words[1]
