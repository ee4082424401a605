# SPDX-License-Identifier: Apache-2.0
"""The command ``python -m bmhw.layers``: the network's layers, mapping block by block, table, JSON, bad input."""

import dataclasses
import json
from pathlib import Path

import pytest
from support.calls import (
    assert_one_line,
    command_of,
    figures_of,
    figures_without_yosys,
    map_blocks_without_yosys,
    measure_without_building,
)
from support.cards import BM_CARDS, KEPT
from support.liberty_text import liberty_text

from bmhw import layers
from bmhw.errors import RunError, TimeLimitError, UsageError
from bmhw.flow.blocks import BLOCK_LIMIT, FLAT, BlockMapper, Modules
from bmhw.flow.cache import Cache
from bmhw.flow.engine import Engine
from bmhw.flow.synthesis import map_design
from bmhw.hdl.arithmetic.multipliers import Multiplier
from bmhw.hdl.formats.bm import BmFormat
from bmhw.hdl.formats.choices import COMBINES
from bmhw.hdl.formats.mac import MacFormat
from bmhw.hdl.neurons.design import Design
from bmhw.hdl.neurons.neuron import create_neuron
from bmhw.hdl.verilog.convert import block_to_verilog
from bmhw.measure import layers as layer_measurement
from bmhw.measure.generation import generate
from bmhw.measure.layer_formats import TrainedNeurons
from bmhw.measure.layers import Neurons, totals
from bmhw.measure.networks import NETWORKS, network
from bmhw.measure.selection import contenders, ranking
from bmhw.models.files.store import WEIGHTS, read_card

figures, command = figures_of(layers), command_of(layers)
NAMES = "stem,stage0_block0_conv1,stage0_block0_conv3,stage0_block1_conv3"
SMALL = ("--explore", "--bits", "3", "--layers", NAMES)


ARCHITECTURES = layer_measurement._BM_ARCHITECTURES


@pytest.fixture(scope="module", autouse=True)
def few_architectures():
    """The best two of the table instead of six: each is a run of Yosys or two."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layer_measurement, "_BM_ARCHITECTURES", 2)
        yield


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Figures of a few small layers, every architecture tried once."""
    out = tmp_path_factory.mktemp("layers") / "out.json"
    assert layers.main([*SMALL, "--json", str(out)]) == 0
    return json.loads(out.read_text())


@pytest.fixture
def unmapped(monkeypatch):
    map_blocks_without_yosys(monkeypatch)


@pytest.fixture
def unbuilt(monkeypatch):
    measure_without_building(monkeypatch)


# -- the network


def test_the_network_has_the_papers_22_convolutions():
    found = NETWORKS["resnet20v2"]()
    assert [layer.fan_in for layer in found] == [
        9, 16, 144, 16, 16, 64, 144, 16, 64, 576, 64, 64, 128, 576, 64, 128, 1152, 128, 128, 256, 1152, 128]
    assert [layer.outputs for layer in found] == [
        16, 16, 16, 64, 64, 16, 16, 64, 64, 64, 128, 128, 64, 64, 128, 128, 128, 256, 256, 128, 128, 256]
    linear = {layer.name for layer in found if layer.output == "linear"}
    assert linear == {layer.name for layer in found if layer.name.endswith(("conv3", "shortcut"))}
    assert [layer.name for layer in found if layer.stride == 2] == [
        f"stage{stage}_block0_{name}" for stage in (1, 2) for name in ("conv1", "shortcut")]
    signed = [layer for layer in found if not layer.nonnegative]
    assert [layer.name for layer in signed] == ["stage1_block0_shortcut", "stage2_block0_shortcut"]
    # about 50.5 million multiply-accumulates on an image of 28 x 28
    pixels = {"stem": 28, "stage0": 28, "stage1": 14, "stage2": 7}
    work = sum(layer.fan_in * layer.outputs * pixels[layer.name.split("_")[0]] ** 2 for layer in found)
    assert work == pytest.approx(50.5e6, rel=0.01)


