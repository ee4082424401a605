# SPDX-License-Identifier: Apache-2.0
"""What the pieces of whole networks take of a family's devices, counted, and the coefficients of the estimate that this
gives (:mod:`~bmhw.chip.estimate`)."""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import nnls

from bmhw.flow.cache import Cache
from bmhw.flow.engine import Engine
from bmhw.flow.fpga import DEVICES, Device
from bmhw.flow.packing import logic_cells
from bmhw.hdl.verilog.convert import block_to_verilog

from .assembly import Assembly
from .edge import chip_of
from .estimate import Piece, cells_of, pieces
from .folding import assembled
from .kinds import kind_of, part_of
from .mapping import TOP, mapped_chip, script_of

__all__ = ["CHIPS", "Sample", "calibrate", "counted", "fitted_coefficients", "samples"]

ROUNDS = 20
"""In which what is expected settles."""

CHIPS = (
    ("mnist-lenet-signed-4bit", 40000, "ecp5-25k"), ("digits-signed-4bit", 50000, "ecp5-25k"),
    ("mnist-lenet-mac-2bit", 40000, "ecp5-25k"), ("mnist-lenet-mac-3bit", 80000, "ecp5-25k"),
    ("digits", 50000, "ecp5-25k"),
    ("mnist-lenet-signed-4bit", 40000, "ice40-hx8k"), ("digits-signed-4bit", 50000, "ice40-hx8k"),
    ("mnist-lenet-mac-2bit", 40000, "ice40-hx8k"), ("mnist-lenet-mac-3bit", 80000, "ice40-hx8k"),
)
"""Networks that ship, cycles an image, devices: those from which the coefficients come."""


@dataclass(frozen=True)
class Sample:
    """A piece, and the logic cells that it takes."""

    piece: Piece
    cells: int


def counted(engine: Engine, cache: Cache, device: Device, assembly: Assembly) -> Counter[tuple[str, str]]:
    """Logic cells of a whole chip, its memories cut for the device, without DSP blocks: (part, kind) -> cells."""
    verilog = block_to_verilog(chip_of(assembly), TOP)
    script = script_of(device, dsp=False, block_ram=True)
    netlist = json.loads(mapped_chip(engine, cache, verilog, script)["netlist.json"])
    found: Counter[tuple[str, str]] = Counter()
    for name, number in logic_cells(device.family, netlist["modules"][TOP]["cells"]).items():
        found[part_of(name), kind_of(assembly, name)] += number
    return found


def samples(assembly: Assembly, cells: Mapping[tuple[str, str], int]) -> list[Sample]:
    """The pieces of a chip with what was counted."""
    return [Sample(piece, sum(cells.get((piece.part, kind), 0) for kind in piece.kinds))
            for piece in pieces(assembly)]


def fitted_coefficients(samples: Iterable[Sample]) -> dict[str, dict[str, float]]:
    """Name of a piece -> feature -> logic cells, none below 0, with the least squares of the errors, each relative to
    the root of what is expected: so those of a name are right in all, whatever they are one by one."""
    by_name: dict[str, list[Sample]] = {}
    for sample in samples:
        by_name.setdefault(sample.piece.name, []).append(sample)
    return {name: _fitted(by_name[name]) for name in sorted(by_name)}


def _fitted(samples: Sequence[Sample]) -> dict[str, float]:
    names = list(samples[0].piece.features)
    features = np.array([[sample.piece.features[name] for name in names] for sample in samples], dtype=float)
    cells = np.array([sample.cells for sample in samples], dtype=float)
    found, expected = np.zeros(len(names)), np.maximum(cells, 1.0)
    for _ in range(ROUNDS):
        weights = 1 / np.sqrt(expected)
        found, _ = nnls(features * weights[:, None], cells * weights)
        expected = np.maximum(features @ found, 1.0)
    return {name: round(float(value), 3) for name, value in zip(names, found, strict=True)}


def calibrate(engine: Engine, cache: Cache, chips: Sequence[tuple[str, int, str]] = CHIPS,
              progress: Callable[[str], None] = lambda step: None) -> dict[str, Any]:
    """The table of :data:`~bmhw.chip.estimate.COEFFICIENTS`: ``coefficients``, and what was counted and what they make
    of it, of each of the ``chips`` and of all ``pieces`` of a name; ``off``: errors one by one, without their signs."""
    found: dict[str, list[tuple[str, Sample]]] = {}
    for model, cycles, device_name in chips:
        device, name = DEVICES[device_name], f"{model} at {cycles:,} cycles on {device_name}"
        progress(name)
        assembly = assembled(model, cycles, [], device_name)
        found.setdefault(device.family, []).extend(
            (name, sample) for sample in samples(assembly, counted(engine, cache, device, assembly)))
    table: dict[str, Any] = {"yosys": engine.version, "coefficients": {}, "chips": {}, "pieces": {}}
    for family, of in sorted(found.items()):
        each = table["coefficients"][family] = fitted_coefficients(sample for _, sample in of)
        for chip, sample in of:
            for kind, name in (("chips", chip), ("pieces", f"{sample.piece.name}, {family}")):
                row = table[kind].setdefault(name, {"counted": 0, "estimated": 0.0, "off": 0.0})
                estimated = cells_of(each, sample.piece)
                row["counted"] += sample.cells
                row["estimated"] = round(row["estimated"] + estimated, 1)
                row["off"] = round(row["off"] + abs(estimated - sample.cells), 1)
    return table
