# SPDX-License-Identifier: Apache-2.0
"""A network with groups through the commands: its neurons simulated, exported with a bench, counted layer by layer."""

import json
import subprocess

import numpy as np
import pytest
from support.calls import figures_of, measure_without_building
from support.networks import random_network
from support.simulators import FAST

from bmhw import export, layers, simulate
from bmhw.models.files.store import save
from bmhw.models.integer.fold import fold
from bmhw.models.integer.quantise import Quantisation
from bmhw.models.networks.architecture import Builder
from bmhw.sim import usable_simulators

GROUPS = {"stem": 3, "first": 4, "inner": 3, "dense": 3}


@pytest.fixture(scope="module")
def cards(tmp_path_factory):
    """Layout -> path of the card of a network with four groups, of images of three channels."""
    return {layout: _card(layout, tmp_path_factory.mktemp(layout)) for layout in ("signed", "wired")}


def _card(layout, folder):
    import torch

    net = Builder(3, 8, 8)
    stream = net.norm(net.conv("stem", "image", 8, 3, stride=2))
    x = net.conv("inner", net.norm(net.conv("first", stream, 6, 1, bias=False)), 9, 3)
    net.dense("dense", net.pool(net.relu(x), 2), 10)
    architecture = net.build()
    network = random_network(architecture, architecture.layouts(layout), groups=4)
    images = np.random.default_rng(3).integers(0, 256, (20, 3, 8, 8)).astype(np.uint8)
    quantisation = Quantisation(groups=4, bits=4, log_bits=4)
    integer = fold(network, torch.tensor(images).float() / 256, quantisation).to_integer("grouped", images)
    return str(save(integer, folder, {}))


@pytest.mark.parametrize("layout, layer, form", [
    ("signed", "stem", "parallel"), ("signed", "dense", "serial"), ("wired", "first", "pipelined"),
    ("wired", "inner", "parallel")])
def test_simulated(cards, layout, layer, form, capsys):
    found = figures_of(simulate)(capsys, "--model", cards[layout], "--layer", layer, "--channel", "3", "--count", "60",
                                 "--form", form, "--simulator", FAST)
    assert found["passed"] and found["vectors"] == 60
    assert found["design"]["groups"] == GROUPS[layer]


@pytest.mark.skipif("icarus" not in usable_simulators(), reason="needs Icarus Verilog: it builds at once")
@pytest.mark.parametrize("layout, layer, form", [("signed", "first", "parallel"), ("wired", "inner", "serial")])
def test_exported(cards, layout, layer, form, tmp_path):
    export.main(["--model", cards[layout], "--layer", layer, "--channel", "1", "--form", form, "--name", "mine",
                 "--vectors", "40", "--out", str(tmp_path)])
    subprocess.run(["iverilog", "-g2005", "-o", "bench", "mine.v", "mine_tb.v"], cwd=tmp_path, check=True)
    assert "PASS: mine" in subprocess.run([tmp_path / "bench"], capture_output=True, text=True, check=True).stdout
    description = json.loads((tmp_path / "mine.json").read_text())
    assert description["formats"]["groups"]["number"] == GROUPS[layer]
    # channel-major: the channels of a group follow each other, however wires order the inputs inside
    each = description["formats"]["groups"]["inputs_each"]
    assert [slot // each for slot in description["layer_inputs"]] == [
        place // each for place in range(each * GROUPS[layer])]


@pytest.mark.parametrize("layout", ["signed", "wired"])
def test_layer_by_layer(cards, layout, capsys, monkeypatch):
    measure_without_building(monkeypatch)
    found = figures_of(layers)(capsys, "--network", cards[layout])
    assert {row["name"]: row["groups"] for row in found["layers"]} == GROUPS
    assert all(row["bm"]["design"]["groups"] == row["groups"] for row in found["layers"])
