# SPDX-License-Identifier: Apache-2.0
"""A cell library: one Liberty file or several, read once by content and then kept in the cache.

Yosys, abc and the timing here see the same cells: the two get a file that is written from what was read
(:mod:`~bmhw.flow.liberty_writer`).
"""

import gzip
import hashlib
import threading
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from bmhw.errors import RunError, TimeLimitError

from .cache import Cache, digest
from .engine import Engine
from .liberty_cells import LibraryCell, read_cells
from .liberty_timing import CellTiming
from .liberty_writer import BUFFER, buffer_verilog, write_liberty
from .netlist import Cell
from .scripts import ABC_LIBERTY, ABC_MAPPING

__all__ = ["Library", "load_library"]

# Part of everything in the cache: to be raised when the same files are read or written otherwise.
_REVISION = 2


@dataclass(frozen=True)
class Summary:
    """What is known of a library without its tables, as JSON values.

    ``sha256``: of each file's content, unpacked. ``digest``: of what Yosys and abc get. ``areas`` (in the library's
    own unit), ``outputs``: of the cells that can be mapped to. ``nand2``: the smallest two-input NAND. ``untimed``:
    why no delay is known, or empty. ``inverter``: what a buffer is made of where there is none, or empty.
    ``unused``: why cells are not mapped to, with their names.
    """

    sha256: list[str]
    digest: str
    areas: dict[str, float]
    outputs: dict[str, list[str]]
    flip_flops: list[str]
    nand2: str
    nand2_area: float
    untimed: str
    inverter: str
    unused: dict[str, list[str]]


class Library:
    """The cells of one or more Liberty files.

    Made by :func:`load_library`; ``paths`` are the files' names, the other members those of :class:`Summary`.
    """

    def __init__(self, files: Sequence["_File"], summary: Summary):
        self.paths = [file.path for file in files]
        self._files, self._summary = files, summary
        self.digest, self.nand2, self.nand2_area = summary.digest, summary.nand2, summary.nand2_area
        self.areas, self.outputs, self.flip_flops = summary.areas, summary.outputs, summary.flip_flops
        self.unused, self.untimed = summary.unused, summary.untimed
        self._timing: dict[str, CellTiming] = {}
        self._lock = threading.RLock()

    @property
    def name(self) -> str:
        """The library in words, as a line that says what is wrong with it begins."""
        return _name(self.paths)

    @property
    def timed(self) -> bool:
        """Whether delays are known; if not, there are areas alone."""
        return not self.untimed

    @property
    def scripts(self) -> dict[str, str]:
        """abc's script for each objective: sizes are chosen by delays."""
        return ABC_LIBERTY if self.timed else ABC_MAPPING

    @property
    def buffered(self) -> bool:
        """Whether a stand-in for a buffer is among the cells, to be replaced after mapping."""
        return bool(self._summary.inverter)

    @cached_property
    def _cells(self) -> dict[str, LibraryCell]:
        with self._lock:
            return {name: cell for file in self._files for name, cell in file.cells().items()}

    @cached_property
    def text(self) -> str:
        """The Liberty file for Yosys and abc."""
        with self._lock:
            return _written(self._files, self._cells, self._summary)

    def timing(self, kinds: Iterable[str]) -> dict[str, CellTiming]:
        """Delay tables of these kinds of cells; made once each."""
        with self._lock:
            for kind in kinds:
                if kind not in self._timing:
                    self._timing[kind] = self._cells[kind].timing()
            return {kind: self._timing[kind] for kind in kinds}

    def cell(self, kind: str) -> Cell | None:
        if kind not in self.outputs:
            return None
        return Cell(frozenset(self.outputs[kind]), kind in self.flip_flops)

    def run(self, engine: Engine, script: str, inputs: Mapping[str, str | bytes], outputs: tuple[str, ...],
            time_limit: float | None = None) -> dict[str, str]:
        """:meth:`Engine.run` with the library's files beside the inputs; what goes wrong names the library."""
        files = {"cells.lib": self.text}
        if self.buffered:
            files["buffer.v"] = buffer_verilog(self._cells[self._summary.inverter])
        try:
            found = engine.run(script, {**inputs, **files}, outputs, time_limit)
        except TimeLimitError:
            raise
        except RunError as error:
            if engine.stopped:
                raise
            if "$_DFF_" in str(error):  # dfflibmap found nothing for it
                raise self._no_flip_flop() from error
            raise RunError(f"{self.name}: {error}") from error
        if '"$_DFF_' in found.get("netlist.json", ""):
            raise self._no_flip_flop()
        return found

    def _no_flip_flop(self) -> RunError:
        return RunError(f"{self.name}: the design has registers, and none of the {len(self.areas)} cells that can be "
                        "mapped to is a D flip-flop")

    def describe(self, whole_paths: bool = True) -> dict[str, Any]:
        """What JSON says of a library; of several files ``file`` and ``sha256`` are lists."""
        files = [path if whole_paths else Path(path).name for path in self.paths]
        several = len(files) > 1
        return {"file": files if several else files[0],
                "sha256": self._summary.sha256 if several else self._summary.sha256[0],
                "nand2": self.nand2, "nand2_area_library_units": self.nand2_area,
                **({"no_delays": self.untimed} if self.untimed else {}), "unused_cells": self.unused}


