# SPDX-License-Identifier: Apache-2.0
"""What networks on cards need of elements and weights: BM with groups, MAC and mixed ones, made here."""

import dataclasses
import json
from pathlib import Path

import pytest
from support.calls import count_without_yosys, measure_without_building

from bmhw import tradeoff
from bmhw.flow.cache import Cache
from bmhw.flow.engine import Engine
from bmhw.hdl.formats.bm import BmFormat
from bmhw.hdl.formats.mac import MacFormat
from bmhw.hdl.verilog.convert import block_to_verilog
from bmhw.hdl.verilog.element_array import ElementCell
from bmhw.measure import network_elements
from bmhw.measure.element_cells import CHIPS, Counted, SharedElement
from bmhw.measure.elements import KINDS, Case
from bmhw.measure.layers import LayerMeasurement
from bmhw.measure.network_elements import COUNTED, ElementLuts, elements_of, network_figures, network_layers
from bmhw.measure.tradeoff import card_folders, measure, measure_layers, named, networks, repeated
from bmhw.models.files.store import WEIGHTS, read_card
from bmhw.models.networks.groups import groups_of

ROOT = Path(__file__).parents[2]
# layer of the smallest network that ships -> outputs, pixels of them, channels of its input, taps
SHAPES = {"stem": (16, 64, 1, 9), "stage0_conv1": (16, 64, 16, 9), "stage0_conv2": (16, 64, 16, 9),
          "stage1_conv1": (32, 16, 16, 9), "stage1_conv2": (32, 16, 32, 9), "stage1_shortcut": (32, 16, 16, 1),
          "dense": (10, 1, 32, 1)}
WORK = {name: outputs * pixels * channels * taps for name, (outputs, pixels, channels, taps) in SHAPES.items()}
KEPT = ("stem", "stage1_shortcut")


def bm(name, signed):
    _, _, channels, taps = SHAPES[name]
    fmt = BmFormat(inputs=channels * taps, bits=4, layout="signed", signed_inputs=signed, log_fraction=2,
                   sums="clamped", groups=groups_of(channels, 4, 1), zero="exact")
    return {"neuron": "bm", **dataclasses.asdict(fmt)}