def test_layouts_follow_what_the_inputs_allow():
    found = NETWORKS["resnet20v2"]()
    for layer in found:
        assert Neurons().layout(layer) == ("relu" if layer.nonnegative else "bipolar")
        assert Neurons(branches="signed").layout(layer) == "signed"
        odd = layer.fan_in % 2 == 1
        assert Neurons(branches="wired").layout(layer) == ("wired" if layer.nonnegative and not odd else "signed")
        for neurons in (Neurons(), Neurons(branches="signed", bm_bits=16), Neurons(branches="wired")):
            formats = [neurons.mac(layer), *neurons.bm(layer)]
            for fmt in formats:
                assert (fmt.inputs, fmt.boundary, fmt.result) == (layer.fan_in, "layer", layer.output)
                assert fmt.signed_inputs == (not layer.nonnegative)
        ends = {fmt.combine for fmt in Neurons().bm(layer)}
        assert ends == (set(COMBINES) if layer.output == "code" else {"linear"})


# -- mapping block by block


DESIGNS = [
    Design(format=MacFormat(inputs=16, bits=6, boundary="layer")),
    Design(format=MacFormat(inputs=16, bits=6, boundary="layer", result="linear", signed_inputs=True),
           multiplier="booth"),
    Design(format=BmFormat(inputs=24, bits=6, boundary="layer", combine="logarithmic"), maximum="digits4"),
    Design(format=BmFormat(inputs=24, bits=6, boundary="layer", layout="signed"), maximum="elimination4",
           adder="carry_skip"),
    Design(format=BmFormat(inputs=64, bits=8, boundary="layer", layout="signed", sums="clamped", maximum_bits=5,
                           combine="logarithmic"), maximum="digits3", adder="ripple", end="select"),
]


@pytest.mark.parametrize("design", DESIGNS, ids=lambda design: f"{design.name}_{design.format.result}")
def test_blocks_agree_with_one_netlist(design):
    objective, tolerance = "area", 0.05  # the only script that blocks are mapped by, and what users are told
    engine, cache = Engine(), Cache(None)
    source = generate(design, cache)
    whole = map_design(source.verilog, source.name, by_parts=False, objective=objective, engine=engine, cache=cache,
                       library=None)
    mapper = BlockMapper(engine, cache)
    flat = mapper.figures(source.verilog, source.name, objective=objective, limit=FLAT)
    assert (flat.gates, flat.depth) == (whole.gates, whole.depth)
    # the whole neuron is below the limit in size: a smaller one opens it
    limit = Modules(source.verilog).sizes[source.name] / 2
    assert len(Modules(source.verilog).blocks(source.name, limit)) >= 3
    blocks = mapper.figures(source.verilog, source.name, objective=objective, limit=limit)
    assert blocks.gates == pytest.approx(whole.gates, rel=tolerance)
    assert blocks.depth == pytest.approx(whole.depth, rel=tolerance)
    assert sum(step.gates for step in blocks.path) == blocks.depth
    assert {step.part for step in blocks.path} <= {*design.parts, ""}  # "": what was not taken out


def test_the_path_crosses_blocks_and_copies_are_counted():
    verilog = "\n".join((
        "module chain_link (\n  input wire a,\n  input wire b,\n  output wire y\n);",
        "  assign y = a ^ b;\nendmodule",
        "module chain (\n  input wire a,\n  input wire [2:0] b,\n  output wire y\n);\n  wire [2:0] t;",
        "  chain_link one (\n    .a(a),\n    .b(b[0]),\n    .y(t[0])\n  );",
        "  chain_link two (\n    .a(t[0]),\n    .b(b[1]),\n    .y(t[1])\n  );",
        "  chain_link three (\n    .a(t[1]),\n    .b(b[2]),\n    .y(t[2])\n  );",
        "  assign y = t[2];\nendmodule\n"))
    assert Modules(verilog).blocks("chain", 2) == ["chain_link", "chain"]
    found = BlockMapper(Engine(), Cache(None)).figures(verilog, "chain", objective="area", limit=2)
    assert (found.gates, found.depth) == (3, 3)
    assert [step.part for step in found.path] == ["one", "two", "three"]


def test_the_largest_modules_are_taken_out_until_the_rest_is_small_enough():
    verilog = "".join(f"module {name} (\n  input wire a,\n  output wire [{bits - 1}:0] y\n);\n{inside}endmodule\n"
                      for name, bits, inside in (
                          ("leaf", 9, ""), ("small", 10, ""), ("large", 40, "  leaf x (\n  );\n"),
                          ("top", 1, "  small one (\n  );\n  large two (\n  );\n  small three (\n  );\n")))
    modules = Modules(verilog)
    assert modules.sizes == {"leaf": 9, "small": 10, "large": 49, "top": 70}
    assert modules.blocks("top", 70) == ["top"]
    assert modules.blocks("top", 69) == modules.blocks("top", 49) == ["large", "top"]
    assert modules.blocks("top", 40) == ["leaf", "large", "top"]
    assert modules.blocks("top", 20) == ["leaf", "large", "small", "top"]
    assert "blackbox" not in modules.source("large", 49) and "blackbox" in modules.source("large", 40)


