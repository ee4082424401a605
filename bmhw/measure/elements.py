# SPDX-License-Identifier: Apache-2.0
"""Elements measured: each with its copy registers and its share of the ends, in gates and placed on FPGAs.

A *cell* is an element and the registers into which its results are copied. What comes once a group (or flush) of K
inputs serves K elements, what comes once a result of n inputs n elements: an element's share of an end is a K-th or an
n-th. Sums that wait between groups and weights lie in memories, which are stated in bits.
"""

import contextlib
import dataclasses
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from bmhw.flow.cache import Cache, digest
from bmhw.flow.engine import Engine
from bmhw.flow.fpga import DEVICES, NextPnr, count_cells, synthesis_script
from bmhw.flow.liberty import Library
from bmhw.flow.synthesis import in_parallel, map_design
from bmhw.hdl.block import Block
from bmhw.hdl.formats.bm import BmFormat
from bmhw.hdl.formats.mac import MacFormat
from bmhw.hdl.neurons.design import Design
from bmhw.hdl.neurons.element_ends import GroupEnd, ResultEnd, element_format
from bmhw.hdl.verilog.convert import block_to_verilog
from bmhw.hdl.verilog.element_array import ELEMENTS, SHARED, ElementArray, ElementCell

from .fpga import Fpga

__all__ = [
    "CHIPS", "FAN_INS", "KINDS", "PLACED", "TARGETS", "Case", "Chip", "Elements", "Kind", "cases", "measure", "ratios",
]

FAN_INS = {576: (9, 36, 144), 144: (9, 36, 144), 64: (16, 64)}
"""Fan-in -> inputs of a group, or of a flush."""
PLACED = (576, 36)
"""Where elements are placed: a BM element is the same at any fan-in and group, a MAC's accumulator differs by bits."""
OBJECTIVE = "balanced"


@dataclass(frozen=True)
class Kind:
    """A kind of element: ``layout`` None for a MAC; ``flushed``: its accumulator holds one group's products."""

    name: str
    layout: str | None = None
    sums: str = "clamped"
    flushed: bool = False


KINDS = {
    "signed": Kind("BM signed", "signed"), "flushed": Kind("MAC, flushed", flushed=True), "mac": Kind("MAC"),
    "wired": Kind("BM wired", "wired"), "relu": Kind("BM relu", "relu"),
    "signed-full": Kind("BM signed, full sums", "signed", "full"),
}
"""Word on the command line -> kind."""


@dataclass(frozen=True)
class Chip:
    """Where arrays are placed; ``target_mhz`` is above what is reached. ``architectures``: of a BM and a MAC element,
    what is tried: an enable costs nothing where a register has one beside a free table, but where a table and its
    register are one cell it leaves the table empty."""

    device: str
    target_mhz: float
    cell: str
    architectures: dict[str, tuple[dict[str, str], ...]]
    dsp: bool = False


def _macs(*multipliers: str) -> tuple[dict[str, str], ...]:
    return tuple({"multiplier": name, "adder": "operator", "selection": "behind"} for name in multipliers)


CHIPS = {
    "ice40-hx8k": Chip("ice40-hx8k", 250, "ICESTORM_LC", {
        "bm": ({"adder": "operator", "selection": "behind"}, {"adder": "operator", "selection": "before"}),
        "mac": _macs("operator", "booth")}),
    "ecp5-25k": Chip("ecp5-25k", 300, "TRELLIS_COMB", {
        "bm": ({"adder": "ripple", "selection": "enable"}, {"adder": "operator", "selection": "enable"}),
        "mac": _macs("operator", "booth")}),
    "ecp5-85k with DSPs": Chip("ecp5-85k", 300, "TRELLIS_COMB", {"mac": _macs("operator")}, dsp=True),
}
"""Name in the tables -> chip."""

# what is tried in gates
_GATES = {
    "bm": tuple({"adder": adder, "selection": "before"} for adder in ("ripple", "lookahead", "sklansky")),
    "mac": tuple({"multiplier": multiplier, "adder": adder, "selection": selection}
                 for multiplier in ("dadda", "booth") for adder in ("ripple", "brent_kung", "sklansky")
                 for selection in ("before", "behind")),
}

TARGETS = (4, 3, 2)
"""Widths of the MACs that the BM element of four bits is set against."""


