# SPDX-License-Identifier: Apache-2.0
"""Folded layers against the integer network's layers, number for number."""

import numpy as np
import pytest
from support.streams import collected

from bmhw.hdl.formats.bm import BmFormat
from bmhw.hdl.network.folded import Folded, FoldedLayer
from bmhw.hdl.network.shape import LayerShape


def expected(shape, fmt, codes, negative, k, sign, bias):
    """(images, pixels, outputs) of codes (images, channels, rows, columns)."""
    p, s = shape.padding, shape.stride
    border = ((0, 0), (0, 0), (p, p), (p, p))
    codes, negative = np.pad(codes, border), np.pad(negative, border)
    rows = []
    for row in range(shape.out_height):
        for column in range(shape.out_width):
            taps = (slice(None), slice(None), slice(row * s, row * s + shape.kernel[0]),
                    slice(column * s, column * s + shape.kernel[1]))
            c, minus = (values[taps].reshape(len(values), 1, -1) for values in (codes, negative))
            inputs = {"c": c} | ({"negative": minus} if fmt.signed_inputs else {})
            rows.append(fmt.compute(**inputs, k=k.reshape(1, len(k), -1), sign=sign.reshape(1, len(k), -1), bias=bias))
    return np.stack(rows, axis=1)


SHAPES = {
    "3x3": dict(height=4, width=5, channels=4, kernel=(3, 3), padding=1, outputs=5, groups=2, parallel=2),
    "stride": dict(height=6, width=6, channels=2, kernel=(3, 3), padding=1, stride=2, outputs=4, groups=1, parallel=4),
    "5x5": dict(height=6, width=7, channels=2, kernel=(5, 5), outputs=3, groups=2, parallel=1),
    "pointwise": dict(height=4, width=3, channels=8, outputs=6, groups=2, parallel=6),
    "pointwise stride": dict(height=4, width=5, channels=8, stride=2, outputs=3, groups=1, parallel=2),
    "dense": dict(height=3, width=3, channels=2, kernel=(3, 3), outputs=7, groups=2, parallel=3),
}


@pytest.mark.parametrize("signed_inputs", [False, True])
@pytest.mark.parametrize("name", SHAPES)
def test_sums_are_those_of_the_format(name, signed_inputs):
    shape = LayerShape(**SHAPES[name])
    rng = np.random.default_rng(sorted(SHAPES).index(name))
    fmt = BmFormat(inputs=shape.fan_in, bits=4, log_bits=4, log_fraction=2, out_fraction=8, layout="signed",
                   boundary="layer", result="linear", groups=shape.groups, zero="exact", signed_inputs=signed_inputs)
    weights = (shape.outputs, shape.channels, *shape.kernel)
    k, sign = rng.integers(0, 16, weights), rng.integers(0, 2, weights)
    bias = rng.integers(fmt.bias.minimum, fmt.bias.maximum + 1, shape.outputs)
    codes = rng.integers(0, 16, (3, shape.channels, shape.height, shape.width))
    negative = rng.integers(0, 2, codes.shape) * (codes > 0) * signed_inputs
    sums = expected(shape, fmt, codes, negative, k, sign, bias)
    numbers = (codes | negative << 4).transpose(0, 2, 3, 1).ravel()
    for rows, results, seed in ((shape.fewest_rows, shape.parallel, 1),
                                (shape.overlapping_rows, 2 * shape.parallel + 4, None)):
        layer = FoldedLayer(folded=Folded(
            shape=shape, format=fmt, weights=shape.words(k | sign << 4, 5), biases=tuple(map(int, bias)), rows=rows,
            results=max(results, 2)))
        found = collected(layer, numbers, sums.size, seed=seed, cycles=40 * shape.cycles + 5000)
        assert found == list(sums.ravel() & ((1 << fmt.y.bits) - 1))
