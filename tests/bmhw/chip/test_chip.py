# SPDX-License-Identifier: Apache-2.0
"""Whole networks as hardware: every number of every part, on images."""

import dataclasses

import numpy as np
import pytest
from support.calls import command_of
from support.chips import ARCHITECTURES, IMAGES, HostileBench, assembly_of, made

from bmhw import network as command_line
from bmhw.chip.bench import Bench, Difference
from bmhw.chip.schedule import latency
from bmhw.errors import RunError
from bmhw.models.files.store import save

network_command = command_of(command_line)


@pytest.fixture
def model(tmp_path):
    """The file of one."""
    save(made("plain"), tmp_path, {"data": {"name": "digits"}, "accuracy": {}, "training": {}})
    return str(tmp_path / "plain.json")


@pytest.fixture
def images():
    return IMAGES


@pytest.fixture(scope="module", params=ARCHITECTURES)
def network(request):
    return made(request.param)


@pytest.fixture(scope="module")
def bench(network, tmp_path_factory):
    made = HostileBench(assembly_of(network, 2), tmp_path_factory.mktemp("bench"))
    made.build()
    return made


def test_every_number_of_every_part_is_the_integer_networks(bench, network, images):
    for gaps in (0, 40):
        run = bench.run(images[:6], seed=gaps, gaps=gaps)
        assert run.classes == network.classify(images[:6]).tolist() and len(run.cycles) == 6
    slowest = max(part["folded"].shape.cycles for _, part in bench.assembly.blocks.values() if "folded" in part)
    full_speed = bench.run(images[:6]).cycles_per_image
    # two cycles for each row of the map
    assert slowest <= full_speed <= slowest + 2 * 8 + 2


def test_the_latency_is_the_computed_one(bench, network, images):
    """But for the registers of the parts, fifteen cycles each at most, and the two cycles of a row."""
    computed, measured = latency(bench.assembly), bench.run(images[:1]).cycles[0]
    assert computed <= measured <= computed + 15 * len(bench.assembly.blocks) + 2 * 8


def test_a_number_that_differs_is_named(bench, network, images):
    """Of a network with another weight: the first image, layer, pixel and channel where it shows."""
    name, layer = next(iter(network.layers.items()))
    biases = {"bias": layer.biases["bias"] + (np.arange(layer.channels) == 2)}
    changed = dataclasses.replace(network, layers={**network.layers, name: dataclasses.replace(layer, biases=biases)})
    other = Bench(assembly_of(changed, 2), bench.folder)
    value = dict((node.name, v) for node, v in network.trace(images[:2]))[name][0, 2, 0, 0]
    with pytest.raises(Difference, match=rf"image 0, {name}, pixel \(0, 0\), channel 2: {value}, not {value + 1} "):
        other.run(images[:2])


def test_a_simulation_that_ends_early_is_no_success(bench, images, tmp_path):
    program = tmp_path / "obj" / "Vtop"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\necho image 0 10\n")
    program.chmod(0o755)
    with pytest.raises(RunError, match="the simulation ended behind 1 of 2 images"):
        Bench(bench.assembly, tmp_path).run(images[:2])


def test_the_command(model, tmp_path):
    plan = network_command("--model", model, "--cycles", "2000")
    assert plan.returncode == 0 and "4 elements, 1,920 cycles an image" in plan.stdout
    verilog = tmp_path / "chip.v"
    texts = []
    for _ in range(2):
        assert network_command("--model", model, "--cycles", "2000", "--out", str(verilog)).returncode == 0
        texts.append(verilog.read_text())
    assert texts[0] == texts[1] and "module chip (" in texts[0]
    said = network_command("--model", model, "--cycles", "2000", "--check", "3")
    assert said.returncode == 0 and said.stdout.startswith("3 images, every number of ")


@pytest.mark.parametrize(("arguments", "line"), [
    (["--cycles", "100"], "Cycles an image must be at least 576, not 100: layer conv takes 576 with 6 of its 6 outputs "
                          "at a time"),
    (["--fold", "conf=2"], "--fold LAYER=P: the layer must be one of conv, dense, not 'conf' (did you mean conv?)"),
    (["--fold", "conv=7"], "--fold conv=P needs outputs at a time from 1 to 6, not '7'"),
    (["--cycles", "many"], "--cycles must be an integer from 1 to 1099511627776, not 'many'"),
    (["--out", "a-b.v"], "--out without its ending must be 1 to 100 letters, digits and underscores of ASCII, a letter "
                         "first, not 'a-b'"),
    (["--check", "0"], "--check must be an integer from 1 to 1048576, not 0"),
])
def test_bad_input_is_one_line(model, arguments, line):
    result = network_command("--model", model, *arguments)
    assert (result.returncode, result.stderr) == (2, f"python -m bmhw.network: error: {line}\n")
