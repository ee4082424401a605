# SPDX-License-Identifier: Apache-2.0
"""The command ``python -m bmhw.synth``: figures that agree with Yosys, options, output, bad input."""

import json
import os
import re

import pytest
from support.calls import assert_one_line, command_of, figures_of
from support.liberty_text import GATE_EQUIVALENT, liberty_text

from bmhw import layers, synth
from bmhw.flow.cache import Cache
from bmhw.flow.engine import Engine
from bmhw.flow.scripts import ABC_GATES, OBJECTIVES, abc_files, yosys_script
from bmhw.flow.synthesis import instances, measure_netlist
from bmhw.hdl.arithmetic.maxima import BINARY_MAXIMA
from bmhw.hdl.arithmetic.multipliers import MULTIPLIERS
from bmhw.hdl.formats.bm import BmFormat
from bmhw.hdl.formats.choices import LAYOUTS
from bmhw.hdl.formats.mac import MacFormat
from bmhw.hdl.neurons.design import FORMS, Design
from bmhw.measure import layers as layer_measurement
from bmhw.measure.generation import generate
from bmhw.measure.neurons import measure

figures, command = figures_of(synth), command_of(synth)
SMALL = ("--bits", "3", "--inputs", "2")
GATES = {"NOT", "AND", "NAND", "OR", "NOR", "XOR", "XNOR", "ANDNOT", "ORNOT"}


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("design", [
    Design(format=MacFormat(inputs=2, bits=4)),
    Design(format=BmFormat(inputs=3, bits=4)),
    Design(format=BmFormat(inputs=2, bits=4, layout="signed"), form="pipelined"),
    Design(format=BmFormat(inputs=2, bits=4), form="serial"),
], ids=lambda design: design.name)
def test_gates_and_depth_agree_with_stat_and_ltp_of_yosys(design, objective, tmp_path):
    source = generate(design, Cache(None))
    script = yosys_script(source.name, [], liberty=False)
    script += "tee -q -o stat.json stat -json\ntee -q -o path.txt ltp -noff\n"
    inputs = {"design.v": source.verilog, **abc_files(ABC_GATES[objective])}
    files = Engine().run(script, inputs, ("stat.json", "path.txt"))
    cells = json.loads(files["stat.json"])["design"]["num_cells_by_type"]
    flip_flops = cells.pop("$_DFF_P_", 0)
    (found,) = measure([design], objective, Engine(), Cache(None))
    assert found["gates"] == sum(cells.values()) > 0
    assert found["flip_flops"] == flip_flops
    assert (flip_flops > 0) == (design.form != "parallel")
    assert {kind.strip("$_") for kind in cells} <= GATES
    assert found["depth"] == int(re.search(r"length=(\d+)", files["path.txt"]).group(1))


def test_every_gate_costs_the_mapper_the_same():
    """With Yosys's own costs, a quarter of an AND for an inverter, abc leaves some behind."""
    source = generate(Design(
        format=BmFormat(inputs=9, bits=5, layout="signed", boundary="layer", sums="clamped", maximum_bits=4,
                        combine="logarithmic"),
        maximum="digits", adder="lookahead", end="select"), Cache(None))
    script = ABC_GATES["area"]
    library, without = script.split("; ", 1)

    def gates(commands: str) -> tuple[int, int]:
        files = Engine().run(yosys_script(source.name, [], liberty=False),
                             {"design.v": source.verilog, **abc_files(commands)}, ("netlist.json",))
        found = measure_netlist(json.loads(files["netlist.json"]), source.name, {}, None)
        return found.gates, found.cells.get("$_NOT_", 0)

    assert library == "read_genlib unit.genlib"
    (few, inverters), (more, more_inverters) = gates(script), gates(without)
    assert few < more and inverters < more_inverters


