# SPDX-License-Identifier: Apache-2.0
"""The command ``python -m bmhw.layers``: the network's layers, mapping block by block, table, JSON, bad input."""

import json

import pytest
from support.calls import assert_one_line, command_of, figures_of, map_blocks_without_yosys
from support.liberty_text import liberty_text

from bmhw import layers
from bmhw.errors import TimeLimitError
from bmhw.flow.blocks import BLOCK_LIMIT, FLAT, BlockMapper, Modules
from bmhw.flow.cache import Cache
from bmhw.flow.engine import Engine
from bmhw.flow.synthesis import map_design
from bmhw.hdl.arithmetic.multipliers import Multiplier
from bmhw.hdl.formats.bm import BmFormat
from bmhw.hdl.formats.choices import COMBINES
from bmhw.hdl.formats.mac import MacFormat
from bmhw.hdl.neurons.design import Design
from bmhw.hdl.verilog.convert import block_to_verilog
from bmhw.measure import layers as layer_measurement
from bmhw.measure.generation import generate
from bmhw.measure.layers import Neurons, totals
from bmhw.measure.networks import NETWORKS
from bmhw.measure.selection import ranking

figures, command = figures_of(layers), command_of(layers)
SMALL = ("--bits", "3", "--layers", "stem,stage0_block0_conv1,stage0_block0_conv3,stage0_block1_conv3")


ARCHITECTURES = layer_measurement._BM_ARCHITECTURES


@pytest.fixture(scope="module", autouse=True)
def few_architectures():
    """The best two of the table instead of six: each is a run of Yosys or two."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layer_measurement, "_BM_ARCHITECTURES", 2)
        yield


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Figures of a few small layers, measured once."""
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


@pytest.mark.parametrize("count", [1, ARCHITECTURES])
def test_the_best_architectures_of_the_table_are_tried(count, monkeypatch, unmapped, capsys):
    monkeypatch.setattr(layer_measurement, "_BM_ARCHITECTURES", count)
    (row,) = figures(capsys, "--layers", "stem", "--branches", "signed", "--combine", "logarithmic")["layers"]
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
                 "arXiv 2009.07190", "flat up to 64 inputs", *winners):
        assert word in said


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