def test_an_instance_whose_name_is_a_word_of_verilog_is_one():
    """That of the table which ends that anticipate a sum read."""
    fmt = BmFormat(inputs=4, bits=4, layout="signed", groups=2, boundary="layer")
    design = Design(format=fmt, end="anticipate")
    modules = Modules(block_to_verilog(create_neuron(design), "neuron", sliced=True))
    assert "\\table " in modules.verilog
    reached = modules.source("neuron", FLAT)
    assert set(modules.text) == {name for name in modules.text if f"module {name} (" in reached}


def test_blocks_are_shared_between_fan_ins():
    """A larger neuron maps only what the smaller one had not."""

    class CountingEngine(Engine):
        runs = 0

        def run(self, *arguments):
            self.runs += 1
            return super().run(*arguments)

    engine, cache = CountingEngine(), Cache(None)
    mapper = BlockMapper(engine, cache)
    runs = []
    for inputs in (8, 16):
        fmt = BmFormat(inputs=inputs, bits=4, boundary="layer", combine="logarithmic")
        source = generate(Design(format=fmt, maximum="tree"), cache)
        mapper.figures(source.verilog, source.name, objective="area", limit=50)
        blocks = Modules(source.verilog).blocks(source.name, 50)
        runs.append((engine.runs, len(blocks)))
        engine.runs = 0
    assert runs[0][0] == runs[0][1]
    # adder and compare-select are there already
    assert 0 < runs[1][0] <= runs[1][1] - 2


@pytest.mark.parametrize("architecture", ["array", "dadda"])
def test_the_multiplier_is_as_small_as_the_textbooks(architecture):
    """64 AND, 48 full adders of 5 gates and 8 half adders of 2: the MAC neuron is made of no straw."""
    verilog = block_to_verilog(Multiplier(a_bits=8, b_bits=8, architecture=architecture, adder="ripple"), "multiplier")
    found = BlockMapper(Engine(), Cache(None)).figures(verilog, "multiplier", objective="area", limit=FLAT)
    assert found.gates == 64 + 48 * 5 + 8 * 2


def test_a_deadline_ends_a_mapping():
    source = generate(DESIGNS[0], Cache(None))
    with pytest.raises(TimeLimitError):
        BlockMapper(Engine(), Cache(None)).figures(source.verilog, source.name, objective="area", deadline=0.0)


# -- the command


def test_the_json_has_layers_ratios_and_totals(small):
    assert [row["name"] for row in small["layers"]] == [
        "stem", "stage0_block0_conv1", "stage0_block0_conv3", "stage0_block1_conv3"]
    for row in small["layers"]:
        mac, bm = row["mac"], row["bm"]
        assert row["ratio"] == {"gates": mac["gates"] / bm["gates"], "depth": bm["depth"] / mac["depth"]}
        for neuron in (mac, bm):
            assert neuron["layer"]["gates"] == neuron["gates"] * row["outputs"]
            assert neuron["design"]["boundary"] == "layer" and neuron["design"]["result"] == row["output"]
            assert neuron["mapping"] == "flat"
        tried = {(c["multiplier"], c["adder"]) for c in mac["candidates"]}
        assert {multiplier for multiplier, _ in tried} >= {"dadda", "wallace", "booth"}
        assert (mac["architecture"]["multiplier"], mac["architecture"]["adder"]) in tried
        assert {c["combine"] for c in bm["candidates"]} == (
            {"linear", "logarithmic"} if row["output"] == "code" else {"linear"})
        assert mac["design"]["requantize"] == "scale" and mac["design"]["scale_bits"] >= 8
    total = small["total"]
    for neuron in ("mac", "bm"):
        assert total[neuron]["gates"] == sum(row[neuron]["layer"]["gates"] for row in small["layers"])
        assert total[neuron]["depth"] == sum(row[neuron]["depth"] for row in small["layers"])
    assert total["ratio"]["gates"] == total["mac"]["gates"] / total["bm"]["gates"]
    assert small["tools"]["yosys"].startswith("Yosys ")
    assert small["claim"]["gates"] == [2.1, 2.9] and small["claim"]["depth"] == [0.70, 0.85]


