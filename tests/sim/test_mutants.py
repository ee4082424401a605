# SPDX-License-Identifier: Apache-2.0
"""Exported neurons with one token changed: the vectors of an export's bench find at least 99 of 100.

A mutant is wrong if its output differs from the integer model's for some vector: one of the bench's, or one of many
others (random ones, and chosen ones of another seed). What no vector shows wrong does not count: most such mutants
compute the same.
"""

import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
from support.mutants import Mutant, Netlist, bench_with_mutants, mutate

from bmhw.export import main
from bmhw.hdl.arithmetic.adders import ADDERS
from bmhw.hdl.arithmetic.maxima import BINARY_MAXIMA
from bmhw.hdl.arithmetic.multipliers import MULTIPLIERS
from bmhw.hdl.formats.bm import BmFormat
from bmhw.hdl.formats.mac import MacFormat
from bmhw.hdl.neurons.design import Design
from bmhw.hdl.neurons.neuron import create_neuron
from bmhw.hdl.verilog.convert import to_verilog
from bmhw.sim import random_vectors, usable_simulators, vectors
from bmhw.sim.vectors import broadcast_inputs
from bmhw.sim.verilog_bench import verilog_bench

SEED = 24
MOST = 0.01
"""Of wrong mutants that may pass."""


def layer(**parameters) -> BmFormat:
    return BmFormat(boundary="layer", **parameters)


def logarithmic(**parameters) -> BmFormat:
    return BmFormat(combine="logarithmic", **parameters)


KINDS = {
    "mac": [
        Design(format=MacFormat(inputs=7, bits=5, boundary="layer")),
        Design(format=MacFormat(inputs=3, bits=4, boundary="layer", requantize="shift"), multiplier="array",
               adder="ripple"),
        Design(format=MacFormat(inputs=2, bits=6, signed_inputs=True), multiplier="booth", adder="lookahead"),
        Design(format=MacFormat(inputs=9, bits=2, weight_bits=3), multiplier="wallace", adder="kogge_stone"),
    ],
    "linear": [
        Design(format=layer(inputs=9, bits=6, layout="signed"), maximum="digits"),
        Design(format=layer(inputs=4, bits=4, layout="relu"), maximum="elimination", adder="operator"),
        Design(format=BmFormat(inputs=3, bits=4, layout="bipolar"), maximum="tree", adder="carry_skip"),
        Design(format=BmFormat(inputs=9, bits=5, layout="signed", signed_inputs=True, sums="clamped", maximum_bits=4),
               maximum="digits3", adder="brent_kung"),
        Design(format=BmFormat(inputs=7, bits=4, layout="wired"), maximum="radix4", end="select"),
    ],
    "logarithmic": [
        Design(format=logarithmic(inputs=7, bits=4, layout="relu"), maximum="online"),
        Design(format=logarithmic(inputs=9, bits=5, layout="signed", boundary="layer"), maximum="digits4",
               adder="sklansky_late"),
        Design(format=logarithmic(inputs=9, bits=4, layout="wired", boundary="layer", sums="clamped"),
               maximum="elimination4", end="select", adder="ripple"),
        Design(format=logarithmic(inputs=2, bits=5, layout="signed", boundary="layer", offset=-3), maximum="operator",
               adder="operator"),
    ],
    "groups": [
        Design(format=layer(inputs=12, bits=4, layout="signed", groups=3)),
        Design(format=layer(inputs=12, bits=4, layout="wired", groups=2, sums="clamped", residual_bits=7),
               end="select"),
        Design(format=BmFormat(inputs=6, bits=4, layout="bipolar", groups=3), maximum="digits"),
        Design(format=layer(inputs=8, bits=4, layout="relu", groups=2, offset=-5), maximum="elimination"),
    ],
}

