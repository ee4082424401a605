# SPDX-License-Identifier: Apache-2.0
"""When pixels leave layers and how many numbers wait in shortcuts, against what follows by hand."""

from dataclasses import dataclass

import numpy as np
import pytest

from bmhw.chip import timing
from bmhw.chip.timing import leaving, most_waiting
from bmhw.hdl.network.folded import FoldedLayer
from bmhw.hdl.network.pixels import Grid
from bmhw.hdl.network.shape import LayerShape


@dataclass(frozen=True)
class Layer:
    """Of a folded layer, what its timing depends on."""

    shape: LayerShape
    rows: int = 2
    results: int = 1
    converter = staticmethod(lambda: None)


def part(size, channels, kernel=3, stride=1, outputs=None, parallel=1, results=1):
    shape = LayerShape(height=size, width=size, channels=channels, kernel=(kernel, kernel), stride=stride,
                       padding=kernel // 2, outputs=outputs or channels, parallel=parallel)
    return FoldedLayer, {"folded": Layer(shape, results=results)}


def cycles_of(*parts):
    return max(parameters["folded"].shape.cycles for _, parameters in parts)


def grid(size, channels):
    return Grid, dict(height=size, width=size, channels=channels, stride=2, bits=4)


@pytest.fixture(autouse=True)
def no_registers(monkeypatch):
    monkeypatch.setattr(timing, "_registers", lambda part: 0)


@pytest.mark.parametrize("layer", [part(5, 3), part(6, 3, stride=2), part(4, 3, kernel=1), part(4, 3, kernel=2)])
def test_a_pixel_leaves_when_its_row_is_there_and_the_one_before_it_is_done(layer):
    shape = layer[1]["folded"].shape
    pixels = shape.stored[0] * shape.stored[1]
    cycles = shape.cycles // shape.out_pixels
    arrived = np.sort(np.random.default_rng(1).integers(0, 3 * shape.cycles, 3 * pixels))
    expected, done = [], 0
    for image in range(3):
        for row in range(shape.output_rows):
            there = arrived[image * pixels + (shape.oldest_row(row) + shape.needed_rows(row)) * shape.stored[1] - 1]
            done = max(done, there)
            for _ in range(shape.out_pixels // shape.output_rows):
                done += cycles
                expected.append(done)
    assert (leaving(layer, arrived) == expected).all()


@pytest.mark.parametrize("size", [8, 16])
def test_layers_of_equal_times(size):
    """Each of two 3 x 3 layers is two rows behind what comes; one number comes as one leaves."""
    branch = [part(size, 4), part(size, 4)]
    assert most_waiting(branch, [], None, channels=4, cycles=cycles_of(*branch)) == 4 * 4 * size + 1
    assert most_waiting(branch[:1], [], None, channels=4, cycles=cycles_of(*branch)) == 4 * 2 * size + 1


@pytest.mark.parametrize("parallel", [1, 2, 4])
def test_what_comes_in_bursts_waits_behind_a_stride(parallel):
    """Rows come in half of the time until the next one. A 3 x 3 layer behind one of 1 x 1 that takes the share u of the
    time begins 1 + u row times behind the first pixel of the last row that it needs."""
    size, channels = 16, 8
    steps = [grid(2 * size, channels)]
    pointwise, spatial = part(size, channels, kernel=1, parallel=parallel), part(size, channels, parallel=channels)
    cycles = cycles_of(pointwise, spatial)
    share = pointwise[1]["folded"].shape.cycles / cycles
    found = most_waiting([*steps, pointwise, spatial], steps, None, channels=channels, cycles=cycles)
    rows = 2 + max(share, 0.5) - 0.5
    assert rows * size * channels <= found <= (rows * size + 2) * channels
