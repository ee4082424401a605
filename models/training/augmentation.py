# SPDX-License-Identifier: Apache-2.0
"""Random changes of training images, on whatever device they lie; drawn by NumPy, so that every device has the same."""

import numpy as np
import torch
import torch.nn.functional as functional
from torch import Tensor

__all__ = ["mirrored", "translated"]


def translated(images: Tensor, most: int, rng: np.random.Generator) -> Tensor:
    """Images each moved by up to ``most`` pixels, zeros moving in."""
    if most == 0:
        return images
    offsets = torch.from_numpy(rng.integers(0, 2 * most + 1, size=(len(images), 2))).to(images.device)
    padded = functional.pad(images, (most,) * 4)
    for axis in (2, 3):
        lines = offsets[:, axis - 2, None] + torch.arange(images.shape[axis], device=images.device)
        shape = list(padded.shape)
        shape[axis] = images.shape[axis]
        lines = lines.view(len(images), 1, -1, 1) if axis == 2 else lines.view(len(images), 1, 1, -1)
        padded = padded.gather(axis, lines.expand(shape))
    return padded


def mirrored(images: Tensor, rng: np.random.Generator) -> Tensor:
    """Images, each turned left to right or not with equal chance."""
    chosen = torch.from_numpy(rng.integers(0, 2, size=(len(images), 1, 1, 1), dtype=bool)).to(images.device)
    return torch.where(chosen, images.flip(3), images)
