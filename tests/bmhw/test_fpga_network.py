# SPDX-License-Identifier: Apache-2.0
"""Whole networks placed on an FPGA: figures that fit together, and options that make no sense there."""

import dataclasses
import json
import re

import pytest
from support.calls import command_of
from support.chips import made

from bmhw import fpga as command_line
from bmhw.flow.fpga import DEVICES
from bmhw.models.files.store import save

fpga_command = command_of(command_line)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A convolution and a dense layer on images of 8 x 8 pixels, with the card of a trained network."""
    folder = tmp_path_factory.mktemp("model")
    save(made("plain"), folder, {"data": {"name": "digits"}, "accuracy": {}, "training": {}})
    return str(folder / "plain.json")


def test_a_small_network_on_an_hx8k(model):
    result = fpga_command("--model", model, "--cycles", "6000", "--json", "-")
    assert result.returncode == 0, result.stderr
    chip = json.loads(result.stdout)
    assert chip["device"]["name"] == "ice40-hx8k" and chip["dsps"] == 0
    # what was planned is what Yosys took and what nextpnr placed
    assert chip["planned_block_rams"] == chip["block_rams"] == chip["placed"]["ICESTORM_RAM"]["used"] > 0
    assert chip["planned_cells"] == pytest.approx(chip["placed"]["ICESTORM_LC"]["used"], rel=0.15)
    for key in ("luts", "flip_flops", "block_rams"):
        assert sum(kind[key] for kind in chip["kinds"].values()) == chip[key]
    assert all(chip["kinds"][kind]["luts"] for kind in ("elements", "unloading", "windows", "weights", "codes"))
    assert chip["planned_cycles"] <= chip["cycles_per_image"] <= chip["planned_cycles"] + 2 * 8
    assert chip["frames_per_second"] == pytest.approx(chip["fmax_mhz"] * 1e6 / chip["cycles_per_image"], rel=1e-12)
    shown = fpga_command("--model", model, "--cycles", "6000").stdout
    assert "images a second" in shown and "Critical path" in shown


@pytest.mark.parametrize(("arguments", "line"), [
    (("--bits", "4"), "--bits is of a neuron, not of --model"),
    (("--compare",), "--compare is of a neuron, not of --model"),
    (("--cycles", "0"), "--cycles must be an integer from 1 to 1099511627776, not 0"),
    (("--cycles", "2"), "Cycles an image must be at least"),
    (("--clock", "50"), "--frames-per-second and --clock belong together: --frames-per-second is missing"),
    (("--fold", "conv=9"), "--fold conv=P needs outputs at a time from 1 to 6, not '9'"),
], ids=str)
def test_bad_input_is_one_line(model, arguments, line):
    result = fpga_command("--model", model, *arguments)
    assert (result.returncode, result.stdout) == (2, "")
    assert line in result.stderr and result.stderr.count("\n") == 1


@pytest.mark.parametrize("option", ["--cycles", "--frames-per-second", "--clock", "--fold"])
def test_foldings_belong_to_a_network(option):
    result = fpga_command(option, "5000")
    assert result.returncode == 2 and f"{option} needs --model NAME" in result.stderr


def test_block_rams_that_are_not_there_are_known_before_anything_is_made(model, monkeypatch):
    monkeypatch.setitem(DEVICES, "ice40-hx8k", dataclasses.replace(DEVICES["ice40-hx8k"], block_rams=0.5))
    result = fpga_command("--model", model, "--cycles", "6000")
    assert (result.returncode, result.stdout) == (1, "") and result.stderr.count("\n") == 1
    assert "does not fit ice40-hx8k at 3,840 cycles an image, by plan: it needs " in result.stderr
    assert re.search(r"1 block RAMs, 1 more than 0% of 0\.5; --device .* would fit\n", result.stderr)
