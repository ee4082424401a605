# SPDX-License-Identifier: Apache-2.0
"""The command ``python -m bmhw.layers``: the network's layers, table, JSON, bad input."""

import json

import pytest
from support.calls import (
    assert_one_line,
    command_of,
    figures_of,
    figures_without_yosys,
    map_blocks_without_yosys,
)
from support.liberty_text import liberty_text

from bmhw import layers
from bmhw.errors import TimeLimitError
from bmhw.flow.blocks import BlockMapper
from bmhw.hdl.formats.choices import COMBINES
from bmhw.measure import layers as layer_measurement
from bmhw.measure.layers import Neurons, totals
from bmhw.measure.networks import NETWORKS
from bmhw.measure.selection import contenders, ranking

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


# -- bad input


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
