# SPDX-License-Identifier: Apache-2.0
"""Figures of a Verilog design: gates, flip-flops, depth; with a cell library also area and delay."""

import dataclasses
import json
import os
import re
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any, TypeVar

from .cache import Cache, digest
from .engine import Engine
from .liberty import Library
from .netlist import Cell, Netlist, join, read_blocks
from .scripts import ABC_GATES, ABC_LIBERTY, GATES, MODULE_MARK, OBJECTIVES, yosys_script

__all__ = [
    "OBJECTIVES", "Figures", "PartFigures", "Synthesis", "in_parallel", "instances", "map_design",
    "processors", "synthesize",
]

# Part of everything in the cache: to be raised when figures of the same netlist change their meaning.
_REVISION = 1

_UNIT_CELLS = {f"$_{gate}_": Cell(frozenset("Y")) for gate in ("NOT", *GATES)}
_UNIT_CELLS["$_DFF_P_"] = Cell(frozenset("Q"), flip_flop=True)

Result = TypeVar("Result")


@dataclass(frozen=True)
class PartFigures:
    """A part of a design, mapped on its own. ``critical_path_gates``: its share of the joined parts' path."""

    gates: int
    flip_flops: int
    depth: int | None
    critical_path_gates: int
    area: float | None = None
    delay_ns: float | None = None


@dataclass(frozen=True)
class Figures:
    """What one mapping of a design gave; areas in the library's unit, None without a library.

    ``cells`` counts each kind, ``parts`` is empty when everything was mapped as one. ``depth`` is None after
    mapping to a library.
    """

    gates: int
    flip_flops: int
    depth: int | None
    cells: dict[str, int]
    parts: dict[str, PartFigures]
    path: list[tuple[str, int]]
    path_ends: tuple[str, str]
    area: float | None
    delay_ns: float | None
    yosys: str

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Figures":
        parts = {name: PartFigures(**part) for name, part in values["parts"].items()}
        path = [(part, gates) for part, gates in values["path"]]
        return cls(**{**values, "parts": parts, "path": path, "path_ends": tuple(values["path_ends"])})


@dataclass(frozen=True)
class Synthesis:
    """A design's figures: mapped ``flat``, by ``parts`` and, with a library, both once more to its cells."""

    flat: Figures
    parts: Figures
    flat_cells: Figures | None = None
    parts_cells: Figures | None = None
    library: Library | None = None


def instances(verilog: str, top: str) -> dict[str, str]:
    """The instances in module ``top``, name -> module, in the order of the text."""
    modules = set(re.findall(r"^\s*module\s+(\w+)", verilog, re.MULTILINE))
    if top not in modules:
        raise ValueError(f"Top module must be one of {', '.join(sorted(modules))}, not {top!r}")
    body = re.search(rf"^\s*module\s+{top}\b.*?^\s*endmodule", verilog, re.MULTILINE | re.DOTALL)
    found = re.findall(r"(?:^|;)\s*(\w+)\s+(\w+)\s*\(", body.group() if body else "", re.MULTILINE)
    return {name: module for module, name in found if module in modules and module != top}


def synthesize(sources: Sequence[tuple[str, str]], objective: str, engine: Engine, cache: Cache,
               library: Library | None = None, jobs: int | None = None) -> list[Synthesis]:
    """Measure designs, each given as Verilog and name of the top module, on ``jobs`` processors at once.

    The instances in a top module are the design's parts. ``objective``: one of ``OBJECTIVES``.
    """
    # the longest runs first: as one netlist, to cells
    variants = [(by_parts, to_cells) for to_cells in ((True, False) if library else (False,))
                for by_parts in (False, True)]
    order = [(index, *variant) for variant in variants for index in range(len(sources))]

    def mapping(index: int, by_parts: bool, to_cells: bool) -> Callable[[], Figures]:
        return lambda: map_design(*sources[index], by_parts=by_parts, objective=objective, engine=engine,
                                  cache=cache, library=library if to_cells else None)

    results = in_parallel(engine, [mapping(*which) for which in order], jobs)
    found = dict(zip(order, results, strict=True))
    return [Synthesis(found[index, False, False], found[index, True, False], found.get((index, False, True)),
                      found.get((index, True, True)), library) for index in range(len(sources))]


