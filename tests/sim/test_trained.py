# SPDX-License-Identifier: Apache-2.0
"""The shipped network's weights and real activations: red when one constant or one weight is changed."""

import re

import numpy as np
import pytest

from bmhw.errors import UsageError
from bmhw.hdl.verilog.convert import to_verilog
from bmhw.sim import usable_simulators, verify
from bmhw.sim.trained import load_neuron
from bmhw.simulate import main

FAST = usable_simulators()[-1]
COUNT = 150


@pytest.fixture(
    scope="module", params=[("stem", "parallel"), ("stage1_shortcut", "pipelined"), ("dense", "serial")]
)
def trained(request):
    layer, form = request.param
    neuron = load_neuron("digits", layer, 2, COUNT, seed=1)
    return neuron, neuron.design(form=form, objective="area")


def test_green(trained):
    neuron, design = trained
    report = verify(design, neuron.inputs, neuron.expected, simulator=FAST)
    assert report.passed and report.outputs.shape == (COUNT,)
    np.testing.assert_array_equal(report.outputs, design.format.compute(**neuron.inputs))
    assert len(set(report.outputs.tolist())) > 10, "real activations give many different outputs"


def test_red_if_one_weight_is_changed(trained):
    """One weight code is a step lower: the first one that decides the output of an activation."""
    neuron, design = trained
    port = next(port for port in neuron.inputs if port.startswith("k"))
    for index in range(design.format.inputs):
        codes = neuron.inputs[port].copy()
        codes[index] = max(codes[index] - 1, 0)
        changed = {**neuron.inputs, port: codes}
        differs = np.flatnonzero(design.format.compute(**changed) != neuron.expected)
        if len(differs):
            break
    report = verify(design, changed, neuron.expected, simulator=FAST)
    assert not report.passed
    assert report.mismatches == len(differs) and report.first_mismatch.vector == differs[0]


def test_red_if_one_constant_is_changed(trained):
    """The lowest bit of one entry in the RTL's table of the logarithm: what that does is known beforehand."""
    neuron, design = trained
    number_format, verilog = design.format, to_verilog(design)
    weights = {port: codes for port, codes in neuron.inputs.items() if port.startswith("k")}
    codes, negative = number_format.log_codes(neuron.inputs["x"])
    magnitudes = np.abs(neuron.inputs["x"])
    for magnitude in np.unique(magnitudes):
        code = int(number_format.log2_unit.compute(magnitude))
        changed = np.where(magnitudes == magnitude, code ^ 1, codes)
        predicted = number_format.combined(
            number_format.maxima(changed, negative, **weights), bias=neuron.inputs["bias"]
        )
        if (predicted != neuron.expected).any():
            break
    entry = re.compile(rf"(\d+'h0*{magnitude:x}: value = \d+'h0*){code:x};")
    assert entry.search(verilog), "the table of the logarithm looks different"
    faulty = entry.sub(rf"\g<1>{code ^ 1:x};", verilog, count=1)
    report = verify(design, neuron.inputs, neuron.expected, verilog=faulty, simulator=FAST)
    assert not report.passed
    np.testing.assert_array_equal(report.outputs, predicted)
    assert report.mismatches == (predicted != neuron.expected).sum()


def test_command(capsys):
    assert (
        main(["--model", "digits", "--layer", "stem", "--channel", "0", "--count", "40", "--simulator", FAST])
        == 0
    )
    printed = capsys.readouterr().out
    assert "40 of 40 equal the integer model in every bit: PASS" in printed
    assert "against the floating-point layer" in printed


def test_unknown_layer_names_the_valid_ones():
    with pytest.raises(UsageError, match=r"Layer must be one of stem, .*dense, not 'nope'"):
        main(["--model", "digits", "--layer", "nope", "--channel", "0", "--simulator", FAST])