@dataclass(frozen=True)
class Case:
    """One row: a kind at a width, fan-in and group."""

    kind: Kind
    bits: int
    inputs: int
    group_inputs: int

    @property
    def format(self) -> MacFormat | BmFormat:
        """Of the whole neuron, boundary ``layer``."""
        if self.kind.layout is None:
            return MacFormat(inputs=self.inputs, bits=self.bits, boundary="layer")
        return BmFormat(inputs=self.inputs, bits=self.bits, boundary="layer", layout=self.kind.layout,
                        sums=self.kind.sums, groups=self.inputs // self.group_inputs, zero="exact")

    @property
    def neuron(self) -> str:
        return "mac" if self.kind.layout is None else "bm"

    @property
    def flush(self) -> int | None:
        return self.group_inputs if self.kind.flushed else None

    def design(self, architecture: dict[str, str]) -> Design:
        """The element, with a register between its two parts."""
        design = Design(format=element_format(self.format, self.flush), form="serial", **architecture)
        return dataclasses.replace(design, registers=design.parts[:1])

    @property
    def served(self) -> dict[str, int]:
        """How many elements each end serves."""
        if self.neuron == "mac" and not self.kind.flushed:
            return {"group_end": self.inputs, "result_end": self.inputs}
        halves = 2 if self.kind.layout == "wired" else 1  # its element shows one maximum twice a group
        return {"group_end": self.group_inputs // halves, "result_end": self.inputs}

    def ends(self, adder: str, multiplier: str) -> dict[str, Block]:
        fmt = self.format
        return {"group_end": GroupEnd(format=fmt, adder=adder, flush=self.flush),
                "result_end": ResultEnd(format=fmt, adder=adder, multiplier=multiplier)}

    @property
    def memory(self) -> dict[str, int]:
        """Bits: of a weight, and of the sum that waits while another element's is at the end."""
        fmt = element_format(self.format, self.flush)
        weight = sum(code.bits for name, (code, _) in fmt.inputs_of.items() if name not in SHARED)
        waits = self.neuron == "bm" or self.kind.flushed
        return {"weight_bits": weight, "waiting_bits": self.format.y.bits if waits else 0}


def cases(widths: Sequence[int], fan_ins: Sequence[int],
          kinds: Sequence[Kind] = tuple(KINDS.values())) -> Iterator[Case]:
    """The rows; a MAC that holds a whole sum has no groups and stands once for each fan-in, with the largest one."""
    for kind in kinds:
        for bits in widths:
            for inputs in fan_ins:
                sizes = FAN_INS[inputs]
                for group_inputs in sizes if kind.layout or kind.flushed else (inputs,):
                    if not kind.flushed or group_inputs < inputs:
                        yield Case(kind, bits, inputs, group_inputs)


@dataclass
class Elements:
    """Measures cases, from the cache where they are in it."""

    engine: Engine
    cache: Cache
    library: Library | None
    seeds: tuple[int, ...]
    nextpnr: dict[str, NextPnr]
    """By device; none: nothing is placed."""
    yosys: str = ""
    """Version and commit, once something was mapped."""

    def row(self, case: Case, placed: bool) -> dict[str, Any]:
        """All figures of a case as JSON values."""
        row = {"kind": case.kind.name, "neuron": case.neuron, "layout": case.kind.layout,
               "sums": case.kind.sums if case.kind.layout else None, "bits": case.bits,
               "log_fraction": getattr(case.format, "log_fraction", None), "inputs": case.inputs,
               "group_inputs": case.group_inputs, "flush": case.flush, **case.memory, "served": case.served,
               "gates": self.gates(case)}
        if placed:
            row["placed"] = {name: self.placed(case, chip) for name, chip in CHIPS.items()
                             if case.neuron in chip.architectures and not (chip.dsp and case.kind.flushed)}
        return row

    # -- gates

    def gates(self, case: Case) -> dict[str, Any]:
        """The cell of the best architecture in gates x depth, and the ends, those with the fewest gates."""
        found = [(self._mapped(ElementCell(design=case.design(chosen)), OBJECTIVE), chosen)
                 for chosen in _GATES[case.neuron]]
        _, architecture = min(found, key=lambda pair: pair[0]["gates"] * pair[0]["depth"])
        blocks = {"cell": ElementCell(design=case.design(architecture))} | case.ends("ripple", "dadda")
        figures = {name: self._mapped(block, OBJECTIVE if name == "cell" else "area") for name, block in blocks.items()}
        if self.library:
            for name, block in blocks.items():
                mapped = self._mapped(block, OBJECTIVE if name == "cell" else "area", self.library)
                figures[name] |= mapped
        names = ("gates", "flip_flops", *(("gate_equivalents",) if self.library else ()))
        total = {name: figures["cell"][name] + sum(figures[end][name] / number for end, number in case.served.items())
                 for name in names}
        kept = {name: value for name, value in figures["cell"].items() if name in ("depth", "delay_ns")}
        return {**figures, "architecture": architecture, "with_share": {**total, **kept}}

    def _mapped(self, block: Block, objective: str, library: Library | None = None) -> dict[str, Any]:
        found = map_design(block_to_verilog(block, "top", sliced=True), "top", by_parts=False, objective=objective,
                           engine=self.engine, cache=self.cache, library=library)
        self.yosys = found.yosys
        if library is None:
            return {"gates": found.gates, "flip_flops": found.flip_flops, "depth": found.depth}
        assert found.area is not None
        return {"gate_equivalents": found.area / library.nand2_area, "delay_ns": found.delay_ns}

    # -- placed

    def placed(self, case: Case, chip: Chip) -> dict[str, Any]:
        """An array of cells, placed; of several architectures the one with the least cells x ns at the first seed."""
        device = DEVICES[chip.device]
        fpga = Fpga(chip.device, self.engine, self.nextpnr[chip.device], self.cache, dsp=chip.dsp,
                    frequency=chip.target_mhz, seeds=self.seeds[:1], wrapper=ElementArray, counted="cell_0")
        designs = [case.design(chosen) for chosen in chip.architectures[case.neuron]]

        def cost(found: dict[str, Any]) -> float:
            return found["placed"][chip.cell]["used"] * found["critical_path_ns"]

        tried = [(fpga.measure(design), design) for design in designs]
        _, chosen = min(tried, key=lambda pair: cost(pair[0]))
        fpga.seeds = self.seeds
        best = fpga.measure(chosen)
        cells = best["placed"][chip.cell]["used"] / ELEMENTS
        # weights stand for the outputs of their memories: in a logic cell each, where a cell has one register
        weights = case.memory["weight_bits"] if chip.cell == "ICESTORM_LC" else 0
        ends = {name: self._end(block, chip) for name, block in case.ends("operator", "operator").items()}
        share = sum(ends[name]["luts"] / number for name, number in case.served.items())
        result = {"architecture": chosen.architecture, "cells": cells, "weight_cells": weights,
                  **{name: best[name] for name in ("luts", "carries", "flip_flops", "dsps")}, "ends": ends,
                  "share": share, "with_share": cells - weights + share,
                  **{name: best[name] for name in ("fmax_mhz", "fmax_lowest_mhz", "fmax_highest_mhz")}}
        result["tried"] = [{**design.architecture, "cells": found["placed"][chip.cell]["used"] / ELEMENTS,
                            "fmax_mhz": found["fmax_mhz"]} for found, design in tried]
        return result | {"chip": device.chip, "nextpnr": self.nextpnr[chip.device].version}

    def _end(self, block: Block, chip: Chip) -> dict[str, int]:
        """An end's cells, of its netlist: it is not placed."""
        device = DEVICES[chip.device]
        verilog = block_to_verilog(block, "top", sliced=True)
        script = synthesis_script(device, "top", "top", dsp=chip.dsp, block_ram=True)
        key = digest("element end", 1, verilog, script, self.engine.version)
        stored = self.cache.get(key)
        if stored is None:
            files = self.engine.run(script, {"design.v": verilog}, ("cells.json",))
            stored = count_cells(device, json.loads(files["cells.json"]), "top")
            self.cache.set(key, stored)
        return stored


def measure(work: Sequence[Case], elements: Elements, jobs: int,
            report: Callable[[float], None] = lambda share: None) -> tuple[list[dict[str, Any]], str]:
    """A row for each case, those that are placed first, and Yosys's version; ``report`` hears of each share of the work
    that is done."""
    def placed(case: Case) -> bool:
        at = (case.inputs, case.group_inputs)
        plain = case.neuron == "mac" and not case.kind.flushed
        return bool(elements.nextpnr) and (at == PLACED or (plain and case.inputs == PLACED[0]))

    weights = [40 if placed(case) else 1 for case in work]

    def one(case: Case, weight: int) -> dict[str, Any]:
        try:
            return elements.row(case, placed(case))
        finally:
            report(weight / sum(weights))

    order = sorted(range(len(work)), key=lambda i: -weights[i])
    with contextlib.ExitStack() as stack:
        for nextpnr in elements.nextpnr.values():
            stack.enter_context(nextpnr.stopping())
        found = in_parallel(elements.engine, [partial(one, work[i], weights[i]) for i in order], jobs)
    rows = dict(zip(order, found, strict=True))
    return [rows[i] for i in range(len(work))], elements.yosys


def ratios(rows: Sequence[dict[str, Any]], bits: int = TARGETS[0]) -> list[dict[str, Any]]:
    """The BM ``signed`` element of ``bits`` against the cheaper MAC of each of :data:`TARGETS`, on each chip."""
    placed = {(row["kind"], row["bits"]): row["placed"] for row in rows if "placed" in row}
    bm, result = placed.get(("BM signed", bits), {}), []
    for width in TARGETS:
        for chip, figures in bm.items():
            macs = [(kind, placed[kind, width][chip]) for kind in ("MAC", "MAC, flushed") if (kind, width) in placed]
            if macs:
                kind, mac = min(macs, key=lambda pair: pair[1]["with_share"])
                result.append({"mac_bits": width, "mac": kind, "chip": chip,
                               "cells": mac["with_share"] / figures["with_share"],
                               "fmax_mhz": figures["fmax_mhz"] / mac["fmax_mhz"]})
    return result
