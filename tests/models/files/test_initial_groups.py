# SPDX-License-Identifier: Apache-2.0
"""Runs that start from networks with groups: of this program's files, and of files that say nothing of themselves."""

import re

import pytest
import torch
from safetensors.torch import save_file

from bmhw.models import ModelError
from bmhw.models.errors import ModelUsageError
from bmhw.models.files import float_weights
from bmhw.models.files.float_weights import half_precision, save_float
from bmhw.models.files.initial import read_initial
from bmhw.models.networks.architecture import resnet_small
from bmhw.models.networks.groups import GroupInputs
from bmhw.models.networks.layers import larger_of_pair
from bmhw.models.networks.network import Network, with_classical_weights

ARCHITECTURE = resnet_small(1, 8, filters=4)
MAC, AUTO, SIGNED = (ARCHITECTURE.layouts(choice) for choice in ("mac", "auto", "signed"))


@pytest.fixture(scope="module")
def networks():
    torch.manual_seed(0)
    classical = Network(ARCHITECTURE, MAC)
    return {"classical": classical, "bm": with_classical_weights(classical, AUTO, 4)}


@pytest.fixture
def files(networks, tmp_path):
    """Of this program's networks by themselves, without a word about them."""
    for kind, network in networks.items():
        save_file(network.state_dict(), tmp_path / f"{kind}.safetensors")
    return tmp_path / "bm.safetensors", tmp_path / "classical.safetensors"


def same(state, network):
    floats = {key: value for key, value in network.state_dict().items() if value.is_floating_point()}
    return state.keys() >= floats.keys() and all(torch.equal(state[key], value) for key, value in floats.items())


def test_an_own_file_says_its_groups(networks, tmp_path):
    save_float("net", tmp_path, networks)
    path = tmp_path / "net-float.safetensors"
    for asked in (None, 4):
        initial = read_initial(path, ARCHITECTURE, AUTO, groups=asked)
        assert initial.groups == 4 and not initial.merged and same(initial.states["bm"], half_precision(networks["bm"]))
    # whatever is asked for: the weights serve other groups too
    assert read_initial(path, ARCHITECTURE, AUTO, groups=2).groups == 4
    by_inputs = with_classical_weights(networks["classical"], AUTO, GroupInputs(18))
    save_float("by-inputs", tmp_path, networks | {"bm": by_inputs})
    initial = read_initial(tmp_path / "by-inputs-float.safetensors", ARCHITECTURE, AUTO)
    assert initial.groups == GroupInputs(18) and initial.is_trained
    assert "Bipolar morphological network: groups of 18 inputs or more" in initial.lines()
    assert "Bipolar morphological network: groups 4" in read_initial(path, ARCHITECTURE, AUTO).lines()


def test_an_unmarked_network_of_maxima_has_a_teacher_and_groups(networks, files):
    path, teacher = files
    initial = read_initial(path, ARCHITECTURE, AUTO, groups=4, teacher=teacher)
    assert same(initial.states["bm"], networks["bm"]) and same(initial.states["classical"], networks["classical"])
    assert initial.groups == 4 and initial.teacher[0] == teacher and initial.teacher[1] != initial.checksum
    with pytest.raises(ModelUsageError, match=r"doesn't say how many groups .* with --groups or --group-inputs"):
        read_initial(path, ARCHITECTURE, AUTO, teacher=teacher)
    assert read_initial(path, ARCHITECTURE, AUTO, groups=GroupInputs(9), teacher=teacher).groups == GroupInputs(9)
    # unless its metadata do
    for text, groups in (("2", 2), ('{"inputs": 9}', GroupInputs(9))):
        save_file(networks["bm"].state_dict(), path, {"groups": text})
        for asked in (None, 4):
            assert read_initial(path, ARCHITECTURE, AUTO, groups=asked, teacher=teacher).groups == groups
    save_file(networks["bm"].state_dict(), path, {"groups": '{"inputs": 0}'})
    with pytest.raises(ModelError, match=r"^Metadata groups of .* must be an integer of 1 or more, or .* not .*: 0}$"):
        read_initial(path, ARCHITECTURE, AUTO, teacher=teacher)
    save_file(networks["bm"].state_dict(), path)
    with pytest.raises(ModelUsageError, match=r"has two weights an input\), which learns .* with --teacher"):
        read_initial(path, ARCHITECTURE, AUTO, groups=4)