def test_the_json_has_what_the_table_has(capsys):
    found = figures(capsys, *SMALL)
    assert list(found["parts"]) == ["log2", "sums", "maxima", "exp2", "combine"]
    assert sum(part["gates"] for part in found["parts"].values()) == found["parts_joined"]["gates"]
    path = found["critical_path"]["steps"]
    assert sum(step["gates"] for step in path) == found["parts_joined"]["depth"]
    assert {name: part["critical_path_gates"] for name, part in found["parts"].items()} == {
        name: sum(step["gates"] for step in path if step["part"] == name) for name in found["parts"]}
    assert found["gates_per_input"] == found["gates"] / 2
    assert found["latency_cycles"] == 0 and found["flip_flops"] == 0
    assert set(found["cells"]) <= GATES and sum(found["cells"].values()) == found["gates"]
    assert found["design"]["layout"] == "relu" and found["design"]["log_bits"] == 3
    assert {"bmhw", "amaranth", "engine", "yosys", "python"} <= set(found["tools"])
    assert "each input has its own log2" in found["method"]["boundary"]


def test_a_comparison_gives_both_and_the_ratios(capsys):
    found = figures(capsys, "--inputs", "2", "--compare", "--mac-bits", "4", "--bm-bits", "3")
    mac, bm, ratio = found["mac"], found["bm"], found["ratio"]
    assert (mac["design"]["bits"], bm["design"]["bits"]) == (4, 3)
    assert list(mac["parts"]) == ["products", "compression", "final_adder"]
    assert ratio["gates"] == mac["gates"] / bm["gates"] and ratio["depth"] == bm["depth"] / mac["depth"]
    assert found["comparison"].startswith("unequal widths")
    assert figures(capsys, *SMALL, "--compare")["comparison"] == "equal width, 3 bits"
    assert figures(capsys, *SMALL, "--compare", "--log-bits", "2")["comparison"].startswith("unequal widths")


def test_a_library_adds_area_and_delay(capsys, tmp_path):
    (tmp_path / "small.lib").write_text(liberty_text())
    found = figures(capsys, *SMALL, "--compare", "--liberty", str(tmp_path / "small.lib"))
    for neuron in (found["mac"], found["bm"]):
        assert neuron["area_gate_equivalents"] > 0 and neuron["delay_ns"] > 0
        assert neuron["liberty"]["nand2"] == "q7"
        assert neuron["liberty"]["nand2_area_library_units"] == GATE_EQUIVALENT
        parts = sum(part["area_gate_equivalents"] for part in neuron["parts"].values())
        assert parts == pytest.approx(neuron["parts_joined"]["area_gate_equivalents"])
    assert found["ratio"]["area_gate_equivalents"] == pytest.approx(
        found["mac"]["area_gate_equivalents"] / found["bm"]["area_gate_equivalents"])
    assert found["ratio"]["delay_ns"] == pytest.approx(found["bm"]["delay_ns"] / found["mac"]["delay_ns"])


@pytest.mark.parametrize("options", [
    *(["--branches", layout, "--form", form] for layout in LAYOUTS for form in FORMS),
    *(["--neuron", "mac", "--form", form] for form in FORMS),
    *(["--maximum", maximum, "--branches", "signed"] for maximum in BINARY_MAXIMA),
    *(["--neuron", "mac", "--multiplier", multiplier] for multiplier in MULTIPLIERS),
    ["--branches", "signed", "--signed-inputs"],
    ["--combine", "logarithmic"],
    ["--sums", "clamped"],
    ["--objective", "delay"],
    ["--bits", "2"],
    ["--bits", "16", "--inputs", "1"],
    ["--bits", "16", "--inputs", "1", "--neuron", "mac"],
    ["--inputs", "1"],
], ids=" ".join)
def test_every_kind_of_neuron_gives_figures(options, capsys):
    found = figures(capsys, *SMALL, *options)
    assert found["gates"] > 0 and found["depth"] > 0 and found["parts_joined"]["gates"] > 0
    clocked = found["design"]["form"] != "parallel"
    assert (found["flip_flops"] > 0) == clocked == (found["latency_cycles"] > 0)


