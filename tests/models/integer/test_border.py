# SPDX-License-Identifier: Apache-2.0
"""Layers that pad the image with a pixel of their own: floating point, folded, integers, files, neurons."""

import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as functional
from support.networks import random_network

from bmhw.models import ModelError, load
from bmhw.models.files.float_weights import half_precision, load_float, save_float
from bmhw.models.files.store import save
from bmhw.models.integer.fold import fold
from bmhw.models.integer.layer_errors import layer_errors
from bmhw.models.integer.quantise import Quantisation
from bmhw.models.networks.architecture import Architecture, Builder
from bmhw.models.networks.network import Network

BORDER = (76.8, 200.5)
"""Pixels of two channels; as codes 77 and 201 (halves up)."""
LAYOUTS = ["auto", "signed", "wired", "mac"]


@pytest.fixture(scope="module")
def architecture():
    """Two layers that pad the image, one that reads it and doesn't, and one that pads something else."""
    net = Builder(2, 8, 8)
    stream = net.norm(net.add("sum", net.conv("stem", "image", 4, 3), net.conv("wide", "image", 4, 5)))
    stream = net.add("sum2", net.conv("inner", stream, 4, 3), net.conv("point", "image", 4, 1))
    net.dense("dense", net.pool(net.norm(stream)), 10)
    return net.build().with_border(BORDER)


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(4).integers(0, 256, (30, 2, 8, 8)).astype(np.uint8)


def test_only_layers_that_pad_the_image_have_a_border(architecture):
    assert {node.name: node.border for node in architecture.nodes if node.border} == {"stem": BORDER, "wide": BORDER}
    assert architecture["stem"].border_codes == (77, 201)


def test_a_classical_layer_pads_with_its_border(architecture, images):
    layer = random_network(architecture, architecture.layouts("mac")).steps["stem"]
    x = torch.tensor(images).float() / 256
    border = torch.tensor(BORDER).view(1, -1, 1, 1) / 256
    # the same by another way: what is above the border, padded with zeros, and the border's own share
    with torch.no_grad():
        expected = functional.conv2d(x - border, layer.weight, padding=1)
        expected += (layer.weight * border).sum(dim=(1, 2, 3)).view(-1, 1, 1) + layer.bias.view(-1, 1, 1)
        torch.testing.assert_close(layer(x), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_border_goes_all_the_way_to_the_integers(architecture, images, layout, tmp_path):
    """Floating point = folded; codes of the trained network = integers = each neuron's format = those out of files."""
    network = random_network(architecture, architecture.layouts(layout))
    result, pixels = fold(network, torch.tensor(images).float() / 256, Quantisation()), torch.tensor(images).float()
    result.quantised = False
    with torch.no_grad():
        torch.testing.assert_close(result(pixels), network(pixels / 256), rtol=1e-4, atol=1e-5)
        result.quantised = True
        values = result.trace(pixels)
    integer = result.to_integer("bordered", images)
    for node, value in integer.trace(images):
        assert np.array_equal(value, values[node.name].numpy()), node.name
    for name in ("stem", "wide", "point"):
        layer = integer.layers[name]
        # as if the image were larger by the pixels of the border: nothing but pixels enters a neuron
        p = layer.node.padding
        around = np.stack([np.pad(images[:, c], ((0, 0), (p, p), (p, p)), constant_values=code)
                           for c, code in enumerate((77, 201) if p else (0, 0))], axis=1)
        x = layer.inputs(around.astype(np.int64))
        assert np.array_equal(layer.padded(layer.inputs(images.astype(np.int64))), x)
        vectors = integer.neuron_vectors(name, 1, 500)  # checks the outputs against the neuron's format
        columns = {tuple(column) for column in layer.patches(x)[layer.slots(1)].T}
        assert {tuple(row) for row in vectors.inputs["x"]} <= columns
    card = {"float_weights": save_float("bordered", tmp_path, {"classical": random_network(
        architecture, architecture.layouts("mac")), "bm": network})}
    again = load(save(integer, tmp_path, card))
    assert again.architecture == architecture
    assert np.array_equal(again.logits(images), integer.logits(images))
    floats = load_float(tmp_path / "bordered.json")
    with torch.no_grad():
        assert torch.equal(floats["bm"](pixels / 256), half_precision(network)(pixels / 256))
    errors = {entry["layer"]: entry["own_error"] for entry in layer_errors(integer, floats["bm"], images)}
    assert max(errors["stem"], errors["wide"]) < 5  # in per cent of the outputs


def test_without_a_border_files_are_as_they_were(tiny_architecture):
    assert all("border" not in node for node in tiny_architecture.to_list())
    assert tiny_architecture.with_border(()) is tiny_architecture


@pytest.mark.parametrize(("border", "message"), [
    ([300.0, 1.0], "from 0 to 255, not 300"),
    ([float("nan"), 1.0], "from 0 to 255, not nan"),
    (["1", 1.0], "from 0 to 255, not '1'"),
    ([1.0], "must have 2 values, not 1"),
])  # fmt: skip
def test_a_border_that_is_none(architecture, border, message):
    nodes = architecture.to_list()
    next(node for node in nodes if node["name"] == "stem")["border"] = border
    with pytest.raises(ModelError, match=message):
        Architecture.from_list(nodes)
    with pytest.raises(ModelError, match="doesn't pad the image"):
        nodes = [dataclasses.replace(node, border=(1.0,) * 4) if node.name == "inner" else node
                 for node in architecture.nodes]
        Architecture(tuple(nodes))


def test_bm_layers_without_a_classical_start(architecture):
    network = Network(architecture, architecture.layouts("auto"))
    assert network.steps["stem"].border is not None and network.steps["inner"].border is None
