# SPDX-License-Identifier: Apache-2.0
"""Multiply-accumulate and mixed networks from the command line to their files: digits, a small network, few steps."""

import json

import numpy as np
import pytest
import torch
from support.networks import random_network

from bmhw import train
from bmhw.errors import BmhwError, UsageError
from bmhw.models import load
from bmhw.models.files.float_weights import load_float, save_float
from bmhw.models.integer.quantise import Quantisation
from bmhw.models.networks.architecture import ARCHITECTURES, resnet_small
from bmhw.models.networks.network import Network, with_classical_weights, with_mac_layers
from bmhw.models.training.comparison import command
from bmhw.models.training.evaluation import evaluate
from bmhw.models.training.trainer import Settings, Trainer

SHORT = ["--name", "net", "--classical-epochs", "1", "--bm-epochs", "1", "--quantised-epochs", "1", "--epoch-images",
         "160", "--architecture", "tiny"]  # fmt: skip


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    monkeypatch.setitem(ARCHITECTURES, "tiny", lambda channels, size: resnet_small(channels, size, filters=4))


def test_a_mac_network_learns_steps_and_is_written_as_trained(tmp_path, digits):
    arguments = [*SHORT, "--layout", "mac", "--bits", "3", "--edge-bits", "8", "--out", str(tmp_path)]
    assert train.main(arguments) == 0
    network, state = load(tmp_path / "net.json"), torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    widths = {name: (layer.format.bits, layer.format.weight_bits) for name, layer in network.layers.items()}
    assert widths == {name: (8, 8) if name in ("stem", "dense") else (3, 3) for name in widths}
    assert any("octaves" in key for key in state["models"]["quantised"])
    # the accuracy on the card is that of the quantised network, which --resume makes again from the checkpoint
    settings = Settings(**{**state["settings"], "quantisation": Quantisation(**state["settings"]["quantisation"])})
    trainer = Trainer(settings, digits, tmp_path, resume=True)
    folded = trainer.models["quantised"].eval()
    with torch.no_grad():
        trained = folded(torch.from_numpy(digits.test_images).float()).argmax(dim=1).numpy()
    assert np.array_equal(network.classify(digits.test_images), trained)
    assert evaluate(tmp_path / "net.json")["bm_integer_accuracy"] == pytest.approx(
        100 * (trained == digits.test_labels).mean())


def test_single_layers_of_a_bm_network_are_macs_of_their_own_widths(tmp_path, capsys):
    kinds = "stage0_conv1=mac4,stage1_shortcut=mac8,stage1_conv2=mac4"
    common = [*SHORT, "--layout", "signed", "--log-bits", "5", "--groups", "2"]
    assert train.main([*common, "--neurons", kinds, "--mac-layers", "dense", "--out", str(tmp_path)]) == 0
    network = load(tmp_path / "net.json")
    found = {name: getattr(layer.format, "layout", f"mac{layer.format.bits}") for name, layer in network.layers.items()}
    assert found == {"stem": "signed", "stage0_conv1": "mac4", "stage0_conv2": "signed", "stage1_conv1": "signed",
                     "stage1_conv2": "mac4", "stage1_shortcut": "mac8", "dense": "mac8"}  # --bits is 8
    card = json.loads((tmp_path / "net.json").read_text())
    assert command("net", card["training"], {}).count(f"--neurons {kinds},dense=mac") == 1
    figures = evaluate(tmp_path / "net.json", trace_images=20)
    assert figures["bm_integer_accuracy"] == card["accuracy"]["bm_integer_accuracy"]
    assert [entry["layout"] for entry in figures["trace"]] == [kind.rstrip("48") for kind in found.values()]
    assert set(load_float(tmp_path / "net.json")["bm"].layouts.values()) == {"signed", "mac"}
    # the same once more is a resumed run, another kind is not
    assert train.main([*common, "--neurons", f"{kinds},dense=mac", "--out", str(tmp_path), "--resume"]) == 0
    with pytest.raises(UsageError, match="is of another run"):
        train.main([*common, "--neurons", kinds, "--out", str(tmp_path), "--resume"])


