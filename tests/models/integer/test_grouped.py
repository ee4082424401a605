# SPDX-License-Identifier: Apache-2.0
"""Networks with groups in integers: codes handed on, encoders, scales that move, files, the neurons' hardware."""

import dataclasses

import numpy as np
import pytest
import torch
from support.networks import random_network, reached_by_a_step
from support.simulation import packed_vectors, simulate

from bmhw.hdl.formats.bm import BmFormat
from bmhw.hdl.neurons.design import Design
from bmhw.hdl.neurons.neuron import create_neuron
from bmhw.models import ModelError, load
from bmhw.models.files.store import save
from bmhw.models.integer.fold import fold
from bmhw.models.integer.layer_errors import layer_errors
from bmhw.models.integer.quantise import FoldedLayer, Quantisation
from bmhw.models.networks.groups import GroupInputs

LAYOUTS = ("auto", "signed", "wired")
QUANTISATION = Quantisation(groups=2, log_bits=4, log_fraction=2, edge_bits=8)
BY_INPUTS = dataclasses.replace(QUANTISATION, groups=GroupInputs(18))
SEED = 20090719


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(3).integers(0, 256, (40, 1, 8, 8)).astype(np.uint8)


def folded(architecture, layout, images, quantisation=QUANTISATION):
    network = random_network(architecture, architecture.layouts(layout), groups=quantisation.groups)
    return network, fold(network, torch.tensor(images).float() / 256, quantisation)


def same_integers(network, integer, images):
    with torch.no_grad():
        values = network.trace(torch.tensor(images).float())
    for node, value in integer.trace(images):
        found = values[node.name].numpy()
        layer = integer.layers.get(node.inputs[0] if node.operation == "norm" else node.name)
        if layer is not None and layer.gives_codes:
            found = layer.format.activation.encode(found)
        assert np.array_equal(value, found), node.name


