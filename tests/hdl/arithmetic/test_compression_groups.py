# SPDX-License-Identifier: Apache-2.0
"""Products compressed in groups: the same sum, whatever the groups."""

import numpy as np
import pytest
from support.simulation import pack, random_vectors, simulate

from bmhw.hdl.arithmetic.multipliers import MULTIPLIERS
from bmhw.hdl.formats.mac import MacFormat
from bmhw.hdl.neurons.mac_parts import Compression, CompressionGroup, Products

SEED = 20090719


def sums(fmt, multiplier, group, vectors):
    """``row0 + row1`` modulo the width of y, of the products and the bias in ``vectors``."""
    products = simulate(Products(format=fmt, multiplier=multiplier, group=group),
                        x=pack(vectors["x"], fmt.bits), w=pack(vectors["w"], fmt.weight_bits))["products"]
    rows = simulate(Compression(format=fmt, multiplier=multiplier, inputs=fmt.inputs,
                                addends=(("bias", fmt.bias_bits),), group=group),
                    products=products, bias=pack(vectors["bias"][:, None], fmt.bias_bits))
    return (np.array(rows["row0"]) + np.array(rows["row1"])) & ((1 << fmt.y.bits) - 1)


@pytest.mark.parametrize("multiplier", MULTIPLIERS)
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("inputs, group", [(7, 3), (6, 3), (5, 1), (4, 4)])
def test_groups_give_the_same_sum(multiplier, signed, inputs, group):
    fmt = MacFormat(inputs=inputs, bits=5, weight_bits=4, signed_inputs=signed)
    vectors = random_vectors(fmt, 60, np.random.default_rng(SEED))
    expected = fmt.compute(**vectors) & ((1 << fmt.y.bits) - 1)
    assert (sums(fmt, multiplier, group, vectors) == expected).all(), f"seed {SEED}"


def test_a_lost_constant_is_caught(monkeypatch):
    fmt = MacFormat(inputs=4, bits=4)
    vectors = random_vectors(fmt, 20, np.random.default_rng(SEED))
    created = CompressionGroup.__init__

    def without_constant(self, **parameters):
        created(self, **parameters)
        self.constant = 0

    monkeypatch.setattr(CompressionGroup, "__init__", without_constant)
    assert (sums(fmt, "dadda", 2, vectors) != fmt.compute(**vectors) & ((1 << fmt.y.bits) - 1)).any()
