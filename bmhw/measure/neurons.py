# SPDX-License-Identifier: Apache-2.0
"""Neurons measured: from designs to the figures that tables and JSON show, units in the key names."""

import importlib.metadata
import platform
from collections.abc import Iterator, Sequence
from typing import Any

from bmhw import __version__
from bmhw.flow.cache import Cache
from bmhw.flow.engine import Engine
from bmhw.flow.liberty import Library
from bmhw.flow.scripts import ABC_GATES, GATES
from bmhw.flow.synthesis import Figures, Synthesis, map_design, synthesize
from bmhw.hdl.neurons.design import Design

from .generation import Generated, generate

__all__ = ["compare", "figures", "measure", "tools", "widths"]

OTHER = "other"  # the part that holds what lies in no part: registers, the control of a serial neuron


def measure(designs: Sequence[Design], objective: str, engine: Engine, cache: Cache,
            library: Library | None = None) -> list[dict[str, Any]]:
    """Generate, map and measure neurons, in parallel. One dictionary of JSON values each (see the README)."""
    generated: list[Generated] = []

    def sources() -> Iterator[tuple[str, str]]:
        for design in designs:
            generated.append(generate(design, cache))
            yield generated[-1].verilog, generated[-1].name

    results = synthesize(sources(), objective, engine, cache, library)
    return [_neuron(design, item, result, objective, engine)
            for design, item, result in zip(designs, generated, results, strict=True)]


def figures(design: Design, *, by_parts: bool, objective: str, engine: Engine, cache: Cache) -> Figures:
    """One design generated and mapped to gates, as one netlist or part by part."""
    generated = generate(design, cache)
    return map_design(generated.verilog, generated.name, by_parts=by_parts, objective=objective, engine=engine,
                      cache=cache, library=None)


def compare(mac: dict[str, Any], bm: dict[str, Any]) -> dict[str, Any]:
    """Two measured neurons and their ratios: above 1 in ``gates`` and below 1 in ``depth`` BM is better."""
    ratio = {"gates": _ratio(mac["gates"], bm["gates"]), "depth": _ratio(bm["depth"], mac["depth"])}
    if mac["flip_flops"] or bm["flip_flops"]:
        ratio["flip_flops"] = _ratio(mac["flip_flops"], bm["flip_flops"])
    if mac["latency_cycles"] or bm["latency_cycles"]:
        ratio["latency_cycles"] = _ratio(bm["latency_cycles"], mac["latency_cycles"])
    if "area_gate_equivalents" in mac:
        ratio["area_gate_equivalents"] = _ratio(mac["area_gate_equivalents"], bm["area_gate_equivalents"])
        if mac["delay_ns"] is not None:
            ratio["delay_ns"] = _ratio(bm["delay_ns"], mac["delay_ns"])
    meaning = "MAC / BM for gates, flip-flops and area; BM / MAC for depth, delay and latency"
    return {"mac": mac, "bm": bm, "ratio": ratio, "comparison": widths(mac["design"], bm["design"]),
            "ratio_meaning": meaning}


def widths(mac: dict[str, Any], bm: dict[str, Any]) -> str:
    """``equal width`` only where every number of both neurons has it: inputs, weights, log codes."""
    if len({mac["bits"], mac["weight_bits"], bm["bits"], bm["weight_bits"], bm["log_bits"]}) == 1:
        return f"equal width, {mac['bits']} bits"
    return (f"unequal widths, MAC inputs {mac['bits']} and weights {mac['weight_bits']} bits, "
            f"BM inputs {bm['bits']}, log codes {bm['log_bits']} and weights {bm['weight_bits']} bits")


def _ratio(above: float, below: float) -> float | None:
    return above / below if below else None


