# SPDX-License-Identifier: Apache-2.0
"""Codes of streams of linear numbers, against the integer network's own."""

import numpy as np
import pytest
from support.streams import collected

from bmhw.hdl.formats.codes import LinearCode, LogCode
from bmhw.hdl.formats.conversions import LinearEnd
from bmhw.hdl.network.encoder import ChannelCode, Encoder, _least_octave
from bmhw.models.integer.layer import round_shift


def expected(channel: ChannelCode, values, relu: bool):
    left = (values - channel.threshold) * (-1 if channel.negative else 1)
    left = round_shift(np.maximum(left, 0) if relu else left, np.int64(channel.shift))
    code = channel.end.compute(np.abs(left))
    return code if relu else code + np.where((left < 0) & (code > 0), 1 << channel.end.log.bits, 0)


@pytest.mark.parametrize("relu", [True, False])
@pytest.mark.parametrize("reach", [0, 2])
@pytest.mark.parametrize("out_fraction", [6, 12, 14])
def test_codes_are_those_of_the_linear_ends(relu, reach, out_fraction):
    rng = np.random.default_rng(out_fraction)
    log = LogCode(bits=4, fraction=2)
    channels = tuple(
        ChannelCode(end=LinearEnd(out_fraction=out_fraction, log=log, offset=int(rng.integers(-9, 6)), reach=reach),
                    threshold=int(rng.integers(-300, 300)), negative=bool(rng.integers(2)),
                    shift=int(rng.integers(-1, 3)))
        for _ in range(5))
    width = out_fraction + 4
    values = rng.integers(-(1 << width - 1), 1 << width - 1, size=(200, 5))
    values[::3] >>= rng.integers(0, width, size=(len(values[::3]), 5))
    codes = [expected(channel, column, relu) for channel, column in zip(channels, values.T, strict=True)]
    block = Encoder(width=width, channels=channels, relu=relu)
    for seed in (None, 1):
        found = collected(block, values.ravel(), len(values.ravel()), seed=seed)
        assert found == list(np.stack(codes, axis=1).ravel())


@pytest.mark.parametrize("bits", [2, 4])
def test_codes_of_linear_codes_are_those_of_log2(bits):
    """Numbers saturate in a linear code first, and code 0, if it stands for its smallest step, has a sign."""
    code, log = LinearCode(bits=bits, signed=True), LogCode(bits=3, fraction=2)
    end = LinearEnd(out_fraction=code.magnitude_bits, log=log)
    channels = (ChannelCode(end=end, shift=1), ChannelCode(end=end, shift=2))
    values = np.arange(-64, 64)[:, None] * np.ones((1, 2), dtype=np.int64)
    x = np.clip(round_shift(values, np.array([1, 2])), code.minimum, code.maximum)
    codes = end.log2.compute(np.abs(x)) | (x < 0) << log.bits
    assert (codes == 1 << log.bits).any() or bits == 2  # a signed 0
    block = Encoder(width=8, channels=channels, relu=False, saturation=code, zeros_signed=True)
    assert collected(block, values.ravel(), values.size) == list(codes.ravel())


@pytest.mark.parametrize("relu", [True, False])
@pytest.mark.parametrize(("shifts", "out_fraction", "fraction", "method"), [
    ((-3, -1), 9, 2, "exact"), ((0, 0), 7, 0, "exact"), ((2, 5, 3), 4, 3, "exact"), ((1, 9), 2, 2, "exact"),
    ((0, 1), 7, 3, "mitchell"), ((0, 4), 2, 3, "mitchell"), ((0, 1), 8, 3, "piecewise")])
def test_every_number(relu, shifts, out_fraction, fraction, method):
    """What is beside a step, a half or a saturation, too."""
    log = LogCode(bits=4, fraction=fraction)
    channels = tuple(
        ChannelCode(end=LinearEnd(out_fraction=out_fraction, log=log, offset=offset, reach=reach, method=method),
                    threshold=37 * sign, negative=sign < 0, shift=shift)
        for shift in shifts for sign in (-1, 1)
        for offset, reach in ([(0, 0)] if method == "piecewise" else [(0, 0), (-5, 0), (5, 0), (-5, 2)]))
    values = np.arange(-256, 256)
    codes = np.stack([expected(channel, values, relu) for channel in channels], axis=1)
    assert len(np.unique(codes)) > 2 ** fraction  # codes of more than an octave
    block = Encoder(width=9, channels=channels, relu=relu)
    assert collected(block, values.repeat(len(channels)), codes.size) == codes.ravel().tolist()


def test_no_further_up_than_codes_reach():
    """Four octaves of codes below full scale, which lies at the highest bit: four bits can have the leading one."""
    end = LinearEnd(out_fraction=9, log=LogCode(bits=4, fraction=2))
    block = Encoder(width=10, channels=(ChannelCode(end=end),), relu=True)
    assert sum(block._distances(9)) == 3


@pytest.mark.parametrize("offset", range(-6, 3))
def test_the_least_codes_above_0_are_reached(offset):
    """Wherever the codes begin, the shifts reach the leading one of their lowest octave."""
    channel = ChannelCode(end=LinearEnd(out_fraction=8, log=LogCode(bits=4, fraction=2), offset=offset))
    values = np.arange(256)
    block = Encoder(width=9, channels=(channel,), relu=True)
    assert collected(block, values, len(values)) == channel.end.compute(values).tolist()


@pytest.mark.parametrize("offset", range(-9, 4))
def test_the_least_octave_is_the_first_one_with_a_code_above_the_floor(offset):
    """By hand, number for number."""
    end = LinearEnd(out_fraction=8, log=LogCode(bits=4, fraction=2), offset=offset)
    channel = ChannelCode(end=end)
    above = [x for x in range(1, 256) if end.compute(np.array([x]))[0] > channel.floor]
    assert _least_octave(end) == (min(above) >> end.shift).bit_length() - 1