WIDE = [
    *(Design(format=layer(inputs=12, bits=bits, layout=layout, groups=groups, sums=sums, offset=offset,
                          residual_bits=residual), end=end)
      for layout in ("relu", "bipolar", "signed", "wired")
      for groups, bits, sums, offset, residual, end in (
          (2, 5, "full", 0, 0, "subtract"), (3, 4, "clamped", -6, 6, "select"), (6, 3, "full", -3, 0, "subtract"))),
    Design(format=layer(inputs=64, bits=4, layout="signed", groups=4), maximum="elimination", adder="ripple"),
    Design(format=layer(inputs=32, bits=4, groups=32, offset=-10)),
    Design(format=layer(inputs=8, bits=6, layout="signed", groups=2, signed_inputs=True), maximum="digits"),
    Design(format=BmFormat(inputs=6, bits=6, groups=2, sums="clamped")),
    Design(format=layer(inputs=4, bits=8, layout="signed", groups=2), maximum="digits"),
    Design(format=layer(inputs=5, bits=4, zero="exact")),
    Design(format=MacFormat(inputs=5, bits=4, boundary="layer", residual_bits=8)),
    Design(format=MacFormat(inputs=5, bits=4, residual_bits=12)),
    *(Design(format=MacFormat(inputs=5, bits=4, boundary="layer", requantize=("scale", "shift")[i % 2]),
             multiplier=multiplier, adder=adder)
      for i, (multiplier, adder) in enumerate(zip([*MULTIPLIERS, *MULTIPLIERS], ADDERS, strict=False))),
    *(Design(format=MacFormat(inputs=n, bits=bits, boundary="layer", requantize=requantize))
      for n, bits in ((1, 6), (2, 12), (9, 2), (9, 8), (20, 4)) for requantize in ("scale", "shift")),
    *(Design(format=MacFormat(inputs=n, bits=bits, signed_inputs=True))
      for n, bits in ((1, 6), (2, 12), (9, 8), (64, 2))),
    *(Design(format=layer(inputs=9, bits=5, layout="signed", sums=("full", "clamped")[i % 2]), maximum=maximum,
             adder=adder)
      for i, (maximum, adder) in enumerate(zip(BINARY_MAXIMA, [*ADDERS, *ADDERS], strict=False))),
    *(Design(format=logarithmic(inputs=7, bits=5, layout="relu", boundary="layer", maximum_bits=5), maximum=maximum)
      for maximum in BINARY_MAXIMA),
    *(Design(format=layer(inputs=5, bits=5, layout=layout), maximum="digits")
      for layout in ("relu", "bipolar", "signed", "wired")),
    Design(format=BmFormat(inputs=1, bits=5), maximum="digits"),
    Design(format=layer(inputs=7, bits=2), maximum="digits"),
    Design(format=BmFormat(inputs=32, bits=6, layout="signed"), maximum="digits"),
    Design(format=logarithmic(inputs=64, bits=3, layout="wired", sums="clamped"), maximum="elimination8"),
    Design(format=BmFormat(inputs=2, bits=8), maximum="digits"),
    Design(format=layer(inputs=3, bits=8), maximum="digits"),
    Design(format=logarithmic(inputs=3, bits=8), maximum="digits"),
    Design(format=BmFormat(inputs=2, bits=13), maximum="digits"),
]


def bits_of(values: np.ndarray, bits: int) -> list[int]:
    """Each bit of the values, the lowest one first, as an integer with one bit a vector."""
    columns = (np.packbits(values >> bit & 1, bitorder="little").tobytes() for bit in range(bits))
    return [int.from_bytes(column, "little") for column in columns]


def survivors(design: Design, count: int) -> tuple[list[Mutant], int]:
    """The mutants that the bench's vectors don't find though they are wrong; and how many are wrong."""
    fmt = design.format
    text, mutants = mutate(to_verilog(design), count, SEED)
    assert len(mutants) >= 30
    netlist, (name, code) = Netlist(text, design.name), fmt.output
    left = [range(len(mutants))]
    for inputs in (vectors(fmt), random_vectors(fmt, 20_000, SEED), vectors(fmt, 2000, SEED)):
        nets, total = netlist.bits(inputs), len(next(iter(inputs.values())))
        expected = bits_of(fmt.compute(**inputs), code.bits)
        assert netlist.evaluate(nets, total, None)[name] == expected, f"{design.name} is wrong without any change"
        # who was found already is wrong already
        left.append([i for i in left[-1] if netlist.evaluate(nets, total, i)[name] == expected])
    passed = [mutants[i] for i in left[1] if i not in left[-1]]
    return passed, len(mutants) - len(left[-1])


def check(designs: list[Design], count: int) -> None:
    passed, wrong = [], 0
    for design in designs:
        left, bad = survivors(design, count)
        # most changes make a difference
        assert bad > count / 2, design.name
        passed += left
        wrong += bad
    assert len(passed) <= MOST * wrong, f"of {wrong} wrong mutants these pass:\n" + "\n".join(map(str, passed))


@pytest.mark.parametrize("kind", KINDS)
def test_vectors_find_mutants(kind):
    check(KINDS[kind], 60)


@pytest.mark.long
def test_vectors_find_mutants_of_every_kind():
    check(WIDE, 60)


