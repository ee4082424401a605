# SPDX-License-Identifier: Apache-2.0
"""Arithmetic blocks: every architecture of a family through the same checks."""

import itertools

import numpy as np
import pytest
from support.simulation import pack, simulate

from bmhw.hdl.arithmetic.adders import ADDERS
from bmhw.hdl.arithmetic.comparators import Comparator, CompareSelect
from bmhw.hdl.arithmetic.compressors import COMPRESSIONS, Compressor, MultiOperandAdder
from bmhw.hdl.arithmetic.exponential import Exp2Block
from bmhw.hdl.arithmetic.logarithm import LeadingOne, Log2Block, Normalizer, NormalizingShift
from bmhw.hdl.arithmetic.lookup import Lookup
from bmhw.hdl.arithmetic.maxima import BINARY_MAXIMA, MAXIMA
from bmhw.hdl.arithmetic.multipliers import MULTIPLIERS, Multiplier
from bmhw.hdl.formats.codes import LogCode
from bmhw.hdl.formats.conversions import EXP2_METHODS, LOG2_METHODS, Exp2, Log2

SEED = 1234567


def pairs(width, count=400):
    """All pairs of ``width``-bit numbers up to 4 bits, else ``count`` random ones with the corners."""
    if width <= 4:
        grid = np.array(list(itertools.product(range(1 << width), repeat=2)))
        return grid[:, 0], grid[:, 1]
    rng = np.random.default_rng(SEED + width)
    a, b = rng.integers(0, 1 << width, size=(2, count))
    top = (1 << width) - 1
    a[:4], b[:4] = [0, 0, top, top], [0, top, 0, top]
    return a, b


class TestAdders:
    @pytest.mark.parametrize("carry_in", [False, True])
    @pytest.mark.parametrize("width", [1, 2, 3, 4, 7, 8, 13, 21])
    @pytest.mark.parametrize("adder", ADDERS)
    def test_sum(self, adder, width, carry_in):
        a, b = pairs(width)
        carries = np.arange(len(a)) % 2 if carry_in else np.zeros(len(a), int)
        ports = {"a": a, "b": b, **({"carry_in": carries} if carry_in else {})}
        assert simulate(ADDERS[adder](width=width, carry_in=carry_in), **ports)["sum"] == (a + b + carries).tolist()

    def test_width_is_checked(self):
        with pytest.raises(ValueError, match="Adder width must be an integer of 1 or more, not 0"):
            ADDERS["ripple"](width=0)


class TestComparators:
    @pytest.mark.parametrize("width", [1, 2, 3, 4, 8, 9, 17])
    def test_greater_and_select(self, width):
        # all pairs up to 8 bits; above, an equal pair among the random ones
        a, b = (grid.ravel() for grid in np.meshgrid(*[np.arange(1 << width)] * 2)) if width <= 8 else pairs(width)
        b[-1] = a[-1]
        assert simulate(Comparator(width=width), a=a, b=b)["greater"] == (a > b).astype(int).tolist()
        assert simulate(CompareSelect(width=width), a=a, b=b)["m"] == np.maximum(a, b).tolist()


