# SPDX-License-Identifier: Apache-2.0
"""``bmhw.train --init-from`` with other people's networks: what it shows, what it refuses, what it hands on."""

import numpy as np
import pytest
import torch
from torch import nn

from bmhw import train
from bmhw.errors import BmhwError, RunError, UsageError
from bmhw.models import load
from bmhw.models.files.conventions import PIXEL_SCALE, PYTORCH_EPSILON
from bmhw.models.files.float_weights import load_float
from bmhw.models.files.store import read_card
from bmhw.models.networks.network import NORM_EPSILON
from bmhw.models.training.comparison import command
from bmhw.models.training.evaluation import evaluate
from bmhw.models.training.trainer import Trainer

NO_TRAINING = [f"--{phase}-epochs=0" for phase in ("classical", "bm", "quantised")]
MEAN, STD, EPSILON = 0.3, 0.35, 1e-5
AS_TRAINED = ["--mean", str(MEAN), "--std", str(STD), "--norm-epsilon", str(EPSILON)]


@pytest.fixture(scope="module")
def theirs(tmp_path_factory):
    """The digits network as somebody else's: other names, images scaled by mean and deviation, another epsilon. Its
    variances are small, so that the epsilon counts."""
    state = {}
    classical = load_float("digits")["classical"]
    for number, (name, step) in enumerate(classical.steps.items()):
        for part, value in step.state_dict().items():
            state[f"module.net.{number}.{part}"] = value.clone()
        if isinstance(step, nn.BatchNorm2d):
            # the same function with each convolution's outputs as small as 2^-6
            key = f"module.net.{number}.running_var"
            state[key] = state[key] + NORM_EPSILON - EPSILON
        if name == "stem":
            weight = state["module.net.0.weight"]
            state["module.net.0.bias"] += (weight * MEAN).sum(dim=(1, 2, 3))
            state["module.net.0.weight"] = weight * STD
    path = tmp_path_factory.mktemp("theirs") / "theirs.pt"
    torch.save({"epoch": 7, "state_dict": state}, path)
    return path


def run(*arguments, out):
    return train.main([*NO_TRAINING, "--name", "net", "--out", str(out), *map(str, arguments)])


def test_an_import_is_shown_and_its_border_goes_all_the_way(theirs, tmp_path, capsys, digits):
    assert run("--init-from", theirs, *AS_TRAINED, "--layout", "mac", out=tmp_path) == 0
    shown = capsys.readouterr().err.splitlines()
    assert shown[0].split() == ["layer", "from", "shape"]
    assert shown[1].split() == ["stem", "module.net.0", "16", "x", "1", "x", "3", "x", "3"]
    assert any(line.split()[:2] == ["dense", "module.net.11"] for line in shown)
    assert any("epsilon 1e-05 (PyTorch's default); images: (pixel / 256 - 0.3) / 0.35" in line for line in shown)
    (line,) = (line for line in shown if line.startswith("Validation accuracy as imported, 200 images: classical"))
    card = read_card(tmp_path / "net.json")
    assert card["border_codes"] == [77]  # 0.3 * 256 = 76.8
    assert card["training"]["conventions"]["mean"] == [MEAN] and card["training"]["border"] == [MEAN * 256]
    assert "--norm-epsilon 1e-05 --mean 0.3 --std 0.35 --pixel-scale 256" in command("net", card["training"], {})
    # the classical network that was written is theirs, borders included
    state = torch.load(theirs)["state_dict"]
    stem = load_float(tmp_path / "net.json")["classical"].steps["stem"]
    pixels = torch.from_numpy(digits.test_images[:50]).float()
    with torch.no_grad():
        expected = nn.functional.conv2d((pixels / 256 - MEAN) / STD, state["module.net.0.weight"],
                                        state["module.net.0.bias"], padding=1)
        # weights lie in half precision: 2^-11 of each of nine products, of which the largest is 1/std or so
        assert (stem(pixels / 256) - expected).abs().max() < 9 * 2**-11 * expected.abs().max()
    figures = evaluate(str(tmp_path / "net.json"))
    assert {key: figures[key] for key in card["accuracy"]} == pytest.approx(card["accuracy"])
    integer = load(tmp_path / "net.json")
    assert np.array_equal(integer.layers["stem"].padded(np.zeros((1, 1, 1, 1), dtype=np.int64))[0, 0, 0],
                          integer.layers["stem"].inputs(np.full((1, 1, 1, 3), 77))[0, 0, 0])
    # what this program wrote it reads again, with its border, for other codes
    again = tmp_path / "again"
    assert run("--init-from", tmp_path / "net-float.safetensors", "--layout", "signed", out=again) == 0
    shown = capsys.readouterr().err
    assert "this program's own, classical by name" in shown and "pixel 76.8" in shown
    assert load(again / "net.json").architecture.border == (MEAN * 256,)
    measured = line.split("classical ")[1]
    assert f"classical {measured}" in shown  # half precision moves no validation image here


def test_what_the_options_say_decides_and_chance_is_refused(theirs, tmp_path, capsys):
    figures = {}
    for name, options in {"right": AS_TRAINED, "unscaled": AS_TRAINED[4:], "double": [*AS_TRAINED, "--pixel-scale", 128]
                          }.items():
        out = tmp_path / name
        run("--init-from", theirs, *options, "--layout", "mac", "--accept-import", out=out)
        line = next(line for line in capsys.readouterr().err.splitlines() if line.startswith("Validation"))
        figures[name] = float(line.split()[-2])
    assert figures["right"] > 95 and figures["right"] > max(figures["unscaled"], figures["double"])


