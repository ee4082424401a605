# SPDX-License-Identifier: Apache-2.0
"""Whole networks as hardware: every number of every part, on images."""

import dataclasses
from functools import cache

import numpy as np
import pytest
import torch
from support.calls import command_of
from support.networks import random_network

from bmhw import network as command_line
from bmhw.chip.check import Bench, Difference
from bmhw.chip.folding import fastest, folding_for
from bmhw.chip.parts import assemble
from bmhw.chip.schedule import latency
from bmhw.errors import RunError
from bmhw.hdl.network.streams import Fifo
from bmhw.models.files.store import save
from bmhw.models.integer.fold import fold
from bmhw.models.integer.quantise import Quantisation
from bmhw.models.networks.architecture import Builder, resnet_small


def plain():
    """A convolution, a normalisation and a dense layer on images of 8 x 8 pixels."""
    net = Builder(1, 8, 8)
    net.dense("dense", net.norm(net.conv("conv", "image", 6, 3)), 10)
    return net.build()


def pooled():
    """Convolutions with and without padding, pools behind normalisations, as LeNet has them."""
    net = Builder(1, 8, 8)
    x = net.pool(net.norm(net.conv("conv1", "image", 4, 5, padding=2)), 2)
    x = net.norm(net.conv("conv2", x, 5, 3, padding=0))
    net.dense("dense", x, 10)
    return net.build()


ARCHITECTURES = {"plain": plain, "pooled": pooled, "residual": lambda: resnet_small(1, 8, filters=4)}
network_command = command_of(command_line)
QUANTISATION = Quantisation(groups=2, log_bits=4, log_fraction=2, edge_bits=6, out_fraction=9)


IMAGES = np.random.default_rng(3).integers(0, 256, (40, 1, 8, 8)).astype(np.uint8)


@cache
def made(name):
    """A network with random weights."""
    architecture = ARCHITECTURES[name]()
    trained = random_network(architecture, architecture.layouts("signed"), groups=QUANTISATION.groups)
    return fold(trained, torch.tensor(IMAGES).float() / 256, QUANTISATION).to_integer(name, IMAGES)


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


def assembly_of(network, slowness):
    return assemble(network, folding_for(network, slowness * fastest(network)))


@pytest.fixture(scope="module")
def bench(network, tmp_path_factory):
    made = Bench(assembly_of(network, 2), tmp_path_factory.mktemp("bench"))
    made.build()
    return made


def test_every_number_of_every_part_is_the_integer_networks(bench, network, images):
    for gaps in (0, 40):
        result = bench.run(images[:6], network.classify(images[:6]), seed=gaps, gaps=gaps)
        assert (result.images, result.right) == (6, 6)
    slowest = max(part["folded"].shape.cycles for _, part in bench.assembly.blocks.values() if "folded" in part)
    full_speed = bench.run(images[:6], network.classify(images[:6])).cycles_per_image
    # two cycles for each row of the map
    assert slowest <= full_speed <= slowest + 2 * 8 + 2


def test_the_latency_is_the_computed_one(bench, network, images):
    """But for the registers of the parts, fifteen cycles each at most, and the two cycles of a row."""
    computed, measured = latency(bench.assembly), bench.run(images[:1], network.classify(images[:1])).cycles[0]
    assert computed <= measured <= computed + 15 * len(bench.assembly.blocks) + 2 * 8


def test_a_number_that_differs_is_named(bench, network, images):
    """Of a network with another weight: the first image, layer, pixel and channel where it shows."""
    name, layer = next(iter(network.layers.items()))
    biases = {"bias": layer.biases["bias"] + (np.arange(layer.channels) == 2)}
    changed = dataclasses.replace(network, layers={**network.layers, name: dataclasses.replace(layer, biases=biases)})
    other = Bench(assembly_of(changed, 2), bench.folder)
    value = dict((node.name, v) for node, v in network.trace(images[:2]))[name][0, 2, 0, 0]
    with pytest.raises(Difference, match=rf"image 0, {name}, pixel \(0, 0\), channel 2: {value}, not {value + 1} "):
        other.run(images[:2], np.zeros(2))


def test_a_simulation_that_ends_early_is_no_success(bench, images, tmp_path):
    program = tmp_path / "obj" / "Vtop"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\necho image 0 10\n")
    program.chmod(0o755)
    with pytest.raises(RunError, match="the simulation ended behind 1 of 2 images"):
        Bench(bench.assembly, tmp_path).run(images[:2], np.zeros(2))


def test_a_shortcuts_fifo_is_needed(images, tmp_path):
    """With half of it the network must stop: what it holds is not there by chance."""
    assembly = assembly_of(made("residual"), 2)
    assert assembly.fifos
    for name in assembly.fifos:
        kind, parameters = assembly.blocks[name]
        assert kind is Fifo
        assembly.blocks[name] = kind, {**parameters, "depth": parameters["depth"] // 2}
    bench = Bench(assembly, tmp_path)
    bench.build()
    with pytest.raises(Difference, match="no image left"):
        bench.run(images[:1], np.zeros(1))


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
    (["--cycles", "100"], "--cycles must be at least 576, not 100: layer conv takes 576 with 6 of its 6 outputs at a "
                          "time"),
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
