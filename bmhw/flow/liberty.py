# SPDX-License-Identifier: Apache-2.0
"""A cell library: read from a Liberty file by Yosys, its NAND2 found by what it computes."""

import gzip
import hashlib
import itertools
import json
import threading
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from bmhw.errors import RunError

from .cache import Cache, digest
from .engine import Engine
from .liberty_timing import CellTiming, read_timing
from .netlist import Cell

__all__ = ["Library", "load_library"]

_REVISION = 1


@dataclass(frozen=True, eq=False)
class Library:
    """A Liberty file: its text, areas and pins of its cells (in its own unit of area), its smallest NAND2."""

    path: str
    content: bytes
    areas: dict[str, float]
    outputs: dict[str, list[str]]
    flip_flops: list[str]
    nand2: str
    _timing: dict[str, CellTiming] = field(default_factory=dict, init=False, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False)

    @cached_property
    def digest(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    @property
    def nand2_area(self) -> float:
        """The area of one gate equivalent."""
        return self.areas[self.nand2]

    def timing(self, kinds: Iterable[str]) -> dict[str, CellTiming]:
        """Delay tables of these kinds of cells; read once each."""
        with self._lock:
            missing = [kind for kind in kinds if kind not in self._timing]
            if missing:
                self._timing.update(read_timing(self.content, missing))
            return {kind: self._timing[kind] for kind in kinds}

    def cell(self, kind: str) -> Cell | None:
        if kind not in self.outputs:
            return None
        return Cell(frozenset(self.outputs[kind]), kind in self.flip_flops)


def load_library(path: str, engine: Engine, cache: Cache) -> Library:
    """Read a Liberty file, plain or gzipped (told by its content).

    ``RunError`` naming it if it can't be read, is broken, or has no two-input NAND with an area.
    """
    content = _content(path)
    key = digest("library", _REVISION, engine.version, hashlib.sha256(content).hexdigest())
    if stored := cache.get(key):
        try:
            return Library(path, content, **stored)
        except TypeError:
            pass  # not ours: it is overwritten below
    stored = _read(path, content, engine)
    cache.set(key, stored)
    return Library(path, content, **stored)


def _content(path: str) -> bytes:
    try:
        content = Path(path).read_bytes()
        return gzip.decompress(content) if content.startswith(b"\x1f\x8b") else content
    except OSError as error:  # BadGzipFile is one
        raise RunError(f"cannot read Liberty file {path}: {error.strerror or error}") from error
    except (EOFError, zlib.error) as error:
        raise RunError(f"cannot read Liberty file {path}: broken gzip: {error}") from error


def _read(path: str, content: bytes, engine: Engine) -> dict[str, Any]:
    """The fields of :class:`Library` that Yosys finds in a Liberty file."""
    try:
        files = engine.run("read_liberty -ignore_miss_func cells.lib\nwrite_json cells.json\n",
                           {"cells.lib": content}, ("cells.json",))
    except RunError as error:
        raise RunError(f"Liberty file {path}: {error}") from error
    modules = json.loads(files["cells.json"])["modules"]
    areas, outputs, flip_flops = {}, {}, []
    for name, module in modules.items():
        areas[name] = float(module["attributes"].get("area", 0))
        outputs[name] = [port for port, of in module["ports"].items() if of["direction"] == "output"]
        if any(cell["type"].startswith(_STORAGE) for cell in module["cells"].values()):
            flip_flops.append(name)
    nand2 = [name for name, module in modules.items() if areas[name] > 0 and _is_nand2(module)]
    if not nand2:
        raise RunError(f"Liberty file {path} has no two-input NAND with an area, the gate equivalent, "
                       f"among its {len(modules)} cells")
    smallest = min(nand2, key=lambda name: (areas[name], name))
    return {"areas": areas, "outputs": outputs, "flip_flops": flip_flops, "nand2": smallest}


_STORAGE = ("$_DFF", "$_SDFF", "$_ALDFF", "$_SR_", "$_DLATCH", "$_FF_")

# Yosys turns the function of a library cell into these.
_FUNCTIONS = {
    "$_NOT_": lambda a: not a,
    "$_BUF_": lambda a: a,
    "$_AND_": lambda a, b: a and b,
    "$_OR_": lambda a, b: a or b,
    "$_XOR_": lambda a, b: a != b,
}


def _is_nand2(module: dict[str, Any]) -> bool:
    ports = module["ports"]
    inputs = [port["bits"] for port in ports.values() if port["direction"] == "input"]
    outputs = [port["bits"] for port in ports.values() if port["direction"] == "output"]
    if len(inputs) != 2 or len(outputs) != 1 or any(len(bits) != 1 for bits in inputs + outputs):
        return False
    cells = module["cells"].values()
    drivers = {cell["connections"]["Y"][0]: cell for cell in cells if "Y" in cell["connections"]}

    def value(bit: Any, known: dict[Any, bool]) -> bool | None:
        if bit in known:
            return known[bit]
        cell = drivers.get(bit)
        if cell is None or cell["type"] not in _FUNCTIONS:
            return None
        pins = [value(cell["connections"][pin][0], known) for pin in ("A", "B") if pin in cell["connections"]]
        return None if None in pins else _FUNCTIONS[cell["type"]](*pins)

    return all(
        value(outputs[0][0], {inputs[0][0]: a, inputs[1][0]: b, "0": False, "1": True}) is (not (a and b))
        for a, b in itertools.product((False, True), repeat=2))