def test_equal_layers_have_equal_figures(small):
    first, second = (row for row in small["layers"] if row["name"].endswith("conv3"))
    assert {**first, "name": ""} == {**second, "name": ""}


def test_the_winner_is_the_best_candidate(small):
    for row in small["layers"]:
        for neuron in (row["mac"], row["bm"]):
            best = min(neuron["candidates"], key=lambda c: (c["gates"], c["depth"]))
            assert neuron["architecture"] == {name: best[name] for name in neuron["architecture"]}


@pytest.mark.parametrize("count", [1, pytest.param(ARCHITECTURES, marks=pytest.mark.long)])
def test_the_best_architectures_of_the_table_are_tried(count, monkeypatch, unmapped, capsys):
    monkeypatch.setattr(layer_measurement, "_BM_ARCHITECTURES", count)
    arguments = ("--explore", "--layers", "stem", "--branches", "signed", "--combine", "logarithmic")
    (row,) = figures(capsys, *arguments)["layers"]
    [fmt] = Neurons(branches="signed", combine="logarithmic").bm(NETWORKS["resnet20v2"]()[0])
    tried = [{key: one[key] for key in ("maximum", "adder", "end")} for one in row["bm"]["candidates"]]
    assert tried == ranking(fmt, "area")[:count] and len(tried) == count


def test_the_objective_delay_takes_the_better_of_both_scripts(capsys):
    (row,) = figures(capsys, "--bits", "3", "--layers", "stem", "--objective", "delay")["layers"]
    for neuron in (row["mac"], row["bm"]):
        assert {c["script"] for c in neuron["candidates"]} == {"area", "delay"}
        assert neuron["depth"] == min(c["depth"] for c in neuron["candidates"])


def test_only_the_script_for_area_maps_blocks(capsys, monkeypatch):
    monkeypatch.setattr(layer_measurement, "FLAT_INPUTS", 8)
    (row,) = figures(capsys, "--bits", "2", "--layers", "stem", "--objective", "delay")["layers"]
    assert row["fan_in"] == 9
    for neuron in (row["mac"], row["bm"]):
        assert (neuron["mapping"], neuron["script"]) == ("blocks", "area")
        assert {c["script"] for c in neuron["candidates"]} == {"area"}


def test_sums_maxima_and_end_can_be_chosen(unmapped, capsys):
    arguments = ("--bits", "4", "--layers", "stem", "--sums", "clamped", "--maximum-bits", "3", "--combine", "linear")
    found = figures(capsys, *arguments)
    (row,) = found["layers"]
    assert {key: row["bm"]["design"][key] for key in ("sums", "maximum_bits", "combine")} == {
        "sums": "clamped", "maximum_bits": 3, "combine": "linear"}
    assert (found["sums"], found["maximum_bits"], found["combine"]) == ("clamped", 3, "linear")
    assert layers.main(arguments) == 0
    assert "clamped sums, maxima of 3 bits" in capsys.readouterr().out


def test_log_codes_may_have_fewer_bits_than_linear_inputs(unmapped, capsys):
    arguments = ("--bits", "4", "--layers", "stem,stage0_block0_conv3", "--log-bits", "3")
    found = figures(capsys, *arguments)
    for row in found["layers"]:
        assert {key: row["bm"]["design"][key] for key in ("bits", "log_bits", "weight_bits", "out_fraction")} == {
            "bits": 4, "log_bits": 3, "weight_bits": 3, "out_fraction": 6}
        assert row["mac"]["design"]["bits"] == 4
    assert layers.main(arguments) == 0
    assert "BM 4 bits, log codes 3" in capsys.readouterr().out


def test_log_codes_may_span_fewer_octaves(unmapped, capsys):
    arguments = ("--bits", "4", "--layers", "stem,stage0_block0_conv3", "--log-fraction", "3")
    found = figures(capsys, *arguments)
    assert found["log_fraction"] == 3
    for row in found["layers"]:
        assert {key: row["bm"]["design"][key] for key in ("log_bits", "log_fraction")} == {
            "log_bits": 4, "log_fraction": 3}
    assert layers.main(arguments) == 0
    assert "BM 4 bits, log codes 4.3" in capsys.readouterr().out


def test_the_macs_weights_may_have_a_width_of_their_own(unmapped, capsys):
    arguments = ("--bits", "4", "--layers", "stem", "--mac-weight-bits", "3")
    found = figures(capsys, *arguments)
    (row,) = found["layers"]
    assert (row["mac"]["design"]["bits"], row["mac"]["design"]["weight_bits"]) == (4, 3)
    assert {row["bm"]["design"][name] for name in ("bits", "weight_bits")} == {4}
    assert layers.main(arguments) == 0
    assert "MAC 4 x 3 bits" in capsys.readouterr().out


