# SPDX-License-Identifier: Apache-2.0
"""Estimates of logic cells: their coefficients, and how near they come."""

import numpy as np
import pytest
from support import layer_chips
from support.chips import ARCHITECTURES, assembly_of, made

from bmhw.chip.calibration import Sample, counted, fitted_coefficients, samples
from bmhw.chip.estimate import Piece, coefficients, pieces
from bmhw.chip.folding import assembled
from bmhw.chip.loading import opened
from bmhw.chip.memories import fitted
from bmhw.chip.parts import assemble
from bmhw.chip.plan import plan
from bmhw.flow.cache import Cache, cache_folder
from bmhw.flow.engine import Engine
from bmhw.flow.fpga import DEVICES


def pieces_like(name, coefficients, count, noise=0.0):
    """Samples of a piece that takes those coefficients of random features."""
    rng = np.random.default_rng(5)
    found = []
    for _ in range(count):
        features = {feature: int(rng.integers(1, 60)) for feature in coefficients}
        cells = sum(coefficients[feature] * number for feature, number in features.items())
        found.append(Sample(Piece("part", ("other",), name, features), round(cells * (1 + noise * rng.normal()))))
    return found


def test_coefficients_are_found_again():
    of = {"one": {"bits": 3.0, "counters": 7.0}, "other": {"bits": 1.0, "table": 0.0, "each": 12.0}}
    found = fitted_coefficients(sample for name, each in of.items() for sample in pieces_like(name, each, 30))
    assert found.keys() == of.keys()
    for name, each in of.items():
        assert found[name] == pytest.approx(each, abs=0.05)


def test_no_coefficient_is_below_zero_and_the_sum_is_right():
    """Of what shrinks with a feature, which can't be: that one is left out, and all is right in sum."""
    samples = pieces_like("one", {"bits": 9.0, "counters": -2.0}, 40, noise=0.2)
    samples = [sample for sample in samples if sample.cells > 0]
    each = fitted_coefficients(samples)["one"]
    assert each["counters"] == 0 < each["bits"]
    expected = sum(each["bits"] * sample.piece.features["bits"] for sample in samples)
    assert expected == pytest.approx(sum(sample.cells for sample in samples), rel=1e-3)


def test_every_end_of_a_layer_counts():
    """Ten outputs in groups of four inputs have five ends, each with exponentials and sums of its own."""
    network = layer_chips.made("grouped signed shortcut")
    found = {}
    for parallel in (2, 10):
        folding = {**layer_chips.FOLDING, "dense": parallel}
        assembly = fitted(assemble(network, folding), DEVICES["ecp5-25k"])
        folded = assembly.blocks["dense"][1]["folded"]
        neurons, = (piece for piece in pieces(assembly) if piece.part == "dense" and piece.name.endswith("neurons"))
        found[parallel] = folded, neurons.features
    (one, alone), (five, features) = found.values()
    assert (one.shape.ends, five.shape.ends) == (1, 5)
    assert features["exponentials"] == 5 * alone["exponentials"]
    memories, technology = five.memories, five.technology
    sums = [memories[name] for name in ("sums", "sums_1", "sums_2", "sums_3", "sums_4", "gathered")]
    assert sums[-1].bits == 4 * five.format.y.bits
    assert features["memories"] == sum(map(technology.luts, sums)) > alone["memories"]


SHIPPED = (("cifar10-resnet20-signed-4bit", 589824), ("mnist-lenet-mac-3bit", 40000), ("mnist-resnet20-wired", 400000),
           ("digits", 50000))


@pytest.mark.parametrize("family", ["ecp5", "ice40"])
@pytest.mark.parametrize("name", [*ARCHITECTURES, *dict(SHIPPED)])
def test_every_part_has_coefficients(family, name):
    """Every piece, and every feature of it; nothing is counted twice."""
    shipped = dict(SHIPPED)
    assembly = assembled(name, shipped[name], []) if name in shipped else assembly_of(made(name), 2)
    table, found = coefficients()[family], list(pieces(assembly))
    for piece in found:
        assert piece.name not in table or piece.features.keys() == table[piece.name].keys()
    unknown = {piece.name for piece in found} - table.keys()
    assert not unknown
    kinds = [(piece.part, kind) for piece in found for kind in piece.kinds]
    assert len(set(kinds)) == len(kinds)
    parts = {part.name for part in assembly.block().parts}
    assert {piece.part for piece in found} == {*parts, ""}


def test_layers_and_the_rest_are_all():
    """Rounded, each of them."""
    device = DEVICES["ecp5-25k"]
    planned = plan(fitted(assembly_of(made("residual"), 2), device), device)
    assert sum(layer.cells for layer in planned.layers) + planned.other_cells == planned.cells > 1000
    assert all(layer.cells > 100 for layer in planned.layers) and planned.other_cells > 100
    assert plan(assembly_of(made("residual"), 2)).cells == 0


@pytest.mark.long
@pytest.mark.parametrize(("name", "device", "writable"), [
    ("plain", "ecp5-25k", False), ("residual", "ecp5-25k", False), ("plain", "ice40-hx8k", False),
    ("plain", "ecp5-25k", True), ("plain", "ice40-hx8k", True)])
def test_an_estimate_is_within_15_per_cent_of_what_is_packed(name, device, writable):
    """Of networks that no coefficient comes from; without DSP blocks."""
    device, assembly = DEVICES[device], assembly_of(made(name), 4)
    assembly = fitted(opened(assembly) if writable else assembly, device)
    cells = counted(Engine(), Cache(cache_folder()), device, assembly)
    assert plan(assembly, device).cells == pytest.approx(sum(cells.values()), rel=0.15)
    # each cell is in a piece
    assert sum(sample.cells for sample in samples(assembly, cells)) == sum(cells.values())
