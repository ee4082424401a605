# SPDX-License-Identifier: Apache-2.0
"""Runs in other groups than those of the network that they start from: its weights go on, in each channel scaled."""

import pytest
import torch
from safetensors.torch import save_file
from support.networks import random_network
from support.training import stopped_in

from bmhw import train
from bmhw.models.files.float_weights import load_float
from bmhw.models.files.run_files import CHECKPOINT
from bmhw.models.files.store import read_card
from bmhw.models.networks.architecture import ARCHITECTURES, resnet_small
from bmhw.models.networks.groups import GroupInputs
from bmhw.models.networks.layers import BmConv2d, wired_signs
from bmhw.models.networks.network import MATCHING_BATCH, Network, convert, regrouped, with_mac_layers

ARCHITECTURE = resnet_small(1, 8, filters=4)
OPTIONS = ["--architecture=tiny", "--classical-epochs=0", "--epoch-images=64", "--validation-images=100",
           "--layout=signed", "--accept-import", "--name=net"]
LAYOUTS = ("auto", "signed", "wired")


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    monkeypatch.setitem(ARCHITECTURES, "tiny", lambda channels, size: resnet_small(channels, size, filters=4))


@pytest.fixture
def images(digits):
    """As many as a run matches layers on, which are the first ones."""
    return torch.from_numpy(digits.train_images[: 2 * MATCHING_BATCH]).float() / 256


def bm_layers(network):
    return {name: step for name, step in network.steps.items() if isinstance(step, BmConv2d)}


def moments(values):
    return torch.stack([values.mean(dim=(0, 2, 3)), values.std(dim=(0, 2, 3))])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_ratios_of_the_weights_stay_and_channels_are_what_they_were(tiny_architecture, layout, images):
    network = random_network(tiny_architecture, tiny_architecture.layouts(layout), groups=1)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    result = regrouped(network, GroupInputs(9), images)
    assert result.groups == GroupInputs(9) and not result.training and result.layouts == network.layouts
    assert [result.steps[name].groups for name in ("first", "inner", "signed_inputs", "dense")] == [1, 5, 6, 2]
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    for name, layer in bm_layers(result).items():
        weight, old = layer.weight.detach(), network.steps[name].weight.detach()
        if network.layouts[name] == "wired":
            assert torch.equal(weight.sign(), wired_signs(weight, layer.groups))
        kept = weight.sign() == old.sign()
        assert kept.all() or (network.layouts[name] == "wired" and layer.groups > 1)
        ratio = torch.where(kept, weight / old, torch.nan)
        expected = ratio.nanmedian(dim=-1).values.flatten(-2).nanmedian(dim=-1).values  # of each output
        expected = (expected if expected.ndim == 1 else expected.nanmedian(dim=0).values).view(-1, 1, 1, 1)
        torch.testing.assert_close(torch.where(kept, ratio, expected), expected.expand_as(ratio))
    # in the statistics of these very images, as they are matched
    for network_there in (result, network):
        network_there.train()
    with torch.no_grad():
        found, targets = result.trace(images), network.eval().trace(images)
    for name in bm_layers(result):
        torch.testing.assert_close(moments(found[name])[1], moments(targets[name])[1], rtol=1e-3, atol=1e-5)
        if result.steps[name].bias is not None:
            torch.testing.assert_close(moments(found[name])[0], moments(targets[name])[0], rtol=1e-3, atol=1e-4)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder of a network in two groups, of an epoch in floating point."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(ARCHITECTURES, "tiny", lambda channels, size: resnet_small(channels, size, filters=4))
        assert train.main(["--architecture=tiny", "--layout=signed", "--groups=2", "--classical-epochs=6",
                           "--bm-epochs=4", "--quantised-epochs=0", "--name=net", f"--out={folder}"]) == 0
    return folder


def accuracy(network, digits):
    with torch.no_grad():
        scores = network.eval()(torch.from_numpy(digits.test_images).float() / 256)
    return 100 * float((scores.argmax(dim=1).numpy() == digits.test_labels).mean())


