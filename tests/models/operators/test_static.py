# SPDX-License-Identifier: Apache-2.0
"""What a graph of a GPU's kernels can hold: no operator looks at a value on the host or has results of other shapes."""

import functools

import pytest
import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from bmhw.models.networks.network import Network
from bmhw.models.operators import max_product, smoothed
from bmhw.models.operators.max_product import max_product_difference
from bmhw.models.operators.smoothed import norm_difference, smoothed_gradient_difference

DIFFERENCES = {
    "maxima": max_product_difference,
    "norms": functools.partial(norm_difference, p=8.0),
    "both": functools.partial(smoothed_gradient_difference, p=8.0),
}


def step(architecture, layout, groups, difference, known=True):
    """Forward and backward on tensors that have shapes and nothing else."""
    with FakeTensorMode():
        network = Network(architecture, architecture.layouts(layout), groups).train()
        for name in network.layouts:
            network.steps[name].training_difference = difference
            if not known:
                network.steps[name].nonnegative = None
        network(torch.empty(4, *architecture.image.shape)).sum().backward()
        assert all(parameter.grad.shape == parameter.shape for parameter in network.parameters())


@pytest.fixture(autouse=True)
def plain(monkeypatch):
    """What is compiled for a CPU takes addresses of numbers, of which there are none."""
    monkeypatch.setattr(smoothed, "_steps", lambda x, w: smoothed._Plain)
    monkeypatch.setattr(
        max_product, "IMPLEMENTATIONS", {name: max_product.IMPLEMENTATIONS["plain"] for name in ("native", "plain")}
    )


@pytest.mark.parametrize("groups", [1, 4])
@pytest.mark.parametrize("layout", ["auto", "signed", "wired"])
@pytest.mark.parametrize("difference", DIFFERENCES.values(), ids=DIFFERENCES)
def test_a_step_of_training_looks_at_no_value(tiny_architecture, layout, groups, difference):
    step(tiny_architecture, layout, groups, difference)


def test_it_would_be_seen(tiny_architecture):
    """A layer that isn't told whether its inputs are >= 0 looks."""
    with pytest.raises(DataDependentOutputException):
        step(tiny_architecture, "signed", 4, DIFFERENCES["norms"], known=False)