def test_layers_with_a_linear_result_may_have_maxima_of_their_own(unmapped, capsys):
    arguments = ("--bits", "4", "--layers", "stem,stage0_block0_conv3", "--sums", "clamped", "--maximum-bits", "3",
                 "--linear-maximum-bits", "2")
    found = figures(capsys, *arguments)
    assert {row["output"]: row["bm"]["design"]["maximum_bits"] for row in found["layers"]} == {"code": 3, "linear": 2}
    assert (found["maximum_bits"], found["linear_maximum_bits"]) == (3, 2)
    assert layers.main(arguments) == 0
    assert "maxima of 3 bits, of 2 bits before a linear result" in " ".join(capsys.readouterr().out.split())


def test_a_library_adds_area_and_delay(capsys, tmp_path):
    (tmp_path / "small.lib").write_text(liberty_text())
    found = figures(capsys, "--bits", "2", "--layers", "stem", "--liberty", str(tmp_path / "small.lib"))
    (row,) = found["layers"]
    for neuron in (row["mac"], row["bm"]):
        assert neuron["area_gate_equivalents"] > 0 and neuron["delay_ns"] > 0
        assert neuron["layer"]["area_gate_equivalents"] == pytest.approx(16 * neuron["area_gate_equivalents"])
    assert set(row["ratio"]) == {"gates", "depth", "area_gate_equivalents", "delay_ns"}


def test_a_layer_that_takes_too_long_says_so_and_the_table_goes_on(small, monkeypatch, capsys):
    mapped = BlockMapper.figures

    def slow(self, verilog, top, **options):
        if "_16in" in top:
            raise TimeLimitError("too long")
        return mapped(self, verilog, top, **options)

    monkeypatch.setattr(BlockMapper, "figures", slow)
    found = figures(capsys, *SMALL, "--time-limit", "600")
    stem, *others = found["layers"]
    assert stem == small["layers"][0]
    for row in others:
        assert row["error"] == "not synthesised within 600 s" and row["ratio"] is None
    assert found["total"]["layers_measured"] == 1 and found["total"]["by_output"]["linear"] is None
    assert totals(others) is None
    assert layers.main(SMALL) == 0
    assert "not synthesised within 600 s" in capsys.readouterr().out


def test_the_table_names_winners_and_the_claim(small, capsys):
    assert layers.main(SMALL) == 0
    said = capsys.readouterr().out
    winners = {row[neuron]["architecture"][part] for row in small["layers"]
               for neuron, part in (("mac", "multiplier"), ("bm", "combine"))}
    for word in ("stage0_block1_conv3", "total, 4 of 4 layers", "2.10 to 2.90", "0.70 to 0.85",
                 "arXiv 2009.07190", "flat up to 64 inputs", "Architectures, explored", *winners):
        assert word in said


# -- the choice of architectures


def test_the_default_measures_what_the_shipped_measurements_choose(unbuilt, capsys):
    """Every architecture that is left to choose, and no other; said in JSON and table."""
    names = "stem,stage0_block0_conv3,stage1_block1_conv1,stage2_block1_conv2"
    for objective in ("area", "balanced", "delay"):
        arguments = ("--bits", "4", "--layers", names, "--branches", "signed", "--objective", objective, "--combine",
                     "logarithmic")
        found = figures(capsys, *arguments)
        assert found["method"]["choice"] == "shipped"
        neurons = Neurons(mac_bits=4, bm_bits=4, branches="signed", objective=objective, combine="logarithmic")
        layers_ = {layer.name: layer for layer in NETWORKS["resnet20v2"]()}
        for row in found["layers"]:
            layer = layers_[row["name"]]
            scripts = layer_measurement.SCRIPTS[objective] if layer.fan_in <= 64 else ("area",)
            for which, fmt in (("mac", neurons.mac(layer)), ("bm", *neurons.bm(layer))):
                chosen = contenders(fmt, objective, scripts)
                tried = [{name: one[name] for name in chosen.architectures[0]} | {"script": one["script"]}
                         for one in row[which]["candidates"]]
                tries = None if layer.fan_in <= 64 else 2
                assert tried == [{**one, "script": script} for one in chosen.architectures[:tries]
                                 for script in scripts]
                assert row[which]["chosen_from"] == {**chosen.measured, "exact": chosen.exact}
    assert layers.main(arguments) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "Architectures, shipped: the best one at the nearest shape in bmhw/measure/data/architectures.json" in said
    assert "from those at 4 bits, 9 inputs, code)" in said and "from those at 4:5 bits, 9 inputs, code)" in said


