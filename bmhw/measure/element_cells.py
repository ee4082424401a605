# SPDX-License-Identifier: Apache-2.0
"""An element and the ends that it shares: what is built, how many elements an end serves, its cells on an FPGA.

A *cell* is an element and the registers into which its results are copied. What comes once a group (or flush) of K
inputs serves K elements, what comes once a result of n inputs n elements: an element's share of an end is a K-th or an
n-th. Sums that wait between groups and weights lie in memories, which are stated in bits.
"""

import dataclasses
import itertools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from bmhw.flow.cache import Cache, digest
from bmhw.flow.engine import Engine
from bmhw.flow.fpga import DEVICES, count_cells, synthesis_script
from bmhw.hdl.block import Block
from bmhw.hdl.formats.bm import BmFormat
from bmhw.hdl.formats.mac import MacFormat
from bmhw.hdl.neurons.design import Design
from bmhw.hdl.neurons.element_ends import GroupEnd, ResultEnd, element_format
from bmhw.hdl.verilog.element_array import SHARED, ElementCell

__all__ = ["CHIPS", "Chip", "Counted", "SharedElement", "count_block"]


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


@dataclass(frozen=True)
class SharedElement:
    """``format``: of the whole neuron, boundary ``layer``, result ``code``; ``flush``: of a MAC's accumulator."""

    format: MacFormat | BmFormat
    flush: int | None = None

    @property
    def neuron(self) -> str:
        return "mac" if isinstance(self.format, MacFormat) else "bm"

    @property
    def logarithmic(self) -> bool:
        """Whether a logarithmic end takes the maxima, once a result."""
        return getattr(self.format, "combine", "linear") == "logarithmic"

    def design(self, architecture: Mapping[str, str]) -> Design:
        """The element, with a register between its two parts."""
        design = Design(format=element_format(self.format, self.flush), form="serial", **architecture)
        return dataclasses.replace(design, registers=design.parts[:1])

    def cell(self, architecture: Mapping[str, str]) -> ElementCell:
        """The element and its copy registers: equal for elements that differ in what only their ends know."""
        return ElementCell(design=dataclasses.replace(self.design(architecture), format=self._narrowed))

    @property
    def _narrowed(self) -> MacFormat | BmFormat:
        """The element's format with as few inputs as have the same hardware."""
        fmt = element_format(self.format, self.flush)
        if isinstance(fmt, BmFormat):
            return dataclasses.replace(fmt, inputs=2, groups=1)
        fewer = (dataclasses.replace(fmt, inputs=inputs, flush=None) for inputs in itertools.count(1))
        return next(one for one in fewer if one.y.bits == fmt.y.bits)

    @property
    def served(self) -> dict[str, int]:
        """How many elements each end serves."""
        inputs = self.format.inputs
        if self.logarithmic:
            return {"result_end": inputs}
        if isinstance(self.format, MacFormat):
            return {"group_end": self.flush or inputs, "result_end": inputs}
        halves = 2 if self.format.layout == "wired" else 1  # its element shows one maximum twice a group
        return {"group_end": self.format.group_inputs // halves, "result_end": inputs}

    def share(self, ends: Mapping[str, float]) -> float:
        """The element's part of a figure of the ends."""
        return sum(ends[name] / number for name, number in self.served.items())

    def ends(self, adder: str, multiplier: str) -> dict[str, Block]:
        result = ResultEnd(format=self.format, adder=adder, multiplier=multiplier)
        if self.logarithmic:
            return {"result_end": result}
        return {"group_end": GroupEnd(format=self.format, adder=adder, flush=self.flush), "result_end": result}

    @property
    def memory(self) -> dict[str, int]:
        """Bits: of a weight, and of what waits while another element's is at the end: the sum so far, or of layout
        ``wired`` with a logarithmic end the maximum of the positive half."""
        fmt = element_format(self.format, self.flush)
        weight = sum(code.bits for name, (code, _) in fmt.inputs_of.items() if name not in SHARED)
        waiting = self.format.y.bits if self.neuron == "bm" or self.flush else 0
        if self.logarithmic:
            waiting = self.format.maximum_bits if self.format.layout == "wired" else 0
        return {"weight_bits": weight, "waiting_bits": waiting}


class Counted(NamedTuple):
    """``cells`` as :func:`~bmhw.flow.fpga.count_cells` gives them; ``yosys``: the version that mapped them."""

    cells: dict[str, int]
    yosys: str


def count_block(verilog: str, chip: Chip, engine: Engine, cache: Cache, *, block_ram: bool) -> Counted:
    """Cells of a block whose module is called ``top``, of its netlist: it is not placed. ``block_ram``: whether a table
    may become a memory."""
    device = DEVICES[chip.device]
    script = synthesis_script(device, "top", "top", dsp=chip.dsp, block_ram=block_ram)
    key = digest("block cells", 1, verilog, script, engine.version)
    stored = cache.get(key)
    if stored is None:
        statistics = json.loads(engine.run(script, {"design.v": verilog}, ("cells.json",))["cells.json"])
        stored = {"cells": count_cells(device, statistics, "top"), "yosys": statistics["creator"]}
        cache.set(key, stored)
    return Counted(**stored)