def spoilt(theirs, tmp_path):
    """With the outputs of the last layer in another order: what a wrong pooling or order of layers looks like."""
    content = torch.load(theirs)
    for part in ("weight", "bias"):
        content["state_dict"][f"module.net.11.{part}"] = content["state_dict"][f"module.net.11.{part}"].roll(3, 0)
    path = tmp_path / "spoilt.pt"
    torch.save(content, path)
    return path


def test_a_network_near_chance_stops_before_anything_is_written(theirs, tmp_path, capsys, monkeypatch):
    path, out = spoilt(theirs, tmp_path), tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "run", lambda *_: pytest.fail("it was trained"))
        message = r"spoilt.pt is right in \d+\.\d\d % .*chance \(10 %\).*--accept-import"
        with pytest.raises(RunError, match=message) as caught:
            run("--init-from", path, *AS_TRAINED, out=out)
    assert caught.value.exit_status == 1 and "\n" not in str(caught.value) and not out.exists()
    assert "Validation accuracy as imported" in capsys.readouterr().err
    assert run("--init-from", path, *AS_TRAINED, "--accept-import", "--layout", "mac", out=out) == 0
    assert (out / "net.json").is_file()


def test_scores_that_are_no_numbers_are_refused_whatever_is_accepted(theirs, tmp_path):
    content = torch.load(theirs)
    for number in (0, 2, 4, 11):
        content["state_dict"][f"module.net.{number}.weight"].mul_(1e30)
    torch.save(content, tmp_path / "huge.pt")
    with pytest.raises(RunError, match="no finite numbers"):
        run("--init-from", tmp_path / "huge.pt", "--accept-import", out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_stopped_import_is_resumed_with_what_it_began_with(theirs, tmp_path, capsys):
    assert run("--init-from", theirs, *AS_TRAINED, "--layout", "mac", out=tmp_path) == 0
    capsys.readouterr()
    assert run("--init-from", theirs, *AS_TRAINED, "--layout", "mac", "--resume", out=tmp_path) == 0
    assert "Validation accuracy as imported" not in capsys.readouterr().err  # nothing is imported anew
    (tmp_path / "net.json").unlink()  # a card by itself says as much
    with pytest.raises(UsageError, match="was made with conventions"):
        run("--init-from", theirs, *AS_TRAINED[2:], "--norm-epsilon", "0.01", "--layout", "mac", "--mean", MEAN,
            "--resume", out=tmp_path)
    # a checkpoint from before there were conventions assumed this package's own
    checkpoint = torch.load(tmp_path / "checkpoint.pt")
    del checkpoint["settings"]["conventions"], checkpoint["settings"]["border"]
    torch.save(checkpoint, tmp_path / "checkpoint.pt")
    with pytest.raises(UsageError, match=r"was made with border \(\)"):
        run("--init-from", theirs, *AS_TRAINED, "--layout", "mac", "--resume", out=tmp_path)


@pytest.mark.parametrize(("arguments", "message"), [
    (["--mean", "0.3"], "--mean is about the network of --init-from, which is missing"),
    (["--order", "order.txt"], "--order is about the network of --init-from"),
    (["--accept-import"], "--accept-import is about the network of --init-from"),
    (["--init-from", "THEIRS", "--mean", "a"], "--mean must be a number, not 'a'"),
    (["--init-from", "THEIRS", "--mean", "0.1,"], "--mean must be a number, not ''"),
    (["--init-from", "THEIRS", "--mean", "0.1,0.2,0.3"], "--mean must be one number or 1, one a channel, not 3"),
    (["--init-from", "THEIRS", "--std", "0"], "--std must be numbers above 0, not 0"),
    (["--init-from", "THEIRS", "--norm-epsilon", "x"], "--norm-epsilon must be a number, not 'x'"),
    (["--init-from", "THEIRS", "--norm-epsilon", "2"], "--norm-epsilon must be above 0 and at most 1, not 2"),
    (["--init-from", "THEIRS", "--order", "/nowhere"], "Order file /nowhere can't be read: No such file"),
    (["--init-from", "THEIRS", "--architecture", "resnet20"], r"has 12 layers, not \d+"),
    (["--architecture", "lenet"], "lenet needs images of at least 12 x 12 pixels, not 8 x 8"),
    (["--init-from", "THEIRS", "--architecture", "lenet"], "lenet needs images of at least 12 x 12 pixels, not 8 x 8"),
])  # fmt: skip
def test_bad_input_is_one_line_and_writes_nothing(theirs, tmp_path, arguments, message):
    out = tmp_path / "out"
    with pytest.raises(BmhwError, match=message) as caught:
        run(*(theirs if argument == "THEIRS" else argument for argument in arguments), out=out)
    assert "\n" not in str(caught.value) and not out.exists()


def test_help_says_what_is_assumed():
    text = " ".join(train.parser().format_help().split())
    for assumed in (PYTORCH_EPSILON, NORM_EPSILON):
        assert float(f"{assumed:.0e}") == assumed and f"{assumed:.0e}".replace("e-0", "e-") in text
    assert f"(default: {PIXEL_SCALE:g})" in text and "(default: 0)" in text and "(default: 1)" in text
