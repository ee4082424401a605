# SPDX-License-Identifier: Apache-2.0
"""Folded layers against the integer network's layers, number for number."""

import numpy as np
import pytest
from support.streams import collected, run_bench

from bmhw.hdl.formats.bm import BmFormat
from bmhw.hdl.formats.codes import LinearCode
from bmhw.hdl.formats.mac import FittedMacFormat, MacFormat
from bmhw.hdl.network.folded import FoldedLayer
from bmhw.hdl.network.layer import Folded
from bmhw.hdl.network.requantizer import ChannelScale, Requantization
from bmhw.hdl.network.shape import LayerShape
from bmhw.hdl.technology import ANY, Technology


def expected(shape, fmt, inputs, weights, bias, border=None):
    """(images, pixels, outputs) of input ports (images, channels, rows, columns)."""
    p, s = shape.padding, shape.stride
    padded = {}
    for name, values in inputs.items():
        around = np.zeros((1, shape.channels, 1, 1)) if border is None else np.reshape(border[name], (1, -1, 1, 1))
        padded[name] = np.broadcast_to(around, (*values.shape[:2], values.shape[2] + 2 * p, values.shape[3] + 2 * p)
                                       ).astype(np.int64)
        padded[name][:, :, p:p + shape.height, p:p + shape.width] = values
    weights = {name: codes.reshape(1, shape.outputs, -1) for name, codes in weights.items()}
    rows = []
    for row in range(shape.out_height):
        for column in range(shape.out_width):
            taps = (slice(None), slice(None), slice(row * s, row * s + shape.kernel[0]),
                    slice(column * s, column * s + shape.kernel[1]))
            here = {name: values[taps].reshape(len(values), 1, -1) for name, values in padded.items()}
            rows.append(fmt.compute(**here, **weights, bias=bias))
    return np.stack(rows, axis=1)


SMALL = Technology(name="small", shapes=((16, 8), (8, 16)), distributed=64, lone_registers=False)


def check(shape, fmt, numbers, weights, bias, sums, **fields):
    """That a layer gives the sums, with few and with ample places for rows and results, with and without pauses, on
    devices whose memories are rings of any size or of a power of two, with and without registers beside tables."""
    codes, bits = Folded.packed(fmt, weights)
    for rows, results, seed, technology in ((shape.fewest_rows, shape.parallel, 1, SMALL),
                                            (shape.overlapping_rows, 2 * shape.parallel + 4, None, ANY)):
        layer = FoldedLayer(folded=Folded(shape=shape, format=fmt, weights=shape.words(codes, bits),
                                          biases=tuple(map(int, bias)), rows=rows, results=max(results, 2),
                                          technology=technology, **fields))
        found = collected(layer, numbers.transpose(0, 2, 3, 1).ravel(), sums.size, seed=seed,
                          cycles=40 * shape.cycles + 5000)
        assert found == list(sums.ravel() & ((1 << layer.folded.output_bits) - 1))


SHAPES = {
    "3x3": dict(height=3, width=4, channels=4, kernel=(3, 3), padding=1, outputs=5, groups=2, parallel=2),
    "stride": dict(height=6, width=6, channels=2, kernel=(3, 3), padding=1, stride=2, outputs=4, groups=1, parallel=4),
    "5x5": dict(height=6, width=7, channels=2, kernel=(5, 5), outputs=3, groups=2, parallel=1),
    "pointwise": dict(height=4, width=3, channels=8, outputs=6, groups=2, parallel=6),
    "pointwise stride": dict(height=4, width=5, channels=8, stride=2, outputs=3, groups=1, parallel=2),
    "dense": dict(height=3, width=3, channels=2, kernel=(3, 3), outputs=7, groups=2, parallel=3),
    "two ends": dict(height=3, width=2, channels=4, kernel=(3, 3), padding=1, outputs=36, groups=4, parallel=18),
    "three ends": dict(height=2, width=2, channels=16, outputs=24, groups=4, parallel=12),
}


def test_as_many_ends_as_keep_up_with_the_groups():
    shapes = {name: LayerShape(**fields, shown=2) for name, fields in SHAPES.items()}
    assert {name: shape.ends for name, shape in shapes.items() if shape.ends > 1} == {
        "pointwise": 2, "two ends": 2, "three ends": 3}
    assert (shapes["two ends"].group_cycles, shapes["three ends"].group_cycles) == (9, 4)
    # a last fold with fewer outputs, or fewer inputs than outputs at a time: one end
    uneven = LayerShape(height=2, width=2, channels=16, outputs=20, groups=4, parallel=12)
    short = LayerShape(height=2, width=2, channels=8, outputs=16, groups=2, parallel=16)
    assert (uneven.ends, uneven.group_cycles, short.ends, short.group_cycles) == (1, 12, 1, 16)