def test_the_tables_name_parts_path_versions_and_what_to_try_next(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    assert synth.main([*SMALL, "--compare"]) == 0
    said = capsys.readouterr().out
    for word in ("log2", "maxima", "products", "final_adder", "whole neuron", "Critical path:", "MAC / BM",
                 "BM / MAC", "each input has its own log2", "amaranth", "Next: "):
        assert word in said
    assert said.rstrip().endswith("--objective delay")


def test_the_command_runs_and_repeats_from_the_cache(tmp_path):
    first = command(*SMALL, BMHW_CACHE_DIR=str(tmp_path / "cache"))
    assert first.returncode == 0 and first.stderr == "" and "whole neuron" in first.stdout
    # a Yosys that can't be started: all comes from the cache
    again = command(*SMALL, BMHW_CACHE_DIR=str(tmp_path / "cache"), PATH="", TMPDIR="/nowhere")
    assert again.stdout == first.stdout
    fresh = command(*SMALL, "--no-cache", "--time-limit", "0.001", BMHW_CACHE_DIR=str(tmp_path / "cache"))
    assert fresh.returncode == 1 and "time limit of 0.001 s" in fresh.stderr


def test_a_broken_cache_does_not_break_a_run(tmp_path):
    (tmp_path / "cache.db").write_text("no database")
    result = command(*SMALL, "--json", "-", BMHW_CACHE_DIR=str(tmp_path))
    assert result.returncode == 0 and json.loads(result.stdout)["gates"] > 0


def test_json_goes_to_a_file_beside_the_table(tmp_path):
    result = command(*SMALL, "--json", str(tmp_path / "out.json"))
    assert result.returncode == 0 and "whole neuron" in result.stdout
    assert json.loads((tmp_path / "out.json").read_text())["gates"] > 0
    assert os.listdir(tmp_path) == ["out.json"]


@pytest.mark.parametrize("arguments, status, words", [
    (["--bits", "17"], 2, ["2 to 16", "17"]),
    (["--neuron", "maac"], 2, ["maac", "did you mean mac?"]),
    (["--objective", "speed"], 2, ["area, balanced, delay", "speed"]),
    (["--engine", "vivado"], 2, ["auto, pyosys, yowasp", "vivado"]),
    (["--mac-bits", "8"], 2, ["--mac-bits 8", "--compare"]),
    (["--compare", "--bm-bits", "1"], 2, ["2 to 16", "1"]),
    (["--time-limit", "soon"], 2, ["above 0", "soon"]),
    (["--time-limit", "-1"], 2, ["above 0", "-1"]),
    (["--liberty", "missing.lib"], 1, ["missing.lib", "No such file"]),
    (["--json", "nowhere/at/all.json"], 1, ["nowhere/at", "folder"]),
])
def test_bad_input_is_one_line_on_stderr(arguments, status, words):
    assert_one_line(command(*SMALL, *arguments), status, words)


def test_a_broken_library_leaves_no_file(tmp_path):
    (tmp_path / "broken.lib").write_text("library (x) { cell (")
    result = command(*SMALL, "--liberty", str(tmp_path / "broken.lib"), "--json", str(tmp_path / "out.json"))
    assert result.returncode == 1 and result.stderr.count("\n") == 1 and "broken.lib" in result.stderr
    assert os.listdir(tmp_path) == ["broken.lib"]


def test_help_shows_three_examples():
    result = command("--help")
    assert result.returncode == 0
    assert len(re.findall(r"^  python -m bmhw\.synth ", result.stdout, re.MULTILINE)) == 3


def test_the_instances_of_a_top_module_are_its_parts():
    verilog = ("module top(input a, output y);\n  wire b; sub one (.a(a), .y(b));\n"
               "  sub two (\n .a(b), .y(y));\nendmodule\n"
               "module sub(input a, output y);\n  assign y = ~a;\nendmodule\n")
    assert instances(verilog, "top") == {"one": "sub", "two": "sub"}
    assert instances(verilog, "sub") == {}
    with pytest.raises(ValueError, match="sub, top, not 'other'"):
        instances(verilog, "other")


def test_the_layer_boundary_is_that_of_the_layers(capsys, monkeypatch):
    """The same neuron by options as by a network's layer: the same figures, and the parts of a layer."""
    monkeypatch.setattr(layer_measurement, "_BM_ARCHITECTURES", 1)  # any one will do
    chosen = ("--branches", "signed", "--sums", "clamped")
    layer = ("--bits", "3", "--layers", "stage0_block0_conv1", "--combine", "logarithmic", *chosen)
    assert layers.main([*layer, "--json", "-"]) == 0
    (row,) = json.loads(capsys.readouterr().out)["layers"]
    architecture = [word for neuron in ("mac", "bm") for name, value in row[neuron]["architecture"].items()
                    if name not in ("adder", "combine") for word in (f"--{name.replace('_', '-')}", value)]
    for neuron, end in (("mac", "requantize"), ("bm", "log_subtract")):
        found = figures(capsys, "--compare", "--bits", "3", "--inputs", "16", "--boundary", "layer", *chosen,
                        "--combine", "logarithmic", *architecture, "--adder", row[neuron]["architecture"]["adder"])
        assert (found[neuron]["gates"], found[neuron]["depth"]) == (row[neuron]["gates"], row[neuron]["depth"])
        assert list(found[neuron]["parts"])[-1] == end and "log2" not in found[neuron]["parts"]


@pytest.mark.parametrize("latency", ["1", "2"])
def test_elements_are_compared(capsys, latency):
    found = figures(capsys, "--boundary", "element", "--form", "serial", "--compare", "--bits", "4", "--inputs", "36",
                    "--branches", "signed", "--sums", "clamped", "--flush", "9", "--latency", latency)
    mac, bm = found["mac"], found["bm"]
    assert list(mac["parts"])[:2] == ["products", "accumulator"] and list(bm["parts"])[:2] == ["sums", "maxima"]
    # what is held: two maxima of 4 bits, 12 bits that hold 9 products; a register between holds a sum, a product
    held = 0 if latency == "1" else 1
    assert (bm["flip_flops"], mac["flip_flops"]) == (8 + 4 * held, 12 + 8 * held)
    assert mac["latency_cycles"] == bm["latency_cycles"] == int(latency)
    assert "gates_per_input" not in bm and bm["gates"] < mac["gates"]


@pytest.mark.parametrize("arguments, words", [
    (["--boundary", "element"], ["Boundary element needs form serial", "parallel"]),
    (["--boundary", "element", "--form", "serial", "--combine", "logarithmic"], ["combine must be linear"]),
    (["--boundary", "element", "--form", "serial", "--flush", "3"], ["--flush 3 needs --neuron mac", "bm"]),
    (["--neuron", "mac", "--flush", "3"], ["--flush 3 needs --boundary element", "neuron"]),
    (["--boundary", "element", "--form", "serial", "--latency", "3"], ["must be 1 or 2 cycles, not 3"]),
    (["--neuron", "mac", "--requantize", "shift"], ["--requantize shift needs --boundary layer", "neuron"]),
    (["--requantize", "shift", "--boundary", "layer"], ["--requantize shift needs --neuron mac", "bm"]),
    (["--end", "select", "--neuron", "mac"], ["--end select needs --neuron bm", "mac"]),
    (["--end", "select", "--bits", "16"], ["End select is for maxima of 9 bits or fewer", "17"]),
    (["--boundary", "layr"], ["neuron, layer", "layr", "did you mean layer?"]),
])
def test_options_of_other_boundaries(arguments, words):
    result = command(*arguments)
    assert result.returncode == 2 and result.stderr.count("\n") == 1
    for word in words:
        assert word in result.stderr
