# SPDX-License-Identifier: Apache-2.0
"""Methods of the bm phase: how a bipolar morphological network is got from a classical one.

A maximum passes its gradient to the winner only, so that most weights of a converted network learn slowly;
the methods differ in what they put in the place of the maxima while training. Validation and what is kept
always have the exact maxima.
"""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as functional
from torch import Tensor

from bmhw.models.networks.architecture import Architecture
from bmhw.models.networks.layers import BmConv2d
from bmhw.models.networks.network import Network, convert, with_classical_weights
from bmhw.models.operators.max_product import max_product_difference
from bmhw.models.operators.smoothed import norm_difference, smoothed_gradient_difference

__all__ = ["LARGEST_NORM", "METHODS", "Method", "layer_distance"]

LARGEST_NORM = 16.0
"""The p of the p-norm that is nearest to the maximum: at most n^(1/16) from it, 1.5 times for 576 terms."""

Difference = Callable[[Tensor, Tensor, int, int], Tensor]
Start = Callable[[Network, Mapping[str, str], Tensor], Network]


def exact(share: float, position: float) -> Difference:
    return max_product_difference


def annealed(share: float, position: float) -> Difference:
    """p-norms with p from 1 (a classical layer) to 16 in the first half, then the exact maxima with the
    gradient of the 16-norms."""
    if share >= 0.5:
        return smoothed_gradient(share, position)
    return functools.partial(norm_difference, p=LARGEST_NORM ** (2 * share))


def smoothed_gradient(share: float, position: float) -> Difference:
    return functools.partial(smoothed_gradient_difference, p=LARGEST_NORM)


def smoothed_maximum(share: float, position: float) -> Difference:
    """The 16-norms themselves in the first two thirds, whose values fit their gradient and which take less time; then
    the exact maxima with that gradient."""
    if share >= 2 / 3:
        return smoothed_gradient(share, position)
    return functools.partial(norm_difference, p=LARGEST_NORM)


def layer_by_layer(share: float, position: float) -> Difference:
    """Sums (1-norms) become maxima layer after layer over the first three quarters (arXiv 2009.07190)."""
    return max_product_difference if share >= 0.75 * position else functools.partial(norm_difference, p=1.0)


def untrained(classical: Network, layouts: Mapping[str, str], images: Tensor) -> Network:
    """A network that knows nothing of the classical one."""
    return Network(classical.architecture, layouts)


def as_it_is(classical: Network, layouts: Mapping[str, str], images: Tensor) -> Network:
    return with_classical_weights(classical, layouts)


@dataclass(frozen=True, kw_only=True)
class Method:
    """``start``: the network that the phase begins with, of the classical one, the layouts and images for
    statistics; ``difference``: of the share of the phase that is done and a layer's position (each 0..1),
    what stands for the difference of two maxima; ``distils_layers``: whether :func:`layer_distance` is added
    to the loss; ``code_gradient_norm``: the p of the p-norm whose gradient the quantised phase has, None for that
    of the maxima.
    """

    start: Start = convert
    difference: Callable[[float, float], Difference] = exact
    distils_layers: bool = False
    code_gradient_norm: float | None = None

    def prepare(self, network: Network, share: float) -> None:
        """Set the layers up for a step when ``share`` of the phase is done."""
        layers = [step for step in network.steps.values() if isinstance(step, BmConv2d)]
        for index, layer in enumerate(layers):
            layer.training_difference = self.difference(share, index / len(layers))


METHODS: dict[str, Method] = {
    "annealed": Method(start=as_it_is, difference=annealed, code_gradient_norm=LARGEST_NORM),
    "smoothed-gradient": Method(difference=smoothed_gradient, code_gradient_norm=LARGEST_NORM),
    "smoothed-maximum": Method(difference=smoothed_maximum, code_gradient_norm=LARGEST_NORM),
    "at-once": Method(),
    "layer-distillation": Method(distils_layers=True),
    "layer-by-layer": Method(start=as_it_is, difference=layer_by_layer),
    "scratch": Method(start=untrained),
}
"""Name -> method; ``at-once``: converted with matched statistics, the gradient to the winners."""


def layer_distance(
    architecture: Architecture, student: Mapping[str, Tensor], teacher: Mapping[str, Tensor]
) -> Tensor:
    """Mean over the normalisations of the squared error of their outputs, relative to the teacher's mean
    square (as layer-wise distillation of knowledge, Zingerenko and Limonova 2023)."""
    names = [node.name for node in architecture.nodes if node.operation == "norm"]
    errors = [
        functional.mse_loss(student[name], teacher[name]) / teacher[name].square().mean().clamp(min=1e-6)
        for name in names
    ]
    return torch.stack(errors).mean()
