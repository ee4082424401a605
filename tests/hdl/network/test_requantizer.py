# SPDX-License-Identifier: Apache-2.0
"""Scales of streams of linear numbers, against what the integer network and the MAC format make of them."""

import dataclasses

import numpy as np
import pytest
from support.streams import collected

from bmhw.hdl.formats.codes import LinearCode
from bmhw.hdl.formats.mac import MacFormat
from bmhw.hdl.network.requantizer import ChannelScale, Requantization, Requantizer
from bmhw.models.integer.fixed_point import FixedPoint

CODES = {"pixels": LinearCode(bits=8), "unsigned": LinearCode(bits=3), "signed": LinearCode(bits=4, signed=True)}


def found(to, width, values):
    """What a block gives of (count, channels), with and without pauses, as numbers."""
    block = Requantizer(width=width, to=to)
    runs = [collected(block, values.ravel(), values.size, seed=seed) for seed in (None, 1)]
    assert runs[0] == runs[1]
    sign = to.code.signed << to.code.bits - 1
    return (np.reshape(runs[0], values.shape) ^ sign) - sign


@pytest.mark.parametrize("multiplier", [True, False], ids=["scale", "shift"])
@pytest.mark.parametrize("code", CODES)
def test_numbers_are_those_of_the_fixed_point_scales(code, multiplier):
    rng = np.random.default_rng(sorted(CODES).index(code))
    channels, width, code = 6, 12, CODES[code]
    scale = FixedPoint(rng.integers(128, 256, channels) if multiplier else np.ones(channels, dtype=np.int64),
                       rng.integers(7, 14, channels) if multiplier else np.arange(-1, channels - 1))
    scale.multiplier[-1] *= multiplier and 0
    threshold, negative = rng.integers(-400, 400, channels), rng.integers(0, 2, channels)
    values = rng.integers(-(1 << width - 1), 1 << width - 1, (120, channels))
    values[::2] >>= rng.integers(0, width, (60, channels))
    values[1] = threshold  # what becomes 0
    left = np.where(negative, threshold - values, values - threshold)
    relu = not code.signed
    scaled = scale.compute((np.maximum(left, 0) if relu else left)[:, :, None, None])[:, :, 0, 0]
    to = Requantization(code=code, relu=relu, channels=tuple(
        ChannelScale(multiplier=int(m), shift=int(s), threshold=int(t), negative=bool(n))
        for m, s, t, n in zip(scale.multiplier, scale.shift, threshold, negative, strict=True)))
    expected = np.clip(scaled, code.minimum, code.maximum)
    assert (expected == code.maximum).any() and (expected == code.minimum).any()  # both ends saturate
    assert (found(to, width, values) == expected).all()


@pytest.mark.parametrize("requantize", ["scale", "shift"])
def test_codes_are_those_of_the_mac_format(requantize):
    rng = np.random.default_rng(1)
    fmt = MacFormat(inputs=30, bits=4, boundary="layer", requantize=requantize)
    shifts, scales = rng.integers(4, 14, 5), rng.integers(0, 256, 5) if requantize == "scale" else np.ones(5, int)
    y = rng.integers(fmt.y.minimum, fmt.y.maximum + 1, (150, 5)) >> rng.integers(0, 8, (150, 5))
    expected = np.stack([dataclasses.replace(fmt, requantize_shift=int(shift)).code_of(column, int(scale))
                         for shift, scale, column in zip(shifts, scales, y.T, strict=True)], axis=1)
    to = Requantization(code=fmt.z, relu=True, channels=tuple(
        ChannelScale(multiplier=int(m), shift=int(s)) for m, s in zip(scales, shifts, strict=True)))
    assert len(np.unique(expected)) > 12 and (found(to, fmt.y.bits, y) == expected).all()


def test_what_is_wide_enough_does_not_saturate():
    """Linear numbers of a scale, to which others are added: rounded, halves up, also below 0."""
    scale = FixedPoint(np.array([129, 255]), np.array([5, 6]))
    values = np.arange(-128, 128)[:, None] * np.ones((1, 2), dtype=np.int64)
    expected = scale.compute(values[:, :, None, None])[:, :, 0, 0]
    code = LinearCode.covering(int(expected.min()), int(expected.max()))
    to = Requantization(code=code, relu=False, saturates=False,
                        channels=(ChannelScale(multiplier=129, shift=5), ChannelScale(multiplier=255, shift=6)))
    assert (found(to, 8, values) == expected).all()


def test_a_multiplier_below_zero_is_refused():
    with pytest.raises(ValueError, match="Multiplier of a channel must be an integer of 0 or more, not -1"):
        ChannelScale(multiplier=-1)
