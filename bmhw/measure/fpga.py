# SPDX-License-Identifier: Apache-2.0
"""Neurons on an FPGA: from a design to what its cells are and how fast they run, units in the key names.

The neuron stands in a :class:`~bmhw.hdl.verilog.shift_wrapper.ShiftWrapper`, as a chip has fewer pins than it has
ports. Its cells are counted apart from the wrapper's, and Fmax is that of paths between registers.
"""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from bmhw.flow.cache import Cache, digest
from bmhw.flow.engine import Engine
from bmhw.flow.fpga import (
    DEVICES,
    Device,
    DoesNotFitError,
    NextPnr,
    count_cells,
    planning_script,
    stages_of,
    synthesis_script,
)
from bmhw.flow.paths import Stage
from bmhw.flow.synthesis import instances
from bmhw.hdl.block import Block
from bmhw.hdl.neurons.design import Design
from bmhw.hdl.verilog.shift_wrapper import ShiftWrapper

from .generation import generate
from .neurons import tools, widths

__all__ = ["Fpga", "compare"]

WRAPPER = "wrapper"

METHOD = {
    "cells": "Yosys's cells of the neuron alone; nothing is optimised across its ports",
    "wrapper": "inputs and outputs in shift registers, counted apart; in `placed` they are included",
    "fmax_mhz": "nextpnr's, of paths from register to register; of several seeds the median (of an even number the "
                "lower middle one), whose critical path is shown",
    "latency": "cycles from the neuron's inputs to its registered output, without the wrapper's",
}


@dataclass(frozen=True)
class _Mapped:
    netlist: str
    counts: dict[str, int]
    wrapper: dict[str, int]
    latency: int
    script: str


def _part(cell: str) -> str | None:
    """The part of the neuron that a cell's name begins with: ``neuron.maxima.maximum_1...`` is in ``maxima``."""
    words = cell.split(".")
    return (words[1] if len(words) > 2 else None) if words[0] == "neuron" else WRAPPER


