# SPDX-License-Identifier: Apache-2.0
"""Large designs mapped block by block: each kind of block once, the critical path across all of them.

A module that is too large to be mapped as one is opened: modules in it are mapped apart, the largest first, until
what stays is small enough; a border costs gates and levels, since no gate is merged across it. Each is a run of its
own, kept in the cache under what it consists of, so that neurons of different fan-in share their blocks. In the end
all copies are put together: gates are counted and the critical path is found in the whole netlist.

With a library, blocks are mapped to its cells without sizes; :func:`~bmhw.flow.sizing.size_netlist` then sizes the
whole. A design that is one block is sized in the abc run that maps it.
"""

import base64
import dataclasses
import json
import math
import re
import threading
import time
import zlib
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from bmhw.errors import TimeLimitError

from .cache import Cache, digest
from .engine import Engine
from .liberty import Library
from .scripts import ABC_GATES, ABC_MAPPING, abc_files
from .sizing import size_netlist, sizing_files
from .synthesis import REVISION, Figures, mapping_script, measure_netlist, run_mapping

__all__ = ["BLOCK_LIMIT", "FLAT", "BlockMapper", "Modules"]

BLOCK_LIMIT = 40_000
"""Bits of signals, up to which a module is mapped as one; gates are two to four times as many."""

FLAT = math.inf
"""The limit with which a design is never opened."""


@dataclass(frozen=True)
class Modules:
    """The modules of a Verilog text as the generators write it: one instance or signal a line."""

    verilog: str

    @cached_property
    def text(self) -> dict[str, str]:
        """Module name -> its text."""
        found = re.finditer(r"^module (\w+)\s*\(.*?^endmodule$", self.verilog, re.MULTILINE | re.DOTALL)
        return {match[1]: match[0] for match in found}

    @cached_property
    def children(self) -> dict[str, list[str]]:
        """Module name -> the modules of its instances, one entry an instance."""
        # a name that is a word of Verilog is escaped: `\table  (`
        instance = re.compile(r"^\s*(\w+) (?:\w+|\\\S+ ) \($", re.MULTILINE)
        return {name: [word for word in instance.findall(text) if word in self.text]
                for name, text in self.text.items()}

    def header(self, module: str) -> str:
        """The module without its contents, for whoever only connects it."""
        return re.match(r".*?^\);", self.text[module], re.MULTILINE | re.DOTALL)[0] + "\nendmodule"

    @cached_property
    def sizes(self) -> dict[str, int]:
        """Module name -> bits of signals in it and in all instances in it."""
        sizes: dict[str, int] = {}
        for name in self.text:  # children come first
            wires = re.findall(r"^\s*(?:output )?(?:wire|reg) (?:\[(\d+):0\] )?\w+[;,]?$", self.text[name],
                               re.MULTILINE)
            sizes[name] = sum(int(high or 0) + 1 for high in wires)
            sizes[name] += sum(sizes[child] for child in self.children[name])
        return sizes

    def opened(self, module: str, limit: float) -> list[str]:
        """The modules that are taken out of one: those with the most bits in all their instances, as many as needed."""
        inside, taken = self.sizes[module], []
        bits = {child: count * self.sizes[child] for child, count in Counter(self.children[module]).items()}
        for child in sorted(bits, key=lambda child: -bits[child]):
            if inside <= limit:
                break
            taken.append(child)
            inside -= bits[child]
        return taken

    def blocks(self, top: str, limit: float) -> list[str]:
        """The modules to be mapped apart, ``top`` last."""
        apart: dict[str, None] = {}

        def visit(module: str) -> None:
            if module in apart:
                return
            for child in self.opened(module, limit):
                visit(child)
            apart[module] = None

        visit(top)
        return list(apart)

    def source(self, block: str, limit: float) -> str:
        """Verilog of one block: all that is in it, of the modules taken out of it their headers."""
        taken = self.opened(block, limit)
        inside: dict[str, str] = {}

        def visit(module: str) -> None:
            for child in dict.fromkeys(self.children[module]):
                if child in inside:
                    continue
                if child in taken:
                    inside[child] = f"(* blackbox *)\n{self.header(child)}"
                else:
                    visit(child)
            inside[module] = self.text[module]

        visit(block)
        return "\n".join(inside.values()) + "\n"


