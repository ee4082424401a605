# SPDX-License-Identifier: Apache-2.0
"""The maximum-of-products operator in every implementation, and the layers that are built on it."""

import shutil

import pytest
import torch

from bmhw.models.networks.layers import BmConv2d, BmLinear
from bmhw.models.operators import native
from bmhw.models.operators.max_product import IMPLEMENTATIONS, max_product, max_product_difference

# batch, channels, height, width, outputs, kernel, stride, padding, groups
SHAPES = [
    (2, 3, 7, 9, 5, 3, 1, 1, 1),
    (1, 1, 1, 1, 1, 1, 1, 0, 1),
    (3, 17, 6, 6, 9, 1, 1, 0, 1),
    (2, 4, 9, 8, 6, 3, 2, 1, 1),
    (2, 8, 8, 8, 33, 5, 1, 0, 1),
    (4, 5, 4, 4, 10, 4, 1, 0, 1),
    (2, 3, 7, 9, 5, 3, 1, 1, 3),
    (3, 16, 6, 6, 9, 1, 1, 0, 4),
    (2, 8, 9, 8, 6, 3, 2, 1, 2),
    (2, 8, 8, 8, 33, 5, 1, 0, 8),
    (2, 4, 9, 8, 6, 1, 2, 0, 1),
    (2, 4, 9, 8, 6, 1, 2, 0, 2),
    (2, 6, 17, 18, 5, 1, 1, 0, 3),  # as many positions as it takes to go tap by tap, and a rest
]


def tensors(shape, dtype=torch.float32, seed=1):
    """x with zeros as behind a ReLU, w of both signs; distinct products almost surely."""
    batch, channels, height, width, outputs, kernel, *settings = shape
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(batch, channels, height, width, generator=generator, dtype=dtype).relu()
    w = torch.randn(outputs, channels, kernel, kernel, generator=generator, dtype=dtype)
    return x, w, *settings


def products(x, w, stride, padding, groups):
    """(batch, outputs, groups, taps of a group, positions)"""
    patches = torch.nn.functional.unfold(x, w.shape[2:], padding=padding, stride=stride)
    return (patches[:, None] * w.flatten(1)[None, :, :, None]).unflatten(2, (groups, -1))


def by_definition(x, w, stride, padding, groups):
    values = products(x, w, stride, padding, groups).amax(dim=3).flatten(1, 2)
    values = torch.where(values > 0, values, 0)
    height = (x.shape[2] + 2 * padding - w.shape[2]) // stride + 1
    return values.unflatten(2, (height, -1))


def difference_by_definition(x, pair, *settings):
    first, second = (by_definition(x, w, *settings).unflatten(1, (-1, settings[-1])) for w in pair)
    return (first - second).sum(dim=2)


# Triton's kernels are tested in test_triton_kernels.py
@pytest.mark.parametrize("name", [name for name in IMPLEMENTATIONS if name != "triton"])
@pytest.mark.parametrize("shape", SHAPES)
class TestImplementations:
    def check_available(self, name, x, w):
        if not IMPLEMENTATIONS[name].suits(x, w):
            assert shutil.which("g++") is None, native.unavailable_reason()
            pytest.skip("no C++ compiler")

    def test_values(self, name, shape):
        x, w, *settings = tensors(shape)
        self.check_available(name, x, w)
        assert torch.equal(max_product(x, w, *settings, implementation=name), by_definition(x, w, *settings))

    def test_winners_name_the_first_of_the_largest_products(self, name, shape):
        x, w, *settings = tensors(shape)
        self.check_available(name, x, w)
        x, w = (x * 2).round(), (w * 2).round()  # many ties
        _values, winners = IMPLEMENTATIONS[name].forward(x, w, *settings, False)
        each = products(x, w, *settings).double()
        taps = torch.arange(w[0].numel()).view(each.shape[2], -1)  # of each group
        first = each.sub(taps[..., None] * 1e-9).argmax(dim=3) + taps[:, :1]
        expected = torch.where(each.amax(dim=3) > 0, first, -1)
        assert torch.equal(winners.flatten(2).long(), expected.flatten(1, 2))

    def test_gradients_equal_automatic_differentiation(self, name, shape):
        x, w, *settings = tensors(shape)
        self.check_available(name, x, w)
        x, w = x.requires_grad_(), w.requires_grad_()
        direction = torch.randn_like(by_definition(x, w, *settings))
        expected = torch.autograd.grad(by_definition(x, w, *settings), (x, w), direction)
        found = torch.autograd.grad(max_product(x, w, *settings, implementation=name), (x, w), direction)
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)

    def test_differences_of_two_maxima(self, name, shape):
        x, w, *settings = tensors(shape)
        self.check_available(name, x, w)
        pair = torch.stack([w, -w]).requires_grad_()
        x = (x - 0.3).requires_grad_()  # signed inputs
        found = max_product_difference(x, pair, *settings, implementation=name)
        expected = difference_by_definition(x, pair, *settings)
        torch.testing.assert_close(found, expected)
        # the groups' differences are added in one order everywhere
        assert torch.equal(found, max_product_difference(x, pair, *settings, implementation="plain"))
        direction = torch.randn_like(expected)
        for one, other in zip(
            torch.autograd.grad(found, (x, pair), direction),
            torch.autograd.grad(expected, (x, pair), direction),
            strict=True,
        ):
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("groups", [0, 2, 6])
def test_groups_that_do_not_divide_the_channels_are_refused(groups):
    with pytest.raises(ValueError, match=f"Groups must divide the 3 channels, which {groups} doesn't"):
        max_product(torch.rand(1, 3, 2, 2), torch.rand(1, 3, 1, 1), groups=groups)