BM = [("signed", False, "exact"), ("signed", True, "exact")]
BM_CASES = [(name, *kind) for name in SHAPES for kind in BM] + [
    ("3x3", layout, signed, zero) for layout, signed in (("signed", True), ("relu", False), ("bipolar", True))
    for zero in ("exact", "step") if (layout, zero) != ("signed", "exact")]


def random_numbers(shape, rng, low, high):
    return rng.integers(low, high + 1, (2, shape.channels, shape.height, shape.width))


@pytest.mark.parametrize(("name", "layout", "signed_inputs", "zero"), BM_CASES)
def test_sums_are_those_of_the_bm_format(name, layout, signed_inputs, zero):
    shape = LayerShape(**SHAPES[name], shown=4 if layout == "bipolar" else 2)
    rng = np.random.default_rng(sorted(SHAPES).index(name))
    fmt = BmFormat(inputs=shape.fan_in, bits=4, log_bits=4, log_fraction=2, out_fraction=8, layout=layout,
                   boundary="layer", result="linear", groups=shape.groups, zero=zero, signed_inputs=signed_inputs)
    of = (shape.outputs, shape.channels, *shape.kernel)
    weights = {port: rng.integers(0, 2 if port == "sign" else 16, of) for port in Folded.weight_ports(fmt)}
    bias = rng.integers(fmt.bias.minimum, fmt.bias.maximum + 1, shape.outputs)
    codes = random_numbers(shape, rng, 0, 15)
    negative = rng.integers(0, 2, codes.shape) * signed_inputs
    inputs = {"c": codes} | ({"negative": negative} if signed_inputs else {})
    check(shape, fmt, codes | negative << 4, weights, bias, expected(shape, fmt, inputs, weights, bias))


def accumulated(shape, fmt, w):
    """Lowest and highest sum of each neuron's flushes, (outputs, flushes)."""
    parts = w.reshape(shape.outputs, shape.groups, -1)
    return tuple(bound(parts * fmt.x.minimum, parts * fmt.x.maximum).sum(axis=2) for bound in (np.minimum, np.maximum))


def fitted(shape, fmt, w, bias):
    """The format of neurons with these weights: no sum is wider than the largest of one neuron, or of one flush."""
    low, high = accumulated(shape, fmt, w)
    sums = low.sum(axis=1) + bias, high.sum(axis=1) + bias
    return FittedMacFormat.of(fmt, sums=(int(sums[0].min()), int(sums[1].max())),
                              accumulated=(int(low.min()), int(high.max())))


@pytest.mark.parametrize(("bits", "signed_inputs"), [(2, True), (4, False)])
@pytest.mark.parametrize("name", SHAPES)
def test_sums_are_those_of_the_mac_format(name, bits, signed_inputs):
    """With one flush or several."""
    shape = LayerShape(**SHAPES[name])
    rng = np.random.default_rng(sorted(SHAPES).index(name))
    fmt = MacFormat(inputs=shape.fan_in, bits=bits, signed_inputs=signed_inputs, bias_bits=9)
    w = rng.integers(fmt.w.minimum, fmt.w.maximum + 1, (shape.outputs, shape.channels, *shape.kernel))
    bias = rng.integers(fmt.bias.minimum, fmt.bias.maximum + 1, shape.outputs)
    x = random_numbers(shape, rng, fmt.x.minimum, fmt.x.maximum)
    check(shape, fitted(shape, fmt, w, bias), x, {"w": w}, bias, expected(shape, fmt, {"x": x}, {"w": w}, bias))


@pytest.mark.parametrize("signed_inputs", [False, True])
@pytest.mark.parametrize("groups", [1, 3])
def test_sums_have_no_bit_too_few_or_too_many(groups, signed_inputs):
    """With the inputs of the highest and the lowest sums and accumulators of all neurons."""
    shape = LayerShape(height=2, width=2, channels=6, kernel=(2, 2), outputs=5, groups=groups, parallel=4)
    rng = np.random.default_rng(groups)
    fmt = MacFormat(inputs=shape.fan_in, bits=3, signed_inputs=signed_inputs)
    w = rng.integers(-4, 4, (shape.outputs, 6, 2, 2))
    bias, (low, high) = np.zeros(shape.outputs, dtype=int), accumulated(shape, fmt, w)
    neurons = low.sum(axis=1).argmin(), low.min(axis=1).argmin(), high.sum(axis=1).argmax(), high.max(axis=1).argmax()
    x = np.stack([np.where((w[neuron] > 0) == (n > 1), fmt.x.maximum, fmt.x.minimum)
                  for n, neuron in enumerate(neurons)])
    sums, fit = expected(shape, fmt, {"x": x}, {"w": w}, bias), fitted(shape, fmt, w, bias)
    assert (sums.min(), sums.max()) == fit.sums == (low.sum(axis=1).min(), high.sum(axis=1).max())
    assert fit.y.bits < fmt.y.bits
    check(shape, fit, x, {"w": w}, bias, sums)