EXPORTS = {
    "pipelined": ["--form", "pipelined", "--branches", "signed", "--bits", "3", "--inputs", "3", "--signed-inputs"],
    "serial mac": ["--form", "serial", "--neuron", "mac", "--bits", "3", "--inputs", "2"],
}
LONG_EXPORTS = {
    **EXPORTS,
    "mac": ["--neuron", "mac", "--boundary", "layer", "--bits", "5", "--inputs", "7"],
    "serial": ["--form", "serial", "--branches", "bipolar", "--bits", "4", "--inputs", "3"],
    "digits": ["--boundary", "layer", "--branches", "signed", "--bits", "6", "--inputs", "9", "--maximum", "digits"],
    "logarithmic": ["--combine", "logarithmic", "--bits", "5", "--inputs", "5"],
    "pipelined mac": ["--form", "pipelined", "--neuron", "mac", "--bits", "4", "--inputs", "5", "--boundary", "layer"],
    "pipelined logarithmic": ["--form", "pipelined", "--combine", "logarithmic", "--branches", "wired", "--bits", "4",
                              "--boundary", "layer", "--inputs", "5"],
    "serial logarithmic": ["--form", "serial", "--combine", "logarithmic", "--bits", "4", "--inputs", "3"],
    "serial groups": ["--form", "serial", "--groups", "2", "--branches", "signed", "--bits", "3", "--inputs", "6",
                      "--boundary", "layer", "--residual", "6"],
    "serial wired groups": ["--form", "serial", "--groups", "2", "--branches", "wired", "--bits", "3", "--inputs", "6"],
    "pipelined groups": ["--form", "pipelined", "--groups", "3", "--branches", "bipolar", "--bits", "3",
                         "--inputs", "6"],
}


def exported_survivors(options: list[str], count: int, folder: Path, monkeypatch) -> tuple[list[Mutant], int]:
    """As :func:`survivors`, by the exported bench itself, in Icarus."""
    designs = []
    monkeypatch.setattr("bmhw.export.design_from", lambda args, of=main.__globals__["design_from"]: (
        designs.append(of(args)) or designs[-1]))
    assert main([*options, "--out", str(folder)]) == 0
    (design,) = designs
    [core], fmt = folder.glob("*.core"), design.format
    name = core.stem
    text, mutants = mutate((folder / f"{name}.v").read_text(), count, SEED)
    assert len(mutants) == count
    others = {port: np.concatenate([a, b]) for (port, a), b in zip(
        random_vectors(fmt, 500, SEED).items(), vectors(fmt, 500, SEED).values(), strict=True)}
    others_bench = verilog_bench(design, name, broadcast_inputs(fmt, others)[0] | {
        port: others[port] for port in others if others[port].ndim == 1}, fmt.compute(**others),
        latency=create_neuron(design).latency)
    (folder / "mutants.v").write_text(text)
    programs = []
    for number, bench in enumerate(((folder / f"{name}_tb.v").read_text(), others_bench)):
        (folder / f"bench{number}.v").write_text(bench_with_mutants(bench, name, count))
        subprocess.run(["iverilog", "-g2005", "-o", f"bench{number}", "mutants.v", f"bench{number}.v"], cwd=folder,
                       check=True)
        programs.append(folder / f"bench{number}")

    def passes(program: Path, *chosen: str) -> bool:
        run = subprocess.run(["vvp", program, *chosen], cwd=folder, capture_output=True, text=True)
        last = run.stdout.splitlines()[-1]
        assert re.match(f"(PASS|FAIL): {name}, ", last) and (run.returncode == 0) == last.startswith("PASS")
        return run.returncode == 0

    assert all(passes(program) for program in programs)
    passed = [i for i in range(count) if passes(programs[0], f"+mutant={i}")]
    left = [mutants[i] for i in passed if not passes(programs[1], f"+mutant={i}")]
    return left, count - len(passed) + len(left)


def check_exports(exports: dict[str, list[str]], count: int, folder: Path, monkeypatch) -> None:
    passed, wrong = [], 0
    for name, options in exports.items():
        left, bad = exported_survivors(options, count, folder / name.replace(" ", "_"), monkeypatch)
        assert bad > count / 2, name
        passed += left
        wrong += bad
    assert len(passed) <= MOST * wrong, f"of {wrong} wrong mutants these pass:\n" + "\n".join(map(str, passed))


needs_icarus = pytest.mark.skipif("icarus" not in usable_simulators(), reason="needs Icarus Verilog: one build for all")


@needs_icarus
def test_exported_benches_find_mutants(tmp_path, monkeypatch):
    check_exports(EXPORTS, 30, tmp_path, monkeypatch)


@needs_icarus
@pytest.mark.long
def test_exported_benches_of_every_form_find_mutants(tmp_path, monkeypatch):
    check_exports(LONG_EXPORTS, 60, tmp_path, monkeypatch)
