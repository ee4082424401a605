# SPDX-License-Identifier: Apache-2.0
"""Neurons with an input in another group, a 0 that isn't exact or a wrong residual: every bench turns red."""

import re
import subprocess

import numpy as np
import pytest
from support.group_mutants import group_mutants
from support.mutants import Netlist, bench_with_mutants, with_mutants

from bmhw.hdl.formats.bm import BmFormat
from bmhw.hdl.formats.mac import MacFormat
from bmhw.hdl.neurons.design import Design
from bmhw.hdl.neurons.neuron import create_neuron
from bmhw.hdl.verilog.convert import to_verilog
from bmhw.sim import usable_simulators, vectors
from bmhw.sim.verilog_bench import verilog_bench


def layer(**parameters) -> BmFormat:
    return BmFormat(boundary="layer", **parameters)


FORMATS = [
    layer(inputs=12, bits=4, groups=3, layout="relu"),
    layer(inputs=12, bits=4, groups=3, layout="signed", residual_bits=9, offset=-6),
    layer(inputs=8, bits=4, groups=2, layout="bipolar", residual_bits=5),
    layer(inputs=12, bits=4, groups=3, layout="wired", maximum_bits=4),
    layer(inputs=16, bits=4, groups=4, layout="relu", sums="clamped", offset=-9),
    layer(inputs=12, bits=5, groups=3, layout="signed", sums="clamped", residual_bits=4),
    layer(inputs=8, bits=4, groups=4, layout="wired", sums="clamped", result="linear", residual_bits=12),
    layer(inputs=8, bits=4, groups=8, layout="signed", zero="step"),
    layer(inputs=5, bits=4, layout="signed", zero="exact"),
    BmFormat(inputs=12, bits=4, groups=3, layout="signed", signed_inputs=True),
    BmFormat(inputs=6, bits=5, groups=3, layout="bipolar", sums="clamped"),
    MacFormat(inputs=5, bits=4, boundary="layer", residual_bits=9),
    MacFormat(inputs=4, bits=3, residual_bits=7, boundary="layer", requantize="shift"),
]


def mutated(design: Design) -> tuple[str, dict]:
    text = to_verilog(design)
    sums = re.search(r"^module (\w+_code_sum) ", text, re.M)
    mutants = group_mutants(design, sums[1] if sums else "")
    return with_mutants(text, list(mutants.values())), mutants


@pytest.mark.parametrize("fmt", FORMATS, ids=lambda fmt: Design(format=fmt).name)
def test_vectors_find_every_mutant(fmt):
    design = Design(format=fmt)
    text, mutants = mutated(design)
    netlist, inputs = Netlist(text, design.name), vectors(fmt)
    name, code = fmt.output
    columns = [np.packbits(fmt.compute(**inputs) >> bit & 1, bitorder="little") for bit in range(code.bits)]
    expected = [int.from_bytes(column.tobytes(), "little") for column in columns]
    assert netlist.outputs(inputs)[name] == expected
    passed = [words for number, words in enumerate(mutants) if netlist.outputs(inputs, number)[name] == expected]
    assert not passed


@pytest.mark.skipif("icarus" not in usable_simulators(), reason="needs Icarus Verilog: one build for all")
def test_exported_bench_finds_every_mutant(tmp_path):
    design = Design(format=layer(inputs=6, bits=3, groups=3, layout="signed", residual_bits=6), form="pipelined")
    fmt, name = design.format, design.name
    text, mutants = mutated(design)
    inputs = vectors(fmt)
    bench = verilog_bench(design, name, inputs, fmt.compute(**inputs), latency=create_neuron(design).latency)
    (tmp_path / "mutants.v").write_text(text)
    (tmp_path / "bench.v").write_text(bench_with_mutants(bench, name, len(mutants)))
    subprocess.run(["iverilog", "-g2005", "-o", "bench", "mutants.v", "bench.v"], cwd=tmp_path, check=True)

    def passes(*chosen: str) -> bool:
        run = subprocess.run(["vvp", "bench", *chosen], cwd=tmp_path, capture_output=True, text=True)
        assert re.match(f"(PASS|FAIL): {name}, ", run.stdout.splitlines()[-1])
        return run.returncode == 0

    assert passes()
    assert [words for number, words in enumerate(mutants) if passes(f"+mutant={number}")] == []
