# SPDX-License-Identifier: Apache-2.0
"""What every implementation of the operators takes for granted: sizes, and what counts as nothing."""

import torch
from torch import Tensor

__all__ = ["SMALLEST", "SMALLEST_SCALE", "check_groups", "output_size"]

SMALLEST = {torch.float32: 1e-36, torch.float64: 1e-300}
"""Powers below this count as 0, and it is added to each sum of powers, whose root has no slope at 0."""

SMALLEST_SCALE = 1e-15
"""What is 0 everywhere has this scale."""


def output_size(x: Tensor, w: Tensor, stride: int, padding: int) -> tuple[int, int]:
    return tuple((x.shape[axis] + 2 * padding - w.shape[axis]) // stride + 1 for axis in (2, 3))


def check_groups(x: Tensor, groups: int) -> None:
    """ValueError unless the groups divide the channels of x."""
    channels = x.shape[1]
    if not 1 <= groups <= channels or channels % groups:
        raise ValueError(f"Groups must divide the {channels} channels, which {groups} doesn't")
