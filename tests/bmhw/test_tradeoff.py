# SPDX-License-Identifier: Apache-2.0
"""Trained networks against their neurons' hardware: ``bmhw.tradeoff``, and what ``bmhw.report`` makes of it."""

import itertools
import json
import re
import shutil

import pytest
from support.calls import call, count_without_yosys
from support.cards import BM_CARDS

from bmhw import layers, report, synth, tradeoff
from bmhw.errors import RunError, TimeLimitError
from bmhw.flow.blocks import BlockMapper
from bmhw.flow.cache import Cache, cache_folder
from bmhw.flow.engine import Engine
from bmhw.hdl.formats.bm import BmFormat
from bmhw.measure import layers as layer_measurement
from bmhw.measure import network_elements
from bmhw.measure.layers import LayerMeasurement, Neurons
from bmhw.measure.network_elements import COUNTED
from bmhw.measure.networks import Layer
from bmhw.measure.tradeoff import OUTPUTS, mark_frontiers, neurons_of
from bmhw.models.files.store import WEIGHTS, read_card
from bmhw.models.files.widths import inner_formats
from bmhw.show import plots
from bmhw.show.tradeoff import cells, frontier_lines, label, network_family

# What of a neuron's format its gates depend on, beside the number of inputs and the boundary.
SHAPE = ("bits", "layout", "signed_inputs", "log_bits", "log_fraction", "weight_bits", "sums", "maximum_bits",
         "combine")


def row(name, accuracy, gates, depth, luts=1.0, kbit=1.0, neuron="bm", **fields):
    """One of :func:`~bmhw.measure.tradeoff.measure`, as far as frontiers and pictures look at it."""
    return {"name": name, "accuracy": accuracy, "code": {"gates": gates, "depth": depth}, "neuron": neuron,
            "elements": {chip: {"luts": luts, "of_ends": 0.5} for chip in COUNTED}, "weight_kbit": kbit, **fields}


