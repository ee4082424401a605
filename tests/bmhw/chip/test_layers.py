# SPDX-License-Identifier: Apache-2.0
"""Networks of each kind of layer as hardware: every number of every part; widths, flushes and thresholds of layers."""

import dataclasses

import numpy as np
import pytest
import torch
from support.layer_chips import FOLDING, IMAGES, made
from support.networks import random_network

from bmhw.chip.bench import Bench
from bmhw.chip.layers import folded_layer, input_converter, shape_of
from bmhw.chip.parts import assemble
from bmhw.errors import UsageError
from bmhw.hdl.formats.codes import LinearCode
from bmhw.models.integer.fixed_point import FixedPoint, round_shift
from bmhw.models.integer.fold import fold
from bmhw.models.integer.network import Threshold
from bmhw.models.integer.quantise import Quantisation
from bmhw.models.networks.architecture import Builder


@pytest.mark.parametrize("name", [
    "mac", "own codes", "grouped", *(pytest.param(name, marks=pytest.mark.long) for name in (
        "mac shift", "grouped signed shortcut", "groups of inputs", "signed"))])  # fmt: skip
def test_every_number_of_every_part_is_the_integer_networks(name, tmp_path):
    network = made(name)
    assembly = assemble(network, FOLDING)
    codes = {part for part in assembly.shown if part.endswith("_codes")}
    assert codes and not {"sum_norm_codes"} & codes  # a pool is between
    bench = Bench(assembly, tmp_path)
    bench.build()
    for gaps in (0, 40):
        assert bench.run(IMAGES[:6], seed=gaps, gaps=gaps).classes == network.classify(IMAGES[:6]).tolist()


def test_groups_of_a_layers_own_inputs():
    network = made("groups of inputs")
    shapes = {name: shape_of(network, name, FOLDING[name]) for name in FOLDING}
    assert {name: (shape.groups, shape.group_channels * 9) for name, shape in shapes.items()
            if name.startswith("conv")} == {"conv1": (2, 18), "conv2": (8, 18)}


def test_a_flush_costs_no_cycle_and_saves_bits():
    network, shapes = made("mac"), []
    for parallel in range(1, 17):
        shape = shape_of(network, "conv2", parallel)
        assert shape.cycles == dataclasses.replace(shape, groups=1).cycles
        shapes.append(shape)
    assert (shapes[0].groups, shapes[-1].groups) == (1, 8)
    assert FOLDING["conv2"] == shapes[-1].parallel
    whole, flushed = (folded_layer(network.layers["conv2"], dataclasses.replace(shapes[-1], groups=groups))[0]
                      for groups in (1, 8))
    assert flushed.element.format.y.bits <= whole.element.format.y.bits - 3 and flushed.format.y == whole.format.y


def test_layers_that_make_the_same_codes_have_them_once():
    """Two readers of one normalisation, and a third one of another width."""
    net = Builder(1, 6, 6)
    x = net.norm(net.add("both", net.conv("a", "image", 4, 3), net.conv("b", "image", 4, 3)))
    x = net.add("sum", net.add("pair", net.conv("c", x, 4, 3), net.conv("d", x, 4, 1)), net.conv("e", x, 4, 1))
    net.dense("dense", net.norm(x), 10)
    architecture = net.build()
    trained = random_network(architecture, architecture.layouts("mac"))
    quantisation = Quantisation(bits=4, edge_bits=8, layer_bits=(("b", 8), ("e", 3)))
    network = fold(trained, torch.tensor(IMAGES).float() / 256, quantisation).to_integer("small", IMAGES)
    assembly = assemble(network, dict.fromkeys(network.layers, 1))
    assert {part for part in assembly.blocks if part.endswith("_codes")} == {"a_codes", "c_codes", "e_codes",
                                                                            "dense_codes"}


def scaled(requantization, values):
    """What becomes of values (count, channels)."""
    m, s, t, minus = (np.array([getattr(channel, name) for channel in requantization.channels])
                      for name in ("multiplier", "shift", "threshold", "negative"))
    left = np.maximum(np.where(minus, t - values, values - t), 0)
    return np.clip(round_shift(left * m, s), 0, requantization.code.maximum)


def test_thresholds_far_away_are_moved_to_where_they_make_no_difference_yet():
    layer = made("mac").layers["dense"]
    channels = 64
    rng = np.random.default_rng(0)
    scale = FixedPoint(rng.integers(128, 256, channels), rng.integers(3, 9, channels))
    scale.multiplier[:3] = 0
    far = np.where(rng.integers(0, 2, channels), rng.integers(-40, 40, channels) << 40,
                   rng.integers(-900, 900, channels))
    layer = dataclasses.replace(layer, scale=scale, format=dataclasses.replace(layer.format, bits=4))
    low, high = -rng.integers(1, 200, channels), rng.integers(1, 200, channels)
    norm = Threshold(far, rng.integers(0, 2, channels) == 1)
    _, parameters = input_converter(layer, 9, (low, high), norm)
    to = parameters["to"]
    unmoved = dataclasses.replace(to, channels=tuple(
        dataclasses.replace(channel, threshold=int(t)) for channel, t in zip(to.channels, far, strict=True)))
    values = np.linspace(low, high, 500).astype(np.int64)
    assert (scaled(to, values) == scaled(unmoved, values)).all()
    # the largest code needs at most 15 << 8 >> 7
    assert max(abs(channel.threshold) for channel in to.channels) <= 200 + (15 << 9 >> 7)


def test_biases_far_away_make_no_sum_wider():
    network = made("mac")
    layer, shape = network.layers["conv1"], shape_of(network, "conv1", 2)
    biases = layer.biases["bias"].copy()
    biases[:2] = -(1 << 50), 1 << 50
    wide = dataclasses.replace(layer.format, bias_bits=LinearCode.covering(int(biases.min()), int(biases.max())).bits)
    far = dataclasses.replace(layer, biases={"bias": biases}, format=wide)
    folded, _ = folded_layer(far, shape)
    assert folded.format.y.bits <= 14
    x = np.random.default_rng(1).integers(0, 16, (2, *network.architecture["stem_norm"].shape))
    moved = dataclasses.replace(layer, biases={"bias": np.array(folded.biases)})
    assert (far.compute(x) == moved.compute(x)).all() and len(np.unique(far.compute(x)[:, 2:])) > 4


def test_a_logarithmic_end_is_refused():
    network = made("own codes")
    layer = network.layers["conv1"]
    fmt = dataclasses.replace(layer.format, combine="logarithmic", result="code")
    changed = dataclasses.replace(network, layers={**network.layers, "conv1": dataclasses.replace(layer, format=fmt)})
    with pytest.raises(UsageError, match="Layer conv1 must have a linear end to be on a chip, not a logarithmic one"):
        assemble(changed, dict.fromkeys(network.layers, 1))
