# SPDX-License-Identifier: Apache-2.0
"""Small networks that the tests of the models share."""

import numpy as np
import pytest

from bmhw.models.networks.architecture import Builder
from bmhw.models.training.datasets import load_dataset


@pytest.fixture(scope="session")
def digits():
    return load_dataset("digits")


@pytest.fixture(scope="session")
def tiny_architecture():
    """Every operation and every sign of inputs in a few neurons: 8x8 images, 4 to 6 channels."""
    net = Builder(1, 8, 8)
    stream = net.norm(net.conv("stem", "image", 4, 3, stride=2))
    x = net.conv("inner", net.norm(net.conv("first", stream, 5, 1, bias=False)), 6, 3)
    stream = net.add("sum", x, net.conv("shortcut", stream, 6, 1))
    stream = net.add("sum2", stream, net.conv("signed_inputs", stream, 6, 3))
    pooled = net.pool(net.relu(stream), 2)
    net.dense("dense", pooled, 10)
    return net.build()


def random_network(architecture, layouts, seed=0):
    """A network with random normalisations, of both signs of gamma."""
    import torch

    from bmhw.models.networks.network import Network, estimate_statistics

    torch.manual_seed(seed)
    network = Network(architecture, layouts)
    for step in network.steps.values():
        if isinstance(step, torch.nn.BatchNorm2d):
            torch.nn.init.normal_(step.weight)
            torch.nn.init.normal_(step.bias)
        elif step.bias is not None:
            torch.nn.init.normal_(step.bias, std=0.1)
    images = np.random.default_rng(seed).integers(0, 256, (64, *architecture.image.shape)) / 256
    estimate_statistics(network, [torch.tensor(images, dtype=torch.float32)])
    return network.eval()