def test_it_begins_with_more_than_a_converted_network(trained, digits, images):
    networks = load_float(trained / "net.json")
    groups = GroupInputs(9)
    assert {layer.groups for layer in bm_layers(regrouped(networks["bm"], groups, images)).values()} == {1, 4, 8}
    kept = accuracy(regrouped(networks["bm"], groups, images), digits)
    plain = Network(ARCHITECTURE, networks["bm"].layouts, groups)
    plain.load_state_dict(networks["bm"].state_dict())
    converted = convert(networks["classical"], networks["bm"].layouts, images, groups)
    assert kept > accuracy(converted, digits) and kept > accuracy(plain, digits)


def run(out, *options):
    assert train.main([*OPTIONS, *map(str, options), f"--out={out}"]) == 0
    return load_float(out / "net.json")["bm"]


def same(found, expected):
    for key, value in expected.state_dict().items():
        if value.is_floating_point():  # but no counter; in half precision
            assert torch.allclose(found.state_dict()[key], value, rtol=2.0**-10, atol=2.0**-14), key


@pytest.mark.parametrize("macs", [(), ("stage0_conv2", "dense")], ids=["BM", "mixed"])
@pytest.mark.parametrize("teacher", [False, True], ids=["own file", "teacher"])
def test_a_run_starts_from_the_weights_in_its_groups(trained, images, tmp_path, capsys, macs, teacher):
    networks = load_float(trained / "net.json")
    start = ["--init-from", trained / "net-float.safetensors"]
    if teacher:
        save_file(networks["bm"].state_dict(), tmp_path / "bm.safetensors", {"groups": "2"})
        save_file(networks["classical"].state_dict(), tmp_path / "classical.safetensors")
        start = ["--init-from", tmp_path / "bm.safetensors", "--teacher", tmp_path / "classical.safetensors"]
    kinds = ["--neurons", ",".join(f"{name}=mac8" for name in macs)] if macs else []
    found = run(tmp_path / "out", *start, *kinds, "--group-inputs", 9, "--bm-epochs", 0, "--quantised-epochs", 0)
    expected = networks["bm"]
    if macs:
        layouts = expected.layouts | dict.fromkeys(macs, "mac")
        expected = with_mac_layers(expected, layouts, images[:MATCHING_BATCH])
    expected = regrouped(expected, GroupInputs(9), images)
    assert found.groups == GroupInputs(9) and found.layouts == expected.layouts
    same(found, expected)
    said = "Bipolar morphological network: groups of 9 inputs or more, the weights of groups 2, scaled"
    assert said in capsys.readouterr().err
    training = read_card(tmp_path / "out" / "net.json")["training"]
    assert training["method"] == "fine-tuning" and training["quantisation"]["groups"] == {"inputs": 9}


def test_the_same_groups_are_the_same_weights(trained, tmp_path):
    start = "--init-from", trained / "net-float.safetensors", "--quantised-epochs", 0
    found = run(tmp_path / "out", *start, "--groups", 2)  # no epoch of a network that is trained
    same(found, load_float(trained / "net.json")["bm"])
    assert (tmp_path / "out" / "net-float.safetensors").read_bytes() == (trained / "net-float.safetensors").read_bytes()


def test_a_run_that_goes_on_knows_its_groups(trained, tmp_path):
    """Also where it was stopped before the BM network began: a resumed run needn't say them again."""
    epochs = "--bm-epochs", 1, "--quantised-epochs", 1
    start = "--init-from", trained / "net-float.safetensors", "--classical-epochs", 1, *epochs
    whole = run(tmp_path / "whole", *start, "--group-inputs", 9)
    out = tmp_path / "parts"
    with stopped_in(0):
        assert train.main([*OPTIONS, *map(str, start), "--group-inputs=9", f"--out={out}"]) == 130
    state = torch.load(out / CHECKPOINT, weights_only=True)
    assert state["settings"]["quantisation"]["groups"] == {"inputs": 9} and state["phase"] == 0
    parts = run(out, *start, "--resume")
    assert all(torch.equal(value, whole.state_dict()[key]) for key, value in parts.state_dict().items())