def test_exploring_names_no_measured_shape(small):
    assert small["method"]["choice"] == "explored" and "--explore" in small["command"]
    assert {row[neuron]["chosen_from"] for row in small["layers"] for neuron in ("mac", "bm")} == {None}


def test_the_default_is_as_good_as_exploring(small, capsys):
    """Of MAC neurons, at a width and fan-ins that nothing was measured at."""
    found = figures(capsys, "--bits", "3", "--layers", NAMES)
    explored = {row["name"]: row for row in small["layers"]}
    for row in found["layers"]:
        best, mac = explored[row["name"]]["mac"], row["mac"]
        assert not mac["chosen_from"]["exact"]
        assert mac["gates"] * mac["depth"] <= 1.01 * best["gates"] * best["depth"]
        assert len(mac["candidates"]) > 1


@pytest.mark.parametrize("better", COMBINES)
def test_the_default_chooses_the_end_at_fewer_inputs(better, capsys, monkeypatch, unbuilt):
    """Large BM neurons that may have either end are mapped with the one that is better at 64 inputs."""

    def figures_by_end(self, verilog, top, **options):
        found = figures_without_yosys(verilog)
        found.gates += 0 if ("logarithmic" in top) == (better == "logarithmic") else 10**9
        return found

    monkeypatch.setattr(BlockMapper, "figures", figures_by_end)
    small, large = figures(capsys, "--layers", "stage0_block1_conv1,stage0_block1_conv2")["layers"]
    tried = [[(one["inputs"], one["combine"]) for one in row["bm"]["candidates"]] for row in (small, large)]
    ends = [(64, "linear"), (64, "logarithmic")]
    assert tried == [ends, [*ends, (144, better)]]
    row = large
    assert row["bm"]["design"]["combine"] == row["bm"]["architecture"]["combine"] == better


# -- trained networks

LENET_5BIT, WIRED_LOG = (str(KEPT / f"{name}.json") for name in ("mnist-lenet-5bit",
                                                                  "mnist-resnet20-wired-log-clamped5-4"))


def test_lenet_has_two_convolutions_and_three_dense_layers():
    found = network("mnist-lenet")
    assert [(layer.name, layer.fan_in, layer.outputs, layer.output) for layer in found.layers] == [
        # a pool adds numbers; the classes are compared as numbers
        ("conv1", 25, 16, "linear"), ("conv2", 400, 32, "linear"), ("dense1", 800, 120, "code"),
        ("dense2", 120, 84, "code"), ("dense3", 84, 10, "linear")]
    assert all(layer.nonnegative for layer in found.layers)


def test_a_trained_resnet_has_the_layers_of_the_free_one_and_a_dense_one():
    *convolutions, dense = network("mnist-resnet20").layers
    assert tuple(convolutions) == NETWORKS["resnet20v2"]()
    assert (dense.name, dense.fan_in, dense.outputs, dense.output) == ("dense", 256, 10, "linear")


@pytest.mark.parametrize("path", BM_CARDS, ids=lambda path: path.stem)
def test_the_neurons_of_every_trained_network_are_those_of_its_card(path):
    chosen, entries = network(path.stem if path.parent == WEIGHTS else str(path)), read_card(path)["layers"]
    neurons = TrainedNeurons.of(chosen, mac_bits=5)
    assert [layer.name for layer in chosen.layers] == list(entries)
    for layer in chosen.layers:
        entry, [fmt] = entries[layer.name], neurons.bm(layer)
        kept = set(entry) - {"neuron", "boundary", "result"}
        assert {key: getattr(fmt, key) for key in kept} == {key: entry[key] for key in kept}
        assert (fmt.boundary, fmt.result) == ("layer", layer.output)
        if entry["combine"] == "logarithmic":
            assert fmt.result == "code"
        mac = neurons.mac(layer)
        assert (mac.inputs, mac.bits, mac.signed_inputs, mac.result) == (
            entry["inputs"], 5, entry["signed_inputs"], layer.output)