@pytest.fixture(scope="module", autouse=True)
def few_architectures():
    """The best one of the table instead of six: what is tried is the affair of test_layers.py."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layer_measurement, "_BM_ARCHITECTURES", 1)
        count_without_yosys(patch)
        yield


@pytest.fixture(scope="module")
def arguments(tmp_path_factory):
    """Of a run over the smallest network that ships, its card in a folder by itself, with narrow neurons."""
    folder = tmp_path_factory.mktemp("cards")
    shutil.copy(WEIGHTS / "digits.json", folder)
    return [str(folder), "--dataset", "digits", "--architecture", "resnet-small", "--inputs", "4", "--jobs", "1"]


@pytest.fixture(scope="module")
def result(tmp_path_factory, arguments):
    file = tmp_path_factory.mktemp("tradeoff") / "tradeoff-digits.json"
    assert tradeoff.main([*arguments, "--json", str(file)]) == 0
    return file


def test_off_a_frontier_is_what_another_network_beats():
    rows = [row("best", 99.0, 100, 10), row("same", 99.0, 100, 10), row("smaller", 98.0, 90, 10),
            row("shorter", 98.0, 100, 9), row("beaten", 99.0, 101, 10), row("worse", 98.9, 100, 10, luts=0.5),
            row("light", 97.0, 100, 10, luts=0.5, kbit=0.9)]
    mark_frontiers(rows)

    def best(frontier):
        return {one["name"] for one in rows if one["frontiers"][frontier]}

    assert best("neuron") == {"best", "same", "smaller", "shorter"}
    assert best("ice40-hx8k") == best("ecp5-25k") == {"best", "same", "beaten", "worse"}
    assert best("weights") == {"best", "same", "beaten", "light"}


def test_frontiers_in_words():
    rows = [row("a", 99.0, 100, 10, luts=3, kbit=4, neuron="mac"), row("b", 98.0, 90, 10, luts=1, kbit=8),
            row("c", 98.5, 95, 10, luts=2, kbit=8, neuron="mixed"), row("d", 97.0, 99, 10, luts=4, kbit=9)]
    mark_frontiers(rows)
    assert frontier_lines(rows) == [
        *(f"On the frontier of LUTs, {chip}: 1 of 2 BM, 1 of 1 mixed, 1 of 1 MAC." for chip in COUNTED),
        "On the frontier of gates and path: 1 of 2 BM, 1 of 1 mixed, 1 of 1 MAC.",
        "On the frontier of bits of weights: none of 2 BM, none of 1 mixed, 1 of 1 MAC."]


@pytest.mark.parametrize("path", BM_CARDS, ids=lambda path: path.stem)
def test_the_neuron_has_the_formats_of_the_networks_own_layers(path):
    """In every layer of a trained network whose inputs are not negative, but for edges of other codes."""
    card = read_card(path)
    inner = [id(fmt) for fmt in inner_formats(card)]
    neurons = neurons_of(card["training"], "balanced", "scale")
    compared = 0
    for name, fmt in card["layers"].items():
        if id(fmt) not in inner or fmt.get("signed_inputs") or fmt["layout"] not in ("relu", neurons.branches):
            continue
        # where layers can hand on codes, the others hand on linear results
        output = "linear" if fmt["combine"] == "linear" and neurons.combine == "logarithmic" else "code"
        layer = Layer(name=name, kernel=1, inputs=fmt["inputs"], outputs=1, stride=1, nonnegative=True, output=output)
        [built] = neurons.bm(layer)
        assert {key: getattr(built, key) for key in SHAPE} == {key: fmt[key] for key in SHAPE}
        compared += 1
    assert compared >= len(inner) // 2


def test_multipliers_have_the_networks_width_and_old_cards_defaults():
    mac = neurons_of({"layout": "mac", "quantisation": {"bits": 3}}, "area", "shift")
    assert (mac.mac_bits, mac.mac_weight_bits, mac.objective, mac.requantize) == (3, None, "area", "shift")
    uneven = {"layout": "mac", "quantisation": {"bits": 3, "mac_weight_bits": 2}}
    assert neurons_of(uneven, "area", "shift").mac_weight_bits == 2
    bm = neurons_of({"layout": "auto", "quantisation": {"bits": 8, "log_bits": 5}}, "area", "shift")
    assert (bm.bm_bits, bm.log_bits, bm.branches, bm.sums, bm.maximum_bits, bm.combine) == (
        8, 5, "relu", "full", None, "linear")


def test_log_codes_of_fewer_octaves():
    """Fraction bits are a part of what is measured, and of how the neuron is called."""
    few = neurons_of({"layout": "auto", "quantisation": {"bits": 8, "log_bits": 4, "log_fraction": 2}}, "area",
                              "scale")
    [fmt] = few.bm(Layer(name="x", kernel=1, inputs=4, outputs=1, stride=1, nonnegative=True, output="code"))
    assert (fmt.log_bits, fmt.log_fraction) == (4, 2)
    shown = {"neuron": "bm", "layout": "relu", "bits": [4], "log_fraction": 2, "mac_weight_bits": [],
             "maximum_bits": [5], "sums": ["full"], "ends": ["linear"], "groups": 1, "edge_bits": None,
             "mac_layers": []}
    assert label(shown) == "BM relu 4.2:5 bits, full sums, linear ends"
    assert label({**shown, "log_fraction": None}) == "BM relu 4:5 bits, full sums, linear ends"
    mixed = {**shown, "neuron": "mixed", "groups": 4, "edge_bits": 8, "mac_layers": ["stem"], "mac_weight_bits": [4]}
    assert label(mixed) == (
        "BM relu 4.2:5 bits in 4 groups, full sums, linear ends, edges 8 bits; MAC 4 bits: stem")


def test_groups_of_inputs():
    """They are said in words, and each layer has its own number."""
    training = {"layout": "signed", "quantisation": {"bits": 8, "log_bits": 4, "groups": {"inputs": 16}}}
    neurons = neurons_of(training, "area", "scale")
    shape = {"outputs": 1, "stride": 1, "nonnegative": True, "output": "code"}
    for kernel, groups in ((3, 32), (1, 4)):
        [fmt] = neurons.bm(Layer(name="x", kernel=kernel, inputs=64, **shape))
        assert (fmt.groups, fmt.zero, fmt.combine) == (groups, "exact", "linear")
    shown = {"neuron": "bm", "layout": "signed", "bits": [4], "log_fraction": 2, "mac_weight_bits": [],
             "maximum_bits": [5], "sums": ["full"], "ends": ["linear"], "groups": {"inputs": 16}, "edge_bits": None,
             "mac_layers": []}
    assert label(shown) == "BM signed 4.2:5 bits in groups of 16 inputs or more, full sums, linear ends"
    assert network_family(shown) == "BM, grouped"


def test_formats_that_would_be_measured_wrongly_are_refused():
    with pytest.raises(RunError, match="usual log2 can be measured, not with 'mitchell'"):
        neurons_of({"layout": "auto", "quantisation": {"bits": 8, "log2": "mitchell"}}, "area", "scale")


def test_figures_are_those_of_bmhw_synth(result, capsys):
    """For the same format and architecture."""
    found = {one["name"]: one for one in json.loads(result.read_text())["networks"]}
    assert {"digits"} <= set(found)
    digits = found["digits"]
    training = read_card(WEIGHTS / "digits.json")["training"]
    assert digits["accuracy"] == read_card(WEIGHTS / "digits.json")["accuracy"]["bm_integer_accuracy"]
    assert digits["neuron"] == "bm" and all(digits["frontiers"].values())
    [fmt] = neurons_of(training, "balanced", "scale").bm(
        Layer(name="x", kernel=1, inputs=4, outputs=1, stride=1, nonnegative=True, output="code"))
    assert isinstance(fmt, BmFormat)
    options = ["--boundary", "layer", "--bits", str(fmt.bits), "--log-bits", str(fmt.log_bits), "--inputs", "4",
               "--branches", fmt.layout, "--objective", "area"]
    for key in ("maximum", "adder", "end"):
        [built] = digits["code"]["neurons"]
        if key in built["architecture"]:
            options += [f"--{key}", built["architecture"][key]]
    assert synth.main([*options, "--json", "-"]) == 0
    measured = json.loads(capsys.readouterr().out)
    assert (measured["gates"], measured["depth"]) == (digits["code"]["gates"], digits["code"]["depth"])


@pytest.mark.parametrize("explore", [pytest.param(True, marks=pytest.mark.long), False])
def test_one_neuron_alone_is_the_one_of_the_whole_layer(explore, monkeypatch):
    """Also where architectures are chosen at fewer inputs than the layer has."""
    monkeypatch.setattr(layer_measurement, "FLAT_INPUTS", 4)
    cache, engine = Cache(cache_folder()), Engine()
    measurement = LayerMeasurement(Neurons(mac_bits=3, bm_bits=3), BlockMapper(engine, cache), cache, explore=explore)
    for inputs, output in itertools.product((4, 6), OUTPUTS):
        layer = Layer(name="x", kernel=1, inputs=inputs, outputs=1, stride=1, nonnegative=True, output=output)
        [whole] = measurement.measure([layer], 1)
        for which in ("mac", "bm"):
            alone = measurement.neuron(layer, which)
            assert alone["design"]["neuron"] == which and alone["design"]["inputs"] == inputs
            assert alone == {key: whole[which][key] for key in alone}


def test_a_terminal_gets_whole_lines(result, arguments, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    assert tradeoff.main(arguments) == 0
    [digits] = json.loads(result.read_text())["networks"]
    said = capsys.readouterr().out.splitlines()
    [line] = [line for line in said if line.startswith("digits ")]
    assert [cell.strip() for cell in re.split(r"\s{2,}", line)] == cells(digits)
    assert "On the frontier of bits of weights: 1 of 1 BM." in said


def test_the_plot_shows_errors_against_tables_and_gates(monkeypatch):
    figures = []
    monkeypatch.setattr(plots, "_svg", lambda figure, pyplot: figures.append(figure) or b"")
    mac = {"neuron": "mac", "layout": None, "bits": [3], "log_fraction": None, "mac_weight_bits": [2],
           "maximum_bits": [], "groups": 1}
    bm = {"neuron": "bm", "layout": "signed", "bits": [5], "log_fraction": 2, "mac_weight_bits": [],
          "maximum_bits": [4], "groups": 4}
    networks = [row("a", 99.0, 100, 10, luts=40, **mac), row("b", 98.0, 200, 9, luts=20, **bm),
                row("c", 97.0, 300, 9, luts=30, **(bm | {"groups": 1}))]
    plots.accuracy_cost({"networks": networks, "architecture": "x", "dataset": "y", "inputs": 4})

    def points(panel):
        frontier, *marks = [line for line in panel.lines if len(line.get_xydata())]
        return frontier.get_xydata().tolist(), [(*mark.get_xydata()[0], mark.get_fillstyle()) for mark in marks]

    assert [points(panel) for panel in figures[0].axes] == [
        ([[20, 2.0], [40, 1.0]], [(40, 1.0, "full"), (20, 2.0, "full"), (30, 3.0, "none")]),
        ([[100, 1.0]], [(100, 1.0, "full"), (200, 2.0, "none"), (300, 3.0, "none")])]
    assert [[text.get_text() for text in panel.texts] for panel in figures[0].axes] == [
        ["3 x 2", "signed 5.2"], ["3 x 2"]]
    assert [text.get_text() for text in figures[0].axes[0].get_legend().texts] == [
        "MAC", "BM, one group", "BM, grouped"]


def test_the_report_shows_every_network(result, tmp_path):
    arguments = ["--bits", "2", "--layers", "stage1_block0_conv3", "--jobs", "1"]
    assert layers.main([*arguments, "--json", str(tmp_path / "layers-2.json")]) == 0
    (tmp_path / "tradeoff-digits.json").write_text(result.read_text())
    assert report.main(["--folder", str(tmp_path)]) == 0
    page, measured = (tmp_path / "README.md").read_text(), json.loads(result.read_text())
    for one in measured["networks"]:
        assert f"| {' | '.join(cells(one, mark='**{}**'.format))} |" in page
        gates, path, *linear = cells(one, mark=str)[-4:]
        assert f"| **{gates}** | **{path}** | {' | '.join(linear)} |" in page  # alone, so on every frontier
        assert [f"{one[output][name]:,}" for output in ("code", "linear") for name in ("gates", "depth")] == [
            gates, path, *linear]
    assert "- On the frontier of gates and path: 1 of 1 BM." in page
    assert f"`{measured['command']}`" in page and "tradeoff-digits.svg" in page
    assert (tmp_path / "tradeoff-digits.svg").read_text().count("<svg") == 1
    (tmp_path / "tradeoff-x.json").write_text('{"networks": [{}]}')
    with pytest.raises(RunError, match=r"tradeoff-x.json is no result of bmhw.tradeoff"):
        report.main(["--folder", str(tmp_path)])


@pytest.mark.parametrize(("arguments", "words"), [
    (["--dataset", "letters"], ["mnist resnet20", "not letters resnet20"]),
    (["--inputs", "3"], ["even number of 2 or more", "not 3"]),
    (["--jobs", "0"], ["1 or more", "0"]),
    (["--objective", "smal"], ["area, balanced, delay"]),
    (["--layers", "nothing"], ["Network must be one of", "mnist-resnet20", "not 'nothing'"]),
    (["--plot", "x.png"], ["--plot must name a file that ends in .svg, not x.png"]),
    (["--plot", "x.svg", "--layers", "mnist-resnet20"], ["--plot x.svg shows all networks, not", "mnist-resnet20"]),
])
def test_bad_input_is_one_line(arguments, words):
    done = call("bmhw.tradeoff", *arguments, "--time-limit", "1")  # what is taken for good input measures for long
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and done.stdout == ""
    assert all(word in done.stderr for word in words), done.stderr


def test_an_element_that_takes_too_long_is_told(monkeypatch):
    def slow(*_, **__):
        raise TimeLimitError("slow")

    monkeypatch.setattr(network_elements, "count_block", slow)
    with pytest.raises(RunError, match=r"An element was not synthesised within 5 s; --time-limit gives it longer"):
        tradeoff.main(["--dataset", "digits", "--architecture", "resnet-small", "--time-limit", "5"])


def test_a_neuron_that_takes_too_long_is_named(tmp_path):
    arguments = ["--dataset", "digits", "--architecture", "resnet-small", "--no-cache", "--time-limit", "0.01"]
    with pytest.raises(RunError, match=r"A BM neuron of 64 inputs was not synthesised within 0.01 s"):
        tradeoff.main([*arguments, "--jobs", "1", "--json", str(tmp_path / "x.json")])
    assert not list(tmp_path.iterdir())
