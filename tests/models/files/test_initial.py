# SPDX-License-Identifier: Apache-2.0
"""Runs that start from weights of the user's."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from bmhw.models import ModelError, load
from bmhw.models.files import float_weights
from bmhw.models.files.conventions import Conventions
from bmhw.models.files.float_weights import load_float, save_float
from bmhw.models.files.initial import read_initial
from bmhw.models.files.store import WEIGHTS, save
from bmhw.models.networks.architecture import lenet, resnet_small
from bmhw.models.networks.network import Network


def initial_states(path, architecture, layouts):
    return read_initial(path, architecture, layouts, conventions=Conventions()).states


def users_lenet():
    """The architecture ``lenet`` as somebody else would write it: other names, linear layers, PyTorch's epsilon."""
    return nn.Sequential(
        *(nn.Conv2d(1, 16, 5, padding=2), nn.BatchNorm2d(16), nn.ReLU(), nn.AvgPool2d(2)),
        *(nn.Conv2d(16, 32, 5), nn.BatchNorm2d(32), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten()),
        *(nn.Linear(800, 120), nn.BatchNorm1d(120), nn.ReLU()),
        *(nn.Linear(120, 84), nn.BatchNorm1d(84), nn.ReLU()),
        nn.Linear(84, 10),
    )


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_a_foreign_state_dict_computes_the_same(tmp_path, suffix):
    torch.manual_seed(0)
    theirs, path = users_lenet().eval(), tmp_path / f"weights{suffix}"
    (torch.save if suffix == ".pt" else lambda state, path: save_file(state, path))(theirs.state_dict(), path)
    architecture = lenet(1, 28)
    network = Network(architecture, architecture.layouts("mac")).eval()
    states = initial_states(path, architecture, architecture.layouts())
    assert set(states) == {"classical"}
    network.load_state_dict({**network.state_dict(), **states["classical"]})
    images = torch.rand(3, 1, 28, 28)
    torch.testing.assert_close(network(images), theirs(images))


def test_own_files_give_both_networks():
    floats = load_float("digits")
    architecture, layouts = floats["bm"].architecture, floats["bm"].layouts
    states = initial_states(WEIGHTS / "digits-float.safetensors", architecture, layouts)
    for kind, network in floats.items():
        for key, value in states[kind].items():
            assert torch.equal(value, network.state_dict()[key])
    # of another layout than the file's, only the classical network can be used
    signed = architecture.layouts("signed")
    assert set(initial_states(WEIGHTS / "digits-float.safetensors", architecture, signed)) == {"classical"}


def test_a_classical_network_takes_no_weights_of_maxima(tmp_path):
    """Signed BM layers have the shapes of classical ones."""
    path, architecture = tmp_path / "signed-float.safetensors", resnet_small(1, 8, filters=4)
    save_float("signed", tmp_path, {"classical": Network(architecture, architecture.layouts("mac")),
                                    "bm": Network(architecture, architecture.layouts("signed"))})
    assert set(initial_states(path, architecture, architecture.layouts("signed"))) == {"classical", "bm"}
    assert set(initial_states(path, architecture, architecture.layouts("mac"))) == {"classical"}


@pytest.mark.parametrize(("trained", "metadata"), [(False, True), (True, True), (False, False)])
def test_the_second_network_of_a_quantised_classical_run_is_no_bm_network(tmp_path, trained, metadata):
    """Nor is one with a layer that is multiply-accumulate there and BM here: shapes are the same."""
    architecture = resnet_small(1, 8, filters=4)
    mac, signed = architecture.layouts("mac"), architecture.layouts("signed")
    networks = {"classical": Network(architecture, mac), "bm": Network(architecture, mac)}
    if not trained:
        networks["bm"].load_state_dict(networks["classical"].state_dict())
    save_float("run", tmp_path, networks)
    path = tmp_path / "run-float.safetensors"
    if not metadata:
        save_file(load_file(path), path)
    for layouts in (signed, architecture.layouts("signed", {"dense": "mac"})):
        assert set(initial_states(path, architecture, layouts)) == {"classical"}
    networks["bm"] = Network(architecture, signed)
    save_float("run", tmp_path, networks)
    assert set(initial_states(path, architecture, signed)) == {"classical", "bm"}
    mixed = read_initial(path, architecture, architecture.layouts("signed", {"dense": "mac"}))
    assert set(mixed.states) == {"classical", "bm"} and mixed.layouts == signed  # to be made such a network


