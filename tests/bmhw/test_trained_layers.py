# SPDX-License-Identifier: Apache-2.0
"""The command ``python -m bmhw.layers`` on trained networks: the formats of their cards."""

import dataclasses
import json
from pathlib import Path

import pytest
from support.calls import figures_of
from support.cards import BM_CARDS, KEPT

from bmhw import layers
from bmhw.errors import RunError, UsageError
from bmhw.hdl.formats.mac import MacFormat
from bmhw.measure.layer_formats import TrainedNeurons
from bmhw.measure.networks import NETWORKS, network
from bmhw.models.files.store import WEIGHTS, read_card

figures = figures_of(layers)
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
