# SPDX-License-Identifier: Apache-2.0
"""Figures of a Verilog design: gates, flip-flops, depth; with a cell library also area and delay."""

import dataclasses
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from .cache import Cache, digest
from .children import Children
from .engine import Engine
from .liberty import Library
from .netlist import Cell, Netlist, join, read_blocks
from .paths import Path, PathStep, Stage, longest_path, pipeline_stages
from .scripts import ABC_GATES, GATES, OBJECTIVES, abc_files, yosys_script
from .timing import timed_path

__all__ = [
    "OBJECTIVES", "REVISION", "Figures", "PartFigures", "Synthesis", "in_parallel", "instances", "map_design",
    "mapping_script", "measure_netlist", "processors", "run_mapping", "synthesize",
]

# Part of everything in the cache: to be raised when figures of the same netlist change their meaning.
REVISION = 3

_UNIT_CELLS = {f"$_{gate}_": Cell(frozenset("Y")) for gate in ("NOT", *GATES)}
_UNIT_CELLS["$_DFF_P_"] = Cell(frozenset("Q"), flip_flop=True)

Result = TypeVar("Result")


@dataclass(frozen=True)
class PartFigures:
    """A part of a design, mapped on its own. ``critical_path_*``: its share of the joined parts' path.

    With a library, gates are its cells, and ``depth`` those on the path with the longest delay, or where it knows no
    delays on the longest path; what is in ns is None then.
    """

    gates: int
    flip_flops: int
    depth: int | None
    delay_ns: float | None
    critical_path_gates: int
    critical_path_ns: float | None
    area: float | None


@dataclass(frozen=True)
class Figures:
    """What one mapping of a design gave; areas in the library's unit, None without a library.

    ``cells`` counts each kind, ``parts`` is empty when everything was mapped as one. ``path`` is the longest
    one: in gates, or with a library in ns. ``stages``: of a pipeline, see :func:`~bmhw.flow.paths.pipeline_stages`.
    """

    gates: int
    flip_flops: int
    depth: int
    cells: dict[str, int]
    parts: dict[str, PartFigures]
    path: list[PathStep]
    path_ends: tuple[str, str]
    delay_ns: float | None
    area: float | None
    yosys: str
    stages: list[Stage] = dataclasses.field(default_factory=list)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Figures":
        parts = {name: PartFigures(**part) for name, part in values["parts"].items()}
        path = [PathStep(*step) for step in values["path"]]
        stages = [Stage(*stage) for stage in values["stages"]]
        return cls(**{**values, "parts": parts, "path": path, "stages": stages,
                      "path_ends": tuple(values["path_ends"])})


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


def synthesize(sources: Iterable[tuple[str, str]], objective: str, engine: Engine, cache: Cache,
               library: Library | None = None, jobs: int | None = None) -> list[Synthesis]:
    """Measure designs, each given as Verilog and name of the top module, on ``jobs`` processors at once.

    The instances in a top module are the design's parts. ``objective``: one of ``OBJECTIVES``. ``sources``
    may make its items one by one: the first ones are mapped meanwhile.
    """
    # the longest runs of a design first: as one netlist, to cells
    variants = [(by_parts, to_cells) for to_cells in ((True, False) if library else (False,))
                for by_parts in (False, True)]

    def mappings() -> Iterator[Callable[[], Figures]]:
        for verilog, top in sources:
            for by_parts, to_cells in variants:
                yield partial(map_design, verilog, top, by_parts=by_parts, objective=objective, engine=engine,
                              cache=cache, library=library if to_cells else None)

    results = in_parallel(engine, mappings(), jobs)
    found = [dict(zip(variants, results[first:], strict=False))
             for first in range(0, len(results), len(variants))]
    return [Synthesis(of[False, False], of[True, False], of.get((False, True)), of.get((True, True)), library)
            for of in found]


