# SPDX-License-Identifier: Apache-2.0
"""Number formats against their definitions, in exact arithmetic."""

from fractions import Fraction

import numpy as np
import pytest

from bmhw.hdl.formats.codes import LinearCode, LogCode, default_fraction, exp2_rounded, log2_rounded
from bmhw.hdl.formats.conversions import Exp2, LinearEnd, Log2, LogSubtract
from bmhw.hdl.formats.mac import MacFormat


def at_least_power(value: Fraction, numerator: int, denominator: int) -> bool:
    """value >= 2^(numerator / denominator), in integers only."""
    power = value ** denominator
    return power >= (Fraction(2) ** numerator)


class TestRounding:
    @pytest.mark.parametrize("fraction", [0, 1, 3, 5, 8])
    def test_log2_is_exact(self, fraction):
        """r = floor(2^F log2(v) + 1/2) means 2^((2r - 1) / 2^(F+1)) <= v < 2^((2r + 1) / 2^(F+1))."""
        values = [*range(1, 300), 2**15 - 1, 2**15, 2**15 + 1, 46341, 46340]
        for value, rounded in zip(values, log2_rounded(values, fraction).tolist(), strict=True):
            assert at_least_power(Fraction(value), 2 * rounded - 1, 2 << fraction)
            assert not at_least_power(Fraction(value), 2 * rounded + 1, 2 << fraction)

    @pytest.mark.parametrize(("fraction", "out_fraction"), [(0, 4), (1, 6), (2, 8), (5, 14), (8, 22)])
    def test_exp2_is_exact(self, fraction, out_fraction):
        """r = floor(2^(of + e / 2^F) + 1/2) means r - 1/2 <= 2^(of + e / 2^F) < r + 1/2."""
        exponents = np.unique(np.linspace(-(out_fraction + 3) << fraction, 0, 200).astype(int))
        results = exp2_rounded(exponents, fraction, out_fraction).tolist()
        for e, rounded in zip(exponents.tolist(), results, strict=True):
            numerator = (out_fraction << fraction) + e
            if rounded:
                assert not (Fraction(2 * rounded - 1, 2) ** (1 << fraction) > Fraction(2) ** numerator)
            assert at_least_power(Fraction(2 * rounded + 1, 2), numerator, 1 << fraction)
            assert Fraction(2 * rounded + 1, 2) ** (1 << fraction) != Fraction(2) ** numerator


class TestLog2:
    @pytest.mark.parametrize("bits", range(2, 13))
    def test_exact_is_the_definition(self, bits):
        log = LogCode(bits=bits, fraction=default_fraction(bits, bits))
        x = np.arange((1 << bits) + 1)
        rounded = log2_rounded(np.maximum(x, 1), log.fraction) - (bits << log.fraction)
        expected = np.where(x > 0, np.maximum(0, log.maximum + rounded), 0)
        assert (Log2(bits=bits, log=log).compute(x) == expected).all()

    @pytest.mark.parametrize("bits", [2, 3, 5, 8, 11, 16])
    def test_mitchell_is_the_definition(self, bits):
        log = LogCode(bits=bits, fraction=default_fraction(bits, bits))
        for x in range(1, (1 << min(bits, 9)) + 1):
            exponent = x.bit_length() - 1
            logarithm = exponent + Fraction(x, 1 << exponent) - 1
            code = log.maximum + ((logarithm - bits) * (1 << log.fraction) + Fraction(1, 2)).__floor__()
            got = Log2(bits=bits, log=log, method="mitchell").compute(x)
            assert got == min(max(code, 0), log.maximum), (bits, x)

    @pytest.mark.parametrize("bits", [9, 13, 14, 15, 16])
    def test_piecewise_keeps_its_stated_error(self, bits):
        log = LogCode(bits=bits, fraction=default_fraction(bits, bits))
        log2 = Log2(bits=bits, log=log, method="piecewise")
        x = np.arange(1, (1 << bits) + 1)
        real = log.maximum + (np.log2(x) - bits) * (1 << log.fraction)
        error = np.abs(log2.compute(x) - real)[real > 1].max()
        # half a step is rounding, which no method avoids; the tables may add as much again
        assert error == pytest.approx(log2.largest_error, abs=1e-6)
        assert log2.largest_error < 1

    def test_input_out_of_range(self):
        with pytest.raises(ValueError, match="from 0 to 256, not 257"):
            Log2(bits=8, log=LogCode(bits=8, fraction=5)).compute([3, 257])


