# SPDX-License-Identifier: Apache-2.0
"""A multiply-accumulate neuron whose codes have another width than its inputs."""

import dataclasses

import numpy as np
import pytest
from support.simulation import check_neuron, random_vectors

from bmhw.hdl.formats.mac import MacFormat
from bmhw.hdl.neurons.design import Design


@pytest.mark.parametrize("code_bits", [2, 3, 6])
def test_the_result_has_its_own_width(code_bits):
    fmt = MacFormat(inputs=2, bits=4, boundary="layer", code_bits=code_bits, requantize_shift=9)
    assert fmt.z.bits == fmt.output[1].bits == code_bits
    inputs = random_vectors(fmt, 300, np.random.default_rng(0))
    y = (inputs["x"] * inputs["w"]).sum(axis=1) + inputs["bias"]
    expected = np.minimum((np.maximum(y, 0) * inputs["scale"] + 256) >> 9, (1 << code_bits) - 1)
    assert np.array_equal(fmt.compute(**inputs), expected) and {0, (1 << code_bits) - 1} <= set(expected)
    check_neuron(Design(format=fmt), inputs)


def test_it_is_the_inputs_width_unless_it_is_said():
    fmt = MacFormat(inputs=2, bits=4, boundary="layer")
    assert fmt.code_bits == 4 and Design(format=fmt).name == Design(format=dataclasses.replace(fmt, code_bits=4)).name
    assert Design(format=fmt).name != Design(format=dataclasses.replace(fmt, code_bits=5)).name
    with pytest.raises(ValueError, match="Width of the result in bits must be an integer from 2 to 16, not 17"):
        MacFormat(inputs=2, bits=4, code_bits=17)
