# SPDX-License-Identifier: Apache-2.0
"""Small networks with random weights for chips: every kind of layer that stands in one."""

import dataclasses
from functools import cache

import numpy as np
import torch

from bmhw.models.integer.fixed_point import FixedPoint
from bmhw.models.integer.fold import fold
from bmhw.models.integer.quantise import Quantisation
from bmhw.models.networks.architecture import Builder
from bmhw.models.networks.groups import GroupInputs

from .networks import random_network

__all__ = ["FOLDING", "IMAGES", "NETWORKS", "made", "residual"]

IMAGES = np.random.default_rng(3).integers(0, 256, (40, 1, 6, 6)).astype(np.uint8)


def residual():
    """A block whose shortcut takes the raw stream, on images of 6 x 6 pixels with a border."""
    net = Builder(1, 6, 6)
    stem = net.conv("stem", "image", 4, 3)
    x = net.norm(net.conv("conv1", net.norm(stem), 16, 3, stride=2))
    x = net.add("sum", net.conv("shortcut", stem, 16, 1, stride=2), net.conv("conv2", x, 16, 3))
    net.dense("dense", net.pool(net.norm(x)), 10)
    return net.build().with_border((76.8,))


GROUPED = Quantisation(groups=2, log_bits=4, log_fraction=2, edge_bits=6, out_fraction=9)
MAC_LAYERS = dict.fromkeys(("stem", "conv1", "conv2", "shortcut", "dense"), "mac")
NETWORKS = {
    "mac": (MAC_LAYERS, Quantisation(bits=4, edge_bits=8)),
    "mac shift": (MAC_LAYERS, Quantisation(bits=4, edge_bits=8)),
    "own codes": ({"stem": "relu", "conv1": "wired", "conv2": "mac", "shortcut": "bipolar", "dense": "signed"},
                  Quantisation(bits=5)),
    "grouped": ({"stem": "mac", "conv1": "relu", "conv2": "signed", "shortcut": "mac", "dense": "wired"}, GROUPED),
    "grouped signed shortcut": ({"stem": "signed", "conv1": "mac", "conv2": "wired", "shortcut": "bipolar",
                                 "dense": "relu"}, dataclasses.replace(GROUPED, groups=4)),
    "groups of inputs": ({"stem": "signed", "conv1": "signed", "conv2": "wired", "shortcut": "mac", "dense": "signed"},
                         dataclasses.replace(GROUPED, groups=GroupInputs(18))),
    "signed": (dict.fromkeys(MAC_LAYERS, "signed"), Quantisation(bits=4, log_bits=3)),
}  # fmt: skip


FOLDING = {"stem": 3, "conv1": 2, "conv2": 16, "shortcut": 1, "dense": 10}
"""A last fold with an element that has no output; accumulators that are flushed; one element; all outputs at a time."""


@cache
def made(name):
    """A network with random weights."""
    layouts, quantisation = NETWORKS[name]
    trained = random_network(residual(), layouts, groups=quantisation.groups)
    network = fold(trained, torch.tensor(IMAGES).float() / 256, quantisation).to_integer("small", IMAGES)
    if name != "mac shift":
        return network
    layers = {}
    for layer in network.layers.values():
        if layer.gives_codes:
            fmt = dataclasses.replace(layer.format, requantize="shift", requantize_shift=None)
            rescale = FixedPoint.of_shift(np.maximum(layer.rescale.shift - 7, 1))
            layer = dataclasses.replace(layer, format=fmt, rescale=rescale)
        layers[layer.name] = layer
    return dataclasses.replace(network, layers=layers)