def map_design(verilog: str, top: str, *, by_parts: bool, objective: str, engine: Engine, cache: Cache,
               library: Library | None) -> Figures:
    """Map a design to gates, or to the cells of a library, as one netlist or part by part."""
    parts = instances(verilog, top) if by_parts else {}
    script = mapping_script(top, sorted(set(parts.values())), library)
    abc = abc_files((library.scripts if library else ABC_GATES)[objective])
    library_digest = library.digest if library else None
    key = digest("figures", REVISION, verilog, script, abc, engine.version, library_digest)
    if stored := cache.get(key):
        try:
            return Figures.from_dict(stored)
        except (KeyError, TypeError, ValueError):
            pass  # not ours: it is overwritten below
    netlist = run_mapping(script, {"design.v": verilog, **abc}, engine, library)
    figures = measure_netlist(json.loads(netlist), top, parts, library)
    cache.set(key, dataclasses.asdict(figures))
    return figures


def mapping_script(top: str, parts: Sequence[str], library: Library | None) -> str:
    """:func:`~bmhw.flow.scripts.yosys_script` to gates, or to the cells of a library."""
    return yosys_script(top, parts, library is not None, library is not None and library.buffered)


def run_mapping(script: str, inputs: Mapping[str, str], engine: Engine, library: Library | None,
                time_limit: float | None = None) -> str:
    """The netlist that :func:`mapping_script` makes of its files, as text."""
    outputs = ("netlist.json",)
    files = (library.run(engine, script, inputs, outputs, time_limit) if library
             else engine.run(script, inputs, outputs, time_limit))
    return files["netlist.json"]


def measure_netlist(document: dict[str, Any], top: str, parts: dict[str, str],
                    library: Library | None) -> Figures:
    """Figures of a mapped netlist, as ``write_json`` gives it; of the ``parts`` (instance -> module) also alone."""
    cell_of = library.cell if library else _UNIT_CELLS.get
    timed = library is not None and library.timed
    blocks = read_blocks(document, cell_of)
    whole = join(blocks, top, cell_of)

    def path_of(netlist: Netlist) -> Path:
        return timed_path(netlist, library.timing(netlist.kinds)) if timed else longest_path(netlist)

    path = path_of(whole)

    def figures_of(part: str, module: str) -> PartFigures:
        gates, flip_flops = whole.count(part)
        on_path = [step for step in path.steps if step.part == part]
        alone = path_of(join(blocks, module, cell_of)) if module else None
        return PartFigures(
            gates=gates, flip_flops=flip_flops, depth=alone.gates if alone else None,
            delay_ns=alone.delay if alone and timed else None,
            critical_path_gates=sum(step.gates for step in on_path),
            critical_path_ns=sum(step.delay for step in on_path) if timed else None,
            area=whole.total(library.areas, part) if library else None)

    gates, flip_flops = whole.count()
    figures = {name: figures_of(name, module) for name, module in parts.items()}
    if parts and whole.count("") != (0, 0):
        figures[""] = figures_of("", "")
    return Figures(
        gates=gates, flip_flops=flip_flops, depth=path.gates, cells=_cell_counts(whole), parts=figures,
        path=path.steps, path_ends=(path.begin, path.end), delay_ns=path.delay if timed else None,
        area=whole.total(library.areas) if library else None, yosys=document["creator"],
        stages=pipeline_stages(whole))


def _cell_counts(netlist: Netlist) -> dict[str, int]:
    numbers: dict[str, int] = {}
    for kind in netlist.cell_kind.tolist():
        name = netlist.kinds[kind]
        numbers[name] = numbers.get(name, 0) + 1
    return dict(sorted(numbers.items()))


def processors() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def in_parallel(children: Children, tasks: Iterable[Callable[[], Result]],
                jobs: int | None = None) -> list[Result]:
    """The results of the tasks, run in threads; the first error or Ctrl-C ends what is a child of these."""
    with ThreadPoolExecutor(jobs or processors()) as pool, children.stopping():
        futures: list[Future[Result]] = []
        try:
            for task in tasks:
                futures.append(pool.submit(task))
            for future in wait(futures, return_when=FIRST_EXCEPTION).done:
                future.result()
            return [future.result() for future in futures]
        except BaseException:
            for future in futures:
                future.cancel()
            raise