@dataclass
class Fpga:
    """Measures neurons on one device.

    Parameters: ``device``: a key of :data:`~bmhw.flow.fpga.DEVICES`; ``dsp``, ``block_ram``: whether Yosys may use
    them; ``frequency``: target in MHz; ``seeds``: of nextpnr, one run each; ``wrapper``: the block around the neuron,
    which takes its ``design``; ``counted``: the instance in it whose cells are counted; ``progress``: told what is
    being done.
    """

    device_name: str
    engine: Engine
    nextpnr: NextPnr
    cache: Cache
    dsp: bool = True
    block_ram: bool = True
    frequency: float = 100.0
    seeds: tuple[int, ...] = (1,)
    wrapper: type[Block] = ShiftWrapper
    counted: str = "neuron"
    progress: Callable[[str], None] = lambda step: None

    @property
    def device(self) -> Device:
        return DEVICES[self.device_name]

    @property
    def resources(self) -> dict[str, bool]:
        return {"dsp": self.dsp, "block_ram": self.block_ram}

    def steps(self, design: Design) -> list[Stage]:
        """The stages of a pipelined neuron in the device's cells, mapped part by part, in tenths of a level of
        logic."""
        self.progress(f"{_name(design)}: how deep each step is")
        generated = generate(design, self.cache)
        parts = sorted(set(instances(generated.verilog, generated.name).values()))
        script = planning_script(self.device, generated.name, parts, **self.resources)
        key = digest("fpga steps", 1, generated.verilog, script, self.engine.version)
        stored = self.cache.get(key)
        if stored is None:
            files = self.engine.run(script, {"design.v": generated.verilog}, ("netlist.json",))
            stages = stages_of(self.device, json.loads(files["netlist.json"]), generated.name)
            stored = {"stages": [list(stage) for stage in stages]}
            self.cache.set(key, stored)
        return [Stage(*stage) for stage in stored["stages"]]

    def best(self, designs: Sequence[Design], objective: str) -> dict[str, Any]:
        """Figures of the best of several designs, and what was tried, best first.

        ``objective``: the fewest lookup tables, the shortest critical path, or the least product of both.
        ``DoesNotFitError`` if none of them fits.
        """
        measured, too_large = [], None
        for design in designs:
            try:
                measured.append(self.measure(design))
            except DoesNotFitError as error:
                too_large = error
        if too_large and not measured:
            raise too_large

        def cost(neuron: dict[str, Any]) -> float:
            luts, path = max(neuron["luts"], 1), neuron["critical_path_ns"]
            return {"area": luts, "delay": path, "balanced": luts * path}[objective]

        measured.sort(key=cost)
        tried = [{**_architecture(neuron["design"]), **{key: neuron[key] for key in ("luts", "flip_flops", "fmax_mhz")}}
                 for neuron in measured]
        return {**measured[0], "objective": objective, "candidates": tried}

    def measure(self, design: Design) -> dict[str, Any]:
        """One neuron's figures, as JSON values. ``DoesNotFitError``."""
        name, mapped = _name(design), self._map(design)
        return {
            "name": design.name, "design": design.to_dict(), "device": self.told_device,
            **mapped.counts,
            "latency_cycles": mapped.latency,
            **self.place(name, mapped.netlist),
            "wrapper": mapped.wrapper,
            "method": {**METHOD, "yosys_script": mapped.script, "nextpnr_options": list(self.device.options)},
            "tools": self.told_tools(mapped.netlist),
        }

    @property
    def told_device(self) -> dict[str, Any]:
        """The device and what Yosys may use of it."""
        return {"name": self.device_name, "chip": self.device.chip, "dsps_allowed": self.dsp and self.device.has_dsp,
                "block_rams_allowed": self.block_ram}

    def told_tools(self, netlist: str) -> dict[str, str]:
        return tools(self.engine, _creator(netlist)) | {"nextpnr": self.nextpnr.version}

    def place(self, name: str, netlist: str, part: Callable[[str], str | None] = _part) -> dict[str, Any]:
        """Fmax over the seeds, the critical path and what is placed of the median one. ``DoesNotFitError``.

        ``part``: of a cell, by its name; None: that of the cell before it in a path.
        """
        runs = []
        for number, seed in enumerate(self.seeds, start=1):
            self.progress(f"{name}: placing and routing, seed {seed} ({number} of {len(self.seeds)})")

            def key(seed: int = seed) -> tuple:
                return "fpga placed", 2, netlist, self.device.options, seed, self.frequency, self.nextpnr.version

            def place(seed: int = seed) -> dict[str, Any]:
                return {"seed": seed, **_run(self.nextpnr.place(netlist, seed, self.frequency), part)}

            runs.append(self.stored(key, place))
        median = sorted(runs, key=lambda run: run["fmax_mhz"])[(len(runs) - 1) // 2]
        frequencies = [run["fmax_mhz"] for run in runs]
        return {
            "fmax_mhz": median["fmax_mhz"], "fmax_lowest_mhz": min(frequencies), "fmax_highest_mhz": max(frequencies),
            "target_mhz": self.frequency,
            "critical_path_ns": 1000 / median["fmax_mhz"], "critical_path": median["critical_path"],
            "seeds": [{"seed": run["seed"], "fmax_mhz": run["fmax_mhz"]} for run in runs],
            "placed": median["placed"],
        }

    def _map(self, design: Design) -> _Mapped:
        """The neuron in its wrapper, in the device's cells."""
        self.progress(f"{_name(design)}: synthesising")
        generated = generate(design, self.cache, self.wrapper, WRAPPER)
        neuron = instances(generated.verilog, WRAPPER)[self.counted]
        script = synthesis_script(self.device, WRAPPER, neuron, **self.resources)
        files = self.stored(lambda: ("fpga cells", 1, generated.verilog, script, self.engine.version), lambda: (
            self.engine.run(script, {"design.v": generated.verilog}, ("cells.json", "netlist.json"))))
        counts, wrapper = (count_cells(self.device, json.loads(files["cells.json"]), module)
                           for module in (neuron, WRAPPER))
        return _Mapped(files["netlist.json"], counts, wrapper, generated.latency, script)

    def stored(self, key: Callable[[], tuple], make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """What is in the cache under a key, or is made; the key is asked for again then, as another tool may have taken
        the place of one that doesn't work."""
        found = self.cache.get(digest(*key()))
        if found is None:
            found = make()
            self.cache.set(digest(*key()), found)
        return found


def compare(mac: dict[str, Any], bm: dict[str, Any]) -> dict[str, Any]:
    """Two measured neurons and their ratios; above 1 BM is better, but for latency and critical path, as in
    :func:`bmhw.measure.neurons.compare`."""
    ratio = {name: mac[name] / bm[name] for name in ("luts", "carries", "flip_flops", "dsps", "block_rams")
             if mac[name] and bm[name]}
    ratio |= {"fmax_mhz": bm["fmax_mhz"] / mac["fmax_mhz"],
              "critical_path_ns": bm["critical_path_ns"] / mac["critical_path_ns"]}
    if mac["latency_cycles"] and bm["latency_cycles"]:
        ratio["latency_cycles"] = bm["latency_cycles"] / mac["latency_cycles"]
    cycles = (mac["latency_cycles"], bm["latency_cycles"])
    latency = f"equal latency, {cycles[0]} cycles" if cycles[0] == cycles[1] else (
        f"unequal latency, MAC {cycles[0]} and BM {cycles[1]} cycles")
    return {"mac": mac, "bm": bm, "ratio": ratio, "comparison": f"{widths(mac['design'], bm['design'])}; {latency}",
            "ratio_meaning": "MAC / BM for cells; BM / MAC for Fmax, critical path and latency"}


def _architecture(design: dict[str, Any]) -> dict[str, str]:
    return {name: design[name] for name in ("multiplier", "maximum", "adder", "end") if name in design}


def _run(report: dict[str, Any], part: Callable[[str], str | None]) -> dict[str, Any]:
    """What is kept of one report of nextpnr."""
    (clock,) = report["fmax"].values()
    placed = {kind: number for kind, number in report["utilization"].items() if number["used"]}
    path = next(path for path in report["critical_paths"] if path["from"] == path["to"])
    return {"fmax_mhz": clock["achieved"], "placed": placed, "critical_path": _path(path["path"], part)}


def _path(segments: list[dict[str, Any]], part_of: Callable[[str], str | None]) -> dict[str, Any]:
    """nextpnr's path in short: where it begins and ends, and what each part has of it."""
    steps: list[dict[str, Any]] = []
    for segment in segments:
        cell = segment["to" if segment["type"] == "routing" else "from"]["cell"]
        part = part_of(cell)
        if steps and segment["type"] != "setup" and part in (None, WRAPPER):
            # some cells have no name of their own: what nextpnr adds to a carry chain, and what is named after a
            # register behind the part
            part = steps[-1]["part"]
        part = part or "registers"
        if not steps or steps[-1]["part"] != part:
            steps.append({"part": part, "cells": 0, "logic_ns": 0.0, "routing_ns": 0.0})
        steps[-1]["routing_ns" if segment["type"] == "routing" else "logic_ns"] += segment["delay"]
        steps[-1]["cells"] += segment["type"] == "logic"
    return {"from": _signal(segments[0]["from"]["cell"]), "to": _signal(segments[-1]["to"]["cell"]), "steps": steps}


def _signal(cell: str) -> str:
    """The signal that a flip-flop's name was made of."""
    return re.sub(r"_(?:SB_|TRELLIS_FF|LUT4|CCU2C|PFUMX|L6MUX21).*", "", cell)


def _name(design: Design) -> str:
    return f"{design.neuron.upper()}, {' and '.join(_architecture(design.to_dict()).values())}"


def _creator(netlist: str) -> str:
    return json.loads(netlist)["creator"]