def map_design(verilog: str, top: str, *, by_parts: bool, objective: str, engine: Engine, cache: Cache,
               library: Library | None) -> Figures:
    """Map a design to gates, or to the cells of a library, as one netlist or part by part."""
    parts = instances(verilog, top) if by_parts else {}
    script = yosys_script(top, sorted(set(parts.values())), library is not None)
    abc = (ABC_LIBERTY if library else ABC_GATES)[objective].replace("; ", "\n") + "\n"
    library_digest = library.digest if library else None
    key = digest("figures", _REVISION, verilog, script, abc, engine.version, library_digest)
    if stored := cache.get(key):
        try:
            return Figures.from_dict(stored)
        except (KeyError, TypeError, ValueError):
            pass  # not ours: it is overwritten below
    inputs: dict[str, str | bytes] = {"design.v": verilog, "abc.script": abc}
    if library:
        inputs["cells.lib"] = library.content
    files = engine.run(script, inputs, ("netlist.json",))
    figures = _measure(json.loads(files["netlist.json"]), top, parts, library, files["log"])
    cache.set(key, dataclasses.asdict(figures))
    return figures


def _measure(document: dict[str, Any], top: str, parts: dict[str, str], library: Library | None,
             log: str) -> Figures:
    cell_of = library.cell if library else _UNIT_CELLS.get
    blocks = read_blocks(document, cell_of)
    whole = join(blocks, top, cell_of)
    delays = _delays(log) if library else {}
    path = [(step.part, step.gates) for step in whole.path_steps()]

    def figures_of(part: str, module: str) -> PartFigures:
        gates, flip_flops = whole.count(part)
        alone = join(blocks, module, cell_of) if module else None
        return PartFigures(
            gates=gates, flip_flops=flip_flops, depth=None if library or alone is None else alone.depth,
            critical_path_gates=0 if library else sum(gates for name, gates in path if name == part),
            area=whole.total(library.areas, part) if library else None, delay_ns=delays.get(module))

    gates, flip_flops = whole.count()
    names = {name: figures_of(name, module) for name, module in parts.items()}
    if parts and whole.count("") != (0, 0):
        names[""] = figures_of("", "")
    return Figures(
        gates=gates, flip_flops=flip_flops, depth=None if library else whole.depth, cells=_cell_counts(whole),
        parts=names, path=[] if library else path, path_ends=("", "") if library else whole.path_ends(),
        area=whole.total(library.areas) if library else None,
        delay_ns=delays.get(top, 0.0) if library and not parts else None, yosys=document["creator"])


def _cell_counts(netlist: Netlist) -> dict[str, int]:
    numbers: dict[str, int] = {}
    for kind in netlist.cell_kind.tolist():
        name = netlist.kinds[kind]
        numbers[name] = numbers.get(name, 0) + 1
    return dict(sorted(numbers.items()))


def _delays(log: str) -> dict[str, float]:
    """Module -> delay in ns of its combinational logic, from what abc's ``stime`` said."""
    delays: dict[str, float] = {}
    module = ""
    for line in log.splitlines():
        if line.startswith(MODULE_MARK):
            module = line.split()[-1]
        elif found := re.search(r"ABC: .*\bDelay\s*=\s*([\d.]+) ps", line):
            delays[module] = max(delays.get(module, 0.0), float(found.group(1)) / 1000)
    return delays


def processors() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def in_parallel(engine: Engine, tasks: Iterable[Callable[[], Result]],
                jobs: int | None = None) -> list[Result]:
    """The results of the tasks, run in threads; the first error or Ctrl-C ends the engine's children."""
    with ThreadPoolExecutor(jobs or processors()) as pool, engine.stopping():
        futures = [pool.submit(task) for task in tasks]
        try:
            for future in wait(futures, return_when=FIRST_EXCEPTION).done:
                future.result()
            return [future.result() for future in futures]
        except BaseException:
            for future in futures:
                future.cancel()
            raise
