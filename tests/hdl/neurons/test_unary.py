# SPDX-License-Identifier: Apache-2.0
"""Maxima step by step, and the exponentials that take the steps."""

import itertools

import numpy as np
import pytest
from support.proof import equivalent
from support.simulation import pack, packed_vectors, random_vectors, simulate

from bmhw.hdl.arithmetic.exponential import Exp2Block
from bmhw.hdl.arithmetic.maxima import MAXIMA
from bmhw.hdl.formats.bm import BmFormat
from bmhw.hdl.formats.conversions import Exp2
from bmhw.hdl.neurons.design import Design
from bmhw.hdl.neurons.neuron import create_neuron
from bmhw.hdl.verilog.convert import block_to_verilog

SEED = 20090719


def steps(values, width):
    """Whether each value is 1, 2, ... or more, as the bits of a number."""
    return (1 << np.asarray(values)) - 1 & ((1 << (1 << width) - 1) - 1)


class TestMaximum:
    @pytest.mark.parametrize("width, count", [(1, 1), (1, 5), (2, 1), (2, 4), (3, 3)])
    def test_all_inputs(self, width, count):
        values = np.array(list(itertools.product(range(1 << width), repeat=count)))
        got = simulate(MAXIMA["unary"](width=width, count=count), a=pack(values, width))["m"]
        assert got == steps(values.max(axis=1), width).tolist()

    @pytest.mark.parametrize("clear", [False, True])
    def test_masked(self, clear):
        rng = np.random.default_rng(SEED)
        values, enable = rng.integers(0, 16, (300, 5)), rng.integers(0, 2, (300, 5))
        if clear:
            values = np.where(enable == 1, values, values & 7)
        got = simulate(MAXIMA["unary"](width=4, count=5, masked=True, clear=clear), a=pack(values, 4),
                       enable=pack(enable, 1))["m"]
        assert got == steps((values * enable).max(axis=1), 4).tolist()


class TestExponential:
    @pytest.mark.parametrize("zero", ["step", "exact"])
    @pytest.mark.parametrize("zero_bits", [0, 2])
    def test_every_maximum(self, zero, zero_bits):
        exp2 = Exp2(full_scale=15, fraction=1, out_fraction=7, zero=zero)
        m = np.arange(16 >> zero_bits)
        got = simulate(Exp2Block(exp2=exp2, architecture="unary", zero_bits=zero_bits), m=steps(m, 4 - zero_bits))["e"]
        assert got == exp2.compute(m << zero_bits).tolist()


class TestNeuron:
    @pytest.mark.parametrize("end", ["subtract", "anticipate"])
    def test_every_layout(self, end):
        rng = np.random.default_rng(SEED)
        for layout, (sums, bits, maximum_bits) in itertools.product(
                ("bipolar", "relu", "signed", "wired"), (("clamped", 3, None), ("full", 2, None), ("clamped", 5, 3))):
            fmt = BmFormat(inputs=4, bits=bits, groups=2, layout=layout, boundary="layer", sums=sums,
                           maximum_bits=maximum_bits, out_fraction=4)
            vectors = random_vectors(fmt, 40, rng)
            got = simulate(create_neuron(Design(format=fmt, end=end, maximum="unary")), **packed_vectors(fmt, vectors))
            assert got["z"] == fmt.compute(**vectors).tolist(), (fmt, SEED)

    @pytest.mark.parametrize("layout, sums, groups", [("signed", "clamped", 2), ("wired", "clamped", 1),
                                                      ("relu", "full", 2)])
    def test_proven_equal_to_a_tree(self, layout, sums, groups):
        fmt = BmFormat(inputs=4, bits=3, layout=layout, sums=sums, groups=groups, boundary="layer", result="linear")
        gold, gate = (block_to_verilog(create_neuron(Design(format=fmt, maximum=maximum)), name)
                      for maximum, name in (("tree", "gold"), ("unary", "gate")))
        assert equivalent(gold, gate)

    @pytest.mark.parametrize("fields, words", [
        ({"bits": 4}, "Maximum unary is for maxima of 4 bits or fewer, not 5"),
        ({"combine": "logarithmic"}, "it needs a linear combine and form parallel or pipelined, not logarithmic"),
        ({"form": "serial", "boundary": "neuron"}, "not linear and serial")], ids=str)
    def test_refused(self, fields, words):
        form = fields.pop("form", "parallel")
        fmt = BmFormat(**{"inputs": 4, "bits": 3, "boundary": "layer"} | fields)
        with pytest.raises(ValueError, match=words):
            Design(format=fmt, maximum="unary", form=form)
