# SPDX-License-Identifier: Apache-2.0
"""Rounding to integers times a learned step (LSQ: Esser et al., arXiv 1902.08153)."""

import math

import torch
from torch import Tensor, nn

from bmhw.hdl.formats.codes import LinearCode

__all__ = ["LearnedStep", "quantised_by_steps"]

SMALLEST_STEP = 2.0**-40
"""A step stays above 0, whatever training does to it."""
SMALLEST_SHARE = 2.0**-16
"""No channel's step is smaller, at first, than this share of the largest one's."""
CANDIDATES, SATURATED_OCTAVES = 4, 5
"""Steps an octave, and octaves below the step that saturates nothing, from which the first step is chosen."""
MOST_VALUES = 1 << 20
"""By which it is chosen."""


class _Quantised(torch.autograd.Function):
    """Values rounded to multiples of a step, within codes low..high; equation 3 and 5 of the paper."""

    @staticmethod
    def forward(ctx, values, step, low, high):
        scaled = values / step
        codes = (scaled + 0.5).floor_().clamp_(low, high)
        ctx.save_for_backward(scaled, codes, step)
        ctx.range = low, high
        return codes * step

    @staticmethod
    def backward(ctx, gradient):
        scaled, codes, step = ctx.saved_tensors
        low, high = ctx.range
        inside = scaled.clamp(low, high) == scaled
        slopes = (codes - scaled * inside).mul_(gradient)
        share = 1 / math.sqrt(scaled.numel() / step.numel() * high)
        others = [axis for axis in range(scaled.ndim) if step.ndim == 0 or step.shape[axis] == 1]
        to_step = slopes.sum(dim=others, keepdim=step.ndim > 0).view_as(step) * share
        return gradient * inside, to_step, None, None


def quantised_by_steps(values: Tensor, step: Tensor, low: int, high: int) -> Tensor:
    """``step * clamp(round(values / step), low, high)``, halves up, with the gradients of learned step sizes.

    step: a number, or of as many axes as the values, 1 where one step serves all.
    """
    return _Quantised.apply(values, step, low, high)


class LearnedStep(nn.Module):
    """Rounds to the integers of a :class:`LinearCode` times a learned step.

    ``channels``: a step for each index of axis 0, None: one for all. ``symmetric``: without the code's lowest integer,
    whose negative it lacks (for weights).
    """

    def __init__(self, code: LinearCode, *, channels: int | None = None, symmetric: bool = False):
        super().__init__()
        self.code = code
        self.low, self.high = (-code.maximum if symmetric else code.minimum), code.maximum
        self.octaves = nn.Parameter(torch.zeros(()) if channels is None else torch.zeros(channels))

    @property
    def step(self) -> Tensor:
        """2^``octaves``: a step that is learned in octaves stays above 0 and moves by shares of itself."""
        return torch.exp2(self.octaves).clamp(min=SMALLEST_STEP)

    def _like(self, values: Tensor) -> Tensor:
        step = self.step
        return step if step.ndim == 0 else step.view(-1, *[1] * (values.ndim - 1))

    @torch.no_grad()
    def start(self, values: Tensor) -> None:
        """The step to begin with: of those that saturate nothing or more and more, the one of least square error.
        (The paper's, ``2 mean |v| / sqrt(high)``, is far too large for 8 bits.)"""
        rows = values.reshape(1, -1) if self.octaves.ndim == 0 else values.flatten(1)
        rows = rows[:, :: max(1, rows.numel() // MOST_VALUES)]
        largest = rows.abs().amax(dim=1, keepdim=True)
        most = largest.max()
        largest = torch.where(largest > 0, torch.maximum(largest, most * SMALLEST_SHARE), most)  # 0: a pruned filter
        largest = torch.log2((largest / self.high).clamp(min=SMALLEST_STEP))
        candidates = [largest - k / CANDIDATES for k in range(CANDIDATES * SATURATED_OCTAVES + 1)]
        rounded = (quantised_by_steps(rows, torch.exp2(octaves), self.low, self.high) for octaves in candidates)
        best = torch.stack([((found - rows) ** 2).sum(dim=1) for found in rounded]).argmin(dim=0)
        self.octaves.copy_((largest.squeeze(1) - best / CANDIDATES).view(self.octaves.shape))

    def forward(self, values: Tensor) -> Tensor:
        return quantised_by_steps(values, self._like(values), self.low, self.high)

    @torch.no_grad()
    def codes(self, values: Tensor) -> Tensor:
        """The integers, int64."""
        return torch.floor(values / self._like(values) + 0.5).clamp(self.low, self.high).long()
