# SPDX-License-Identifier: Apache-2.0
"""What a state_dict doesn't say of its network, folded into its weights: the epsilon of its normalisations and the
scaling of its images."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bmhw.models.errors import ModelUsageError
from bmhw.models.networks.architecture import LARGEST_PIXEL, Architecture
from bmhw.models.networks.network import NORM_EPSILON

__all__ = ["PIXEL_SCALE", "PYTORCH_EPSILON", "Conventions"]

PIXEL_SCALE = 256.0
"""This package's networks take pixel / 256."""
PYTORCH_EPSILON = 1e-5
"""The default of PyTorch's batch normalisations."""


@dataclass(frozen=True, kw_only=True)
class Conventions:
    """A network's images are ``(pixel / pixel_scale - mean) / std``, with one mean and std for all channels or one a
    channel; its batch normalisations divide by ``sqrt(variance + norm_epsilon)``. None: as the file's names have it
    (see :meth:`completed`)."""

    norm_epsilon: float | None = None
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    pixel_scale: float = PIXEL_SCALE

    def __post_init__(self):
        # an infinite or missing number fails every comparison
        if self.norm_epsilon is not None and not 0 < self.norm_epsilon <= 1:
            raise ModelUsageError(f"--norm-epsilon must be above 0 and at most 1, not {self.norm_epsilon:g}")
        if not 0 < self.pixel_scale < math.inf:
            raise ModelUsageError(f"--pixel-scale must be a number above 0, not {self.pixel_scale:g}")
        for value in self.std:
            if not 0 < value < math.inf:
                raise ModelUsageError(f"--std must be numbers above 0, not {value:g}")
        most = LARGEST_PIXEL / self.pixel_scale
        for value in self.mean:
            if not 0 <= value <= most:
                raise ModelUsageError(
                    f"--mean must be from 0 to {most:g}, the largest pixel / {self.pixel_scale:g}, not {value:g}"
                )

    def completed(self, channels: int, own_names: bool) -> "Conventions":
        """With one mean and std a channel, and with an epsilon: that of this package's networks where the names of the
        layers are this package's, else PyTorch's default."""
        usual = NORM_EPSILON if own_names else PYTORCH_EPSILON
        return Conventions(
            norm_epsilon=usual if self.norm_epsilon is None else self.norm_epsilon,
            mean=_by_channel("--mean", self.mean, channels),
            std=_by_channel("--std", self.std, channels),
            pixel_scale=self.pixel_scale,
        )

    @property
    def border(self) -> tuple[float, ...]:
        """What the network's zero padding is in pixels, where it isn't zeros: the mean of each channel."""
        pixels = tuple(min(mean * self.pixel_scale, float(LARGEST_PIXEL)) for mean in self.mean)
        return pixels if any(pixels) else ()

    def fold(self, state: dict[str, Tensor], architecture: Architecture) -> dict[str, Tensor]:
        """The state_dict, under the names of a classical Network, of the same function of pixel / 256 with
        normalisations of NORM_EPSILON; the layers that pad the image must pad with :attr:`border`.

        What needs no change keeps every bit; the rest is computed in double precision and rounded once.
        """
        state = dict(state)
        for node in architecture.nodes:
            name = f"steps.{node.name}"
            if node.operation == "norm" and self.norm_epsilon != NORM_EPSILON:
                self._fold_epsilon(state, name)
            if node.inputs and architecture[node.inputs[0]].operation == "image":
                if not node.is_layer or not node.bias:
                    raise ModelUsageError(f"Node {node.name} reads the image but has no bias to fold a mean into")
                self._fold_images(state, name)
        return state

    def _fold_epsilon(self, state: dict[str, Tensor], name: str) -> None:
        """The same deviation out of another epsilon; where that would take a variance below 0, gamma takes it up."""
        whole = state[f"{name}.running_var"].double() + self.norm_epsilon
        variance = (whole - NORM_EPSILON).clamp(min=0)
        gamma = state[f"{name}.weight"].double() * torch.sqrt((variance + NORM_EPSILON) / whole)
        exact = whole >= NORM_EPSILON
        state[f"{name}.running_var"] = variance.float()
        state[f"{name}.weight"] = torch.where(exact, state[f"{name}.weight"], gamma.float())

    def _fold_images(self, state: dict[str, Tensor], name: str) -> None:
        mean, std = (torch.tensor(values, dtype=torch.float64) for values in (self.mean, self.std))
        scale = 1 / std
        weight = state[f"{name}.weight"].double()
        if self.border:
            shift = (weight * (mean * scale).view(-1, 1, 1)).sum(dim=(1, 2, 3))
            state[f"{name}.bias"] = (state[f"{name}.bias"].double() - shift).float()
        scale = scale * PIXEL_SCALE / self.pixel_scale
        if (scale != 1).any():
            state[f"{name}.weight"] = (weight * scale.view(-1, 1, 1)).float()

    def __str__(self) -> str:
        image = f"pixel / {self.pixel_scale:g}"
        if any(self.mean):
            image = f"({image} - {_shown(self.mean)})"
        return image if set(self.std) == {1.0} else f"{image} / {_shown(self.std)}"


def _by_channel(option: str, values: Sequence[float], channels: int) -> tuple[float, ...]:
    if len(values) not in (1, channels):
        raise ModelUsageError(f"{option} must be one number or {channels}, one a channel, not {len(values)}")
    return tuple(values) * (channels if len(values) == 1 else 1)


def _shown(values: Sequence[float]) -> str:
    """One number where all channels have the same."""
    texts = [f"{value:g}" for value in values]
    return texts[0] if len(set(values)) == 1 else f"[{', '.join(texts)}]"
