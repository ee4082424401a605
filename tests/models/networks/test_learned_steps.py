# SPDX-License-Identifier: Apache-2.0
"""Learned step sizes: gradients by the paper's equations, integers that compute what training saw."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from bmhw.hdl.formats.codes import LinearCode
from bmhw.hdl.formats.mac import MacFormat
from bmhw.models.networks.architecture import resnet_small
from bmhw.models.networks.layers import BorderedConv2d
from bmhw.models.networks.learned_steps import (
    LearnedStep,
    SteppedConv2d,
    quantised_by_steps,
    rescaling,
    with_learned_steps,
)  # fmt: skip
from bmhw.models.networks.network import Network


def test_values_and_gradients_of_one_step():
    """Steps of 1/2, codes -2..1: below the range, on it, inside, a half, above."""
    values = torch.tensor([-2.0, -1.0, -0.3, 0.25, 0.4, 3.0], requires_grad=True)
    step = torch.tensor(0.5, requires_grad=True)
    result = quantised_by_steps(values, step, -2, 1)
    assert result.tolist() == [-1.0, -1.0, -0.5, 0.5, 0.5, 0.5]
    came = torch.tensor([1.0, 2.0, 4.0, 8.0, 16.0, 32.0])
    to_values, to_step = torch.autograd.grad(result, (values, step), came)
    assert to_values.tolist() == [0, 2, 4, 8, 16, 0]
    # low; then code less value / step: 0, -1 + 0.6, 1 - 0.5, 1 - 0.8; high
    slopes = torch.tensor([-2.0, 0.0, -0.4, 0.5, 0.2, 1.0])
    assert float(to_step) == pytest.approx(float((slopes * came).sum()) / math.sqrt(6 * 1))


def test_a_channel_s_step_has_its_own_gradient():
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(3, 2, 4, generator=generator)
    steps = torch.tensor([0.1, 0.4, 0.9]).view(3, 1, 1).requires_grad_()
    came = torch.randn(values.shape, generator=generator)
    whole = torch.autograd.grad(quantised_by_steps(values, steps, -3, 3), steps, came)[0]
    for channel in range(3):
        step = steps[channel, 0, 0].detach().requires_grad_()
        one = quantised_by_steps(values[channel], step, -3, 3)
        assert torch.allclose(whole[channel, 0, 0], torch.autograd.grad(one, step, came[channel])[0])


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_a_learned_step_finds_the_one_of_little_error(bits):
    """For values of a bell: near the best of all at first, and from a wrong one by learning."""
    values = torch.randn(4096, generator=torch.Generator().manual_seed(1))
    step = LearnedStep(LinearCode(bits=bits, signed=True), symmetric=True)
    step.start(values)
    def error(size):
        return float(((quantised_by_steps(values, torch.tensor(size), step.low, step.high) - values) ** 2).mean())

    best = min(error(float(size)) for size in np.geomspace(0.005, 4, 400))
    # candidates are a quarter of an octave apart, so that it is off by at most an eighth, 9 %; the error of a step is
    # between that of its rounding, which goes with its square, and less
    assert error(float(step.step.detach())) <= 1.09**2 * best
    step.octaves.data += 1.0
    optimizer = torch.optim.Adam(step.parameters(), lr=0.02)
    for _ in range(150):
        optimizer.zero_grad()
        ((step(values) - values) ** 2).mean().backward()
        optimizer.step()
    assert error(float(step.step.detach())) < 1.1 * best < error(2 * float(step.step.detach()))


@pytest.fixture(scope="module")
def classical():
    torch.manual_seed(0)
    architecture = resnet_small(1, 8, filters=4)
    return Network(architecture, architecture.layouts("mac")).eval()


def test_a_network_of_wide_integers_is_the_classical_one(classical):
    images = torch.rand(16, 1, 8, 8)
    found = with_learned_steps(classical, images, 16)
    # steps that reach the largest value: the ones to begin with are for few bits
    values = classical.trace(images)
    for node in classical.architecture.layers:
        step = found.steps[node.name]
        for learned, seen in ((step.inputs, values[node.inputs[0]]), (step.weights, step.weight)):
            with torch.no_grad():
                sizes = seen.abs().amax() if learned.octaves.ndim == 0 else seen.abs().flatten(1).amax(dim=1)
                learned.octaves.copy_(torch.log2(sizes / learned.high))
    with torch.no_grad():
        error = (found(images) - classical(images)).abs().max() / classical(images).abs().max()
    # six layers one behind the other, each rounding inputs and weights by 2^-15 of the largest
    assert float(error) < 6 * 2 * 2.0**-15 * 4


@pytest.mark.parametrize(("bits", "weight_bits", "edge_bits"), [(2, None, None), (4, 3, 8), (8, None, 8)])
def test_widths_and_signs_of_every_layer(classical, bits, weight_bits, edge_bits):
    network = with_learned_steps(classical, torch.rand(8, 1, 8, 8), bits, weight_bits=weight_bits, edge_bits=edge_bits)
    layers = classical.architecture.layers
    for node in layers:
        step, edge = network.steps[node.name], edge_bits is not None and node in (layers[0], layers[-1])
        assert step.inputs.code.bits == (edge_bits if edge else bits)
        assert step.weights.code.bits == (edge_bits if edge else weight_bits or bits)
        assert step.inputs.code.signed != classical.architecture.nonnegative(node.inputs[0])
    assert set(network.state_dict()) > {key for key in classical.state_dict()}
    assert not any(isinstance(step, SteppedConv2d) for step in classical.steps.values())


@pytest.mark.parametrize("signed", [False, True])
def test_its_integers_are_those_of_the_mac_format(signed):
    """Every output of a layer is the format's sum of the codes, in the layer's unit."""
    torch.manual_seed(0)
    layer = SteppedConv2d(nn.Conv2d(3, 5, 3, padding=1, stride=2), 4, 3, signed)
    x = torch.randn(2, 3, 6, 6) if signed else torch.rand(2, 3, 6, 6)
    layer.inputs.start(x)
    codes = layer.codes()
    assert ((codes.bias * codes.unit - layer.bias).abs() <= 0.501 * codes.unit).all()  # a half, and its own rounding
    # a bias in whole units, so that the layer and its integers differ by floating point alone
    layer.bias.data = codes.bias * codes.unit
    fmt = MacFormat(inputs=27, bits=4, weight_bits=3, signed_inputs=signed, bias_bits=16)
    assert int(codes.weight.abs().max()) <= fmt.w.maximum
    patches = nn.functional.unfold(layer.inputs.codes(x).double(), 3, padding=1, stride=2).transpose(1, 2).long()
    sums = fmt.compute(
        x=patches[:, None].numpy(), w=codes.weight.flatten(1)[:, None].numpy(), bias=codes.bias[:, None].numpy()
    )
    expected = torch.from_numpy(sums).view(2, 5, 3, 3) * codes.unit.view(-1, 1, 1)
    # 28 terms of at most 15 * 3 units, each with a relative error of 2^-22 in single precision
    assert ((layer(x) - expected).abs() <= 28 * 45 * 2.0**-22 * codes.unit.view(-1, 1, 1)).all()
    assert torch.equal(codes.unit, layer.inputs.step.detach() * layer.weights.step.detach())


def test_it_pads_with_the_border_of_the_classical_layer():
    torch.manual_seed(0)
    classical = BorderedConv2d(1, 2, 3, padding=1, border=[0.5])
    layer = SteppedConv2d(classical, 16, 16, False)
    x = torch.rand(2, 1, 5, 5)
    for learned, size in ((layer.inputs, 1.0), (layer.weights, classical.weight.detach().abs().max())):
        learned.octaves.data.fill_(math.log2(size / learned.high))
    torch.testing.assert_close(layer(x), classical(x), rtol=1e-3, atol=1e-3)
    layer.border.zero_()
    assert not torch.allclose(layer(x), classical(x), atol=1e-2)


def test_a_short_training_learns_steps_and_weights(classical):
    torch.manual_seed(1)
    images, labels = torch.rand(64, 1, 8, 8), torch.randint(0, 10, (64,))
    network = with_learned_steps(classical, images, 3, edge_bits=8).train()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(network(images), labels)
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.8 * losses[0]
    changed = {key for key, value in network.state_dict().items() if not torch.equal(value, before[key])}
    assert all(f"steps.{node.name}.{part}" in changed for node in classical.architecture.layers
               for part in ("weight", "inputs.octaves", "weights.octaves"))  # fmt: skip


def test_a_norm_becomes_signs_biases_and_ratios():
    """What the integers give with a normalisation and a ReLU behind them, before the scale is rounded."""
    generator = torch.Generator().manual_seed(3)
    torch.manual_seed(0)
    layer = SteppedConv2d(nn.Conv2d(3, 6, 1), 4, 4, False)
    norm = nn.BatchNorm2d(6).eval()
    for values in (norm.weight, norm.bias, norm.running_mean):
        values.data = torch.randn(6, generator=generator)
    norm.running_var = 0.1 + torch.rand(6, generator=generator)
    norm.weight.data[2] = 0
    x, step = torch.rand(9, 3, 1, 1, generator=generator), torch.tensor(0.05)
    layer.inputs.start(x)
    with torch.no_grad():
        expected = torch.relu(norm(layer(x))).flatten(1)
        codes, ratio = layer.codes().with_norm(norm, step)
        sums = layer.inputs.codes(x).flatten(1) @ codes.weight.flatten(1).t() + codes.bias
        found = torch.relu(sums * ratio * step)
    assert (norm.weight < 0).any() and (codes.weight[2] == 0).all() and (ratio > 0).all()
    # both biases, the layer's and the normalisation's, are rounded to a unit
    assert ((found - expected).abs() <= 1.001 * codes.unit).all() and (expected > 0).any()


@pytest.mark.parametrize("scale_bits", [8, 12])
def test_scales_of_channels(scale_bits):
    generator = torch.Generator().manual_seed(2)
    for size in (1e-6, 0.3, 1.0, 100.0):
        ratios = size * (0.1 + torch.rand(20, generator=generator, dtype=torch.float64))
        scales, shift = rescaling(ratios, scale_bits)
        assert int(scales.min()) >= 0 and int(scales.max()) < 1 << scale_bits
        assert int(scales.max()) >= (1 << scale_bits - 1) - 1  # it fills its bits
        assert ((scales / 2.0**shift - ratios).abs() <= 2.0 ** -(shift + 1)).all()
    # what would round beyond the largest scale
    assert int(rescaling(torch.tensor([255.7 / 256]), 8)[0]) == 128
    for wrong in (0.0, 256.0, float("nan")):
        with pytest.raises(ValueError, match="must be above 0 and at most 255"):
            rescaling(torch.tensor([wrong]), 8)


@pytest.mark.parametrize("widths", [(1, 4), (4, 17)])
def test_widths_that_do_not_exist_are_refused(widths):
    with pytest.raises(ValueError, match="must be an integer from 2 to 16"):
        SteppedConv2d(nn.Conv2d(1, 1, 1), *widths, False)
