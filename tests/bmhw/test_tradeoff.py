# SPDX-License-Identifier: Apache-2.0
"""Trained networks against their neurons' hardware: ``bmhw.tradeoff``, and what ``bmhw.report`` makes of it."""

import itertools
import json

import pytest
from support.calls import call
from support.cards import BM_CARDS

from bmhw import layers, report, synth, tradeoff
from bmhw.errors import RunError
from bmhw.flow.blocks import BlockMapper
from bmhw.flow.cache import Cache, cache_folder
from bmhw.flow.engine import Engine
from bmhw.hdl.formats.bm import BmFormat
from bmhw.measure import layers as layer_measurement
from bmhw.measure.layers import LayerMeasurement, Neurons
from bmhw.measure.networks import Layer
from bmhw.measure.tradeoff import OUTPUTS, neurons_of, on_frontier
from bmhw.models.files.store import WEIGHTS, read_card
from bmhw.show import plots
from bmhw.show.tradeoff import cells, label

# What of a neuron's format its gates depend on, beside the number of inputs and the boundary.
SHAPE = ("bits", "layout", "signed_inputs", "log_bits", "log_fraction", "weight_bits", "sums", "maximum_bits",
         "combine")


def row(name, accuracy, gates, depth):
    return {"name": name, "accuracy": accuracy, "code": {"gates": gates, "depth": depth}}


@pytest.fixture(scope="module", autouse=True)
def few_architectures():
    """The best one of the table instead of six: what is tried is the affair of test_layers.py."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layer_measurement, "_BM_ARCHITECTURES", 1)
        yield


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    """One run over the smallest networks that ship, with narrow neurons."""
    file = tmp_path_factory.mktemp("tradeoff") / "tradeoff-digits.json"
    arguments = ["--dataset", "digits", "--architecture", "resnet-small", "--inputs", "4", "--jobs", "1"]
    assert tradeoff.main([*arguments, "--json", str(file)]) == 0
    return file


def test_off_the_frontier_is_what_another_network_beats():
    rows = [row("best", 99.0, 100, 10), row("same", 99.0, 100, 10), row("smaller", 98.0, 90, 10),
            row("shorter", 98.0, 100, 9), row("beaten", 99.0, 101, 10), row("worse", 98.9, 100, 10)]
    best = {one["name"] for one, kept in zip(rows, on_frontier(rows), strict=True) if kept}
    assert best == {"best", "same", "smaller", "shorter"}


@pytest.mark.parametrize("path", BM_CARDS, ids=lambda path: path.stem)
def test_the_neuron_has_the_formats_of_the_networks_own_layers(path):
    """In every layer of a trained network whose inputs are not negative."""
    card = read_card(path)
    neurons = neurons_of(card["training"], "balanced", "scale")
    compared = 0
    for name, fmt in card["layers"].items():
        if fmt.get("signed_inputs") or fmt["layout"] not in ("relu", neurons.branches):
            continue
        # where layers can hand on codes, the others hand on linear results
        output = "linear" if fmt["combine"] == "linear" and neurons.combine == "logarithmic" else "code"
        layer = Layer(name=name, kernel=1, inputs=fmt["inputs"], outputs=1, stride=1, nonnegative=True, output=output)
        [built] = neurons.bm(layer)
        assert {key: getattr(built, key) for key in SHAPE} == {key: fmt[key] for key in SHAPE}
        compared += 1
    assert compared >= len(card["layers"]) // 2


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
             "maximum_bits": [5], "sums": ["full"], "ends": ["linear"]}
    assert label(shown) == "BM relu 4.2:5 bits, full sums, linear ends"
    assert label({**shown, "log_fraction": None}) == "BM relu 4:5 bits, full sums, linear ends"


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
    assert digits["neuron"] == "bm" and digits["on_frontier"]
    [fmt] = neurons_of(training, "balanced", "scale").bm(
        Layer(name="x", kernel=1, inputs=4, outputs=1, stride=1, nonnegative=True, output="code"))
    assert isinstance(fmt, BmFormat)
    options = ["--boundary", "layer", "--bits", str(fmt.bits), "--log-bits", str(fmt.log_bits), "--inputs", "4",
               "--branches", fmt.layout, "--objective", "area"]
    for key in ("maximum", "adder", "end"):
        if key in digits["code"]["architecture"]:
            options += [f"--{key}", digits["code"]["architecture"][key]]
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


def test_a_terminal_gets_whole_lines(result, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    arguments = ["--dataset", "digits", "--architecture", "resnet-small", "--inputs", "4", "--jobs", "1"]
    assert tradeoff.main(arguments) == 0
    [digits] = json.loads(result.read_text())["networks"]
    [line] = [line for line in capsys.readouterr().out.splitlines() if line.startswith("*   ")]
    assert line.split("  ")[1].strip() == "digits" and all(cell in line for cell in cells(digits))


def test_the_plot_shows_errors_against_gates_and_path(monkeypatch):
    figures = []
    monkeypatch.setattr(plots, "_svg", lambda figure, pyplot: figures.append(figure) or b"")
    networks = [{**row("a", 99.0, 100, 10), "neuron": "mac", "on_frontier": True, "bits": [3],
                 "log_fraction": None, "mac_weight_bits": [2], "maximum_bits": []},
                {**row("b", 98.0, 200, 20), "neuron": "bm", "layout": "wired", "on_frontier": False, "bits": [5],
                 "log_fraction": 2, "mac_weight_bits": [], "maximum_bits": [4]}]
    plots.accuracy_cost({"networks": networks, "architecture": "x", "dataset": "y", "inputs": 4})
    shown = [[(*line.get_xydata()[0], line.get_fillstyle()) for line in panel.lines if len(line.get_xydata())]
             for panel in figures[0].axes]
    assert shown == [[(100, 1.0, "full"), (200, 2.0, "none")], [(10, 1.0, "full"), (20, 2.0, "none")]]
    assert [[text.get_text() for text in panel.texts] for panel in figures[0].axes] == [["3 x 2"], ["3 x 2"]]
    assert [text.get_text() for text in figures[0].axes[0].get_legend().texts] == ["MAC", "BM wired"]


def test_the_report_shows_every_network(result, tmp_path):
    arguments = ["--bits", "2", "--layers", "stage1_block0_conv3", "--jobs", "1"]
    assert layers.main([*arguments, "--json", str(tmp_path / "layers-2.json")]) == 0
    (tmp_path / "tradeoff-digits.json").write_text(result.read_text())
    assert report.main(["--folder", str(tmp_path)]) == 0
    page, measured = (tmp_path / "README.md").read_text(), json.loads(result.read_text())
    for one in measured["networks"]:
        name, *rest = cells(one)
        assert f"| **{name}** | {' | '.join(rest)} |" in page  # alone, so on the frontier
        assert [f"{one[output][name]:,}" for output in ("code", "linear") for name in ("gates", "depth")] == rest[-4:]
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
])
def test_bad_input_is_one_line(arguments, words):
    done = call("bmhw.tradeoff", *arguments, "--time-limit", "1")  # what is taken for good input measures for long
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and done.stdout == ""
    assert all(word in done.stderr for word in words), done.stderr


def test_a_neuron_that_takes_too_long_is_named(tmp_path):
    arguments = ["--dataset", "digits", "--architecture", "resnet-small", "--no-cache", "--time-limit", "0.01"]
    with pytest.raises(RunError, match=r"The neuron of digits was not synthesised within 0.01 s"):
        tradeoff.main([*arguments, "--jobs", "1", "--json", str(tmp_path / "x.json")])
    assert not list(tmp_path.iterdir())
