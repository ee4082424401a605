# SPDX-License-Identifier: Apache-2.0
"""The memories of a network in the block RAMs of a device, as many as there are."""

import dataclasses

import pytest
from support.chips import assembly_of, made

from bmhw.chip.folding import assembled
from bmhw.chip.memories import MOST_BLOCKS, fitted
from bmhw.chip.plan import plan
from bmhw.flow.fpga import DEVICES
from bmhw.show.network import print_plan


def memory_luts(assembly):
    return sum(assembly.technology(part).luts(memory) for (part, _), memory in assembly.memories.items())


@pytest.mark.parametrize("device", ["ice40-hx8k", "ecp5-25k"])
def test_fewer_block_rams_cost_look_up_tables(device):
    assembly, device = assembled("digits-signed-4bit", 50000, []), DEVICES[device]
    plenty = plan(fitted(assembly, dataclasses.replace(device, block_rams=1000)))
    assert plenty.block_rams > 3
    luts = [memory_luts(fitted(assembly, dataclasses.replace(device, block_rams=1000)))]
    for number in range(plenty.block_rams, 0, -1):
        # as many as are left where a share stays free
        small = dataclasses.replace(device, block_rams=number / MOST_BLOCKS + 1e-6)
        found = plan(fitted(assembly, small))
        if found.block_rams > number:  # what can be written has nowhere else to be on an iCE40
            break
        luts.append(memory_luts(fitted(assembly, small)))
    assert len(luts) > 3 and luts == sorted(luts) and luts[-1] > luts[0]


@pytest.mark.parametrize("number", [24, 26, 30])
def test_no_block_ram_is_left_that_a_memory_could_have(number):
    """The last memory that gave its block RAMs away freed more than were needed."""
    device = dataclasses.replace(DEVICES["ice40-hx8k"], block_rams=number / MOST_BLOCKS + 1e-6)
    assert plan(fitted(assembled("digits-signed-4bit", 50000, []), device)).block_rams == number


def test_the_parts_stay_what_they_are():
    assembly = assembly_of(made("residual"), 2)
    cut = fitted(assembly, DEVICES["ecp5-25k"])
    assert cut.memories == assembly.memories and cut.sources.keys() == assembly.sources.keys()
    assert plan(assembly).block_rams == 0


def test_the_plan_shows_what_each_memory_takes_beside_its_bits(capsys):
    assembly = assembled("mnist-lenet-signed-4bit", 40000, [], "ecp5-25k")
    planned = plan(assembly, DEVICES["ecp5-25k"])
    assert planned.block_rams == sum(taken for taken, _ in planned.blocks.values())
    for (part, name), (taken, ideal) in planned.blocks.items():
        memory = assembly.memories[part, name]
        assert ideal == memory.words * memory.bits / (512 * 36) and taken == assembly.technology(part).blocks(memory)
    print_plan(planned)
    taken, ideal = planned.blocks["dense1", "weights"]
    assert f"32,000 x 15: {taken} ({ideal:.1f})" in capsys.readouterr().out and ideal < taken
    print_plan(plan(assembled("mnist-lenet-signed-4bit", 40000, [])))
    assert ": " not in next(line for line in capsys.readouterr().out.splitlines() if line.startswith("dense1"))