class BlockMapper:
    """Maps designs block by block, each kind of block once however many designs and threads ask for it.

    Parameters: ``engine``, ``cache`` as for :func:`~bmhw.flow.synthesis.map_design`.
    """

    def __init__(self, engine: Engine, cache: Cache):
        self.engine, self.cache = engine, cache
        self._netlists: dict[str, bytes] = {}
        self._locks: dict[str, threading.Lock] = {}
        self._lock = threading.Lock()

    def figures(self, verilog: str, top: str, *, objective: str, library: Library | None = None,
                limit: float = BLOCK_LIMIT, deadline: float | None = None) -> Figures:
        """Figures of a design whose modules above ``limit`` bits of signals are opened.

        The path's steps name the parts that were taken out of the design, ``""`` is what stayed; in a library's cells
        all is ``""``, as sizes and buffers are the whole design's. Flip-flops are kept, whatever block they are in.
        ``deadline``: of ``time.monotonic()``; :class:`~bmhw.errors.TimeLimitError` when it passes.
        """
        # the same block of two designs gets the same text
        source = Modules(re.sub(rf"\b{top}(?=_|\b)", "neuron", verilog))
        blocks = {block: source.source(block, limit) for block in source.blocks("neuron", limit)}
        # a block alone is sized where it is mapped; of many, none knows its loads and whether it is critical
        joined_library = library if library and library.timed and len(blocks) > 1 else None
        scripts = ABC_MAPPING if joined_library else library.scripts if library else ABC_GATES
        abc = abc_files(scripts[objective])
        key = digest("blocks", REVISION, blocks, *self._method("neuron", abc, library),
                     *([sizing_files("neuron", joined_library.flip_flops, joined_library.buffered)]
                       if joined_library else []))
        if stored := self.cache.get(key):
            try:
                return Figures.from_dict(stored)
            except (KeyError, TypeError, ValueError):
                pass  # not ours: it is overwritten below
        modules: dict[str, Any] = {}
        for block, text in blocks.items():
            document = json.loads(zlib.decompress(self._netlist(text, block, abc, library, deadline)))
            modules[block] = document["modules"][block]
            creator = document["creator"]
        netlist = {"creator": creator, "modules": modules}
        if joined_library:
            netlist = size_netlist(netlist, "neuron", self.engine, joined_library, _remaining(deadline))
        figures = measure_netlist(netlist, "neuron", {}, library)
        self.cache.set(key, dataclasses.asdict(figures))
        return figures

    def _method(self, block: str, abc: dict[str, str], library: Library | None) -> tuple:
        """What beside the Verilog decides the result: Yosys's script, abc's files, version, library."""
        return (mapping_script(block, [], library), abc, self.engine.version,
                library.digest if library else None)

    def _netlist(self, verilog: str, block: str, abc: dict[str, str], library: Library | None,
                 deadline: float | None) -> bytes:
        """The mapped netlist of one block, as compressed JSON."""
        script, _, *rest = self._method(block, abc, library)
        key = digest("netlist", verilog, script, abc, *rest)
        with self._lock:
            lock = self._locks.setdefault(key, threading.Lock())
        with lock:
            if key in self._netlists:
                return self._netlists[key]
            stored = self.cache.get(key)
            if stored and isinstance(stored.get("netlist"), str):
                netlist = base64.b64decode(stored["netlist"])
            else:
                text = run_mapping(script, {"design.v": verilog, **abc}, self.engine, library, _remaining(deadline))
                netlist = zlib.compress(text.encode())
                self.cache.set(key, {"netlist": base64.b64encode(netlist).decode()})
            self._netlists[key] = netlist
            return netlist


def _remaining(deadline: float | None) -> float | None:
    """Seconds until the deadline."""
    if deadline is None:
        return None
    seconds = deadline - time.monotonic()
    if seconds <= 0:
        raise TimeLimitError("no time left")
    return seconds
