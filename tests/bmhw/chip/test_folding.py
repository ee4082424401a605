# SPDX-License-Identifier: Apache-2.0
"""How a network is folded: by cycles, by images a second, onto a device; and what is said where that can't be."""

import dataclasses
import math

import pytest
from support.calls import command_of
from support.chips import made

from bmhw import network as command_line
from bmhw.chip import folding
from bmhw.chip.folding import fastest_that_fits, folding_for
from bmhw.chip.memories import MOST_BLOCKS, fitted
from bmhw.chip.parts import assemble
from bmhw.chip.plan import MOST_CELLS, plan
from bmhw.flow.fpga import DEVICES
from bmhw.models.files.store import save

network_command = command_of(command_line)


@pytest.fixture
def model(tmp_path):
    save(made("plain"), tmp_path, {"data": {"name": "digits"}, "accuracy": {}, "training": {}})
    return str(tmp_path / "plain.json")


def stdout(*arguments):
    result = network_command(*arguments)
    assert (result.returncode, result.stderr) == (0, "")
    return result.stdout


def test_images_a_second_at_a_clock_are_cycles(model):
    """Whole ones, so that it is never slower: 1,919.9 cycles are 1,919, which the folding of 1,920 is too slow for."""
    asked = stdout("--model", model, "--frames-per-second", "26043", "--clock", "50")
    assert asked == stdout("--model", model, "--cycles", "1919")
    assert asked != stdout("--model", model, "--cycles", "1920")
    assert asked != stdout("--model", model, "--frames-per-second", "26041.5", "--clock", "50")


def test_inputs_at_a_time_can_be_told_where_they_are_one(model):
    shown = stdout("--model", model, "--cycles", "5000", "--fold", "conv=3x1")
    assert shown == stdout("--model", model, "--cycles", "5000", "--fold", "conv=3")
    assert shown != stdout("--model", model, "--cycles", "5000")


@pytest.mark.parametrize(("arguments", "line"), [
    (["--clock", "50"], "--frames-per-second and --clock belong together: --frames-per-second is missing"),
    (["--frames-per-second", "9"], "--frames-per-second and --clock belong together: --clock is missing"),
    (["--frames-per-second", "9", "--clock", "50", "--cycles", "4"], "--cycles 4 contradicts --frames-per-second 9"),
    (["--frames-per-second", "no", "--clock", "50"], "--frames-per-second must be a number from 0.001 to 1e+09, not "
                                                     "'no'"),
    (["--frames-per-second", "9", "--clock", "1001"], "--clock must be a number from 1 to 1000, not '1001'"),
    (["--frames-per-second", "6e7", "--clock", "50"], "--frames-per-second must be at most 50,000,000, one a cycle of "
                                                      "--clock 50, not 6e7"),
    (["--fold", "conv=2x2"], "--fold conv=PxS needs 1 input at a time, which is what an element takes, not '2'"),
    (["--fold", "conv=7x1"], "--fold conv=P needs outputs at a time from 1 to 6, not '7'"),
    (["--fold", "conv=x1"], "--fold conv=P needs outputs at a time from 1 to 6, not ''"),
])
def test_options_that_make_no_sense_are_one_line(model, arguments, line):
    result = network_command("--model", model, *arguments)
    assert (result.returncode, result.stderr) == (2, f"python -m bmhw.network: error: {line}\n")


def resources(assembly, device):
    planned = plan(fitted(assembly, device), device)
    return planned.cells, planned.block_rams


@pytest.mark.parametrize("scarce", ["luts", "block_rams"])
def test_the_next_faster_folding_does_not_fit(scarce):
    """Neither limit is exceeded, and one of them would be by what is chosen for a cycle less."""
    network, device = made("residual"), DEVICES["ecp5-25k"]
    cells, blocks = resources(assemble(network, folding_for(network, 40000)), device)
    small = dataclasses.replace(device, **(
        {"luts": math.ceil(cells / MOST_CELLS)} if scarce == "luts" else {"block_rams": blocks / MOST_BLOCKS + 1e-6}))
    # so that it is the block RAMs that are short
    large = dataclasses.replace(small, luts=10**6) if scarce == "block_rams" else small
    found = fastest_that_fits(network, large, {})
    planned = plan(found, large)
    assert not planned.missing and planned.cycles <= 40000
    if scarce == "luts":
        faster = fitted(assemble(network, folding_for(network, planned.cycles - 1)), large)
        assert list(plan(faster, large).missing) == ["logic cells"]


def test_what_is_fixed_stays(model):
    network = made("plain")
    found = fastest_that_fits(network, DEVICES["ice40-hx8k"], {"conv": 2})
    assert found.folding["conv"] == 2 and found.folding["dense"] > 1


def test_a_device_alone_gives_the_fastest_that_fits(model):
    shown = stdout("--model", model, "--device", "ecp5-25k")
    cycles = folding.fastest(made("plain"))
    assert shown == stdout("--model", model, "--device", "ecp5-25k", "--cycles", str(cycles))
    assert "logic cells, by estimate" in shown and " block RAMs of 56\n" in shown


def test_what_does_not_fit_says_what_would(model, monkeypatch):
    """And it does."""
    network, hx8k = made("plain"), DEVICES["ice40-hx8k"]
    slow, fast = (resources(assemble(network, folding_for(network, cycles)), hx8k)[0] for cycles in (3000, 576))
    monkeypatch.setitem(DEVICES, "ice40-hx8k", dataclasses.replace(
        hx8k, luts=math.ceil((slow + (fast - slow) / 4) / MOST_CELLS)))
    result = network_command("--model", model, "--cycles", "576", "--device", "ice40-hx8k")
    assert result.returncode == 1 and result.stdout  # the plan is shown all the same
    line, = result.stderr.splitlines()
    assert line.startswith("python -m bmhw.network: error: plain does not fit ice40-hx8k at 576 cycles an image, by "
                           "plan: it needs ")
    advice = line.partition("; ")[2].removesuffix(" would fit").split(" or ")
    assert [text.split()[0] for text in advice] == ["--cycles", "--device"]
    stdout("--model", model, *advice[0].split(), "--device", "ice40-hx8k")
    stdout("--model", model, "--cycles", "576", *advice[1].split())


def test_where_nothing_fits_is_one_line(model, monkeypatch):
    for name, device in DEVICES.items():
        monkeypatch.setitem(DEVICES, name, dataclasses.replace(device, luts=100))
    result = network_command("--model", model, "--device", "ecp5-25k")
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.count("\n") == 1 and result.stderr.endswith("; no other folding or device would fit\n")
