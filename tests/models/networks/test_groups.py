# SPDX-License-Identifier: Apache-2.0
"""Groups of input channels: which layer has how many, what a grouped layer computes, what files say of them."""

import dataclasses
import json
import re

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from bmhw.models import ModelError
from bmhw.models.files.float_weights import half_precision, load_float, save_float
from bmhw.models.integer.quantise import Quantisation
from bmhw.models.networks.architecture import Builder
from bmhw.models.networks.groups import MEANING, GroupInputs, from_json, groups_of, has_groups, to_json
from bmhw.models.networks.layers import BmConv2d, BmLinear, combine_layout
from bmhw.models.networks.network import Network, convert, with_classical_weights
from bmhw.models.networks.wiring import Wiring
from bmhw.models.operators.smoothed import norm_difference

LAYOUTS = ("relu", "bipolar", "signed", "wired")


def test_the_largest_divisor_that_is_not_above():
    for channels in range(1, 65):
        for groups in range(1, 70):
            found = groups_of(channels, groups, 1)
            assert channels % found == 0 and found <= groups
            assert all(channels % more for more in range(found + 1, min(groups, channels) + 1))
    assert [groups_of(channels, 4, 1) for channels in (1, 3, 6, 7, 16)] == [1, 3, 3, 1, 4]


@pytest.mark.parametrize("channels, groups", [(0, 1), (4, 0), (4, -1), (4, 1.0), (True, 1)])
def test_what_is_no_number_of_groups_is_refused(channels, groups):
    with pytest.raises(ValueError, match="must be an integer of 1 or more, not"):
        groups_of(channels, groups, 1)