def test_a_trained_network_is_measured_with_the_formats_of_its_card(unbuilt, capsys):
    """Convolution and dense layer, codes of fewer octaves than usual, MACs of another width."""
    arguments = ("--network", LENET_5BIT, "--mac-bits", "3", "--mac-weight-bits", "2", "--layers",
                 "conv1,dense2,dense3")
    found = figures(capsys, *arguments)
    assert (found["network"], found["formats"], found["log_bits"], found["log_fraction"]) == (
        "mnist-lenet-5bit", "card", 5, 3)
    entries = read_card(Path(LENET_5BIT))["layers"]
    for row in found["layers"]:
        design, entry = row["bm"]["design"], entries[row["name"]]
        assert {key: design[key] for key in set(entry) - {"boundary", "result"}} == {
            key: entry[key] for key in set(entry) - {"boundary", "result"}}
        assert (row["mac"]["design"]["bits"], row["mac"]["design"]["weight_bits"]) == (3, 2)
        assert row["mac"]["design"]["result"] == design["result"] == row["output"]
    assert [row["output"] for row in found["layers"]] == ["linear", "code", "linear"]
    assert layers.main(arguments) == 0
    said = capsys.readouterr().out
    assert "mnist-lenet-5bit: MAC 3 x 2 bits" in said and "log codes 5.3, relu" in said and "from its card" in said


def test_wired_layers_and_logarithmic_ends_come_from_the_card(unbuilt, capsys):
    names = "stem,stage0_block0_conv1,stage0_block0_conv3"
    found = figures(capsys, "--network", WIRED_LOG, "--layers", names)
    assert [(row["layout"], row["bm"]["design"]["combine"], row["bm"]["design"]["maximum_bits"],
             row["bm"]["design"]["sums"]) for row in found["layers"]] == [
        ("signed", "logarithmic", 5, "clamped"), ("wired", "logarithmic", 5, "clamped"),
        ("wired", "linear", 4, "clamped")]
    assert (found["branches"], found["maximum_bits"], found["linear_maximum_bits"]) == ("wired", 5, 4)


def test_options_that_say_what_the_card_says_are_welcome(unbuilt, capsys):
    arguments = ("--network", WIRED_LOG, "--layers", "stem,stage0_block0_conv3")
    given = ("--bits", "8", "--log-bits", "8", "--log-fraction", "5", "--branches", "wired", "--sums", "clamped",
             "--maximum-bits", "5", "--linear-maximum-bits", "4", "--combine", "logarithmic")
    plain, found = figures(capsys, *arguments), figures(capsys, *arguments, *given)
    assert found["layers"] == plain["layers"]


@pytest.fixture
def mixed(tmp_path):
    """The card of a network whose last layer is multiply-accumulate, and of one that has no other layers."""
    card = read_card(WEIGHTS / "digits.json")

    def mac(entry):
        return {"neuron": "mac", **dataclasses.asdict(MacFormat(inputs=entry["inputs"], bits=4))}

    *_, last = card["layers"]
    paths = []
    for name, replaced in (("mixed", [last]), ("mac", list(card["layers"]))):
        entries = {key: mac(entry) if key in replaced else entry for key, entry in card["layers"].items()}
        paths.append(tmp_path / f"{name}.json")
        paths[-1].write_text(json.dumps({**card, "layers": entries}))
    return (*paths, last)


def test_a_multiply_accumulate_layer_has_nothing_to_compare(mixed, unbuilt, capsys):
    arguments = ("--network", str(mixed[0]), "--layers", f"stem,{mixed[2]}")
    found = figures(capsys, *arguments)
    stem, last = found["layers"]
    assert stem["ratio"] and found["network"] == "mixed"
    assert (last["layout"], last["ratio"], last["error"]) == ("mac", None, "multiply-accumulate in this network")
    assert found["total"]["layers_measured"] == 1
    assert layers.main(arguments) == 0
    assert "multiply-accumulate in this network" in capsys.readouterr().out


def test_a_multiply_accumulate_network_has_nothing_to_compare(mixed, unbuilt):
    with pytest.raises(UsageError, match="Network mac is multiply-accumulate in every layer: there is nothing to comp"):
        layers.main(["--network", str(mixed[1])])


