# SPDX-License-Identifier: Apache-2.0
"""A network's Verilog against the integer network, on real images: every number of every part.

Verilator makes a program of the network and ``bench.cpp``, which compares as it goes.
"""

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bmhw.errors import RunError
from bmhw.flow.children import Children
from bmhw.hdl.verilog.convert import block_to_verilog
from bmhw.models.integer.network import IntegerNetwork
from bmhw.sim.simulators import Simulator, find_simulator

from .parts import Assembly

__all__ = ["Bench", "Difference", "Result"]

TOP = "network"
CHUNK = 20
"""Images of one run of the program: their numbers are files of some megabytes."""


class Difference(RunError):
    """The Verilog gave another number than the integer network."""


@dataclass
class Result:
    """What a check found: ``right`` of ``images`` classified as their label says, and the cycle each one left in."""

    images: int = 0
    right: int = 0
    cycles: list[int] = field(default_factory=list)

    @property
    def cycles_per_image(self) -> float | None:
        """Between the first and the last image of a run, back to back; None of one."""
        steps = [b - a for a, b in zip(self.cycles, self.cycles[1:], strict=False) if b > a]
        return sum(steps) / len(steps) if steps else None


class Bench:
    """A network in a simulation, in ``folder``."""

    def __init__(self, assembly: Assembly, folder: Path):
        self.assembly, self.folder = assembly, folder
        self.block = assembly.block(taps=True)
        self.taps = list(assembly.shown)

    @property
    def network(self) -> IntegerNetwork:
        return self.assembly.network

    def build(self, simulator: Simulator | None = None) -> None:
        """Make the program; RunError where a tool fails."""
        simulator = simulator or find_simulator("verilator")
        (self.folder / f"{TOP}.v").write_text(block_to_verilog(self.block, TOP))
        (self.folder / "taps.h").write_text(self._header())
        (self.folder / "bench.cpp").write_text(files("bmhw.chip").joinpath("bench.cpp").read_text())
        variables = os.environ | dict(simulator.environment)
        # a whole network runs for minutes: what its compilation takes pays off
        variables["MAKEFLAGS"] = variables["MAKEFLAGS"].replace("OPT_FAST=-O0", "OPT_FAST=-O2")
        command = ["verilator", "--cc", "--exe", "--build", "-O3", "--top-module", TOP, "--prefix", "Vtop",
                   "-Wno-fatal", "-Wno-lint", "-Wno-style", "--Mdir", "obj", f"{TOP}.v", "bench.cpp",
                   "-CFLAGS", "-I.. -O2"]
        children = Children()
        with children.stopping():
            status, said = children.run_child(command, self.folder, "verilator", float("inf"), variables)
        if status:
            lines = [line for line in said.splitlines() if "rror" in line] or said.splitlines()[-1:]
            raise RunError(f"{simulator} cannot build {TOP}: {lines[0] if lines else f'status {status}'}")

    def run(self, images: NDArray[np.uint8], labels: NDArray, *, seed: int = 0, gaps: int = 0,
            report: Callable[[int], None] = lambda done: None) -> Result:
        """Compare the images' numbers, and count right classes; :class:`Difference` at the first other number.

        ``seed``, ``gaps``: of pauses at both ends, in per cent of the cycles. ``report``: is told the images done.
        """
        result = Result()
        for start in range(0, len(images), CHUNK):
            chunk = images[start:start + CHUNK]
            classes = self._write(chunk)
            with self._program(len(chunk), seed + start, gaps) as lines:
                for line in lines:
                    word, *values = line.split()
                    if word != "image":
                        raise Difference(self._told(word, values, start, chunk))
                    result.images += 1
                    result.cycles.append(int(values[1]))
                    report(result.images)
            if result.images < start + len(chunk):
                raise RunError(f"the simulation ended behind {result.images} of {len(images)} images")
            result.right += int((classes == labels[start:start + CHUNK]).sum())
        return result

    def expected(self, images: NDArray[np.uint8]) -> dict[str, NDArray[np.int64]]:
        """What each part gives: (images, pixels, channels), codes with their sign as the highest bit."""
        values = {node.name: value for node, value in self.network.trace(images)}
        return {part: shown.expected(self.network, values[shown.node]) for part, shown in self.assembly.shown.items()}

    def _write(self, images: NDArray[np.uint8]) -> NDArray[np.int64]:
        for number, value in enumerate(self.expected(images).values()):
            value.astype(np.int32).tofile(self.folder / f"{number}.bin")
        pixels = images[:, None] if images.ndim == 3 else images
        pixels.transpose(0, 2, 3, 1).tofile(self.folder / "pixels.bin")
        classes = self.network.classify(images)
        classes.astype(np.int32).tofile(self.folder / "classes.bin")
        return classes

    @contextmanager
    def _program(self, images: int, seed: int, gaps: int) -> Iterator[Iterator[str]]:
        command = [str(self.folder / "obj" / "Vtop"), str(self.folder), str(images), str(seed), str(gaps)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
            try:
                yield iter(child.stdout)
            finally:
                child.kill()

    def _told(self, word: str, values: list[str], start: int, images: NDArray) -> str:
        """A line of the program in words: image, layer, pixel, channel, expected and got."""
        if word == "stuck":
            counts = dict(value.rsplit(":", 1) for value in values[1:])
            return f"no image left in 50,000,000 cycles; numbers of each part: {json.dumps(counts)}"
        if word != "difference":
            return " ".join([word, *values])
        part, at, want, got, cycle = values[0], *map(int, values[1:])
        if part == "class":
            return f"image {start + at}: class {got}, not {want} (cycle {cycle})"
        node = self.network.architecture[self.assembly.shown[part].node]
        image, rest = divmod(at, node.channels * node.height * node.width)
        pixel, channel = divmod(rest, node.channels)
        row, column = divmod(pixel, node.width)
        return (f"image {start + image}, {part}, pixel ({row}, {column}), channel {channel}: {got}, not {want} "
                f"(cycle {cycle})")

    def _header(self) -> str:
        entries, cases = [], []
        for number, (part, shown) in enumerate(self.assembly.shown.items()):
            bits = len(getattr(self.block, f"{part}_payload"))
            entries.append(f'    {{"{part}", {bits}, {int(shown.is_signed(self.network))}}},')
            cases.append(f"    case {number}: moves = top.{part}_moves; return top.{part}_payload;")
        return "\n".join([
            "struct Tap { const char *name; int bits; bool is_signed; };", "static const Tap TAPS[] = {", *entries,
            "};", "static uint64_t read_tap(const Vtop &top, int tap, bool &moves) {", "    switch (tap) {", *cases,
            "    }", "    moves = false;", "    return 0;", "}", ""])
