# SPDX-License-Identifier: Apache-2.0
"""Architectures: the paper's network, layouts by the sign of the inputs, and what isn't one."""

import json

import pytest

from bmhw.models.errors import ModelError
from bmhw.models.networks.architecture import ARCHITECTURES, Architecture, Builder, lenet, resnet_v2


def test_resnet20_is_the_papers_network():
    net = resnet_v2(1, 28)
    convolutions = [node for node in net.layers if node.operation == "conv"]
    described = [
        (node.kernel[0], net[node.inputs[0]].channels, node.channels, node.stride) for node in convolutions
    ]
    assert len(described) == 22
    assert described[:5] == [(3, 1, 16, 1), (1, 16, 16, 1), (3, 16, 16, 1), (1, 16, 64, 1), (1, 16, 64, 1)]
    assert described[8:12] == [(1, 64, 64, 2), (3, 64, 64, 1), (1, 64, 128, 1), (1, 64, 128, 2)]
    assert described[-3:] == [(1, 256, 128, 1), (3, 128, 128, 1), (1, 128, 256, 1)]
    products = sum(net.fan_in(node) * node.channels * node.height * node.width for node in net.layers)
    assert round(products / 1e6, 1) == 50.5


def test_resnet20_has_the_parameters_that_keras_prints():
    """574,090 for 32x32 colour images: weights, biases, and four constants a normalised channel."""
    net = resnet_v2(3, 32)
    layers = sum((net.fan_in(node) + 1) * node.channels for node in net.layers)
    assert layers + sum(4 * node.channels for node in net.nodes if node.operation == "norm") == 574_090


def test_layouts_follow_the_sign_of_the_inputs():
    layouts = resnet_v2(3, 32).layouts()
    signed = {name for name, layout in layouts.items() if layout == "bipolar"}
    assert signed == {"stage1_block0_shortcut", "stage2_block0_shortcut"}
    assert set(layouts.values()) == {"relu", "bipolar"}
    wired = resnet_v2(3, 32).layouts("wired")
    assert {name for name, layout in wired.items() if layout == "signed"} == {"stem", *signed}  # the stem has 27 inputs
    assert set(wired.values()) == {"wired", "signed"}
    assert set(lenet(1, 28).layouts().values()) == {"relu"}
    assert set(lenet(1, 28).layouts("signed", {"dense3": "mac"}).items()) >= {("conv1", "signed"), ("dense3", "mac")}


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_list_of_plain_values_gives_the_architecture_back(name):
    net = ARCHITECTURES[name](3, 32)
    assert Architecture.from_list(json.loads(json.dumps(net.to_list()))) == net


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"operation": "attention"}, "must be one of"),
        ({"channels": 7}, "Shape of node"),
        ({"inputs": ["nothing"]}, "reads 'nothing'"),
        ({"inputs": ["image", "image"]}, "must have 1 inputs"),
        ({"name": "image"}, "used twice"),
        ({"colour": 1}, "can't be read"),
    ],
)
def test_a_wrong_architecture_is_refused(change, message):
    nodes = lenet(1, 28).to_list()
    nodes[2] |= change
    with pytest.raises(ModelError, match=message):
        Architecture.from_list(nodes)


def test_unknown_layouts_and_layers_are_refused():
    net = Builder(1, 4, 4)
    net.dense("dense", "image", 2)
    with pytest.raises(ModelError, match="must be one of auto, signed, wired, mac, not 'both'"):
        net.build().layouts("both")
    with pytest.raises(ModelError, match="must be one of dense, not 'last'"):
        net.build().layouts("auto", {"last": "mac"})
    signed_inputs = next(name for name, layout in resnet_v2(3, 32).layouts().items() if layout == "bipolar")
    for layout in ("relu", "wired"):
        with pytest.raises(ModelError, match=f"{signed_inputs} can't be {layout}: its inputs may be below 0"):
            resnet_v2(3, 32).layouts("signed", {signed_inputs: layout})
