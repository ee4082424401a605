# SPDX-License-Identifier: Apache-2.0
"""Networks after synthesis, in an FPGA's cells: the delivered bench passes; resets and writes of memories."""

import os
import re
import subprocess
from collections import Counter

import pytest
from support.chips import assembly_of, made
from support.netlists import WRITE_ENABLES, Netlist, cell_models

from bmhw.chip.edge import chip_of
from bmhw.chip.folding import assembled
from bmhw.chip.kinds import kind_of, part_of
from bmhw.chip.loading import opened
from bmhw.chip.memories import fitted
from bmhw.deliver.network_files import Delivery
from bmhw.flow.fpga import DEVICES
from bmhw.hdl.verilog.convert import block_to_verilog
from bmhw.sim import find_simulator, usable_simulators

pytestmark = pytest.mark.long

CHIPS = {"digits": (lambda: assembled("digits-signed-4bit", 50000, []), "ice40-hx8k"),
         "bottleneck": (lambda: assembly_of(made("bottleneck"), 2), "ecp5-25k"),
         "writable": (lambda: opened(assembly_of(made("plain"), 2)), "ecp5-25k")}
IMAGES = 2


@pytest.fixture(scope="module", params=CHIPS)
def chip(request):
    """(Delivery, Netlist)."""
    make, device = CHIPS[request.param]
    delivery = Delivery(assembly=fitted(make(), DEVICES[device]), name="chip", command="test", megahertz=50)
    return delivery, Netlist(delivery.verilog(), DEVICES[device], "chip")


def simulate(chip, verilog, folder):
    """What the bench says of a netlist."""
    delivery, netlist = chip
    if "verilator" not in usable_simulators():
        pytest.skip("needs Verilator")
    files = {name: text for name, text in delivery.files(IMAGES).items() if name.endswith((".hex", "_tb.v"))}
    for name, text in {**files, "netlist.v": verilog, "cells.v": cell_models(netlist.device.family)}.items():
        (folder / name).write_text(text)
    simulator = find_simulator("verilator")
    command = ["verilator", "--binary", "--timing", "-O3", "--build-jobs", "1", "-Wno-fatal", "-Wno-lint", "-Wno-style",
               "-CFLAGS", "-std=c++20 -fcoroutines", "--top-module", "chip_tb", "cells.v", "netlist.v", "chip_tb.v"]
    subprocess.run(command, cwd=folder, env={**os.environ, **simulator.environment}, check=True, capture_output=True)
    return subprocess.run([folder / "obj_dir" / "Vchip_tb"], cwd=folder, capture_output=True, text=True, check=False)


def test_the_delivered_bench_passes(chip, tmp_path):
    """With pauses, resets and bad images; at full speed as fast as the plan says."""
    delivery, netlist = chip
    kinds = {cell["type"] for cell in netlist.module["cells"].values()}
    assert kinds & {"SB_RAM40_4K", "DP16KD"}
    done = simulate(chip, netlist.files["netlist.v"], tmp_path)
    assert done.returncode == 0 and "PASS: chip, " in done.stdout, done.stdout[-1000:]
    height = delivery.network.architecture.image.height
    cycles = int(done.stdout.split(" cycles an image")[0].split()[-1])
    planned = max(layer["folded"].shape.cycles for _, layer in delivery.assembly.blocks.values() if "folded" in layer)
    assert planned <= cycles <= planned + 2 * height


@pytest.mark.parametrize("chip", ["bottleneck"], indirect=True)
def test_other_words_in_block_rams_are_found(chip, tmp_path):
    text, count = re.subn(r"\.INITVAL_00\(320'h\w+\)", ".INITVAL_00(320'h0)", chip[1].files["netlist.v"])
    done = simulate(chip, text, tmp_path)
    assert count and done.returncode != 0 and "FAIL: chip" in done.stdout


def test_an_elements_maxima_are_counted_as_its_own(chip):
    delivery, netlist = chip
    check_maxima(delivery.assembly, netlist)


def test_the_maxima_of_many_elements_are_counted_as_their_own():
    """Their nets have the name of the queue's input."""
    assembly, device = assembled("mnist-lenet-signed-4bit", 40000, [], "ecp5-25k"), DEVICES["ecp5-25k"]
    check_maxima(assembly, Netlist(block_to_verilog(chip_of(assembly), "chip"), device, "chip"))


def check_maxima(assembly, netlist):
    """That an element's flip-flops are its own, whatever block's name their nets have."""
    found = Counter(part_of(name) for name, cell in netlist.module["cells"].items()
                    if cell["type"] == "TRELLIS_FF" or cell["type"].startswith("SB_DFF")
                    if kind_of(assembly, name) == "elements")
    for part, (_, parameters) in assembly.blocks.items():
        if "folded" in parameters:
            shape, fmt = parameters["folded"].shape, parameters["folded"].format
            # in front of them the register of a sum
            assert found[part] >= shape.parallel * (shape.shown + 1) * fmt.maximum_bits


def test_no_block_ram_has_a_reset(chip):
    """A reset of an output register would be a path of its own; what it would hide is hidden behind the memory."""
    resets = [bit for cell in chip[1].module["cells"].values() for port, bits in cell["connections"].items()
              if cell["type"] in WRITE_ENABLES and port.startswith("RST") for bit in bits]
    assert set(resets) <= {"0"} and bool(resets) == (chip[1].device.family == "ecp5")


def test_nothing_is_written_in_a_reset(chip):
    """From its third cycle on: in the first one registers may hold anything, and Yosys delays writes by a register
    where a block RAM doesn't say what a read of a word finds that is written in the same cycle."""
    netlist = chip[1]
    assert len(netlist.writes) > 5
    assert netlist.always_low(netlist.writes, skip=2, cycles=4)
    # and it would be found: an output that is valid or not
    assert not netlist.always_low(["s_axis_tvalid"], skip=2, cycles=4)
