# SPDX-License-Identifier: Apache-2.0
"""The p-norm in the place of the maximum: values, gradients, both implementations; the methods that use it."""

import copy
import dataclasses

import numpy as np
import pytest
import torch
from support.networks import norm_errors

from bmhw.models.errors import ModelUsageError
from bmhw.models.networks.network import Network, with_classical_weights
from bmhw.models.operators import precision
from bmhw.models.operators.max_product import max_product_difference, straight_through
from bmhw.models.operators.precision import POWERS, VARIABLE, powers_dtype
from bmhw.models.operators.smoothed import _Compiled, norm_difference, smoothed_gradient_difference
from bmhw.models.training.datasets import Dataset
from bmhw.models.training.methods import METHODS, Method, layer_distance
from bmhw.models.training.trainer import Settings, Trainer, accuracy

SIGNS = {"nonnegative": False, "signed": True}


def operands(signed, dtype=torch.float64, seed=0):
    """x (2, 3, 5, 5) and w (2, 4, 3, 3, 3) away from 0; a third of x, or all signs of it, and of w below 0."""
    generator = torch.Generator().manual_seed(seed)

    def numbers(*shape, negative):
        magnitudes = 0.1 + 0.9 * torch.rand(shape, generator=generator, dtype=torch.float64)
        signs = torch.where(torch.rand(shape, generator=generator) < 0.4, -1.0, 1.0)
        return (magnitudes * signs if negative else magnitudes).to(dtype)

    return numbers(2, 3, 5, 5, negative=signed), numbers(2, 4, 3, 3, 3, negative=True)


@pytest.mark.parametrize("signed", SIGNS.values(), ids=SIGNS)
@pytest.mark.parametrize("p", [1.0, 1.5, 4.0, 16.0])
@pytest.mark.parametrize(("stride", "padding"), [(1, 1), (2, 0)])
@pytest.mark.parametrize("groups", [1, 3])
def test_gradient(signed, p, stride, padding, groups):
    inputs = tuple(tensor.requires_grad_() for tensor in operands(signed))
    assert torch.autograd.gradcheck(lambda x, w: norm_difference(x, w, stride, padding, groups, p=p), inputs)


@pytest.mark.parametrize("signed", SIGNS.values(), ids=SIGNS)
@pytest.mark.parametrize(("kernel", "stride", "padding"), [(3, 1, 1), (3, 2, 0), (1, 1, 0), (1, 2, 0)])
def test_groups_are_sums_of_norms_of_their_channels(signed, kernel, stride, padding):
    x, w = operands(signed)
    w = w[..., :kernel, :kernel]
    channels = [slice(group, group + 1) for group in range(3)]
    expected = sum(norm_difference(x[:, part], w[:, :, part], stride, padding, p=4) for part in channels)
    for known in (None, not signed):
        found = norm_difference(x, w, stride, padding, 3, p=4, nonnegative=known)
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("signed", SIGNS.values(), ids=SIGNS)
def test_the_1_norm_of_opposite_weights_is_the_classical_neuron(signed):
    x, w = operands(signed)
    opposite = torch.stack([w[0], -w[0]])
    torch.testing.assert_close(
        norm_difference(x, opposite, 1, 1, p=1), torch.nn.functional.conv2d(x, w[0], padding=1)
    )


@pytest.mark.parametrize("signed", SIGNS.values(), ids=SIGNS)
def test_each_norm_lies_between_the_maximum_and_its_bound(signed):
    """M <= norm <= n^(1/p) M with n = 27 products; the second weight is left out by making it 0."""
    x, w = operands(signed)
    one = torch.stack([w[0], torch.zeros_like(w[0])])
    maximum = max_product_difference(x, one, 1, 1)
    for p in (1, 2, 16, 256):
        norm = norm_difference(x, one, 1, 1, p=p)
        assert (norm >= maximum * (1 - 1e-12)).all() and (norm <= maximum * 27 ** (1 / p) * (1 + 1e-12)).all()


