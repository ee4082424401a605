# SPDX-License-Identifier: Apache-2.0
"""The kernels for a GPU, run by Triton's interpreter on a CPU, against PyTorch's plain ones."""

import importlib
import importlib.util
import platform
import sys
from types import SimpleNamespace

import pytest
import torch
from support.networks import norm_errors

from bmhw.models.operators import max_product as operators
from bmhw.models.operators import smoothed

HAS_WHEELS = sys.platform == "linux" and platform.machine() == "x86_64"  # as the extra "test" in pyproject.toml


@pytest.fixture(scope="module")
def kernels():
    if importlib.util.find_spec("triton") is None and not HAS_WHEELS:
        pytest.skip("Triton has no wheel for this platform")
    importlib.import_module("triton.language")  # as PyTorch may have done: its own kernels aren't interpreted then
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRITON_INTERPRET", "1")  # read when a kernel is defined
        yield importlib.import_module("bmhw.models.operators.triton_kernels")


# batch, channels, height, width, outputs, kernel, stride, padding, groups: more pixels than a program has, more
# outputs, windows that leave the image
SHAPES = [
    (2, 3, 9, 11, 5, 3, 1, 1, 1), (3, 2, 9, 8, 6, 3, 2, 1, 1), (1, 1, 1, 1, 1, 1, 1, 0, 1),
    (2, 5, 4, 4, 35, 2, 1, 0, 1), (2, 4, 9, 8, 5, 3, 2, 1, 2), (1, 6, 4, 4, 35, 1, 1, 0, 3),
]  # fmt: skip


@pytest.mark.parametrize("pairs", [False, True], ids=["maxima", "differences"])
@pytest.mark.parametrize("shape", SHAPES)
def test_values_and_winners_are_those_of_the_plain_operator(kernels, shape, pairs):
    batch, channels, height, width, outputs, kernel, *settings = shape
    generator = torch.Generator().manual_seed(3)
    for tied in (False, True):
        x = torch.randn(batch, channels, height, width, generator=generator)
        w = torch.randn(outputs * (1 + pairs), channels, kernel, kernel, generator=generator)
        if tied:  # few values, many equal products
            x, w = (2 * x).round(), (2 * w).round()
        values, winners = operators.plain_forward(x, w, *settings, pairs)
        # in any order of memory
        x = x.contiguous(memory_format=torch.channels_last)
        found, found_winners = kernels.forward(x, w, *settings, pairs)
        assert torch.equal(found, values) and torch.equal(found_winners, winners)
        found, none = kernels.forward(x, w, *settings, pairs, wanted=False)
        assert torch.equal(found, values) and none is None


@pytest.mark.parametrize("p", [1.0, 1.01, 2.7, 16.0])
@pytest.mark.parametrize("kernel", [3, 1], ids=["convolution", "product of matrices"])
@pytest.mark.parametrize("groups", [1, 4])
def test_norms_and_gradients_are_those_of_the_plain_steps(kernels, monkeypatch, p, kernel, groups, powers):
    """Both in one precision: each is as far from the exact result as ``norm_errors`` says, so that they are twice as
    far from each other; errors of sums relative to the sum of their terms' magnitudes."""
    generator = torch.Generator().manual_seed(2)
    # more elements than a program has, and a rest; the second image is 0 everywhere
    x = 0.3 + 0.7 * torch.rand(3, 20, 9, 9, generator=generator)
    x *= torch.rand(x.shape, generator=generator) < 0.6
    x[1] = 0
    x.requires_grad_()
    w = 0.3 + 0.7 * torch.rand(2, 37, 20, kernel, kernel, generator=generator)
    w = torch.where(torch.rand(w.shape, generator=generator) < 0.5, -w, w).requires_grad_()
    direction = torch.randn(3, 37, 9, 9, generator=generator)

    def results(steps, w, direction):
        monkeypatch.setattr(smoothed, "_steps", lambda x, w: steps)
        y = smoothed.norm_difference(x, w, 1, kernel // 2, groups, p=p)
        return y.detach(), *torch.autograd.grad(y, (x, w), direction)

    ours, expected = (results(steps, w, direction) for steps in (kernels.TritonNorm, smoothed._Plain))
    none = torch.zeros_like(w[0])
    sides = [results(smoothed._Plain, torch.stack([side, none]), direction.abs()) for side in w]
    magnitudes = [a + b for a, b in zip(*sides, strict=True)]
    magnitudes[2] = torch.stack([sides[0][2][0], sides[1][2][0]])
    value, gradient = norm_errors(powers, p)
    for a, b, terms, error in zip(ours, expected, magnitudes, (value, gradient, gradient), strict=True):
        assert ((a - b).abs() <= 2 * error * terms).all() and terms.any()
    assert (ours[0][1] == 0).all()


@pytest.mark.parametrize("is_cuda, dtype", [(False, torch.float32), (True, torch.float64), (True, torch.float32)])
def test_they_are_for_float32_on_a_gpu(kernels, is_cuda, dtype):
    expected = is_cuda and dtype == torch.float32
    x = SimpleNamespace(is_cuda=is_cuda, dtype=dtype, device=torch.device("cuda" if is_cuda else "meta"))
    assert operators.triton_suits(x) == expected
    assert smoothed._steps(x, x) is (kernels.TritonNorm if expected else smoothed._Plain)