def mac(name, signed, bits):
    _, _, channels, taps = SHAPES[name]
    fmt = MacFormat(inputs=channels * taps, bits=bits, signed_inputs=signed)
    return {"neuron": "mac", **dataclasses.asdict(fmt)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Cards of three networks: ``signed`` codes 4.2 in four groups, MACs of three bits, and both in one."""
    folder = tmp_path_factory.mktemp("cards")
    card = read_card(WEIGHTS / "digits.json")
    signed = {name: name == "stage1_shortcut" for name in SHAPES}
    quantisation = card["training"]["quantisation"] | {
        "bits": 4, "log_bits": 4, "log_fraction": 2, "sums": "clamped", "maximum_bits": 4, "groups": 4,
        "zero": "exact", "combine": "linear", "mac_weight_bits": None}
    kinds = {
        "grouped": ("signed", 91.0, {name: bm(name, signed[name]) for name in SHAPES}),
        "mac": ("mac", 90.0, {name: mac(name, signed[name], 3) for name in SHAPES}),
        "mixed": ("signed", 92.0, {name: (mac(name, signed[name], 4) if name in KEPT else bm(name, signed[name]))
                                   for name in SHAPES})}
    for name, (layout, accuracy, layers) in kinds.items():
        chosen = quantisation | ({"bits": 3, "groups": 1} if layout == "mac" else {})
        (folder / f"{name}.json").write_text(json.dumps({
            **card, "name": name, "layers": layers,
            "training": card["training"] | {"layout": layout, "quantisation": chosen},
            "accuracy": card["accuracy"] | {"bm_integer_accuracy": accuracy}}))
    return folder


@pytest.fixture
def uncounted(monkeypatch):
    """Figures of elements, ends and neurons are those of their names."""
    count_without_yosys(monkeypatch)
    measure_without_building(monkeypatch)


def luts():
    return ElementLuts(Engine(), Cache(None))


def test_work_is_one_multiply_accumulate_an_input_of_an_output(folder):
    layers = network_layers(folder / "mixed.json")
    assert {layer.name: layer.work for layer in layers} == WORK
    assert {layer.name for layer in layers if layer.neuron == "mac"} == set(KEPT)


def test_a_layers_element_stands_between_codes():
    given = BmFormat(inputs=144, bits=8, log_bits=4, log_fraction=2, layout="signed", groups=4, sums="clamped",
                     result="linear")
    [element] = elements_of(given, "scale")
    assert element.format == dataclasses.replace(given, boundary="layer", result="code")
    assert element.served == {"group_end": 36, "result_end": 144} and element.memory["weight_bits"] == 5
    given = BmFormat(inputs=16, bits=8, log_bits=4, log_fraction=2, combine="logarithmic", offset=3)
    [element] = elements_of(given, "scale")
    assert element.served == {"result_end": 16} and element.memory == {"weight_bits": 8, "waiting_bits": 0}
    assert list(element.ends("operator", "booth")) == ["result_end"]


@pytest.mark.parametrize(("inputs", "flushes"), [(576, [16, 32]), (64, [16, 32, None]), (16, [None])])
def test_accumulators_are_flushed_or_not(inputs, flushes):
    given = MacFormat(inputs=inputs, bits=3, weight_bits=2, signed_inputs=True)
    for requantize in ("scale", "shift"):
        found = elements_of(given, requantize)
        assert [element.flush for element in found] == flushes
        for element in found:
            fmt = element.format
            assert (fmt.bits, fmt.weight_bits, fmt.signed_inputs, fmt.result) == (3, 2, True, "code")
            assert fmt.has_scale == (requantize == "scale") and element.memory["weight_bits"] == 2


def test_a_network_is_the_mean_of_its_layers_weighted_by_work(folder, uncounted):
    layers, counted = network_layers(folder / "mixed.json"), luts()
    candidates = {layer.name: elements_of(layer.format, "scale") for layer in layers}
    counted.measure([element for found in candidates.values() for element in found], 1)
    found = network_figures(layers, counted, "scale")
    for chip in COUNTED:
        best = {name: counted.best(elements, chip) for name, elements in candidates.items()}
        for name in ("luts", "of_ends", "flip_flops"):
            mean = sum(WORK[layer] * best[layer][name] for layer in WORK) / sum(WORK.values())
            assert found["elements"][chip][name] == pytest.approx(mean)  # of floating-point sums in another order
    weights = {name: outputs * channels * taps for name, (outputs, _, channels, taps) in SHAPES.items()}
    # a magnitude of four bits and a sign, or four bits
    bits = sum(count * (4 if name in KEPT else 5) for name, count in weights.items())
    assert found["weight_kbit"] == pytest.approx(bits / 1000)


def test_the_best_element_is_the_one_with_the_fewest_tables_with_its_share(uncounted):
    candidates = elements_of(MacFormat(inputs=32, bits=4), "scale")
    counted = luts()
    counted.measure(candidates, 1)
    for chip in COUNTED:
        alone = [counted.best([element], chip) for element in candidates]
        assert counted.best(candidates, chip) == min(alone, key=lambda one: one["luts"])
        assert len({one["luts"] for one in alone}) == len(candidates)


@pytest.mark.parametrize(("fmt", "luts_of"), [
    # of 64 inputs: the cell, a share of the end of 16, 32 or 64 inputs, and of a result's
    (MacFormat(inputs=64, bits=4), [100 + 2 + 1, 100 + 1 + 1, 100 + 0.5 + 1]),
    (BmFormat(inputs=64, bits=4, layout="signed", groups=4), [100 + 2 + 1]),
    (BmFormat(inputs=64, bits=4, layout="wired", groups=4), [100 + 4 + 1]),  # shows a maximum twice a group
    (BmFormat(inputs=64, bits=4, combine="logarithmic"), [100 + 1]),
])
def test_an_element_has_its_share_of_the_ends(fmt, luts_of, monkeypatch):
    tables = {"ElementCell": 100, "GroupEnd": 32, "ResultEnd": 64}
    monkeypatch.setattr(network_elements, "block_verilog", lambda block, cache: type(block).__name__)
    monkeypatch.setattr(network_elements, "count_block", lambda text, *_, **__: Counted(
        {"luts": tables[text], "flip_flops": 1}, ""))
    candidates, counted = elements_of(fmt, "scale"), luts()
    counted.measure(candidates, 1)
    for chip in COUNTED:
        alone = [counted.best([element], chip) for element in candidates]
        assert [one["luts"] for one in alone] == luts_of
        assert [one["of_ends"] for one in alone] == [number - 100 for number in luts_of]


def test_equal_netlists_are_counted_once(monkeypatch):
    count_without_yosys(monkeypatch)
    calls, counted = [], network_elements.count_block
    monkeypatch.setattr(network_elements, "block_verilog", lambda block, cache: type(block).__name__)
    monkeypatch.setattr(network_elements, "count_block",
                        lambda text, chip, *rest, **options: calls.append((text, chip.device)) or counted(
                            text, chip, *rest, **options))
    shares = []
    luts().measure(elements_of(MacFormat(inputs=64, bits=4), "scale"), 1, shares.append)
    assert sorted(calls) == sorted((text, chip) for text in ("ElementCell", "GroupEnd", "ResultEnd")
                                   for chip in COUNTED)
    assert sum(shares) == pytest.approx(1)


@pytest.mark.parametrize("given", [
    SharedElement(MacFormat(inputs=64, bits=3, weight_bits=2, signed_inputs=True, boundary="layer"), 16),
    SharedElement(MacFormat(inputs=12, bits=4, boundary="layer")),
    *(SharedElement(BmFormat(inputs=36, bits=4, layout=layout, groups=3, sums="clamped", boundary="layer", offset=-2))
      for layout in ("relu", "bipolar", "signed", "wired"))])
def test_a_cell_is_the_one_of_the_whole_format(given):
    """Though it is made of one with fewer inputs, of which many layers have the same one."""
    for architecture in CHIPS["ice40-hx8k"].architectures[given.neuron]:
        cell, whole = given.cell(architecture), ElementCell(design=given.design(architecture))
        assert cell.design.format.inputs < whole.design.format.inputs
        assert block_to_verilog(cell, "top", sliced=True) == block_to_verilog(whole, "top", sliced=True)


@pytest.mark.parametrize(("kind", "bits"), [
    ("signed", 2), pytest.param("flushed", 2, marks=pytest.mark.long)])
def test_tables_are_those_of_the_array_that_is_placed(kind, bits):
    """Where the same architecture is the best one there (``docs/results/elements.json``), it has as many; an end's
    may be fewer, as it is multiplied in another way."""
    [row] = [row for row in json.loads((ROOT / "docs" / "results" / "elements.json").read_text())["elements"]
             if (row["kind"], row["bits"], row["inputs"], row["group_inputs"]) == (KINDS[kind].name, bits, 576, 36)]
    counted, element = luts(), Case(KINDS[kind], bits, 576, 36).element
    counted.measure([element], 1)
    compared = 0
    for chip in COUNTED:
        found, placed = counted.best([element], chip), row["placed"][chip]
        assert found["flip_flops"] == placed["flip_flops"] and found["of_ends"] <= placed["share"]
        assert found["luts"] - found["of_ends"] <= placed["luts"]
        if found["architecture"] == placed["architecture"]:
            assert found["luts"] - found["of_ends"] == pytest.approx(placed["luts"])
            compared += 1
    assert compared


def test_networks_beside_each_other(folder, uncounted, monkeypatch):
    """Of the mixed one which layers are MAC, the mean gates of its two neurons and the longer path."""
    neurons = {"mac": {"gates": 1000, "depth": 52}, "bm": {"gates": 400, "depth": 31}}
    monkeypatch.setattr(LayerMeasurement, "neuron", lambda self, layer, which: {
        **neurons[which], "architecture": {}, "script": "area"})
    rows, yosys = measure(networks([folder], "digits", "resnet-small"), 4, "area", "scale", Engine(), Cache(None), 1)
    assert [(row["name"], row["neuron"], row["mac_layers"]) for row in rows] == [
        ("mixed", "mixed", list(KEPT)), ("grouped", "bm", []), ("mac", "mac", [])]
    share = sum(WORK[name] for name in KEPT) / sum(WORK.values())
    assert [(row["code"]["gates"], row["code"]["depth"]) for row in rows] == [
        (round(share * 1000 + (1 - share) * 400), 52), (400, 31), (1000, 52)]
    assert rows[0]["code"]["gates"] > 400 and rows[0]["weight_kbit"] < rows[1]["weight_kbit"]
    assert yosys.startswith("Yosys")


def test_groups_are_those_of_a_layer_of_as_many_inputs(folder):
    [grouped] = [network for network in networks([folder], "digits", "resnet-small") if network.name == "grouped"]
    [(neurons, which)] = grouped.neurons(64, "area", "scale")
    assert (neurons.groups, neurons.zero, which) == (4, "exact", "bm")
    finer = tuple(dataclasses.replace(layer, format=dataclasses.replace(layer.format, groups=8))
                  if layer.name == "stage1_shortcut" else layer for layer in grouped.layers)
    [(neurons, _)] = dataclasses.replace(grouped, layers=finer).neurons(16, "area", "scale")
    assert neurons.groups == 8


def test_what_a_layer_costs_as_a_mac(folder, uncounted):
    [mixed] = [network for network in networks([folder], "digits", "resnet-small") if network.name == "mixed"]
    rows, _ = measure_layers(mixed, "scale", Engine(), Cache(None), 1)
    assert [row["price"][COUNTED[0]] for row in rows] == sorted(row["price"][COUNTED[0]] for row in rows)
    for row in rows:
        for chip in COUNTED:
            more = row["as_mac"]["elements"][chip]["luts"] - row["elements"][chip]["luts"]
            assert row["price"][chip] == pytest.approx(WORK[row["name"]] / sum(WORK.values()) * more)
        # a signed code of four bits has one bit more than a weight of a MAC; what is such a MAC costs nothing more
        assert row["as_mac"]["weight_kbit"] == pytest.approx(row["weight_kbit"] * (1 if row["name"] in KEPT else 0.8))
        assert (row["price"][COUNTED[0]] == 0) == (row["name"] in KEPT)


def test_tables_name_what_is_mac_and_what_layers_cost(folder, uncounted, capsys):
    options = [str(folder), "--dataset", "digits", "--architecture", "resnet-small", "--jobs", "1"]
    assert tradeoff.main([*options, "--inputs", "4"]) == 0
    said = capsys.readouterr().out
    [line] = [line for line in said.splitlines() if line.startswith("mixed ")]
    assert "MAC 4 bits: stem, stage1_shortcut" in line and "in 4 groups" in line
    assert "of 1 BM, " in said and "of 1 mixed, " in said
    assert tradeoff.main([*options, "--layers", "mixed"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert {line.split()[0] for line in lines if line.split()[:1] and line.split()[0] in SHAPES} == set(SHAPES)
    assert next(line for line in lines if line.startswith("stem ")).split()[1:3] == ["MAC", "9"]


def test_a_picture_beside_the_figures(folder, uncounted, tmp_path):
    options = [str(folder), "--dataset", "digits", "--architecture", "resnet-small", "--inputs", "4"]
    assert tradeoff.main([*options, "--json", str(tmp_path / "x.json"), "--plot", str(tmp_path / "x.svg")]) == 0
    assert len(json.loads((tmp_path / "x.json").read_text())["networks"]) == 3
    assert (tmp_path / "x.svg").read_text().count("<svg") == 1


def test_folders_and_networks_of_one_name(folder, tmp_path):
    assert card_folders() == [WEIGHTS, ROOT / "docs" / "results" / "cards"]
    card = read_card(folder / "mac.json")
    (tmp_path / "mac.json").write_text(json.dumps(card | {"accuracy": {**card["accuracy"], "bm_integer_accuracy": 1}}))
    found = networks([tmp_path, folder], "digits", "resnet-small")
    assert sorted(network.name for network in found) == ["grouped", "mac", "mixed"]
    assert named(found, "mac").entry["bm_integer_accuracy"] == 1


def test_several_seeds_are_told(folder, tmp_path):
    card = read_card(folder / "mac.json")
    for seed, accuracy in enumerate((90.0, 91.0, 92.0)):
        (tmp_path / f"mac-{seed}.json").write_text(json.dumps(card | {
            "name": f"mac-{seed}", "training": card["training"] | {"seed": seed},
            "accuracy": card["accuracy"] | {"bm_integer_accuracy": accuracy}}))
    found = repeated([tmp_path])
    assert found["mac-1"] == {"seeds": [0, 1, 2], "mean": 91.0, "standard_deviation": 1.0}
    assert repeated([folder]) == {}
