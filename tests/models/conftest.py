# SPDX-License-Identifier: Apache-2.0
"""Small networks that the tests of the models share."""

import pytest

from bmhw.models.networks.architecture import Builder
from bmhw.models.operators.precision import POWERS, VARIABLE
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


@pytest.fixture(params=POWERS)
def powers(request, monkeypatch):
    """The test in each precision of powers, whatever the processor has instructions for."""
    monkeypatch.setenv(VARIABLE, request.param)
    return request.param