class TestExp2:
    @pytest.mark.parametrize("bits", range(2, 13))
    def test_exact_is_the_definition(self, bits):
        fraction, full_scale = default_fraction(bits, bits), 2 * ((1 << bits) - 1)
        exp2 = Exp2(full_scale=full_scale, fraction=fraction, out_fraction=2 * bits - 2)
        m = np.arange(full_scale + 1)
        assert (exp2.compute(m) == exp2_rounded(m - full_scale, fraction, 2 * bits - 2)).all()

    @pytest.mark.parametrize("bits", [2, 4, 6, 8])
    def test_schraudolph_is_the_definition(self, bits):
        fraction, full_scale, out = default_fraction(bits, bits), 2 * ((1 << bits) - 1), 2 * bits - 2
        exp2 = Exp2(full_scale=full_scale, fraction=fraction, out_fraction=out, method="schraudolph")
        for m in range(full_scale + 1):
            integer, part = divmod(m - full_scale, 1 << fraction)
            value = Fraction(2) ** (out + integer) * (1 + Fraction(part, 1 << fraction))
            assert exp2.compute(m) == (value + Fraction(1, 2)).__floor__(), m

    @pytest.mark.parametrize("bits", [13, 14, 15, 16])
    def test_piecewise_keeps_its_stated_error(self, bits):
        fraction, full_scale = default_fraction(bits, bits), 2 * ((1 << bits) - 1)
        exp2 = Exp2(full_scale=full_scale, fraction=fraction, out_fraction=2 * bits - 2, method="piecewise")
        m = np.arange(full_scale - (1 << fraction) + 1, full_scale + 1)
        real = np.exp2((m - full_scale) / (1 << fraction)) * (1 << exp2.out_fraction)
        # half a unit of the result is rounding
        assert (np.abs(exp2.compute(m) - real) <= exp2.largest_error * real + 0.5).all()
        # less than half a log step, ln(2) / 2^F: no code moves by a whole step
        assert exp2.largest_error < np.log(2) / (1 << fraction) / 2
        assert exp2.compute(full_scale) == 1 << exp2.out_fraction

    def test_zero_and_full_scale(self):
        exp2 = Exp2(full_scale=510, fraction=5, out_fraction=14)
        assert exp2.compute([0, 510]).tolist() == [round(2 ** (14 - 510 / 32)), 1 << 14]
        with pytest.raises(ValueError, match="from 0 to 510, not 511"):
            exp2.compute(511)


class TestLogSubtract:
    @pytest.mark.parametrize(("bits", "fraction"), [(5, 2), (6, 3), (8, 5)])
    def test_definition(self, bits, fraction):
        """z is the code nearest to log2(2^a - 2^b), in the rounding of phi, and 0 where a <= b."""
        log = LogCode(bits=bits, fraction=fraction)
        end = LogSubtract(full_scale=2 * log.maximum, log=log, origin=log.maximum)
        a, b = np.meshgrid(np.arange(end.full_scale + 1), np.arange(end.full_scale + 1))
        z = end.compute(a, b)
        assert (z[a <= b] == 0).all()
        above = a > b
        scale = 1 << fraction
        real = (a + np.log2(1 - np.exp2((b - a) / scale), where=above, out=np.zeros(a.shape)) * scale) - log.maximum
        inside = above & (real > 0.5) & (real < log.maximum - 0.5)
        assert np.abs(z - real)[inside].max() <= 0.5 + 1e-9
        assert (z[above & (real < -0.5)] == 0).all() and z.max() == log.maximum


class TestLinearEnd:
    @pytest.mark.parametrize("reach", [0, 1, 3])
    @pytest.mark.parametrize("offset", [-9, -4, 0, 3])
    def test_definition(self, reach, offset):
        """In floating point: log2 of whole numbers is no tie; what saturates does so where the object says."""
        end = LinearEnd(out_fraction=8, log=LogCode(bits=4, fraction=2), offset=offset, reach=reach)
        y = np.arange(-5, 5 << 8)
        seen = np.clip(y, 1, 1 << 8 + min(max(0, -(offset // 4)), reach))
        code = np.floor(4 * (np.log2(seen) - 8) + 0.5) + 15
        if not reach:
            code = np.maximum(code, 0)  # a code of as many bits as z, before the offset
        assert (end.compute(y) == np.where(y > 0, np.clip(code + offset, 0, 15), 0)).all()

    @pytest.mark.parametrize(("fields", "message"), [
        ({"out_fraction": 0}, "Fraction bits of a linear end must be an integer from 1 to 40, not 0"),
        ({"reach": 57}, "from 0 to 56, not 57"), ({"method": "root"}, "log2 method must be one of .*not 'root'"),
        ({"offset": 1 << 18}, "Offset must be an integer from -131072 to 131072, not 262144")])
    def test_ranges(self, fields, message):
        with pytest.raises(ValueError, match=message):
            LinearEnd(**{"out_fraction": 8, "log": LogCode(bits=4, fraction=2)} | fields)


class TestCodes:
    def test_log_code_round_trip(self):
        log = LogCode(bits=8, fraction=5)
        codes = np.arange(256)
        assert (log.encode(log.value(codes)) == codes).all()
        assert log.encode([0.0, 1e-9, 1.0, 7.0]).tolist() == [0, 0, 255, 255]
        assert log.value(255) == 1.0 and log.value(255 - 32) == 0.5

    @pytest.mark.parametrize(("low", "high", "bits", "signed"), [
        (0, 255, 8, False), (0, 256, 9, False), (-128, 127, 8, True), (-129, 0, 9, True), (-1, 128, 9, True)])
    def test_covering(self, low, high, bits, signed):
        assert LinearCode.covering(low, high) == LinearCode(bits=bits, signed=signed)

    def test_mac_output_is_as_narrow_as_it_can_be(self):
        fmt = MacFormat(inputs=3, bits=3, bias_bits=4)
        extremes = [fmt.compute(x=[7] * 3, w=[w] * 3, bias=bias) for w, bias in ((-4, -8), (3, 7))]
        assert extremes == [-92, 70] and fmt.y == LinearCode.covering(-92, 70)

    def test_values_out_of_range_are_named(self):
        with pytest.raises(ValueError, match="w must be from -4 to 3, not 4"):
            MacFormat(inputs=3, bits=3).compute(x=[0, 0, 0], w=[1, 4, 0])
        with pytest.raises(ValueError, match="x must be integers, not float64"):
            MacFormat(inputs=3, bits=3).compute(x=[0.5, 0, 0], w=[1, 2, 0])
