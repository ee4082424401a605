# SPDX-License-Identifier: Apache-2.0
"""A network's Verilog as a program that compares every number of every part with the integer network.

Verilator makes a program of the network and ``bench.cpp``, which compares as it goes.
"""

import hashlib
import os
import pickle
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bmhw.errors import RunError
from bmhw.flow.children import Children
from bmhw.hdl.verilog.convert import block_to_verilog
from bmhw.models.integer.network import IntegerNetwork
from bmhw.sim.simulators import Simulator, find_simulator

from .assembly import Assembly
from .loading import complemented, image_of, layout_of
from .plan import plan

__all__ = ["Bench", "Difference", "Filling", "Run"]

TOP = "network"
OBJECTS = ("obj", "obj_waves")
"""Folders of the program and of the one with waves."""
BATCH = 8
"""Images whose numbers are computed together: those of all parts, and all inputs of their neurons, are in memory."""
LONG = 3_000_000
"""Cycles of a program for which half the time of a run is worth twice that of the build."""
CYCLES_BEFORE, CYCLES_BEHIND = 3000, 200
"""Of waves around a difference."""


class Difference(RunError):
    """The Verilog gave another number than the integer network, or none.

    ``cycle``: of the run of the images ``chunk``, where that was one of several.
    """

    chunk = slice(0)

    def __init__(self, message: str, cycle: int):
        super().__init__(message)
        self.cycle = cycle


@dataclass(frozen=True)
class Filling:
    """Of a shortcut's FIFO: the ``largest``, and the cycles in which a number ``waited`` in front of it."""

    largest: int
    waited: int


@dataclass(frozen=True)
class Run:
    """Images back to back: their classes, the cycle that each one left in, and the fillings of FIFOs."""

    classes: list[int]
    cycles: list[int]
    fifos: dict[str, Filling]

    @property
    def cycles_per_image(self) -> float | None:
        """Between the first and the last image; None of one."""
        return (self.cycles[-1] - self.cycles[0]) / (len(self.cycles) - 1) if len(self.cycles) > 1 else None