@pytest.mark.parametrize("own", [True, False], ids=["own file", "unmarked"])
def test_signed_layers_take_the_larger_weight_of_each_pair(networks, files, tmp_path, own):
    path, teacher = files
    if own:
        save_float("net", tmp_path, networks)
        initial = read_initial(tmp_path / "net-float.safetensors", ARCHITECTURE, SIGNED)
        expected = half_precision(networks["bm"])
    else:
        initial, expected = read_initial(path, ARCHITECTURE, SIGNED, groups=4, teacher=teacher), networks["bm"]
    assert initial.merged and initial.groups == 4
    network = Network(ARCHITECTURE, SIGNED, initial.groups)
    network.load_state_dict({**network.state_dict(), **initial.states["bm"]})
    for node in ARCHITECTURE.layers:
        first, second = expected.steps[node.name].weight.detach().abs()
        found = network.steps[node.name].weight.detach()
        assert torch.equal(found.abs(), torch.maximum(first, second))
        assert torch.equal(found < 0, second > first)


def test_the_larger_of_a_pair():
    weight = torch.tensor([[3.0, -1.0, 2.0, 0.0], [1.0, 4.0, -2.0, 0.0]])
    assert larger_of_pair(weight).tolist() == [3.0, -4.0, 2.0, 0.0]


def test_an_ungrouped_file_of_pairs_still_starts_from_its_classical_network(networks, tmp_path):
    ungrouped = networks | {"bm": with_classical_weights(networks["classical"], AUTO)}
    save_float("net", tmp_path, ungrouped)
    initial = read_initial(tmp_path / "net-float.safetensors", ARCHITECTURE, SIGNED)
    assert set(initial.states) == {"classical"} and not initial.merged


@pytest.mark.parametrize("largest", [float_weights.LARGEST_FILE, 1], ids=["one file", "several files"])
def test_what_a_teacher_is_not_for(networks, files, tmp_path, monkeypatch, largest):
    monkeypatch.setattr(float_weights, "LARGEST_FILE", largest)
    path, teacher = files
    save_float("net", tmp_path, networks)
    own = tmp_path / "net-float.safetensors"
    with pytest.raises(ModelUsageError, match=f"--teacher .* is for a file without a classical network, which {own}"):
        read_initial(own, ARCHITECTURE, AUTO, teacher=teacher)
    with pytest.raises(ModelUsageError, match="not for layout mac"):
        read_initial(path, ARCHITECTURE, MAC, groups=4, teacher=teacher)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("steps.dense.bias"), "steps.dense.bias must be of shape (10,), but is missing"),
        (lambda state: state.update({"steps.dense.bias": torch.zeros(9)}), "but is of shape (9,)"),
        (lambda state: state["steps.dense.bias"].fill_(float("nan")), "must hold finite floating-point numbers"),
        (lambda state: state["steps.stem_norm.running_var"].fill_(-1), "must hold variances of 0 or more, not -1"),
    ],
)
def test_the_first_tensor_that_does_not_fit_is_named(networks, files, change, message):
    path, teacher = files
    state = {key: value.clone() for key, value in networks["bm"].state_dict().items()}
    change(state)
    save_file(state, path)
    with pytest.raises(ModelError, match=re.escape(message)):
        read_initial(path, ARCHITECTURE, AUTO, groups=4, teacher=teacher)


def test_what_is_of_no_layer_is_left_out(networks, files):
    path, teacher = files
    save_file({**networks["bm"].state_dict(), "scales.stem": torch.zeros(())}, path)
    initial = read_initial(path, ARCHITECTURE, AUTO, groups=4, teacher=teacher)
    assert same(initial.states["bm"], networks["bm"]) and "scales.stem" not in initial.states["bm"]
