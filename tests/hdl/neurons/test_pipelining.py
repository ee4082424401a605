# SPDX-License-Identifier: Apache-2.0
"""Where a pipeline's registers go: by brute force, in simulation, on the command line."""

import dataclasses
import itertools
import json
import random

import numpy as np
import pytest
from support.simulation import packed_vectors, random_vectors, simulate
from support.simulators import FAST

from bmhw import export, synth
from bmhw.errors import UsageError
from bmhw.flow.cache import Cache, cache_folder
from bmhw.flow.engine import Engine
from bmhw.flow.netlist import Cell, join, read_blocks
from bmhw.flow.paths import Stage, pipeline_stages
from bmhw.hdl.formats.bm import BmFormat
from bmhw.hdl.formats.mac import MacFormat
from bmhw.hdl.neurons.design import Design
from bmhw.hdl.neurons.neuron import create_neuron
from bmhw.measure.neurons import figures
from bmhw.measure.pipelining import balance, with_latency, with_stage_depth
from bmhw.sim import verify

SEED = 20090719
DESIGNS = [
    Design(format=BmFormat(inputs=5, bits=4), maximum="tree", form="pipelined"),
    Design(format=BmFormat(inputs=5, bits=4, layout="signed", combine="logarithmic"), maximum="elimination4",
           form="pipelined"),
    Design(format=MacFormat(inputs=3, bits=4), multiplier="booth", form="pipelined"),
    Design(format=MacFormat(inputs=5, bits=3), multiplier="operator", adder="operator", form="pipelined"),
]


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path_factory):
    monkeypatch.setenv("BMHW_CACHE_DIR", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture
def mapped():
    cache = Cache(cache_folder())
    return lambda design, by_parts=False: figures(design, by_parts=by_parts, objective="area", engine=Engine(),
                                                  cache=cache)


def test_a_balanced_split_is_the_best_of_all_splits():
    rng = random.Random(SEED)
    for _ in range(200):
        steps = [Stage(rng.randint(0, 9), rng.randint(1, 9)) for _ in range(rng.randint(1, 8))]
        places, latency = [str(i) for i in range(len(steps))], rng.randint(1, len(steps))

        def cost(ends, steps=steps):
            bounds = itertools.pairwise((0, *(end + 1 for end in ends)))
            deepest = max(sum(step.depth for step in steps[low:high]) for low, high in bounds)
            return deepest, sum(steps[end].flip_flops for end in ends)

        every = [(*inner, len(steps) - 1) for inner in itertools.combinations(range(len(steps) - 1), latency - 1)]
        found = balance(places, steps, latency)
        assert len(found) == latency and cost([places.index(place) for place in found]) == min(map(cost, every)), SEED


def test_stages_of_a_netlist_by_hand():
    """Two gates, a register, one gate, a register, one gate to the output; and a register that feeds itself."""
    def document(feedback):
        cells = [("NOT", 2, 3), ("NOT", 3, 4), ("DFF", 4, 5), ("NOT", 7 if feedback else 5, 6), ("DFF", 6, 7),
                 ("NOT", 7, 8)]
        return {"modules": {"top": {
            "ports": {"a": {"direction": "input", "bits": [2]}, "y": {"direction": "output", "bits": [8]}},
            "cells": {f"c{i}": {"type": kind, "connections": {"A": [a], "Y": [y]}}
                      for i, (kind, a, y) in enumerate(cells)}}}}

    kinds = {"NOT": Cell(frozenset("Y")), "DFF": Cell(frozenset("Y"), flip_flop=True)}
    straight, fed_back = (join(read_blocks(document(feedback), kinds.get), "top", kinds.get)
                          for feedback in (False, True))
    assert pipeline_stages(straight) == [Stage(2, 1), Stage(1, 1), Stage(1, 0)]
    assert pipeline_stages(straight, {"NOT": 10}) == [Stage(20, 1), Stage(10, 1), Stage(10, 0)]
    assert pipeline_stages(fed_back) == []


@pytest.mark.parametrize("design", DESIGNS, ids=lambda design: design.name)
def test_every_latency_computes_the_format_and_has_that_latency(design, mapped):
    vectors = random_vectors(design.format, 40, np.random.default_rng(SEED))
    name, code = design.format.output
    expected = (design.format.compute(**vectors) & ((1 << code.bits) - 1)).tolist()
    deepest = []
    for latency in range(1, len(design.places) + 1):
        planned = with_latency(design, latency, lambda every: mapped(every, by_parts=True).stages)
        assert create_neuron(planned).latency == latency and planned.registers[-1] == design.parts[-1]
        got = simulate(create_neuron(planned), latency, **packed_vectors(design.format, vectors))[name]
        assert got == expected, f"latency {latency}, seed {SEED}"
        stages = mapped(planned).stages
        assert len(stages) == latency
        deepest.append(max(stage.depth for stage in stages))
        assert deepest[-1] == mapped(planned).depth
    assert deepest[-1] < deepest[0]


def test_a_stage_depth_is_kept_with_the_least_latency(mapped):
    design = DESIGNS[0]

    def depth_of(candidate):
        return mapped(candidate).depth

    def steps_of(every):
        return mapped(every, by_parts=True).stages

    least = depth_of(dataclasses.replace(design, registers=design.places))
    for depth in (least, least + 6, 1000):
        found = with_stage_depth(design, depth, steps_of, depth_of)
        assert depth_of(found) <= depth
        if len(found.registers) > 1:
            assert depth_of(with_latency(design, len(found.registers) - 1, steps_of)) > depth
    assert len(found.registers) == 1
    with pytest.raises(UsageError, match=f"must be {least} or more gates for this BM neuron.*not {least - 1}"):
        with_stage_depth(design, least - 1, steps_of, depth_of)


def test_the_comparison_shows_equal_latency_and_depths_of_stages(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    options = ["--bits", "4", "--inputs", "3", "--compare", "--form", "pipelined", "--latency", "3"]
    assert synth.main([*options, "--json", "-"]) == 0
    found = json.loads(capsys.readouterr().out)
    for neuron in (found["mac"], found["bm"]):
        assert neuron["latency_cycles"] == 3 == len(neuron["stages"]) == len(neuron["design"]["registers"])
        assert max(stage["depth"] for stage in neuron["stages"]) == neuron["depth"]
        assert sum(stage["flip_flops"] for stage in neuron["stages"]) == neuron["flip_flops"]
    assert found["ratio"]["latency_cycles"] == 1
    assert synth.main(options) == 0
    said = capsys.readouterr().out
    assert "latency, cycles" in said and "depth between registers" in said
    assert f"Pipeline: 3 cycles, registers behind {', '.join(found['bm']['design']['registers'])}; stages " in said


def test_the_comparison_at_equal_stage_depth(capsys):
    options = ["--bits", "4", "--inputs", "3", "--compare", "--form", "pipelined", "--stage-depth", "22"]
    assert synth.main([*options, "--json", "-"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert 0 < found["mac"]["depth"] <= 22 and 0 < found["bm"]["depth"] <= 22


def test_the_bench_of_an_export_knows_the_latency(tmp_path, capsys):
    assert export.main(["--out", str(tmp_path), "--bits", "4", "--inputs", "5", "--form", "pipelined", "--maximum",
                        "tree", "--registers", "sums,maxima.2,combine", "--vectors", "50"]) == 0
    [name] = (path.stem for path in tmp_path.glob("*.core"))
    assert json.loads((tmp_path / f"{name}.json").read_text())["latency_cycles"] == 3
    assert "localparam LATENCY = 3;" in (tmp_path / f"{name}_tb.v").read_text()


def test_the_verilog_with_registers_inside_parts_agrees_with_the_format():
    design = dataclasses.replace(DESIGNS[0], registers=("maxima.1", "maxima.2", "combine"))
    vectors = random_vectors(design.format, 100, np.random.default_rng(SEED))
    assert verify(design, vectors, design.format.compute(**vectors), simulator=FAST).passed


@pytest.mark.parametrize("options, words", [
    (["--latency", "9", "--form", "pipelined"], ["1 to", "BM neuron", "9"]),
    (["--latency", "0", "--form", "pipelined"], ["1 to", "0"]),
    (["--latency", "x", "--form", "pipelined"], ["1 to", "'x'"]),
    (["--latency", "2"], ["--latency 2", "--form pipelined", "parallel"]),
    (["--stage-depth", "0", "--form", "pipelined"], ["1 or more", "0"]),
    (["--latency", "2", "--registers", "sums", "--form", "pipelined"], ["--latency 2", "--registers"]),
    (["--registers", "sums"], ["need form pipelined"]),
    (["--registers", "sums,maxim", "--form", "pipelined"], ["log2, sums", "'maxim'"]),
    (["--registers", "sums", "--form", "pipelined", "--compare"], ["--registers sums", "--latency"]),
])
def test_bad_input_names_the_range(options, words):
    with pytest.raises(UsageError) as caught:
        synth.main(["--bits", "3", "--inputs", "2", *options])
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)