class Bench:
    """A network in a simulation, built in ``folder``. ``limits``: a run can make shortcuts' FIFOs smaller.

    Where weights can be written, a run begins with two images of them: one of the complement of every word, and that of
    the network, so that nothing is left of what the chip began with. ``hardware``: the chip that it is loaded into, if
    not its own.
    """

    def __init__(self, assembly: Assembly, folder: Path, *, limits: bool = False, hardware: Assembly | None = None):
        self.assembly, self.folder, self.limits = assembly, folder, limits
        self.layout = layout_of(assembly) if assembly.writable else None
        self.block = (hardware or assembly).block(taps=True, limits=limits, layout=self.layout)
        self.taps = list(assembly.shown)
        self.plan = plan(assembly)

    @property
    def network(self) -> IntegerNetwork:
        return self.assembly.network

    @cached_property
    def verilog(self) -> str:
        return block_to_verilog(self.block, TOP)

    @cached_property
    def digest(self) -> str:
        """Of all that is compared: the Verilog and the bench, the integer network and the code that computes it."""
        packages = [files("bmhw.models.integer"), files("bmhw.hdl.formats")]
        sources = [file for package in packages for file in sorted(package.iterdir(), key=lambda file: file.name)
                   if file.name.endswith(".py")]
        whole = hashlib.sha256(pickle.dumps(self.network))
        for text in (self.verilog, _program(), self._header(), *(file.read_text() for file in sources)):
            whole.update(hashlib.sha256(text.encode()).digest())
        return whole.hexdigest()

    @property
    def patience(self) -> int:
        """Cycles without a transfer after which nothing can move any more: a fold always gives a number in the end."""
        return 2 * max(layer.shape.groups * layer.shape.group_cycles for layer in self.plan.layers) + 1000

    def build(self, simulator: Simulator | None = None, *, images: int = 1, jobs: int = 1, waves: bool = False) -> None:
        """Make the program; RunError where a tool fails.

        ``images``: how many it is for; for many it is optimised. ``waves``: one that writes files of waves, beside
        the other one. (As VCD: for FST, Verilator needs lz4's headers.)
        """
        simulator = simulator or find_simulator("verilator")
        for name, text in ((f"{TOP}.v", self.verilog), ("taps.h", self._header()), ("bench.cpp", _program())):
            (self.folder / name).write_text(text)
        command = ["verilator", "--cc", "--exe", "--build", "--build-jobs", str(jobs), "-O3", "--top-module", TOP,
                   "--prefix", "Vtop", "-Wno-fatal", "-Wno-lint", "-Wno-style", "--Mdir", OBJECTS[waves],
                   *(["--trace-vcd"] if waves else []), f"{TOP}.v", "bench.cpp", "-CFLAGS", "-I.."]
        variables = simulator.optimising() if images * self.plan.cycles > LONG else simulator.environment
        children = Children()
        with children.stopping():
            status, said = children.run_child(command, self.folder, "verilator", float("inf"),
                                                   {**os.environ, **variables})
        if status:
            lines = [line for line in said.splitlines() if "rror" in line] or said.splitlines()[-1:]
            raise RunError(f"{simulator} cannot build {TOP}: {lines[0] if lines else f'status {status}'}")

    def run(self, images: NDArray[np.uint8], *, first: int = 0, seed: int = 0, gaps: int = 0, reset: int | None = None,
            report: Callable[[int], None] = lambda done: None, children: Children | None = None,
            depths: Mapping[str, int] | None = None, load: bool = True) -> Run:
        """Compare the numbers of images, back to back; :class:`Difference` at the first other one.

        ``first``: what the first image is called. ``seed``, ``gaps``: of pauses at both ends, in per cent of the
        cycles. ``reset``: a cycle in which the network is reset; then the images come again. ``report``: is told the
        images done. ``children``: what can stop it. ``depths``: of FIFOs, where there are limits.
        ``load``: whether weights that can be written are, before; else they are what the chip begins with. Any thread
        may call it.
        """
        cycles: list[int] = []
        fifos: dict[str, Filling] = {}
        moved: dict[str, int] = {}
        wrong: list[str] = []
        with tempfile.TemporaryDirectory(dir=self.folder) as name:
            folder = Path(name)
            classes = self._write(folder, images)
            options = {"images": len(images), "seed": seed, "gaps": gaps, "patience": self.patience,
                       **(self._loads if load else {}),
                       **({} if reset is None else {"reset": reset}), **(depths or {})}
            for word, *values in self._lines(children or Children(), folder, OBJECTS[False], options):
                if word == "image":
                    cycles.append(int(values[1]))
                    report(len(cycles))
                elif word == "moved":
                    moved[values[0]] = int(values[1])
                elif word == "fifo":
                    fifos[values[0]] = Filling(int(values[1]), int(values[2]))
                else:
                    wrong = [word, *values]
        if wrong:
            raise self._difference(wrong, first, moved)
        if len(cycles) < len(images):
            raise RunError(f"the simulation ended behind {len(cycles)} of {len(images)} images")
        return Run(classes, cycles, fifos)

    def waves(self, file: Path, images: NDArray[np.uint8], cycle: int, *, seed: int = 0, gaps: int = 0) -> None:
        """Run images again and write what every signal does around a cycle; needs a :meth:`build` for it."""
        with tempfile.TemporaryDirectory(dir=self.folder) as name:
            folder = Path(name)
            self._write(folder, images)
            options = {"images": len(images), "seed": seed, "gaps": gaps, **self._loads, "waves": file.absolute(),
                       "from": max(0, cycle - CYCLES_BEFORE), "until": cycle + CYCLES_BEHIND}
            for _ in self._lines(Children(), folder, OBJECTS[True], options):
                pass

    def _lines(self, children: Children, folder: Path, objects: str,
               options: dict[str, object]) -> Iterator[list[str]]:
        command = [str(self.folder / objects / "Vtop"), *(f"{name}={value}" for name, value in options.items())]
        with children.saying(command, folder) as lines:
            for line in lines:
                yield line.split()

    def expected(self, images: NDArray[np.uint8]) -> tuple[dict[str, NDArray[np.int64]], NDArray[np.int64]]:
        """What each part gives, (images, pixels, channels) (:meth:`Shown.expected`); and classes."""
        values = {node.name: value for node, value in self.network.trace(images)}
        found = {part: shown.expected(self.network, values[shown.node])
                 for part, shown in self.assembly.shown.items()}
        return found, self.network.classes(values[self.network.architecture.nodes[-1].name])

    def _write(self, folder: Path, images: NDArray[np.uint8]) -> list[int]:
        """The files of a run; the images' classes."""
        classes: list[int] = []
        if self.layout is not None:
            np.array(self._images, dtype="<u4").tofile(folder / "weights.bin")
        pixels = images[:, None] if images.ndim == 3 else images
        pixels.transpose(0, 2, 3, 1).tofile(folder / "pixels.bin")
        with ExitStack() as stack:
            taps = [stack.enter_context(open(folder / f"{number}.bin", "wb")) for number in range(len(self.taps))]
            for start in range(0, len(images), BATCH):
                values, found = self.expected(images[start:start + BATCH])
                classes += found.tolist()
                for tap, value in zip(taps, values.values(), strict=True):
                    tap.write(value.astype(np.int32).tobytes())
        np.array(classes, dtype=np.int32).tofile(folder / "classes.bin")
        return classes

    @cached_property
    def _images(self) -> list[int]:
        """Those of the weights that a run begins with, one behind the other."""
        return [*self.layout.image(complemented(self.assembly)), *image_of(self.assembly)]

    @property
    def _loads(self) -> dict[str, int]:
        return {} if self.layout is None else {"load": len(self._images) // self.layout.length}

    def _difference(self, said: list[str], first: int, moved: dict[str, int]) -> Difference:
        """A line of the program in words: image, layer, pixel, channel, expected and got."""
        word, *values = said
        if word == "stuck":
            counts = ", ".join(f"{part} {count}" for part, count in moved.items())
            return Difference(f"stuck: no number moved in the {self.patience:,} cycles up to {int(values[0]):,}; each "
                              f"part has given: {counts}", int(values[0]))
        if word == "refused":
            return Difference(f"the chip refused image {values[0]} of weights", 0)
        if word != "difference":
            raise RunError(" ".join(said))
        part, at, want, got, cycle = values[0], *map(int, values[1:])
        behind = f"{got}, not {want} (cycle {cycle})"
        if part == "class":
            return Difference(f"image {first + at}: class {behind}", cycle)
        node = self.network.architecture[self.assembly.shown[part].node]
        image, rest = divmod(at, node.channels * node.height * node.width)
        pixel, channel = divmod(rest, node.channels)
        row, column = divmod(pixel, node.width)
        return Difference(f"image {first + image}, {part}, pixel ({row}, {column}), channel {channel}: {behind}", cycle)

    def _header(self) -> str:
        taps, cases = [], []
        for number, (part, shown) in enumerate(self.assembly.shown.items()):
            bits = len(getattr(self.block, f"{part}_payload"))
            taps.append(f'    {{"{part}", {bits}, {int(shown.is_signed(self.network))}}},')
            cases.append(f"    case {number}: moves = top.{part}_moves; return top.{part}_payload;")
        levels = [f"    case {number}: waits = top.{fifo}_waits; return top.{fifo}_level;"
                  for number, fifo in enumerate(self.assembly.fifos)]
        limits = [f'    top.{fifo}_limit = depth_of("{fifo}", "{memory.words}");'
                  for fifo, memory in self.plan.fifos.items() if self.limits]
        return "\n".join([
            "struct Tap { const char *name; int bits; bool is_signed; };", "static const Tap TAPS[] = {", *taps,
            "};", "static uint64_t read_tap(const Vtop &top, int tap, bool &moves) {", "    switch (tap) {", *cases,
            "    }", "    moves = false;", "    return 0;", "}",
            "static const char *const GAUGES[] = {", *(f'    "{fifo}",' for fifo in self.assembly.fifos),
            "    nullptr", "};",
            "template <typename Options> static void set_limits(Vtop &top, const Options &depth_of) {", *limits,
            "    (void)top; (void)depth_of;", "}", *self._load_functions(),
            "static long read_gauge(const Vtop &top, int gauge, bool &waits) {", "    switch (gauge) {", *levels,
            "    }", "    waits = false;", "    return 0;", "}", ""])

    def _load_functions(self) -> list[str]:
        """``offer_word``: to the load port; whether it will be taken. ``load_state``: bit 0: done, bit 1: error."""
        head = "static bool offer_word(Vtop &top, uint32_t word, bool last, bool valid = true) {"
        if self.layout is None:
            return ["static const long LOAD_WORDS = 0;", head, "    (void)top; (void)word; (void)last; (void)valid;",
                    "    return true;", "}", "static int load_state(const Vtop &top) { (void)top; return 1; }"]
        return [f"static const long LOAD_WORDS = {self.layout.length};", head,
                "    top.load_data = word; top.load_last = last; top.load_valid = valid;", "    top.eval();",
                "    return valid && top.load_ready;", "}",
                "static int load_state(const Vtop &top) { return top.load_done + 2 * top.load_error; }"]


def _program() -> str:
    return files("bmhw.chip").joinpath("bench.cpp").read_text()
