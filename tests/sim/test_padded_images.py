# SPDX-License-Identifier: Apache-2.0
"""A neuron of a layer that pads the image with a pixel of its own: its Verilog on windows at the border."""

import numpy as np
import torch

from bmhw.models.files.store import save
from bmhw.models.integer.fold import fold
from bmhw.models.integer.quantise import Quantisation
from bmhw.models.networks.architecture import Builder
from bmhw.models.networks.network import Network
from bmhw.sim import usable_simulators, verify
from bmhw.sim.trained import load_neuron

PIXEL = 77


def test_windows_at_the_border_hold_its_code(tmp_path):
    net = Builder(1, 6, 6)
    net.dense("dense", net.norm(net.conv("stem", "image", 2, 3)), 3)
    architecture = net.build().with_border([PIXEL - 0.2])
    torch.manual_seed(0)
    network = Network(architecture, architecture.layouts()).eval()
    # even pixels: no code but the border's is odd, with 8 bits for 8 bits
    images = 2 * np.random.default_rng(0).integers(0, 128, (4, 1, 6, 6)).astype(np.uint8)
    integer = fold(network, torch.from_numpy(images).float() / 256, Quantisation()).to_integer("padded", images)
    neuron = load_neuron(str(save(integer, tmp_path, {})), "stem", 1, 100, seed=1)
    at_border = (neuron.inputs["x"] == PIXEL >> int(integer.layers["stem"].scale.shift[0])).sum(axis=1)
    # of 36 windows 4 reach over 5 pixels in a corner, 16 over 3 along a side, and 16 stay inside
    assert set(at_border.tolist()) == {0, 3, 5}
    value = dict(integer.trace(images))[architecture["stem"]][:, 1]
    assert set(neuron.expected.tolist()) <= set(value.ravel().tolist())
    report = verify(neuron.design(form="parallel", objective="area"), neuron.inputs, neuron.expected,
                    simulator=usable_simulators()[-1])
    assert report.passed and report.outputs.tolist() == neuron.expected.tolist()
