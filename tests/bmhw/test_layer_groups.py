# SPDX-License-Identifier: Apache-2.0
"""``python -m bmhw.layers`` with groups of input channels: those that an option asks for, those of a card."""

import json

import pytest
from support.calls import assert_one_line, command_of, figures_of, measure_without_building
from support.cards import KEPT

from bmhw import layers
from bmhw.errors import UsageError
from bmhw.measure.layer_formats import Neurons, TrainedNeurons
from bmhw.measure.networks import NETWORKS, Layer, network
from bmhw.measure.tradeoff import neurons_of
from bmhw.models.files.store import read_card
from bmhw.models.networks.groups import groups_of
from bmhw.show.report import markdown

figures, command = figures_of(layers), command_of(layers)


@pytest.fixture(autouse=True)
def unbuilt(monkeypatch):
    measure_without_building(monkeypatch)


def test_each_layer_has_its_own_groups(capsys):
    found = figures(capsys, "--groups", "4", "--bits", "4", "--branches", "signed")
    stem, *others = found["layers"]
    assert (found["groups"], stem["groups"]) == (4, 1)  # an image of one channel
    assert {row["groups"] for row in others} == {4}
    for row in found["layers"]:
        design = row["bm"]["design"]
        assert (design["groups"], design["zero"], design["combine"]) == (row["groups"], "exact", "linear")
        assert {one["combine"] for one in row["bm"]["candidates"]} == {"linear"}
    assert layers.main(["--groups", "4", "--bits", "4", "--branches", "signed"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert ", signed, 4 groups; objective" in said[0]
    heading = next(line for line in said if line.startswith("layer"))
    place = heading.index("groups")
    shown = {line.split()[0]: line[place:place + 6].strip() for line in said if line.startswith("st")}
    assert shown == {row["name"]: str(row["groups"]) for row in found["layers"]}


def test_without_groups_the_table_says_nothing_of_them(capsys):
    found = figures(capsys, "--layers", "stem")
    assert (found["groups"], found["layers"][0]["groups"]) == (1, 1)
    assert layers.main(["--layers", "stem"]) == 0
    assert "groups" not in capsys.readouterr().out


def test_as_many_groups_as_channels():
    for layer in NETWORKS["resnet20v2"]():
        [fmt] = Neurons(groups=10**6, branches="signed").bm(layer)
        assert fmt.groups == layer.inputs and fmt.group_inputs == layer.kernel**2
        # a group of one input has none of the other sign
        [fmt] = Neurons(groups=10**6, branches="wired").bm(layer)
        paired = layer.nonnegative and layer.kernel > 1 and layer.fan_in % 2 == 0
        assert (fmt.layout, fmt.groups) == ("wired" if paired else "signed", layer.inputs)


def test_a_dense_layer_has_groups_of_channels():
    dense = next(layer for layer in network("mnist-lenet").layers if layer.name == "dense1")
    assert (dense.fan_in, dense.channels) == (800, 32)
    assert Neurons(groups=50).layer_groups(dense) == 32


def test_the_end_that_is_chosen_is_linear():
    layer = Layer(name="x", kernel=1, inputs=8, outputs=1, stride=1, nonnegative=True, output="code")
    assert [fmt.combine for fmt in Neurons().bm(layer)] == ["linear", "logarithmic"]
    assert [fmt.combine for fmt in Neurons(groups=2).bm(layer)] == ["linear"]
    assert [fmt.combine for fmt in Neurons(zero="exact").bm(layer)] == ["linear"]
    with pytest.raises(ValueError, match="it has one group, so that 2 groups"):
        Neurons(groups=2, combine="logarithmic").bm(layer)


@pytest.fixture
def grouped_card(tmp_path):
    """The card of a network for images of three channels, with four groups."""
    ungrouped = KEPT / "cifar10-resnet20.json"
    card = read_card(ungrouped)
    channels = {layer.name: layer.channels for layer in network(str(ungrouped)).layers}
    entries = {name: entry | {"groups": groups_of(channels[name], 4, 1), "zero": "exact"}
               for name, entry in card["layers"].items()}
    path = tmp_path / "grouped.json"
    path.write_text(json.dumps({**card, "layers": entries}))
    return str(path)


def test_a_card_says_the_groups(grouped_card, capsys):
    names = "stem,stage0_block0_conv1,dense"
    found = figures(capsys, "--network", grouped_card, "--layers", names)
    assert found["groups"] is None
    assert [(row["groups"], row["bm"]["design"]["groups"]) for row in found["layers"]] == [(3, 3), (4, 4), (4, 4)]
    assert figures(capsys, "--network", grouped_card, "--layers", names, "--groups", "4", "--zero", "exact",
                   )["layers"] == found["layers"]
    with pytest.raises(UsageError, match="--groups 3 contradicts the card of grouped: layer stage0_block0_conv1 has 4"):
        layers.main(["--network", grouped_card, "--groups", "3"])
    with pytest.raises(UsageError, match="--zero step contradicts the card of grouped: layer stem has exact"):
        layers.main(["--network", grouped_card, "--zero", "step"])


def test_a_sample_has_what_fits_of_a_card_s_groups(grouped_card, capsys):
    """MAC architectures are tried at 64 inputs, which three groups don't divide."""
    chosen = network(grouped_card)
    neurons = TrainedNeurons.of(chosen, mac_bits=4)
    wide = Layer(name="stem", kernel=1, inputs=64, outputs=1, stride=1, nonnegative=False, output="linear")
    assert [fmt.groups for fmt in neurons.bm(wide)] == [2]
    found = figures(capsys, "--network", grouped_card, "--layers", "stage0_block0_conv2", "--explore")
    assert found["layers"][0]["groups"] == 4


def test_the_neuron_of_a_trained_network_has_its_groups():
    training = {"layout": "signed", "quantisation": {"bits": 4, "log_bits": 4, "groups": 4}}
    [fmt] = neurons_of(training, "area", "scale").bm(
        Layer(name="x", kernel=1, inputs=64, outputs=1, stride=1, nonnegative=True, output="code"))
    assert (fmt.groups, fmt.zero) == (4, "exact")


def test_a_report_names_the_groups(capsys):
    found = figures(capsys, "--groups", "4", "--bits", "8", "--branches", "relu")
    [line] = [line for line in markdown([found | {"file": "layers-grouped.json"}]).splitlines()
              if line.startswith("| `relu` 8 bits in 4 groups against 8 |") and "all bits | area" in line][:1]
    assert line.endswith("|  |")  # the goals are those of the paper's neuron


@pytest.mark.parametrize("arguments, words", [
    (["--groups", "0"], ["Number of groups must be an integer of 1 or more, not 0"]),
    (["--groups", "-3"], ["not -3"]),
    (["--groups", "four"], ["not 'four'"]),
    (["--groups", "4", "--combine", "logarithmic", "--branches", "signed"], ["it has one group, so that 4 groups"]),
    (["--groups", "4", "--sums", "clamped", "--zero", "step"], ["need zero exact, not step"]),
    (["--zero", "never"], ["step, exact", "never"]),
])
def test_bad_input_is_one_line(arguments, words):
    assert_one_line(command(*arguments), 2, words)
