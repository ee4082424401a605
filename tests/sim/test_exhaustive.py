# SPDX-License-Identifier: Apache-2.0
"""Every pair of 8-bit operands through a neuron of one input: all products, all sums of codes."""

import numpy as np
import pytest

from bmhw.hdl.arithmetic.multipliers import MULTIPLIERS
from bmhw.hdl.formats.bm import BmFormat
from bmhw.hdl.formats.mac import MacFormat
from bmhw.hdl.neurons.design import Design
from bmhw.sim import simulate

A, B = (grid.reshape(-1, 1) for grid in np.meshgrid(np.arange(256), np.arange(256)))


# one here, the others in long runs: at smaller widths every one is tried in tests/hdl
@pytest.mark.parametrize("multiplier, signed", [
    pytest.param(name, signed, marks=() if (name, signed) == ("booth8", True) else pytest.mark.long)
    for name in MULTIPLIERS for signed in (False, True)])
def test_every_product_of_eight_bits(multiplier, signed):
    fmt = MacFormat(inputs=1, bits=8, signed_inputs=signed)
    x, w = A - 128 * signed, B - 128
    got = simulate(Design(format=fmt, multiplier=multiplier), {"x": x, "w": w, "bias": np.zeros(len(x), int)})
    assert (got == (x * w)[:, 0]).all()


@pytest.mark.parametrize("sums", ["full", "clamped"])
def test_every_input_with_every_weight_code(sums):
    fmt = BmFormat(inputs=1, bits=8, sums=sums)
    inputs = {"x": A, "k1": B, "k2": B[::-1], "bias": np.zeros(len(A), int)}
    assert (simulate(Design(format=fmt), inputs) == fmt.compute(**inputs)).all()