def _neuron(design: Design, generated: Generated, result: Synthesis, objective: str,
            engine: Engine) -> dict[str, Any]:
    flat, joined = result.flat, result.parts
    values: dict[str, Any] = {
        "name": generated.name,
        "design": design.to_dict(),
        "objective": objective,
        "gates": flat.gates,
        **({} if design.element else {"gates_per_input": flat.gates / design.format.inputs}),
        "flip_flops": flat.flip_flops,
        "depth": flat.depth,
        "latency_cycles": generated.latency,
        "stages": [{"depth": stage.depth, "flip_flops": stage.flip_flops} for stage in flat.stages],
        "cells": {kind.strip("$_"): number for kind, number in flat.cells.items()},
        "parts": {},
        "parts_joined": {"gates": joined.gates, "flip_flops": joined.flip_flops, "depth": joined.depth},
        "critical_path": {
            "from": joined.path_ends[0],
            "to": joined.path_ends[1],
            "steps": [{"part": step.part or OTHER, "gates": step.gates} for step in joined.path],
        },
    }
    for name in sorted(joined.parts, key=(*design.parts, "").index):
        part = joined.parts[name]
        values["parts"][name or OTHER] = {
            "gates": part.gates, "flip_flops": part.flip_flops, "depth": part.depth,
            "critical_path_gates": part.critical_path_gates,
        }
    if result.library and result.flat_cells and result.parts_cells:
        _add_cells(values, result, result.library)
    values["method"] = _method(design, result.library, objective)
    values["tools"] = tools(engine, flat.yosys)
    return values


def _add_cells(values: dict[str, Any], result: Synthesis, library: Library) -> None:
    """Area and delay in the cells of a library."""
    unit = library.nand2_area
    flat, joined = result.flat_cells, result.parts_cells
    assert flat and joined and flat.area is not None and joined.area is not None
    values["area_gate_equivalents"] = flat.area / unit
    if "gates_per_input" in values:
        values["area_gate_equivalents_per_input"] = flat.area / unit / values["design"]["inputs"]
    values["delay_ns"] = flat.delay_ns
    values["library_cells"] = flat.cells
    values["parts_joined"]["area_gate_equivalents"] = joined.area / unit
    values["parts_joined"]["delay_ns"] = joined.delay_ns
    values["critical_path_ns"] = None if library.untimed else {
        "from": joined.path_ends[0],
        "to": joined.path_ends[1],
        "steps": [{"part": step.part or OTHER, "cells": step.gates, "delay_ns": step.delay}
                  for step in joined.path],
    }
    for name, part in joined.parts.items():
        entry = values["parts"].setdefault(name or OTHER, {})
        entry["area_gate_equivalents"] = (part.area or 0.0) / unit
        entry["delay_ns"] = part.delay_ns
        entry["critical_path_ns"] = part.critical_path_ns
    values["liberty"] = library.describe()


def _method(design: Design, library: Library | None, objective: str) -> dict[str, str]:
    """How the figures came about, in words and scripts."""
    method = {
        "gates": f"flattened and mapped as one to NOT, {', '.join(GATES)}, each counted once",
        "depth": "gates on the longest path between inputs or flip-flops and outputs or flip-flops",
        "stages": "of a pipeline: gates on the longest path between two ranks of registers, flip-flops behind it",
        "parts": "each part mapped on its own by the same script, then all joined; the critical path and its "
                 "shares are those of the joined parts",
        "abc_script": ABC_GATES[objective],
    }
    if design.element:
        method["boundary"] = ("one activation code and one weight a cycle, without an end: exponentials, sums, bias "
                              "and log2, or bias and requantisation, are elsewhere")
    elif design.format.boundary == "layer":
        method["boundary"] = ("activation code to activation code, as in a layer: the MAC neuron requantises, the BM "
                              "neuron ends in a logarithm, and neither takes one of its inputs")
    elif design.neuron == "bm":
        method["boundary"] = (
            f"linear inputs, {design.to_dict()['combine']} output; each input has its own log2, the worst "
            "case for BM: in a layer one log2 serves every neuron that reads the activation")
    else:
        method["boundary"] = "linear inputs, linear output"
    if library:
        method["area"] = "cell area of the flattened neuron, divided by the library's smallest two-input NAND"
        method["delay"] = (f"not known ({library.untimed})" if library.untimed else
                           "longest combinational path through the cells' delay tables with their loads, "
                           "without wires and without the delays of flip-flops")
        method["abc_liberty_script"] = library.scripts[objective]
    return method


def tools(engine: Engine, yosys: str) -> dict[str, str]:
    """Versions of everything that has a say in the figures."""
    return {
        "bmhw": __version__, "amaranth": importlib.metadata.version("amaranth"), "engine": engine.version,
        "yosys": yosys.split(",")[0] + ")",  # version and commit, without the compiler
        "python": platform.python_version(),
    }
