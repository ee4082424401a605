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
from bmhw.models.networks.groups import Groups
from bmhw.models.networks.layers import BmConv2d
from bmhw.models.networks.network import Network, convert, with_classical_weights
from bmhw.models.operators.max_product import max_product_difference
from bmhw.models.operators.smoothed import norm_difference, smoothed_gradient_difference

__all__ = ["GROUPED_NORM", "LARGEST_NORM", "METHODS", "Method", "layer_distance"]

LARGEST_NORM = 16.0
"""The p of the p-norm that is nearest to the maximum: at most n^(1/16) from it, 1.5 times for 576 terms."""
GROUPED_NORM = 8.0
"""The same for a network with groups, whose maxima are of fewer terms: as accurate as 16, and easier to train."""

NORMS = 9
"""Different p that ``annealed`` goes through: each is a graph of its own on a GPU."""

Difference = Callable[[Tensor, Tensor, int, int], Tensor]
Start = Callable[[Network, Mapping[str, str], Tensor, Groups], Network]


@functools.cache
def norms(p: float) -> Difference:
    """The p-norms themselves; the same object for the same p, as of :func:`maxima_like_norms`."""
    return functools.partial(norm_difference, p=p)


@functools.cache
def maxima_like_norms(p: float) -> Difference:
    """Exact maxima with the gradient of p-norms."""
    return functools.partial(smoothed_gradient_difference, p=p)


def exact(share: float, position: float, norm: float) -> Difference:
    return max_product_difference


def annealed(share: float, position: float, norm: float) -> Difference:
    """p-norms with p from 1 (a classical layer) to the largest in the first half, in :data:`NORMS` steps of equal
    ratios, then the exact maxima with the gradient of the largest norms."""
    if share >= 0.5:
        return smoothed_gradient(share, position, norm)
    return norms(norm ** (int(2 * share * NORMS) / (NORMS - 1)))


def smoothed_gradient(share: float, position: float, norm: float) -> Difference:
    return maxima_like_norms(norm)


def smoothed_maximum(share: float, position: float, norm: float) -> Difference:
    """The largest norms themselves in the first two thirds, whose values fit their gradient and which take less time;
    then the exact maxima with that gradient."""
    return _norms_until(2 / 3, share, norm)


def fine_tuning(share: float, position: float, norm: float) -> Difference:
    """The same with exact maxima in the last fifth alone."""
    return _norms_until(0.8, share, norm)


def _norms_until(end: float, share: float, norm: float) -> Difference:
    return maxima_like_norms(norm) if share >= end else norms(norm)


def layer_by_layer(share: float, position: float, norm: float) -> Difference:
    """Sums (1-norms) become maxima layer after layer over the first three quarters (arXiv 2009.07190)."""
    return max_product_difference if share >= 0.75 * position else norms(1.0)


def untrained(classical: Network, layouts: Mapping[str, str], images: Tensor, groups: Groups = 1) -> Network:
    """A network that knows nothing of the classical one."""
    return Network(classical.architecture, layouts, groups)


def as_it_is(classical: Network, layouts: Mapping[str, str], images: Tensor, groups: Groups = 1) -> Network:
    return with_classical_weights(classical, layouts, groups)


@dataclass(frozen=True, kw_only=True)
class Method:
    """``start``: the network that the phase begins with, of the classical one, the layouts, images for statistics and
    the groups; ``difference``: of the share of the phase that is done, a layer's position (each 0..1) and the
    largest p of its norms, what stands for the difference of two maxima; ``distils_layers``: whether
    :func:`layer_distance` is added to the loss; ``smooth_codes``: whether the quantised phase has the gradient of the
    largest norms, not that of the maxima.
    """

    start: Start = convert
    difference: Callable[[float, float, float], Difference] = exact
    distils_layers: bool = False
    smooth_codes: bool = False

    def prepare(self, network: Network, share: float, norm: float = LARGEST_NORM) -> bool:
        """Set the layers up for a step when ``share`` of the phase is done; whether that changed what they compute."""
        layers = [step for step in network.steps.values() if isinstance(step, BmConv2d)]
        changed = False
        for index, layer in enumerate(layers):
            difference = self.difference(share, index / len(layers), norm)
            changed = changed or layer.training_difference is not difference
            layer.training_difference = difference
        return changed


METHODS: dict[str, Method] = {
    "annealed": Method(start=as_it_is, difference=annealed, smooth_codes=True),
    "smoothed-gradient": Method(difference=smoothed_gradient, smooth_codes=True),
    "smoothed-maximum": Method(difference=smoothed_maximum, smooth_codes=True),
    "fine-tuning": Method(difference=fine_tuning, smooth_codes=True),
    "at-once": Method(),
    "layer-distillation": Method(distils_layers=True),
    "layer-by-layer": Method(start=as_it_is, difference=layer_by_layer),
    "scratch": Method(start=untrained),
}
"""Name -> method; ``at-once``: converted with matched statistics, the gradient to the winners; ``fine-tuning``: what
goes on from a network of maxima."""


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
