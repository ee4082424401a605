# SPDX-License-Identifier: Apache-2.0
"""Groups of input channels: which layer has how many, what a grouped layer computes, what files say of them."""

import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from bmhw.models import ModelError
from bmhw.models.files.float_weights import half_precision, load_float, save_float
from bmhw.models.networks.groups import groups_of
from bmhw.models.networks.layers import BmConv2d, BmLinear, combine_layout
from bmhw.models.networks.network import Network, convert, with_classical_weights
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


def test_files_state_them(networks, tmp_path, tiny_architecture):
    entry = save_float("tiny", tmp_path, networks)
    path = tmp_path / "tiny-float.safetensors"
    with safe_open(path, "pt") as file:
        assert file.metadata()["groups"] == "4"
    card = {"card_version": 1, "float_weights": entry, "architecture": tiny_architecture.to_list()}
    (tmp_path / "tiny.json").write_text(json.dumps(card))
    again = load_float(tmp_path / "tiny.json")
    assert again["bm"].groups == 4 and again["classical"].groups == 1
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


@pytest.mark.parametrize("groups", [0, "4", 1.5, True, None])
def test_a_card_s_nonsense_is_named(groups, networks, tmp_path, tiny_architecture):
    entry = save_float("tiny", tmp_path, networks) | {"groups": groups}
    card = {"card_version": 1, "float_weights": entry, "architecture": tiny_architecture.to_list()}
    (tmp_path / "tiny.json").write_text(json.dumps(card))
    with pytest.raises(ModelError, match="must be an integer"):
        load_float(tmp_path / "tiny.json")