def test_sums_become_codes_or_numbers_of_another_scale():
    shape = LayerShape(**SHAPES["3x3"])
    rng = np.random.default_rng(3)
    fmt = MacFormat(inputs=shape.fan_in, bits=4, bias_bits=6)
    w = rng.integers(-8, 8, (shape.outputs, shape.channels, *shape.kernel))
    bias = rng.integers(-32, 32, shape.outputs)
    x = random_numbers(shape, rng, 0, 15)
    y = expected(shape, fmt, {"x": x}, {"w": w}, bias)
    scales, shifts = rng.integers(128, 256, shape.outputs), np.arange(11, 11 + shape.outputs) % 3 + 10
    channels = tuple(ChannelScale(multiplier=int(m), shift=int(s)) for m, s in zip(scales, shifts, strict=True))
    scaled = (y * scales + (1 << shifts >> 1)) >> shifts
    for relu, code in ((True, LinearCode(bits=4)), (False, LinearCode(bits=7, signed=True))):
        to = Requantization(channels=channels, code=code, relu=relu)
        check(shape, fitted(shape, fmt, w, bias), x, {"w": w}, bias, scaled.clip(code.minimum, code.maximum),
              requantized=to)


def test_a_border_lies_around_the_map():
    """Each channel's own code in the place of 0, in each group of channels."""
    shape = LayerShape(**SHAPES["3x3"])
    rng = np.random.default_rng(4)
    fmt = MacFormat(inputs=shape.fan_in, bits=4)
    w, bias = rng.integers(-8, 8, (shape.outputs, shape.channels, *shape.kernel)), np.zeros(shape.outputs, dtype=int)
    x, border = random_numbers(shape, rng, 0, 15), rng.integers(0, 16, shape.channels)
    sums = expected(shape, fmt, {"x": x}, {"w": w}, bias, {"x": border})
    check(shape, fitted(shape, fmt, w, bias), x, {"w": w}, bias, sums, border=tuple(map(int, border)))


def test_rings_of_any_size_are_among_those_of_the_small_device():
    words = {name: SMALL.ring(shape.fewest_rows * shape.pitch, 4) for name, shape in
             ((name, LayerShape(**fields)) for name, fields in SHAPES.items())}
    assert words["3x3"] == 48 and words["stride"] == 36


@pytest.mark.parametrize("lone_registers", [False, True])
@pytest.mark.parametrize(("inputs", "parallel", "outputs", "groups"), [
    (36, 4, 8, 1), (40, 1, 3, 2), (8, 4, 8, 2), (16, 8, 8, 4)])
def test_the_latency_is_counted(inputs, parallel, outputs, groups, lone_registers):
    """From an image's only pixel to its first output; of one after the other of two maxima, and of both at once."""
    shape = LayerShape(height=1, width=1, channels=inputs, outputs=outputs, groups=groups, parallel=parallel, shown=2)
    fmt = BmFormat(inputs=inputs, bits=4, log_bits=4, log_fraction=2, out_fraction=8, layout="signed",
                   boundary="layer", result="linear", groups=groups)
    folded = Folded(shape=shape, format=fmt, weights=(0,) * (shape.folds * inputs), biases=(0,) * outputs, rows=1,
                    results=parallel + 1, technology=Technology(lone_registers=lone_registers))
    block, times = FoldedLayer(folded=folded), {}

    async def run(ctx, rst):
        taken = cycle = 0
        ctx.set(block.i.valid, 1)
        while "first" not in times:
            _, _, ready, valid = await ctx.tick().sample(block.i.ready, block.o.valid)
            taken += ready
            if taken == inputs:
                times.setdefault("last", cycle)
            if valid:
                times["first"] = cycle
            cycle += 1

    run_bench(block, run)
    assert times["first"] - times["last"] == groups * shape.group_cycles + folded.latency
