# SPDX-License-Identifier: Apache-2.0
"""Learned step sizes: gradients by the paper's equations."""

import math

import numpy as np
import pytest
import torch

from bmhw.hdl.formats.codes import LinearCode
from bmhw.models.networks.learned_steps import LearnedStep, quantised_by_steps


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