def test_as_many_groups_as_leave_each_the_inputs():
    for channels in range(1, 65):
        for taps in (1, 4, 9, 25):
            for inputs in (1, 2, 16, 17, 100, 2000):
                found = groups_of(channels, GroupInputs(inputs), taps)
                assert channels % found == 0 and (found == 1 or channels // found * taps >= inputs)
                more = [count for count in range(found + 1, channels + 1) if channels % count == 0]
                assert all(channels // count * taps < inputs for count in more)
    layers = {(64, 9): 32, (64, 1): 4, (3, 9): 1, (1, 9): 1, (15, 1): 1, (17, 1): 1, (48, 1): 3, (6, 9): 3}
    assert {layer: groups_of(layer[0], GroupInputs(16), layer[1]) for layer in layers} == layers


@pytest.mark.parametrize("inputs", [0, -1, 1.0, True, "16", None])
def test_what_is_no_number_of_inputs_is_refused(inputs):
    with pytest.raises(ValueError, match="Inputs of a group must be an integer of 1 or more, not"):
        GroupInputs(inputs)
    with pytest.raises(ValueError, match=re.escape(f"Groups must be {MEANING}, not {{'inputs': ")):
        from_json({"inputs": inputs})
    with pytest.raises(ValueError, match="Taps must be an integer of 1 or more, not 0"):
        groups_of(4, GroupInputs(4), 0)


def test_json_says_either():
    for groups, text in ((1, "1"), (4, "4"), (GroupInputs(16), '{"inputs": 16}')):
        assert json.dumps(to_json(groups)) == text and from_json(json.loads(text)) == groups
        settings = dataclasses.asdict(Quantisation(groups=groups))  # as cards and checkpoints hold them
        assert settings["groups"] == to_json(groups)
        assert has_groups(groups) == (groups != 1) == Quantisation(groups=groups).has_groups
    for value in ({}, {"inputs": 4, "most": 5}, {"least": 4}, [4], "4"):
        with pytest.raises(ValueError, match="Groups must be an integer"):
            from_json(value)
    assert f"groups {GroupInputs(16)}" == "groups of 16 inputs or more"


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("training", [False, True], ids=["maxima", "norms"])
def test_a_layer_is_the_sum_of_layers_of_a_group_s_channels(layout, training):
    torch.manual_seed(0)
    layer = BmConv2d(6, 5, 3, stride=2, padding=1, layout=layout, groups=4).double().train(training)
    assert layer.groups == 3
    layer.training_difference = lambda *arguments, **settings: norm_difference(*arguments, p=3.0, **settings)
    torch.nn.init.normal_(layer.bias)
    torch.nn.init.normal_(layer.weight)
    x = torch.randn(2, 6, 7, 8, dtype=torch.float64)
    x = x.abs() if layout == "relu" else x
    difference = layer.training_difference if training else None
    expected = layer.bias.view(-1, 1, 1)
    for group in range(3):
        channels = slice(2 * group, 2 * group + 2)
        settings = {"difference": difference} if training else {}
        weight = layer.effective_weight[..., channels, :, :]
        expected = expected + combine_layout(layout, x[:, channels], weight, 2, 1, **settings)
    # up to the order of additions, and at most 1e-300 that each sum of powers has more: to the power 1 / 3, 1e-100
    torch.testing.assert_close(layer(x), expected)
    ungrouped = combine_layout(layout, x, layer.effective_weight, 2, 1, **settings) + layer.bias.view(-1, 1, 1)
    assert not torch.allclose(expected, ungrouped)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_one_input_a_group_is_the_classical_layer(layout):
    torch.manual_seed(0)
    classical = torch.nn.Linear(6, 4).double()
    layer = BmLinear(6, 4, layout=layout, groups=6).double()
    # without the smallest magnitude in the place of the other sign's
    layer.load_classical(classical.weight, classical.bias, epsilon=0.0)
    x = torch.randn(9, 6, dtype=torch.float64)
    x = x.abs() if layout == "relu" else x
    weight = layer.weight[..., 0, 0]
    weight = weight if layout in ("signed", "wired") else weight[0] - weight[1]
    torch.testing.assert_close(layer(x), torch.nn.functional.linear(x, weight, classical.bias))


@pytest.fixture(scope="module")
def networks(tiny_architecture):
    torch.manual_seed(0)
    classical = Network(tiny_architecture, tiny_architecture.layouts("mac"))
    return {"classical": classical, "bm": with_classical_weights(classical, tiny_architecture.layouts(), 4)}


def test_a_network_groups_every_layer(networks, tiny_architecture):
    assert networks["bm"].groups == 4 and networks["classical"].groups == 1
    found = {node.name: networks["bm"].steps[node.name].groups for node in tiny_architecture.layers}
    assert found == {"stem": 1, "first": 4, "inner": 1, "shortcut": 4, "signed_inputs": 3, "dense": 3}
    assert "groups 4" in repr(networks["bm"].steps["first"])
    by_inputs = Network(tiny_architecture, tiny_architecture.layouts("wired"), GroupInputs(18))
    found = {node.name: by_inputs.steps[node.name].groups for node in tiny_architecture.layers}
    assert found == {"stem": 1, "first": 1, "inner": 1, "shortcut": 1, "signed_inputs": 3, "dense": 1}
    assert by_inputs.groups == GroupInputs(18)


def test_wires_are_half_and_half_in_groups_of_inputs():
    torch.manual_seed(0)
    net = Builder(1, 8, 8)
    net.dense("dense", net.norm(net.conv("conv", net.norm(net.conv("stem", "image", 8, 3)), 5, 3)), 10)
    architecture = net.build()
    classical, layouts = Network(architecture, architecture.layouts("mac")), architecture.layouts("wired")
    Wiring(classical, layouts, GroupInputs(36)).apply()
    signs = classical.steps["conv"].weight.detach().sign()
    assert (signs.unflatten(1, (2, 4)).sum(dim=(2, 3, 4)) == 0).all()  # two groups of four channels
    bm = with_classical_weights(classical, layouts, GroupInputs(36))
    assert bm.steps["conv"].groups == 2 and torch.equal(bm.steps["conv"].weight.detach().sign(), signs)


def test_what_is_made_of_it_has_its_groups(networks, tiny_architecture):
    images = torch.rand(8, 1, 8, 8)
    bm = networks["bm"].eval()
    half = half_precision(bm)
    assert half.groups == 4
    single = Network(tiny_architecture, tiny_architecture.layouts())
    single.load_state_dict(half.state_dict())
    assert not torch.allclose(half(images), single.eval()(images))
    converted = convert(networks["classical"], tiny_architecture.layouts(), images, 4)
    assert converted.groups == converted.steps["first"].groups == 4


@pytest.mark.parametrize(("groups", "text"), [(4, "4"), (GroupInputs(12), '{"inputs": 12}')])
def test_files_state_them(networks, groups, text, tmp_path, tiny_architecture):
    bm = with_classical_weights(networks["classical"], tiny_architecture.layouts(), groups)
    networks = networks | {"bm": bm}
    entry = save_float("tiny", tmp_path, networks)
    path = tmp_path / "tiny-float.safetensors"
    with safe_open(path, "pt") as file:
        assert file.metadata()["groups"] == text
    assert json.dumps(entry["groups"]) == text
    card = {"card_version": 1, "float_weights": entry, "architecture": tiny_architecture.to_list()}
    (tmp_path / "tiny.json").write_text(json.dumps(card))
    again = load_float(tmp_path / "tiny.json")
    assert again["bm"].groups == groups and again["classical"].groups == 1
    images = torch.rand(8, 1, 8, 8)
    assert torch.equal(again["bm"](images), half_precision(networks["bm"])(images))
    # networks of other groups don't share a file
    ungrouped = networks | {"bm": with_classical_weights(networks["classical"], tiny_architecture.layouts())}
    assert save_float("other", tmp_path, networks, path)["files"] == entry["files"]
    (other,) = save_float("other", tmp_path, ungrouped, path)["files"]
    assert other["file"] == "other-float.safetensors"


def test_one_group_is_said_by_nothing(networks, tmp_path, tiny_architecture):
    """As in the files of before."""
    ungrouped = networks | {"bm": with_classical_weights(networks["classical"], tiny_architecture.layouts())}
    entry = save_float("tiny", tmp_path, ungrouped)
    path = tmp_path / "tiny-float.safetensors"
    with safe_open(path, "pt") as file:
        assert "groups" not in file.metadata()
    (tmp_path / "tiny.json").write_text(
        json.dumps({"card_version": 1, "float_weights": entry, "architecture": tiny_architecture.to_list()})
    )
    assert load_float(tmp_path / "tiny.json")["bm"].groups == 1 and "groups" not in entry
    save_file(load_file(path), path)  # without metadata
    assert save_float("again", tmp_path, ungrouped, path)["files"][0]["file"] == path.name


@pytest.mark.parametrize("groups", [0, "4", 1.5, True, None, {}, {"inputs": 0}, {"inputs": "4"}, {"least": 4}])
def test_a_card_s_nonsense_is_named(groups, networks, tmp_path, tiny_architecture):
    entry = save_float("tiny", tmp_path, networks) | {"groups": groups}
    card = {"card_version": 1, "float_weights": entry, "architecture": tiny_architecture.to_list()}
    (tmp_path / "tiny.json").write_text(json.dumps(card))
    with pytest.raises(ModelError, match="must be an integer"):
        load_float(tmp_path / "tiny.json")
