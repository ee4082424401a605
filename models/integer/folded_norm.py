# SPDX-License-Identifier: Apache-2.0
"""Batch normalisations with their ReLU in PyTorch: as thresholds that are trained, or as what becomes a threshold."""

import copy

import torch
from torch import Tensor, nn

from .limits import SMALLEST_RANGE, THRESHOLD
from .network import Threshold
from .rounding import integers, round_half_up

__all__ = ["SMALLEST_GAMMA", "FoldedBatchNorm", "FoldedNorm", "threshold_and_factor"]

SMALLEST_GAMMA = 2.0**-9
"""A scale of 0 makes a channel constant, which a threshold can't; so small a scale is as good in few bits, and its
threshold stays a number of ordinary width."""


def threshold_and_factor(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """(t, factor) of ``norm(y) = factor * (y - t)``, each (channels,)."""
    deviation = torch.sqrt(norm.running_var + norm.eps)
    # nor may what varies be lost beside the constant
    least = (norm.bias.abs() * SMALLEST_RANGE).clamp(min=SMALLEST_GAMMA)
    gamma = torch.where(norm.weight.abs() < least, torch.where(norm.weight < 0, -least, least), norm.weight)
    return norm.running_mean - norm.bias * deviation / gamma, gamma / deviation


class FoldedNorm(nn.Module):
    """A threshold and a ReLU; see :class:`.network.Threshold`. Its scale lies in what reads it.

    threshold: in units of ``unit`` integers, so that this parameter is of the order of 1 as all others are. ``factor``:
    (channels,), the normalisation's, as folded.
    """

    def __init__(self, threshold: Tensor, factor: Tensor, unit: float):
        super().__init__()
        self.unit = unit
        self.threshold = nn.Parameter(threshold)
        self.register_buffer("sign", torch.where(factor < 0, -1.0, 1.0))
        self.register_buffer("factor", factor.abs(), persistent=False)

    def forward(self, y: Tensor, unit: Tensor | None = None, quantised: bool = True) -> Tensor:
        """``unit``: what an integer counts, which it needn't know."""
        threshold = self.threshold * self.unit
        threshold = round_half_up(threshold) if quantised else threshold
        return torch.relu((y - threshold.view(-1, 1, 1)) * self.sign.view(-1, 1, 1))

    def unit_behind(self, unit: Tensor) -> Tensor:
        """What a number behind it counts, (channels,)."""
        return unit * self.factor

    def to_integer(self, unit: Tensor | None = None) -> Threshold:
        return Threshold(integers(self.threshold * self.unit, THRESHOLD), (self.sign < 0).cpu().numpy())


class FoldedBatchNorm(nn.Module):
    """A batch normalisation and a ReLU that only multiply-accumulate layers read, whose steps can follow its scale.

    While training it is what it was, with the statistics of the batch, on real numbers; evaluated it is a threshold for
    integers. y: (batch, channels, height, width), ``unit``: (channels,), what one of them stands for.
    """

    def __init__(self, norm: nn.BatchNorm2d):
        super().__init__()
        self.norm = copy.deepcopy(norm)

    def unit_behind(self, unit: Tensor) -> Tensor:
        """What a number behind it counts, (channels,)."""
        return torch.ones_like(unit) if self.training else unit * threshold_and_factor(self.norm)[1].abs()

    def _threshold(self, unit: Tensor) -> tuple[Tensor, Tensor]:
        """In integers in front of it, float64, before it is rounded; and the sign."""
        threshold, factor = threshold_and_factor(self.norm)
        return threshold.double() / unit.double(), torch.where(factor < 0, -1.0, 1.0)

    def forward(self, y: Tensor, unit: Tensor, quantised: bool = True) -> Tensor:
        """Numbers of :meth:`unit_behind`."""
        if self.training:
            return torch.relu(self.norm(y * unit.view(-1, 1, 1)))
        threshold, sign = self._threshold(unit)
        if quantised:
            threshold = torch.floor(threshold + 0.5).clamp(*map(float, THRESHOLD))
        y = y.double().sub_(threshold.view(-1, 1, 1)).mul_(sign.view(-1, 1, 1)).to(y.dtype)
        return torch.relu_(y)

    @torch.no_grad()
    def to_integer(self, unit: Tensor) -> Threshold:
        threshold, sign = self._threshold(unit)
        return Threshold(integers(threshold, THRESHOLD), (sign < 0).cpu().numpy())