@pytest.mark.parametrize("shape", [*SHAPES[:4], SHAPES[6]])
def test_gradcheck_away_from_ties(shape):
    x, w, *settings = tensors(shape, torch.float64)
    x = x + 0.1  # away from products of 0
    assert torch.autograd.gradcheck(
        lambda x, w: max_product(x, w, *settings, implementation="plain"), (x.requires_grad_(), w.requires_grad_())
    )


@pytest.mark.parametrize("layout", ["relu", "signed", "bipolar"])
@pytest.mark.parametrize("kernel", [1, 3])
def test_layers_are_the_papers_equation(layout, kernel):
    """Against exponentials of maxima of logarithms (arXiv 2009.07190, equation 3), window by window."""
    torch.manual_seed(0)
    layer = BmConv2d(3, 4, kernel, padding=kernel // 2, layout=layout).double()
    torch.nn.init.normal_(layer.bias)
    torch.nn.init.normal_(layer.weight)
    x = torch.randn(2, 3, 5, 5, dtype=torch.float64)
    x = x.abs() if layout == "relu" else x
    patches = torch.nn.functional.unfold(x, kernel, padding=kernel // 2)[:, None]
    weight = layer.weight.detach()
    w1, w2 = (weight.clamp(min=0), (-weight).clamp(min=0)) if layout == "signed" else weight.abs()
    k1, k2 = (torch.log(w.flatten(1))[None, :, :, None] for w in (w1, w2))
    plus, minus = (torch.log(side.clamp(min=0)) for side in (patches, -patches))

    def term(x, k):
        return torch.exp((x + k).amax(dim=2))

    if layout == "signed":
        first = torch.maximum(term(plus, k1), term(minus, k2))
        second = torch.maximum(term(plus, k2), term(minus, k1))
        expected = first - second
    else:
        expected = term(plus, k1) - term(plus, k2) - term(minus, k1) + term(minus, k2)
    expected = expected.view(2, 4, 5, 5) + layer.bias.detach().view(-1, 1, 1)
    torch.testing.assert_close(layer(x).detach(), expected)


@pytest.mark.parametrize("layout", ["relu", "signed", "bipolar"])
def test_conversion_keeps_a_neuron_of_one_input(layout):
    """With one input a maximum is a sum: the converted layer is the classical one."""
    torch.manual_seed(0)
    classical = torch.nn.Linear(1, 6)
    layer = BmLinear(1, 6, layout=layout)
    layer.load_classical(classical.weight, classical.bias)
    x = torch.randn(20, 1)
    x = x.abs() if layout == "relu" else x
    torch.testing.assert_close(layer(x), classical(x), rtol=1e-5, atol=1e-5)


def test_an_unknown_layout_is_refused():
    with pytest.raises(ValueError, match="must be one of bipolar, relu, signed, wired, not 'both'"):
        BmConv2d(1, 1, 1, layout="both")
