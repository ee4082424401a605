# SPDX-License-Identifier: Apache-2.0
"""Elements measured: each with its copy registers and its share of the ends, in gates and placed on FPGAs."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from bmhw.flow.cache import Cache
from bmhw.flow.engine import Engine
from bmhw.flow.fpga import DEVICES, NextPnr
from bmhw.flow.liberty import Library
from bmhw.flow.synthesis import in_parallel, map_design
from bmhw.hdl.block import Block
from bmhw.hdl.formats.bm import BmFormat
from bmhw.hdl.formats.mac import MacFormat
from bmhw.hdl.verilog.element_array import ELEMENTS, ElementArray

from .element_cells import CHIPS, Chip, SharedElement, count_block
from .fpga import Fpga
from .generation import block_verilog

__all__ = [
    "FAN_INS", "KINDS", "PLACED", "TARGETS", "Case", "Elements", "Kind", "cases", "measure", "ratios",
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
    def element(self) -> SharedElement:
        return SharedElement(self.format, self.group_inputs if self.kind.flushed else None)


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
        element = case.element
        row = {"kind": case.kind.name, "neuron": element.neuron, "layout": case.kind.layout,
               "sums": case.kind.sums if case.kind.layout else None, "bits": case.bits,
               "log_fraction": getattr(case.format, "log_fraction", None), "inputs": case.inputs,
               "group_inputs": case.group_inputs, "flush": element.flush, **element.memory, "served": element.served,
               "gates": self.gates(element)}
        if placed:
            row["placed"] = {name: self.placed(element, chip) for name, chip in CHIPS.items()
                             if element.neuron in chip.architectures and not (chip.dsp and case.kind.flushed)}
        return row

    # -- gates

    def gates(self, element: SharedElement) -> dict[str, Any]:
        """The cell of the best architecture in gates x depth, and the ends, those with the fewest gates."""
        found = [(self._mapped(element.cell(chosen), OBJECTIVE), chosen) for chosen in _GATES[element.neuron]]
        _, architecture = min(found, key=lambda pair: pair[0]["gates"] * pair[0]["depth"])
        blocks = {"cell": element.cell(architecture)} | element.ends("ripple", "dadda")
        figures = {name: self._mapped(block, OBJECTIVE if name == "cell" else "area") for name, block in blocks.items()}
        if self.library:
            for name, block in blocks.items():
                mapped = self._mapped(block, OBJECTIVE if name == "cell" else "area", self.library)
                figures[name] |= mapped
        names = ("gates", "flip_flops", *(("gate_equivalents",) if self.library else ()))
        total = {name: figures["cell"][name] + element.share({end: figures[end][name] for end in element.served})
                 for name in names}
        kept = {name: value for name, value in figures["cell"].items() if name in ("depth", "delay_ns")}
        return {**figures, "architecture": architecture, "with_share": {**total, **kept}}

    def _mapped(self, block: Block, objective: str, library: Library | None = None) -> dict[str, Any]:
        found = map_design(block_verilog(block, self.cache), "top", by_parts=False, objective=objective,
                           engine=self.engine, cache=self.cache, library=library)
        self.yosys = found.yosys
        if library is None:
            return {"gates": found.gates, "flip_flops": found.flip_flops, "depth": found.depth}
        assert found.area is not None
        return {"gate_equivalents": found.area / library.nand2_area, "delay_ns": found.delay_ns}

    # -- placed

    def placed(self, element: SharedElement, chip: Chip) -> dict[str, Any]:
        """An array of cells, placed; of several architectures the one with the least cells x ns at the first seed."""
        device = DEVICES[chip.device]
        fpga = Fpga(chip.device, self.engine, self.nextpnr[chip.device], self.cache, dsp=chip.dsp,
                    frequency=chip.target_mhz, seeds=self.seeds[:1], wrapper=ElementArray, counted="cell_0")
        designs = [element.design(chosen) for chosen in chip.architectures[element.neuron]]

        def cost(found: dict[str, Any]) -> float:
            return found["placed"][chip.cell]["used"] * found["critical_path_ns"]

        tried = [(fpga.measure(design), design) for design in designs]
        _, chosen = min(tried, key=lambda pair: cost(pair[0]))
        fpga.seeds = self.seeds
        best = fpga.measure(chosen)
        cells = best["placed"][chip.cell]["used"] / ELEMENTS
        # weights stand for the outputs of their memories: in a logic cell each, where a cell has one register
        weights = element.memory["weight_bits"] if chip.cell == "ICESTORM_LC" else 0
        ends = {name: count_block(block_verilog(block, self.cache), chip, self.engine, self.cache, block_ram=True).cells
                for name, block in element.ends("operator", "operator").items()}
        share = element.share({name: end["luts"] for name, end in ends.items()})
        result = {"architecture": chosen.architecture, "cells": cells, "weight_cells": weights,
                  **{name: best[name] for name in ("luts", "carries", "flip_flops", "dsps")}, "ends": ends,
                  "share": share, "with_share": cells - weights + share,
                  **{name: best[name] for name in ("fmax_mhz", "fmax_lowest_mhz", "fmax_highest_mhz")}}
        result["tried"] = [{**design.architecture, "cells": found["placed"][chip.cell]["used"] / ELEMENTS,
                            "fmax_mhz": found["fmax_mhz"]} for found, design in tried]
        return result | {"chip": device.chip, "nextpnr": self.nextpnr[chip.device].version}


def measure(work: Sequence[Case], elements: Elements, jobs: int,
            report: Callable[[float], None] = lambda share: None) -> tuple[list[dict[str, Any]], str]:
    """A row for each case, those that are placed first, and Yosys's version; ``report`` hears of each share of the work
    that is done."""
    def placed(case: Case) -> bool:
        at = (case.inputs, case.group_inputs)
        plain = case.kind.layout is None and not case.kind.flushed
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