def test_a_checkpoint_of_before_says_its_mac_layers_otherwise(tmp_path, digits):
    settings = Settings(dataset="digits", architecture="tiny", layout="signed", neurons=("dense=mac",),
                        epochs=(1, 1, 0), epoch_images=64)  # fmt: skip
    Trainer(settings, digits, tmp_path).run()
    state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    del state["settings"]["neurons"], state["settings"]["quantisation"]["layer_bits"]
    state["settings"]["mac_layers"] = ("dense",)
    torch.save(state, tmp_path / "checkpoint.pt")
    again = Trainer(settings, digits, tmp_path, resume=True)
    assert again.phase == 3 and again.layouts["dense"] == "mac"
    state["settings"]["mac_layers"] = ()
    torch.save(state, tmp_path / "checkpoint.pt")
    with pytest.raises(UsageError, match="was made with neurons"):
        Trainer(settings, digits, tmp_path, resume=True)


@pytest.mark.parametrize("layout", ["auto", "signed"])
@pytest.mark.parametrize("own", [False, True])
def test_a_bm_network_serves_one_with_macs(tmp_path, capsys, layout, own):
    """From a file of this program, which says what its layers are, and from one that doesn't."""
    architecture = resnet_small(1, 8, filters=4)
    classical = random_network(architecture, architecture.layouts("mac"))
    bm = with_classical_weights(classical, architecture.layouts(layout), 2).eval()
    if own:
        save_float("start", tmp_path, {"classical": classical, "bm": bm})
        start = ["--init-from", str(tmp_path / "start-float.safetensors")]
    else:
        torch.save(bm.state_dict(), tmp_path / "bm.pt")
        torch.save(classical.state_dict(), tmp_path / "classical.pt")
        start = ["--init-from", str(tmp_path / "bm.pt"), "--teacher", str(tmp_path / "classical.pt"), "--groups", "2"]
    names = "--neurons", "stage0_conv1=mac,stage1_shortcut=mac"
    out = tmp_path / "out"
    assert train.main([*SHORT[:2], *SHORT[8:], *start, "--layout", layout, *names, "--quantised-epochs", "0",
                       "--accept-import", "--out", str(out)]) == 0
    assert "Multiply-accumulate layers have the weights of the BM layers" in capsys.readouterr().err
    network = load_float(out / "net.json")["bm"]
    assert network.layouts == bm.layouts | {"stage0_conv1": "mac", "stage1_shortcut": "mac"}
    for name, step in network.steps.items():
        if name not in ("stage0_conv1", "stage1_shortcut"):
            for key, value in step.named_parameters():
                expected = bm.steps[name].state_dict()[key]
                assert torch.allclose(value.float(), expected.float(), rtol=2.0**-10, atol=2.0**-14)  # half precision


@pytest.mark.parametrize("layout", ["auto", "signed"])
def test_layers_in_the_place_of_others_have_their_moments(tiny_architecture, layout):
    bm = random_network(tiny_architecture, tiny_architecture.layouts(layout), seed=1, groups=2)
    images = torch.rand(64, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    layouts = bm.layouts | {"inner": "mac", "shortcut": "mac"}
    mixed = with_mac_layers(bm, layouts, images)
    assert isinstance(mixed, Network) and mixed.groups == 2
    found, expected = mixed.trace(images), bm.trace(images)
    for name in ("inner", "shortcut"):
        assert isinstance(mixed.steps[name], torch.nn.Conv2d)
        for moment in (lambda y: y.mean(dim=(0, 2, 3)), lambda y: y.std(dim=(0, 2, 3))):
            torch.testing.assert_close(moment(found[name]), moment(expected[name]), rtol=1e-4, atol=1e-5)
        weight = bm.steps[name].effective_weight
        ratio = mixed.steps[name].weight / (weight if layout == "signed" else weight[0] - weight[1])
        torch.testing.assert_close(ratio, ratio[:, :1, :1, :1].expand_as(ratio))


@pytest.mark.parametrize(("option", "said"), [
    ("stem=mac1", "Width of layer stem must be from 2 to 16 bits, not 1"),
    ("stem=sum", "Neurons of layer stem must be one of .*, not 'sum'"),
    ("steam=mac4", "Layer must be one of stem, .*, not 'steam'"),
    ("stage1_shortcut=relu", "Layer stage1_shortcut can't be relu: its inputs may be below 0"),
])  # fmt: skip
def test_what_no_layer_can_be(tmp_path, option, said):
    with pytest.raises(BmhwError, match=f"^{said}") as raised:
        train.main([*SHORT, "--neurons", option, "--out", str(tmp_path / "out")])
    assert raised.value.exit_status == 2 and "\n" not in str(raised.value)
    assert not (tmp_path / "out").exists()