class TestMaxima:
    @pytest.mark.parametrize("masked", [False, True])
    @pytest.mark.parametrize("count", [1, 2, 5, 17])
    @pytest.mark.parametrize("width", [1, 3, 9])
    @pytest.mark.parametrize("maximum", BINARY_MAXIMA)
    def test_maximum(self, maximum, width, count, masked):
        rng = np.random.default_rng(SEED + width * count)
        values = rng.integers(0, 1 << width, size=(120, count))
        values[0], values[1], values[2:40] = 0, (1 << width) - 1, values[2:40] >> (width // 2)
        enable = rng.integers(0, 2, size=values.shape) if masked else np.ones_like(values)
        enable[3] = 0 if masked else 1
        ports = {"a": pack(values, width), **({"enable": pack(enable, 1)} if masked else {})}
        expected = (values * enable).max(axis=1).tolist()
        assert simulate(MAXIMA[maximum](width=width, count=count, masked=masked), **ports)["m"] == expected

    @pytest.mark.parametrize("maximum", BINARY_MAXIMA)
    def test_all_small_inputs(self, maximum):
        values = np.array(list(itertools.product(range(8), repeat=3)))
        got = simulate(MAXIMA[maximum](width=3, count=3), a=pack(values, 3))["m"]
        assert got == values.max(axis=1).tolist()


class TestNormalizer:
    @pytest.mark.parametrize("width", range(1, 10))
    def test_all_inputs(self, width):
        x = np.arange(1 << width)
        leading, split = simulate(LeadingOne(width=width), x=x), simulate(Normalizer(width=width), x=x)
        for value in x.tolist():
            position = max(value.bit_length() - 1, 0)
            assert leading["position"][value] == split["exponent"][value] == position
            assert leading["found"][value] == split["found"][value] == (value > 0)
            assert leading["one_hot"][value] == (1 << position if value else 0)
            if value and width > 1:
                assert split["mantissa"][value] == (value - (1 << position)) << (width - 1 - position)


class TestNormalizingShift:
    @pytest.mark.parametrize(("width", "distances", "kept"), [
        (1, (), 1), (5, (4, 2, 1), 5), (8, (2, 1), 3), (8, (8, 4, 2, 1), 8), (9, (4, 2), 6), (9, (4, 2, 1), 1)])
    def test_all_inputs(self, width, distances, kept):
        x = np.arange(1 << width)
        found = simulate(NormalizingShift(width=width, distances=distances, kept=kept), x=x)
        unit = distances[-1] if distances else 1
        for value in x.tolist():
            zeros, most = (width - value.bit_length()) // unit, sum(distances) // unit
            zeros = min(zeros, most) if value else most
            moved = value << zeros * unit & ((1 << width) - 1)
            assert found["y"][value] == moved >> (width - kept)
            assert not distances or found["zeros"][value] == zeros


class TestLog2:
    @pytest.mark.parametrize("full_scale_input", [False, True])
    @pytest.mark.parametrize("architecture", ["table", "normalize"])
    @pytest.mark.parametrize("method", LOG2_METHODS)
    @pytest.mark.parametrize(("bits", "fraction"), [(1, 0), (2, 1), (3, 1), (5, 0), (5, 2), (8, 5), (8, 7), (11, 7)])
    def test_every_input_up_to_eight_bits(self, bits, fraction, method, architecture, full_scale_input):
        log2 = Log2(bits=bits, log=LogCode(bits=max(bits, 2), fraction=fraction), method=method)
        top = (1 << bits) if full_scale_input else (1 << bits) - 1
        x = np.arange(top + 1) if bits <= 8 else np.random.default_rng(SEED).integers(0, top + 1, 200)
        block = Log2Block(log2=log2, full_scale_input=full_scale_input, architecture=architecture)
        assert simulate(block, x=x)["c"] == log2.compute(x).tolist()


class TestExp2:
    @pytest.mark.parametrize("architecture", ["table", "shift", "select"])
    @pytest.mark.parametrize("method", EXP2_METHODS)
    @pytest.mark.parametrize(("bits", "fraction", "out_fraction"), [
        (2, 0, 2), (2, 1, 2), (3, 1, 0), (5, 2, 8), (5, 3, 0), (8, 5, 14), (8, 0, 14), (10, 7, 18)])
    def test_every_input_up_to_nine_bits(self, bits, fraction, out_fraction, method, architecture):
        exp2 = Exp2(full_scale=2 * ((1 << bits) - 1), fraction=fraction, out_fraction=out_fraction, method=method)
        m = np.arange(exp2.full_scale + 1)
        if bits > 8:
            m = np.random.default_rng(SEED).choice(m, 200)
        assert simulate(Exp2Block(exp2=exp2, architecture=architecture), m=m)["e"] == exp2.compute(m).tolist()

    @pytest.mark.parametrize("zero_bits", [1, 3, 5, 6])
    def test_select_without_the_lowest_bits(self, zero_bits):
        exp2 = Exp2(full_scale=126, fraction=4, out_fraction=12)
        m = np.arange(0, exp2.full_scale + 1, 1 << zero_bits)
        block = Exp2Block(exp2=exp2, architecture="select", zero_bits=zero_bits)
        assert simulate(block, m=m)["e"] == exp2.compute(m).tolist()


class TestMultipliers:
    @pytest.mark.parametrize(("a_signed", "b_signed"), list(itertools.product((False, True), repeat=2)))
    @pytest.mark.parametrize(("a_bits", "b_bits"), [(1, 1), (1, 4), (2, 3), (3, 2), (4, 4), (5, 8), (8, 8), (16, 11)])
    @pytest.mark.parametrize("architecture", MULTIPLIERS)
    def test_product(self, architecture, a_bits, b_bits, a_signed, b_signed):
        a, b = pairs(max(a_bits, b_bits), 150)
        a, b = a & ((1 << a_bits) - 1), b & ((1 << b_bits) - 1)
        value_a = np.where((a >> (a_bits - 1)) & a_signed, a - (1 << a_bits), a)
        value_b = np.where((b >> (b_bits - 1)) & b_signed, b - (1 << b_bits), b)
        block = Multiplier(a_bits=a_bits, b_bits=b_bits, a_signed=a_signed, b_signed=b_signed,
                           architecture=architecture)
        assert simulate(block, a=a, b=b)["p"] == ((value_a * value_b) % (1 << (a_bits + b_bits))).tolist()


class TestCompressors:
    @pytest.mark.parametrize("compression", COMPRESSIONS)
    @pytest.mark.parametrize("heights", [(1,), (3, 1), (2, 5, 1, 7), (9, 9, 9, 9, 0, 0), (20,) * 6])
    @pytest.mark.parametrize("constant", [0, -1, 37])
    def test_rows_keep_the_sum(self, heights, compression, constant):
        block = Compressor(heights=heights, constant=constant, compression=compression)
        bits = np.random.default_rng(SEED).integers(0, 2, size=(100, sum(heights)))
        weights = np.array([1 << column for column, height in enumerate(heights) for _ in range(height)])
        rows = simulate(block, bits=pack(bits, 1))
        got = [(a + b) % (1 << len(heights)) for a, b in zip(rows["row0"], rows["row1"], strict=True)]
        assert got == ((bits @ weights + constant) % (1 << len(heights))).tolist()

    @pytest.mark.parametrize("operands", [((3, False, False), (3, False, True), (4, True, False)),
                                          ((2, True, True), (5, False, False)), ((4, True, True),) * 4])
    def test_signed_sum_of_several(self, operands):
        rng, width = np.random.default_rng(SEED), 8
        ports, expected = {}, np.zeros(200, int)
        for i, (bits, signed, negative) in enumerate(operands):
            value = rng.integers(-(1 << bits - 1) if signed else 0, 1 << (bits - 1 if signed else bits), 200)
            ports[f"a{i}"] = value & ((1 << bits) - 1)
            expected += -value if negative else value
        got = simulate(MultiOperandAdder(operands=operands, width=width), **ports)["sum"]
        assert got == (expected % (1 << width)).tolist()


class TestLookup:
    def test_entries_and_end(self):
        table = [3, 1, 4, 1, 5]
        assert simulate(Lookup(table=table), index=range(8))["value"] == [*table, 5, 5, 5]

    def test_entry_too_wide(self):
        with pytest.raises(ValueError, match="Table entries must be from 0 to 3, not 1 to 4"):
            Lookup(table=[1, 4], width=2)
