# SPDX-License-Identifier: Apache-2.0
"""Checks of many images: side by side, interrupted, with waves, after a reset; as right as `bmhw evaluate` says."""

import dataclasses
import json

import pytest
from support.calls import command_of
from support.chips import IMAGES, assembly_of, made

from bmhw import evaluate, network
from bmhw.chip import check
from bmhw.chip.bench import CYCLES_BEFORE, Bench
from bmhw.chip.check import Check
from bmhw.flow.cache import Cache
from bmhw.models.files.store import save
from bmhw.models.training.datasets import digits

COUNT = 12


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("bench")


@pytest.fixture(scope="module")
def bench(folder):
    built = Bench(assembly_of(made("pooled"), 2), folder)
    built.build()
    return built


@pytest.fixture
def labels():
    """Half of them right."""
    return made("pooled").classify(IMAGES[:COUNT]) + [n % 2 for n in range(COUNT)]


def of(bench, labels, cache, **options):
    return Check(bench, IMAGES[:COUNT], labels, cache=cache, **options)


def test_an_interrupted_check_goes_on(bench, folder, labels, tmp_path, monkeypatch):
    monkeypatch.setattr(check, "CHUNK_IMAGES", 4)
    cache, told = Cache(tmp_path / "kept"), []

    def interrupt():
        told.append(1)
        if len(told) == 10:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        of(bench, labels, cache).run(interrupt)
    # another network in the place of the one that is expected, other images, pauses: nothing of theirs is done
    name, layer = next(iter(bench.network.layers.items()))
    biases = {"bias": layer.biases["bias"] + 1}
    changed = dataclasses.replace(bench.network, layers={**bench.network.layers,
                                                         name: dataclasses.replace(layer, biases=biases)})
    other = Bench(dataclasses.replace(bench.assembly, network=changed), folder)
    assert of(other, labels, cache).done == 0
    assert of(bench, labels, cache, gaps=10).done == of(bench, labels, cache, seed=1).done == 0
    assert Check(bench, IMAGES[1:COUNT + 1], labels, cache=cache).done == 0
    left, told = of(bench, labels, cache), []
    assert left.done == 8
    result = left.run(lambda: told.append(1))
    assert (len(told), result.images, result.right) == (4, COUNT, COUNT // 2)
    assert of(bench, labels, cache).done == 0  # what is finished begins again


def test_side_by_side_it_finds_the_same(bench, labels):
    alone, both = (of(bench, labels, None, jobs=jobs).run() for jobs in (1, 2))
    assert (both.images, both.right) == (alone.images, alone.right) == (COUNT, COUNT // 2)
    assert both.cycles_per_image == alone.cycles_per_image
    # a run of half of the images has a first image of its own, whose way nothing overlaps
    assert alone.cycles < both.cycles < 2 * alone.cycles


@pytest.mark.parametrize("gaps", [0, 30])
def test_after_a_reset_the_next_image_is_right(bench, gaps):
    """In the middle of an image, between two, and in the first cycle."""
    cycles = bench.run(IMAGES[:3]).cycles
    for reset in (0, cycles[0] // 3, cycles[0] + 1, (cycles[0] + cycles[1]) // 2):
        run = bench.run(IMAGES[:3], seed=reset, gaps=gaps, reset=reset)
        assert len(run.cycles) >= 3 and run.cycles[-1] > reset + cycles[0]


@pytest.fixture
def model(tmp_path):
    save(made("plain"), tmp_path, {"data": {"name": "digits"}, "training": {},
                                   "float_weights": {"files": [{"file": "none"}]},
                                   "accuracy": {"classical_accuracy": 0, "bm_float_accuracy": 0}})
    return str(tmp_path / "plain.json")


def test_it_is_as_right_as_evaluate_says(model):
    said = command_of(network)("--model", model, "--cycles", "2000", "--check", "all")
    figures = json.loads(command_of(evaluate)("--model", model, "--json", "-").stdout)
    count = len(digits().test_images)
    assert said.stdout.startswith(f"{count} images, every number of ")
    assert f" {figures['bm_integer_accuracy']:.2f} % right; " in said.stdout, figures


def test_waves_show_what_a_difference_is(model, tmp_path, monkeypatch):
    """Of an integer network with another number than its Verilog."""
    real = Bench.expected

    def expected(self, images):
        values, classes = real(self, images)
        values[self.taps[-1]] = values[self.taps[-1]] + 1
        return values, classes

    monkeypatch.setattr(Bench, "expected", expected)
    waves = tmp_path / "signals.vcd"
    said = command_of(network)("--model", model, "--cycles", "2000", "--check", "2", "--waves", str(waves))
    assert said.returncode == 1 and f"; {waves} has the signals around it" in said.stderr
    text = waves.read_text()
    times = [int(line[1:]) for line in text.splitlines() if line.startswith("#")]
    # two steps a cycle; the difference is within them, and all before it as there are less than CYCLES_BEFORE
    cycle = int(said.stderr.split("(cycle ")[1].split(")")[0])
    assert f"{made('plain').architecture.nodes[-1].name}_payload" in text
    assert times[0] == 2 * max(0, cycle - CYCLES_BEFORE) and times[-1] > 2 * cycle


@pytest.mark.parametrize("arguments", [("--waves", "a.txt", "--check", "1"), ("--waves", "a.vcd")])
def test_waves_need_a_check_and_a_known_ending(model, arguments):
    said = command_of(network)("--model", model, *arguments)
    assert (said.returncode, said.stderr) == (
        2, "python -m bmhw.network: error: --waves FILE needs --check and a name that ends in .vcd, not "
           f"{arguments[1]}\n")