def load_library(paths: Sequence[str], cache: Cache) -> Library:
    """Read Liberty files, plain or gzipped (told by their content), as one library.

    ``RunError`` that names the file, and the cell where it is one, if a file can't be read or is broken, two files
    have the same cell, or the cells are too few: no two-input NAND with an area, no inverter to map to.
    """
    files = [_File(path, cache) for path in paths]
    key = digest("library", _REVISION, [file.digest for file in files])
    if stored := cache.get(key):
        try:
            return Library(files, Summary(**stored))
        except TypeError:
            pass  # not ours: it is overwritten below
    summary = _summary(files)
    cache.set(key, asdict(summary))
    return Library(files, summary)


class _File:
    """One Liberty file: read when its cells are asked for, unless the cache has them."""

    def __init__(self, path: str, cache: Cache):
        self.path, self._cache = path, cache
        try:
            self._bytes = Path(path).read_bytes()
        except OSError as error:
            raise RunError(f"cannot read Liberty file {path}: {error.strerror or error}") from error
        self.digest = hashlib.sha256(self._bytes).hexdigest()
        self._read: tuple[dict[str, LibraryCell], str] | None = None

    def content(self) -> bytes:
        try:
            return gzip.decompress(self._bytes) if self._bytes.startswith(b"\x1f\x8b") else self._bytes
        except (OSError, EOFError, zlib.error) as error:  # BadGzipFile is an OSError
            raise RunError(f"cannot read Liberty file {self.path}: broken gzip: {error}") from error

    def cells(self) -> dict[str, LibraryCell]:
        return self._all()[0]

    def wire_loads(self) -> str:
        return self._all()[1]

    def _all(self) -> tuple[dict[str, LibraryCell], str]:
        if self._read is None:
            key = digest("liberty file", _REVISION, self.digest)
            try:
                stored = self._cache.get(key) or {}
                cells = {name: LibraryCell.from_dict(cell) for name, cell in stored["cells"].items()}
                self._read = cells, str(stored["wire_loads"])
            except (AttributeError, KeyError, TypeError, ValueError):  # not there, or not ours
                # a byte order mark is no part of the text; lines may end as on other systems
                text = self.content().decode("utf-8-sig", errors="replace")
                try:
                    self._read = read_cells(text.replace("\r\n", "\n").replace("\r", "\n"))
                except RunError as error:
                    raise RunError(f"Liberty file {self.path}: {error}") from error
                cells, wire_loads = self._read
                self._cache.set(key, {"cells": {name: cell.to_dict() for name, cell in cells.items()},
                                      "wire_loads": wire_loads})
        return self._read


def _name(paths: Sequence[str]) -> str:
    return f"Liberty file{'s' if len(paths) > 1 else ''} {', '.join(paths)}"


def _summary(files: Sequence[_File]) -> Summary:
    """What can be mapped to, and whether that is enough."""
    cells: dict[str, LibraryCell] = {}
    place: dict[str, str] = {}
    for file in files:
        for name, cell in file.cells().items():
            if name in cells:
                raise RunError(f"cell {name} is in both Liberty file {place[name]} and Liberty file {file.path}")
            cells[name], place[name] = cell, file.path
    name = _name([file.path for file in files])

    nand2 = [cell for cell in cells.values() if cell.kind == "nand2" and cell.area > 0]
    if not nand2:
        raise RunError(f"{name} has no two-input NAND with an area, the gate equivalent, among its {len(cells)} cells")
    smallest = min(nand2, key=lambda cell: (cell.area, cell.name))

    candidates = [cell for cell in cells.values() if not cell.unused]
    gates = [cell for cell in candidates if not cell.flip_flop and cell.names("input")]
    timed = any(not cell.untimed for cell in gates)
    why_not = {cell.name: cell.unused for cell in cells.values() if cell.unused}
    if timed:
        why_not |= {cell.name: cell.untimed for cell in gates if cell.untimed}
    used = {cell.name: cell for cell in candidates if cell.name not in why_not}
    for what, kinds in (("inverter", ("inverter",)), ("gate of two inputs such as a NAND", ("nand2", "gate"))):
        if not any(cell.kind in kinds for cell in used.values()):
            lost = next((f"; cell {cell.name} of {place[cell.name]} can't: {why_not[cell.name]}"
                         for cell in cells.values() if cell.kind in kinds), "")
            raise RunError(f"{name}: no {what} among the {len(used)} cells that can be mapped to{lost}")
    inverter = ""
    if not any(cell.kind == "buffer" for cell in used.values()):
        inverter = min((cell for cell in used.values() if cell.kind == "inverter"),
                       key=lambda cell: (cell.area, cell.name)).name
    unused: dict[str, list[str]] = {}
    for cell_name, reason in why_not.items():
        unused.setdefault(reason, []).append(cell_name)
    summary = Summary(
        sha256=[hashlib.sha256(file.content()).hexdigest() for file in files], digest="",
        areas={cell.name: cell.area for cell in used.values()},
        outputs={cell.name: cell.names("output") for cell in used.values()},
        flip_flops=[cell.name for cell in used.values() if cell.flip_flop],
        nand2=smallest.name, nand2_area=smallest.area,
        untimed="" if timed else next(f"cell {cell.name}: {cell.untimed}" for cell in gates),
        inverter=inverter, unused=unused)
    text = _written(files, cells, summary)
    return Summary(**{**asdict(summary), "digest": hashlib.sha256(text.encode()).hexdigest()})


def _written(files: Sequence[_File], cells: Mapping[str, LibraryCell], summary: Summary) -> str:
    if BUFFER in cells:
        raise RunError(f"a cell named {BUFFER} stands for a buffer where there is none; a library must not have one")
    inverter = cells[summary.inverter] if summary.inverter else None
    wire_loads = next((file.wire_loads() for file in files if file.wire_loads()), "")
    return write_liberty([cells[name] for name in summary.areas], not summary.untimed, wire_loads, inverter)
