# SPDX-License-Identifier: Apache-2.0
"""A layer of 1 x 1 kernels with a stride gets a row's pixels at once and none for the next row: it must keep some."""

import dataclasses

import torch
from support.chips import IMAGES, QUANTISATION
from support.networks import random_network

from bmhw.chip.bench import Bench
from bmhw.chip.parts import assemble
from bmhw.hdl.network.folded import FoldedLayer
from bmhw.models.integer.fold import fold
from bmhw.models.networks.architecture import Builder

FOLDING = {"stem": 1, "strided": 1, "dense": 2}


def network():
    net = Builder(1, 8, 8)
    x = net.norm(net.conv("strided", net.norm(net.conv("stem", "image", 4, 3)), 18, 1, stride=2))
    net.dense("dense", x, 10)
    architecture = net.build()
    trained = random_network(architecture, architecture.layouts("signed"), groups=QUANTISATION.groups)
    return fold(trained, torch.tensor(IMAGES).float() / 256, QUANTISATION).to_integer("strided", IMAGES)


def rate(assembly, folder):
    bench = Bench(assembly, folder)
    bench.build()
    return bench.plan.cycles, bench.run(IMAGES[:4]).cycles_per_image


def test_a_strided_layer_is_no_bottleneck(tmp_path):
    assembly = assemble(network(), FOLDING)
    folders = [tmp_path / name for name in ("kept", "less")]
    for folder in folders:
        folder.mkdir()
    planned, kept = rate(assembly, folders[0])
    assert kept <= planned + 2 * 8  # two cycles for each row of the map
    folded = assembly.blocks["strided"][1]["folded"]
    assembly.blocks["strided"] = FoldedLayer, {
        "folded": dataclasses.replace(folded, rows=folded.shape.overlapping_rows)}
    assert rate(assembly, folders[1])[1] > planned + 2 * 8