def test_the_card_beside_an_older_file_says_its_layouts(tmp_path):
    architecture = resnet_small(1, 8, filters=4)
    mac, signed = architecture.layouts("mac"), architecture.layouts("signed")
    entry = save_float("run", tmp_path, {"classical": Network(architecture, mac), "bm": Network(architecture, mac)})
    path = tmp_path / "run-float.safetensors"
    save_file(load_file(path), path)
    assert set(initial_states(path, architecture, signed)) == {"classical", "bm"}  # nothing says what it is
    (tmp_path / "run.json").write_text(json.dumps({"card_version": 1, "float_weights": entry}))
    assert set(initial_states(path, architecture, signed)) == {"classical"}
    (tmp_path / "run.json").write_text("{")  # somebody else's
    assert set(initial_states(path, architecture, signed)) == {"classical", "bm"}


def test_networks_of_an_unchanged_file_keep_its_name_and_content(tmp_path):
    known = WEIGHTS / "digits-float.safetensors"
    entry = save_float("digits-5bit", tmp_path, load_float("digits"), known)
    assert [part["file"] for part in entry["files"]] == [known.name]
    assert (tmp_path / known.name).read_bytes() == known.read_bytes()
    (other,) = save_float("other", tmp_path, load_float("digits"))["files"]
    assert other["file"] == "other-float.safetensors"


@pytest.mark.parametrize(
    ("largest", "middle"), [(100_000, ["", "-classical"]), (40_000, ["", "-2", "-3", "-4", "-classical"])]
)
def test_large_networks_lie_in_several_files(tmp_path, monkeypatch, largest, middle):
    monkeypatch.setattr(float_weights, "LARGEST_FILE", largest)
    floats = load_float("digits")
    card = {"float_weights": save_float("split", tmp_path, floats)}
    names = [f"split{part}-float.safetensors" for part in middle]
    assert [part["file"] for part in card["float_weights"]["files"]] == names
    assert all((tmp_path / name).stat().st_size <= largest for name in names[:-1])
    save(load("digits"), tmp_path, card)
    again = load_float(tmp_path / "digits.json")
    architecture, layouts = floats["bm"].architecture, floats["bm"].layouts
    states = initial_states(tmp_path / names[0], architecture, layouts)
    for kind, network in floats.items():
        for key, value in network.state_dict().items():
            assert torch.equal(again[kind].state_dict()[key], value)
            assert key.endswith("num_batches_tracked") or torch.equal(states[kind][key], value)
    assert set(initial_states(tmp_path / names[-1], architecture, layouts)) == {"classical"}
    # networks of other codes share the files that are there
    shared = save_float("split-5bit", tmp_path, floats, tmp_path / names[0])
    assert [part["file"] for part in shared["files"]] == names
    # without one of them nothing starts from half a network
    (tmp_path / names[-2]).unlink()
    with pytest.raises(ModelError, match="doesn't exist" if len(names) == 2 else "lack steps"):
        initial_states(tmp_path / names[0], architecture, layouts)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda state: state.update({"4.weight": torch.zeros(32, 16, 3, 3)}),
            r"Layer 4 .* to conv2: it has weight of shape \(32, 16, 3, 3\), not weight of shape \(32, 16, 5, 5\)",
        ),
        (
            lambda state: state.update({"20.weight": torch.zeros(3, 3)}),
            "the first that can't be converted: 20",
        ),
        (lambda state: [state.pop("15.weight"), state.pop("15.bias")], "none for dense3"),
        (lambda state: state.update({"1.extra": torch.zeros(1)}), "it has a extra"),
        (lambda state: state.update({"0.weight": state["0.weight"].long()}), "Tensor 0.weight .* holds int64 numbers"),
    ],
)
def test_the_first_layer_that_does_not_fit_is_named(tmp_path, change, message):
    state, architecture = users_lenet().state_dict(), lenet(1, 28)
    change(state)
    torch.save(state, tmp_path / "weights.pt")
    with pytest.raises(ModelError, match=message):
        initial_states(tmp_path / "weights.pt", architecture, architecture.layouts())


def test_files_that_hold_no_weights(tmp_path):
    architecture = resnet_small(1, 8)
    layouts = architecture.layouts()
    for content, message in ((b"nonsense", "can't be read"), (None, "doesn't exist")):
        path = tmp_path / "weights.pt"
        path.unlink(missing_ok=True)
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(ModelError, match=message):
            initial_states(path, architecture, layouts)
    torch.save({"epoch": 3}, path)
    with pytest.raises(ModelError, match="must hold a state_dict"):
        initial_states(path, architecture, layouts)
