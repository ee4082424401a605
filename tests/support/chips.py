# SPDX-License-Identifier: Apache-2.0
"""Small networks with random weights for chips: every kind of block that stands in one."""

import dataclasses
import re
from functools import cache

import numpy as np
import torch

from bmhw.chip.bench import Bench
from bmhw.chip.folding import fastest, folding_for
from bmhw.chip.parts import assemble
from bmhw.models.integer.fixed_point import FixedPoint
from bmhw.models.integer.fold import fold
from bmhw.models.integer.quantise import Quantisation
from bmhw.models.networks.architecture import Builder, resnet_small, resnet_v2

from .networks import random_network

__all__ = ["ARCHITECTURES", "IMAGES", "HostileBench", "assembly_of", "made", "retrained"]


def plain():
    """A convolution, a normalisation and a dense layer on images of 8 x 8 pixels."""
    net = Builder(1, 8, 8)
    net.dense("dense", net.norm(net.conv("conv", "image", 6, 3)), 10)
    return net.build()


def pooled():
    """Convolutions with and without padding, pools behind normalisations, as LeNet has them."""
    net = Builder(1, 8, 8)
    x = net.pool(net.norm(net.conv("conv1", "image", 4, 5, padding=2)), 2)
    x = net.norm(net.conv("conv2", x, 5, 3, padding=0))
    net.dense("dense", x, 10)
    return net.build()


def bottleneck():
    """Blocks of kernels of 1 x 1, 3 x 3 and 1 x 1 pixels with a layer in the shortcut, the second one with a stride."""
    return resnet_v2(1, 8, filters=4, stages=2, blocks=1)


def single():
    """A first layer that reads one number at a time."""
    net = Builder(1, 8, 8)
    net.dense("dense", net.norm(net.conv("conv", "image", 6, 1)), 10)
    return net.build()


ARCHITECTURES = {"plain": plain, "pooled": pooled, "residual": lambda: resnet_small(1, 8, filters=4),
                 "bottleneck": bottleneck, "single": single}
QUANTISATION = Quantisation(groups=2, log_bits=4, log_fraction=2, edge_bits=6, out_fraction=9)


IMAGES = np.random.default_rng(3).integers(0, 256, (40, 1, 8, 8)).astype(np.uint8)


@cache
def made(name, seed=0):
    """A network with random weights."""
    architecture = ARCHITECTURES[name]()
    trained = random_network(architecture, architecture.layouts("signed"), seed, groups=QUANTISATION.groups)
    return fold(trained, torch.tensor(IMAGES).float() / 256, QUANTISATION).to_integer(name, IMAGES)


def assembly_of(network, slowness):
    return assemble(network, folding_for(network, slowness * fastest(network)))


def retrained(network, name="other"):
    """A network with other constants that fits the chip of this one: each neuron has its weights in another order, a
    channel the scale, the shift and the offset of the one before; thresholds and biases are nearer to 0 by one."""
    layers = {}
    for layer in network.layers.values():
        changed = {"weights": {port: codes[:, ::-1].copy() for port, codes in layer.weights.items()},
                   "biases": {port: bias - np.sign(bias) for port, bias in layer.biases.items()},
                   "scale": rolled(layer.scale)}
        if layer.gives_codes:
            fine = None if layer.fine is None else np.roll(layer.fine, 1)
            changed |= {"rescale": rolled(layer.rescale), "fine": fine}
        layers[layer.name] = dataclasses.replace(layer, **changed)
    thresholds = {node: dataclasses.replace(norm, threshold=norm.threshold - np.sign(norm.threshold))
                  for node, norm in network.thresholds.items()}
    encoders = {node: dataclasses.replace(encoder, shift=np.roll(encoder.shift, 1), fine=np.roll(encoder.fine, 1))
                for node, encoder in network.encoders.items()}
    return dataclasses.replace(network, name=name, layers=layers, thresholds=thresholds, encoders=encoders)


def rolled(scale):
    return scale and FixedPoint(np.roll(scale.multiplier, 1), np.roll(scale.shift, 1))


class HostileBench(Bench):
    """One whose memories give wrong words where a word is asked for in the cycle in which it is written."""

    @property
    def verilog(self):
        text, changed = re.subn(r"<= (words\[addr\]);(?=(?:(?!endmodule).)*\bwrite_en\b)",
                                r"<= write_en && write_addr == addr ? ~\1 : \1;", super().verilog, flags=re.S)
        assert changed
        return text