def moved(network, seed=0):
    """The network with other scales of its codes, up to an octave, some of them by less than a step."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.endswith("octaves"):
                parameter += 2 * torch.rand((), generator=generator) - 1
    return network


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layers_hand_on_codes_and_the_stream_is_encoded(tiny_architecture, layout, images):
    _network, result = folded(tiny_architecture, layout, images)
    layers = result.to_integer("tiny", images).layers
    assert {name for name, layer in layers.items() if layer.gives_codes} == {"first"}
    # the first layer has wider codes than its readers, so that what it gives is encoded for these
    assert set(result.encoders) == {"stem_norm", "sum", "sum2_relu_pool"}
    assert {name for name, layer in layers.items() if not layer.takes_codes} == {"stem"}
    found = {name: (layer.format.groups, layer.format.log_bits) for name, layer in layers.items()}
    assert found == {"stem": (1, 8), "first": (2, 4), "inner": (1, 4), "shortcut": (2, 4), "signed_inputs": (2, 4),
                     "dense": (2, 8)}
    assert {layer.format.zero for layer in layers.values()} == {"exact"}
    assert layers["first"].format.combine == "linear"


@pytest.mark.parametrize("layout", LAYOUTS)
def test_groups_of_inputs(tiny_architecture, layout, images):
    """Each layer has its own number, the network codes as with any, whatever layers have but one group."""
    _network, result = folded(tiny_architecture, layout, images, BY_INPUTS)
    integer = result.to_integer("tiny", images)
    found = {name: (layer.format.groups, layer.format.group_inputs, layer.format.zero, layer.takes_codes)
             for name, layer in integer.layers.items()}
    assert found == {"stem": (1, 9, "exact", False), "first": (1, 4, "exact", True), "inner": (1, 45, "exact", True),
                     "shortcut": (1, 4, "exact", True), "signed_inputs": (3, 18, "exact", True),
                     "dense": (1, 24, "exact", True)}
    assert set(result.encoders) == {"stem_norm", "sum", "sum2_relu_pool"}


@pytest.mark.parametrize(("sums", "groups"), [("full", 2), ("clamped", 2), ("clamped", BY_INPUTS.groups)])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_moved_scales_give_the_same_integers(tiny_architecture, layout, sums, groups, images):
    quantisation = dataclasses.replace(QUANTISATION, sums=sums, groups=groups)
    _network, result = folded(tiny_architecture, layout, images, quantisation)
    before = result.to_integer("tiny", images)
    integer = moved(result).to_integer("tiny", images)
    assert integer.layers["first"].format.offset != before.layers["first"].format.offset
    for name, encoder in integer.encoders.items():  # to whole steps, halves up
        steps = result.encoders[name].end.octaves.item() * (1 << encoder.end.log.fraction)
        assert encoder.end.offset == np.floor(steps + 0.5)
    same_integers(result, integer, images)


def test_scales_move_without_changing_the_function(tiny_architecture, images):
    """Codes of many bits, of which none saturates: what the readers make good, in their ends or in their weights."""
    quantisation = Quantisation(groups=2, bits=12, log_bits=10)
    _network, result = folded(tiny_architecture, "auto", images, quantisation)
    result = result.double()
    pixels = torch.tensor(images).double()
    octaves = {name: parameter for name, parameter in result.named_parameters() if name.endswith("octaves")}
    assert len(octaves) == 4
    with torch.no_grad():
        for step in result.steps.values():
            if isinstance(step, FoldedLayer) and step.takes_codes and step.end is None:
                step.weight *= 0.25  # room for larger weights
        for parameter in octaves.values():
            parameter -= 0.5  # larger scales
        near = result(pixels)
        for parameter in octaves.values():
            parameter -= 1
        far = result(pixels)
    spread = near - near.mean(dim=0)
    # a step is 1.1 %, and each of five layers rounds its inputs and weights by half of one at most
    assert float((far - near).norm() / spread.norm()) < 0.05


@pytest.mark.parametrize("gradient_norm", [None, 8.0])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_step_reaches_every_parameter(tiny_architecture, layout, gradient_norm, images):
    _network, result = folded(tiny_architecture, layout, images)
    pixels = torch.tensor(images).float()
    assert reached_by_a_step(result, pixels, gradient_norm) == {name for name, _ in result.named_parameters()}


def test_only_what_saturates_moves_a_scale(tiny_architecture, images):
    """The gradient of an offset is 0 where the layer behind makes good what it changes."""
    _network, result = folded(tiny_architecture, "auto", images)
    encoder, first = result.encoders["stem_norm"], result.steps["first"]
    with torch.no_grad():
        first.end.octaves.fill_(-2)
        first.end.fine.zero_()
        first.biases[0].fill_(0.25)
        first.weight.fill_(0.25)
        first.weight[0] = 0.5
    gradients = []
    for octaves in (-1, 1):
        y = torch.exp2(encoder.shift + encoder.end.end.out_fraction - encoder.end.fine / 4 + octaves).view(1, -1, 1, 1)
        values = first(encoder(y), moved=encoder.end.moved)
        assert ((values > 0) & (values < 1)).all()
        gradients.append(float(torch.autograd.grad(values.sum(), encoder.end.octaves)[0]))
    # larger is the scale, larger is what saturates: a smaller offset
    # 32 channels and maxima of float32, whose shares of either sign cancel up to the last of their bits
    assert abs(gradients[0]) < 32 * 2.0**-20 * abs(gradients[1]) and gradients[1] < 0


@pytest.mark.parametrize("layout", LAYOUTS)
def test_files_keep_the_network(tiny_architecture, layout, images, tmp_path):
    _network, result = folded(tiny_architecture, layout, images)
    integer = moved(result).to_integer("tiny", images)
    again = load(save(integer, tmp_path, {}))
    assert np.array_equal(again.logits(images), integer.logits(images))
    assert {name: layer.format for name, layer in again.layers.items()} == {
        name: layer.format for name, layer in integer.layers.items()}
    assert again.card["layers"]["first"]["groups"] == 2 and again.card["layers"]["first"]["zero"] == "exact"
    (tmp_path / "broken.json").write_text((tmp_path / "tiny.json").read_text().replace('"reach": 2', '"reach": -1'))
    with pytest.raises(ModelError, match=r"Encoder of node stem_norm in broken.json: Octaves above 1 .* not -1"):
        load(tmp_path / "broken.json")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_vectors_and_the_neuron_in_floating_point(tiny_architecture, layout, images):
    _network, result = folded(tiny_architecture, layout, images, Quantisation(groups=2))
    integer = result.to_integer("tiny", images)
    for name, layer in integer.layers.items():
        errors, size = [], 0
        for channel in range(layer.channels):
            vectors = integer.neuron_vectors(name, channel, 200, seed=SEED)  # compares with the format's compute
            inside = vectors.expected < vectors.format.output[1].maximum
            inside &= (vectors.expected > 0) if layer.gives_codes else True
            errors.append(np.abs(vectors.expected - vectors.real)[inside])
            size = max(size, np.abs(vectors.real).max())
        error = np.median(np.concatenate(errors))
        assert error <= (1.5 if layer.gives_codes else 0.05 * size), name


def test_fraction_bits_are_those_of_all_layers(tiny_architecture, images):
    """A residual sum has those of the finest layer that it adds: one with its own would widen all of the stream."""
    quantisation = Quantisation(groups=2, log_bits=4, log_fraction=2, edge_bits=8, out_fraction=7)
    integer = folded(tiny_architecture, "signed", images, quantisation)[1].to_integer("tiny", images)
    assert {layer.format.out_fraction for layer in integer.layers.values()} == {7}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_other_widths_afterwards(tiny_architecture, layout, images):
    _network, result = folded(tiny_architecture, layout, images, Quantisation(groups=2, log_bits=6, edge_bits=8))
    integer = result.to_integer("tiny", images)
    narrow = integer.with_log_bits(5)
    assert {layer.format.log_bits for layer in narrow.layers.values()} == {5, 8}  # the edges keep theirs
    coarse = integer.with_maximum_bits(5).with_out_fraction(9)
    for network in (narrow, coarse):
        assert network.logits(images).shape == (40, 10)
        for name in network.layers:
            network.neuron_vectors(name, 2, 50)
    # 8 bits of fraction more than a code of 6 bits shows
    same = np.mean(integer.with_out_fraction(12).classify(images) == integer.classify(images))
    assert same >= 0.9
    entries = layer_errors(integer, _network, images[:10])
    assert [entry["layer"] for entry in entries] == list(integer.layers)
    assert all(0 < entry["own_error"] < 30 for entry in entries if entry["layer"] != "first")


@pytest.mark.parametrize(("layout", "result", "quantisation"), [
    *((layout, result, QUANTISATION) for layout in LAYOUTS for result in ("code", "linear")),
    pytest.param("signed", "linear", BY_INPUTS, id="signed-linear-of inputs")])  # fmt: skip
def test_hardware_gives_the_networks_integers(tiny_architecture, layout, result, quantisation, images):
    """One neuron of every layer with this result, on real activations."""
    _network, folded_network = folded(tiny_architecture, layout, images, quantisation)
    integer = moved(folded_network).to_integer("tiny", images)
    chosen = [layer for layer in integer.layers.values() if layer.format.result == result]
    for layer in chosen:
        vectors = integer.neuron_vectors(layer.name, layer.channels - 1, 60, seed=SEED)
        name, code = vectors.format.output
        inputs = {port: np.broadcast_to(values, (60, *values.shape[values.ndim - (elements > 1):]))
                  for (port, (_, elements)), values in
                  ((item, vectors.inputs[item[0]]) for item in vectors.format.inputs_of.items())}
        found = np.array(simulate(create_neuron(Design(format=vectors.format)), None,
                                  **packed_vectors(vectors.format, inputs))[name])
        assert np.array_equal(found, vectors.expected & ((1 << code.bits) - 1)), layer.name
    assert chosen and (result == "linear" or isinstance(chosen[0].format, BmFormat))


def test_groups_must_be_the_networks(tiny_architecture, images):
    network = random_network(tiny_architecture, tiny_architecture.layouts("auto"), groups=2)
    for groups, said in ((1, "1"), (GroupInputs(9), "of 9 inputs or more")):
        with pytest.raises(ModelError, match=f"^Groups of the quantisation must be the network's 2, not {said}$"):
            fold(network, torch.tensor(images).float() / 256, Quantisation(groups=groups))


def test_scales_are_those_of_least_error(tiny_architecture, images):
    """No other offset of a layer's codes, and no encoder of another scale, is nearer to the activations."""
    network, result = folded(tiny_architecture, "auto", images)
    values = network.trace(torch.tensor(images).float() / 256)
    first = result.steps["first"]
    assert isinstance(first, FoldedLayer)
    result.quantised = False
    with torch.no_grad():
        real = result.trace(torch.tensor(images).float())["first_norm"]
    gain = values["first_norm"].detach().amax(dim=(0, 2, 3)) / real.amax(dim=(0, 2, 3)).clamp(min=1e-9)
    fmt, errors = first.format, []
    for steps in range(-8, 9):
        code = fmt.activation
        u = real.numpy() * 2.0 ** (steps / 4)
        coded = fmt.value(code, code.encode(u)) * 2.0 ** (-steps / 4)
        errors.append(float((((coded - real.numpy()) * gain.numpy()[None, :, None, None]) ** 2).sum()))
    assert errors.index(min(errors)) == 8