@pytest.mark.parametrize("network_, arguments, words", [
    ("mnist-lenet", ["--log-bits", "5"], "codes of mnist-lenet must be one that it was trained in, 8 bits, not 5"),
    ("mnist-lenet", ["--log-bits", "x"], "--log-bits x contradicts"),
    ("mnist-lenet", ["--bits", "5"], "codes of mnist-lenet must be one that it was trained in, 8 bits, not 5"),
    ("mnist-lenet", ["--bits", "x"], "--bits x contradicts the card of mnist-lenet: layer conv1 has 8; --mac-bits is"),
    ("mnist-lenet", ["--bits", "5", "--log-bits", "8"], "--bits 5 contradicts"),
    ("mnist-lenet", ["--bits", "5", "--log-bits", "8", "--bm-bits", "6"], "--bm-bits 6 contradicts"),
    (LENET_5BIT, ["--log-fraction", "2"], "--log-fraction 2 contradicts the card of mnist-lenet-5bit: layer "
                                        "conv1 has 3"),
    ("mnist-lenet", ["--branches", "signed"], "--branches signed contradicts the card of mnist-lenet: layer conv1 has "
                                              "relu"),
    ("mnist-lenet", ["--sums", "clamped"], "--sums clamped contradicts the card of mnist-lenet: layer conv1 has full"),
    ("mnist-lenet", ["--combine", "logarithmic"], "--combine logarithmic contradicts the card of mnist-lenet: layer "
                                                  "dense1 has linear"),
    ("mnist-lenet", ["--maximum-bits", "5"], "--maximum-bits 5 contradicts the card of mnist-lenet: layer conv1 has 9"),
    (WIRED_LOG, ["--maximum-bits", "5"], "layer stage0_block0_conv3 has 4"),
    (WIRED_LOG, ["--linear-maximum-bits", "3"], "layer stage0_block0_conv3 has 4"),
    (WIRED_LOG, ["--branches", "relu"], "layer stem has signed"),
    ("mnist-lenet", ["--mac-bits", "17"], "from 2 to 16, not 17"),
    ("mnist-lenet", ["--layers", "stem"], "Layer must be one of conv1, conv2, dense1, dense2, dense3, not 'stem'"),
])
def test_options_that_contradict_the_card_are_refused(network_, arguments, words, unbuilt):
    with pytest.raises(UsageError) as raised:
        layers.main(["--network", network_, *arguments])
    assert words in str(raised.value) and "\n" not in str(raised.value)


@pytest.mark.parametrize("content, words", [
    (None, "doesn't exist"), ("{", "can't be read"), ('{"card_version": 1}', "lacks 'architecture'"),
])
def test_an_unusable_card_is_one_line(content, words, tmp_path, unbuilt):
    path = tmp_path / "card.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(RunError, match=words):
        layers.main(["--network", str(path)])


@pytest.mark.parametrize("arguments, words", [
    (["--bits", "17"], ["2 to 16", "17"]),
    (["--bits", "x"], ["2 to 16", "x"]),
    (["--bm-bits", "1"], ["2 to 16", "1"]),
    (["--maximum-bits", "10"], ["1 to 9", "10"]),
    (["--log-fraction", "8"], ["0 to 7", "8"]),
    (["--sums", "clamped", "--maximum-bits", "9"], ["1 to 8", "9"]),
    (["--combine", "linar"], ["linear, logarithmic", "linar", "did you mean linear?"]),
    (["--network", "resnet21"], ["resnet20v2", "resnet21"]),
    (["--branches", "bipolar"], ["relu, signed", "bipolar"]),
    (["--layers", "stem,conv9"], ["stage0_block0_conv1", "conv9"]),
    (["--jobs", "0"], ["1 or more", "0"]),
    (["--jobs", "two"], ["1 or more", "two"]),
    (["--time-limit", "0"], ["above 0", "0"]),
    (["--bits", "4", "--linear-maximum-bits", "6"], ["from 1 to 5", "6"]),
    (["--bits", "4", "--linear-maximum-bits", "0"], ["from 1 to 5", "0"]),
    (["--mac-weight-bits", "17"], ["from 2 to 16", "17"]),
    (["--log-bits", "1"], ["from 2 to 16", "1"]),
    (["--branches", "wire"], ["relu, signed, wired", "did you mean wired"]),
])
def test_bad_input_is_one_line_on_stderr(arguments, words):
    assert_one_line(command(*arguments), 2, words)


def test_the_block_limit_keeps_small_neurons_whole():
    """At the default limit a small neuron is one block: no boundary costs anything."""
    source = generate(Design(format=BmFormat(inputs=4, bits=4, boundary="layer")), Cache(None))
    assert Modules(source.verilog).blocks(source.name, BLOCK_LIMIT) == [source.name]