def test_the_exact_value_with_the_gradient_of_the_norm():
    x, w = (tensor.requires_grad_() for tensor in operands(signed=True))
    value = smoothed_gradient_difference(x, w, 1, 1, p=16)
    assert torch.equal(value, max_product_difference(x, w, 1, 1))
    direction = torch.randn(value.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    smooth = norm_difference(x, w, 1, 1, p=16)
    for ours, expected in zip(
        torch.autograd.grad(value, (x, w), direction),
        torch.autograd.grad(smooth, (x, w), direction),
        strict=True,
    ):
        assert torch.equal(ours, expected)


def test_straight_through_is_exact_however_large_the_smooth_value():
    smooth, exact = torch.tensor([1e8, -3.0], requires_grad=True), torch.tensor([0.1, 7.0])
    value = straight_through(smooth, exact)
    assert torch.equal(value, exact)
    assert torch.equal(torch.autograd.grad(value, smooth, torch.tensor([2.0, 5.0]))[0], torch.tensor([2.0, 5.0]))


@pytest.mark.parametrize("p", [1.0, 1.01, 2.7, 16.0])
@pytest.mark.parametrize("compiled", [True, False], ids=["compiled", "plain"])
@pytest.mark.parametrize("kernel", [3, 1], ids=["convolution", "product of matrices"])
@pytest.mark.parametrize(("groups", "stride"), [(1, 1), (2, 1), (2, 2)])
def test_each_precision_is_as_near_as_its_roundings(monkeypatch, p, powers, compiled, kernel, groups, stride):
    """Against PyTorch's powers in float32; errors of sums relative to the sum of their terms' magnitudes."""
    assert _Compiled.available(), "needs a C++ compiler"
    generator = torch.Generator().manual_seed(2)
    # 0, or so large that float32 has the 16th power of each product
    x = 0.3 + 0.7 * torch.rand(3, 4, 9, 9, generator=generator)
    x = (x * (torch.rand(x.shape, generator=generator) < 0.6)).requires_grad_()
    # 37 outputs: whole vector registers of every processor, and a rest
    w = 0.3 + 0.7 * torch.rand(2, 37, 4, kernel, kernel, generator=generator)
    w = torch.where(torch.rand(w.shape, generator=generator) < 0.5, -w, w).requires_grad_()
    size = 9 if stride == 1 else 5
    direction = torch.randn(3, 37, size, size, generator=generator)

    def results(w, direction):
        y = norm_difference(x, w, stride, kernel // 2, groups, p=p)
        return y.detach(), *torch.autograd.grad(y, (x, w), direction)

    monkeypatch.setattr(_Compiled, "available", staticmethod(lambda: compiled))
    ours = results(w, direction)
    monkeypatch.setattr(_Compiled, "available", staticmethod(lambda: False))
    monkeypatch.setenv(VARIABLE, "float32")
    expected = results(w, direction)
    none = torch.zeros_like(w[0])
    sides = [results(torch.stack([side, none]), direction.abs()) for side in w]
    magnitudes = [a + b for a, b in zip(*sides, strict=True)]
    magnitudes[2] = torch.stack([sides[0][2][0], sides[1][2][0]])
    value, gradient = norm_errors(powers, p)
    for a, b, terms, error in zip(ours, expected, magnitudes, (value, gradient, gradient), strict=True):
        assert ((a - b).abs() <= error * terms).all() and terms.any()
    assert powers == "float32" or not torch.equal(ours[0], expected[0])


def test_the_environment_forces_the_precision_of_powers(monkeypatch):
    """Of float32 operands; float64 ones keep theirs."""
    single, double = torch.zeros(1), torch.zeros(1, dtype=torch.float64)
    for supported, usual in ((False, torch.float32), (True, torch.bfloat16)):
        monkeypatch.setattr(precision, "_processor_has_bfloat16", lambda supported=supported: supported)
        for forced, expected in ((None, usual), ("", usual), *POWERS.items()):
            if forced is None:
                monkeypatch.delenv(VARIABLE, raising=False)
            else:
                monkeypatch.setenv(VARIABLE, forced)
            assert powers_dtype(single) == expected and powers_dtype(double) == torch.float64
    monkeypatch.setenv(VARIABLE, "float16")
    with pytest.raises(ModelUsageError, match="BMHW_POWERS must be one of bfloat16, float32, not 'float16'"):
        powers_dtype(single)


def test_where_everything_is_0(monkeypatch):
    x = torch.zeros(2, 3, 5, 5, requires_grad=True)
    w = torch.zeros(2, 4, 3, 3, 3, requires_grad=True)
    for available in (_Compiled.available(), False):
        monkeypatch.setattr(_Compiled, "available", staticmethod(lambda available=available: available))
        for p in (1, 16):
            y = norm_difference(x, w, 1, 1, p=p)
            gradients = torch.autograd.grad(y.sum(), (x, w))
            assert all((tensor == 0).all() for tensor in (y, *gradients))


@pytest.fixture(scope="module")
def data():
    """Three classes that differ in which third of the image is bright."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 260)
    images = rng.integers(0, 60, (260, 1, 8, 8))
    for image, label in zip(images, labels, strict=True):
        image[0, 2 * label : 2 * label + 3] += 150
    images, labels = images.astype(np.uint8), labels.astype(np.int64)
    return Dataset(
        name="thirds",
        description="",
        train_images=images[:200],
        train_labels=labels[:200],
        test_images=images[200:],
        test_labels=labels[200:],
    )


SETTINGS = Settings(
    dataset="thirds",
    architecture="resnet-small",
    layout="signed",
    epochs=(3, 8, 0),
    batch=20,
    validation=20,
    translate=0,
    calibration=50,
)


@pytest.mark.parametrize("name", METHODS)
def test_every_method_learns(name, data, tmp_path):
    trainer = Trainer(dataclasses.replace(SETTINGS, method=name), data, tmp_path)
    trainer.run()
    # a third is chance
    assert accuracy(trainer.models["bm"], data.test_images, data.test_labels) > 70


def test_the_annealed_method_starts_as_the_classical_network_and_ends_with_maxima(tiny_architecture):
    torch.manual_seed(0)
    classical = Network(tiny_architecture, tiny_architecture.layouts("mac")).train()
    images = torch.rand(30, 1, 8, 8)
    method = METHODS["annealed"]
    bm = method.start(classical, tiny_architecture.layouts("signed"), images).double().train()
    twin = copy.deepcopy(classical).double()
    method.prepare(bm, 0.0)
    torch.testing.assert_close(bm(images.double()), twin(images.double()))
    exact = copy.deepcopy(bm)
    for share in (0.5, 1.0):
        method.prepare(bm, share)
        Method().prepare(exact, share)
        torch.testing.assert_close(bm(images.double()), exact(images.double()))
    # validation has maxima at any time
    method.prepare(bm, 0.2)
    torch.testing.assert_close(bm.eval()(images.double()), exact.eval()(images.double()))


def test_layers_become_maxima_one_after_the_other(tiny_architecture):
    torch.manual_seed(0)
    layouts = tiny_architecture.layouts("signed")
    classical = Network(tiny_architecture, tiny_architecture.layouts("mac"))
    network, method, counts = with_classical_weights(classical, layouts), METHODS["layer-by-layer"], []
    for share in np.linspace(0, 1, 50):
        method.prepare(network, share)
        differences = [getattr(step, "training_difference", None) for step in network.steps.values()]
        counts.append(sum(difference is max_product_difference for difference in differences))
    assert counts == sorted(counts) and counts[0] == 1 and counts[-1] == len(tiny_architecture.layers)


def test_the_distance_of_layers(tiny_architecture):
    torch.manual_seed(0)
    network = Network(tiny_architecture, tiny_architecture.layouts("mac")).eval()
    with torch.no_grad():
        values = network.trace(torch.rand(10, 1, 8, 8))
    doubled = {name: 2 * value for name, value in values.items()}
    assert layer_distance(tiny_architecture, values, values) == 0
    assert layer_distance(tiny_architecture, doubled, values) == pytest.approx(1)
